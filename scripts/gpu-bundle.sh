#!/usr/bin/env bash
# Packs all that `npm run test:gpu` and `npm run bench:gpu` need into one archive, for a GPU host without
# a network that has a C++ compiler, make, CMake, nvcc, tar and xz:
#
#   scripts/gpu-bundle.sh [ARCHIVE]        default build/loko-gpu.tar.xz; run `npm ci` before
#   scripts/gpu-bundle.sh --without-sources [ARCHIVE]   to be unpacked beside a checkout that is there already
#
#   tar -xJf loko-gpu.tar.xz && cd loko-gpu && . ./environment && npm run test:gpu
#
# In it: the committed sources, Node.js and npm, and the dependencies but those that neither command uses.
# PyTorch is not: LOKO_PYTHON names a Python of the host that has it, for bench:gpu.
set -euo pipefail
cd "$(dirname "$0")/.."

sources=true
if [[ ${1:-} == --without-sources ]]; then
  sources=false
  shift
fi
archive=$(realpath -m "${1:-build/loko-gpu.tar.xz}")
largest=$((60 * 1000 * 1000))
# The linter, what makes the documentation and checks the package, and the image decoder: no test on a GPU
# decodes images.
unused=(@biomejs @gerrit0 @img @publint @shikijs publint typedoc)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/loko-gpu
mkdir -p "$root/node/bin" "$root/node/lib/node_modules"

if $sources; then git archive HEAD | tar -x -C "$root"; fi
# There is no git in the bundle; results name the commit by this file.
git rev-parse HEAD >"$root/COMMIT"
if $sources && [[ -n $(git status --porcelain --untracked-files=no) ]]; then
  echo "Not in the bundle: changes that are not committed." >&2
fi

node=$(node -p process.execPath)
cp "$node" "$root/node/bin/node"
# Symbols are a tenth of it.
strip "$root/node/bin/node" 2>/dev/null || true
npm=$(npm root --global)/npm
cp -r "$npm" "$root/node/lib/node_modules/npm"
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$root/node/bin/npm"
ln -s ../lib/node_modules/npm/bin/npx-cli.js "$root/node/bin/npx"

excluded=()
for name in "${unused[@]}"; do excluded+=(--exclude="./$name"); done
mkdir "$root/node_modules"
tar -c -C "$(realpath node_modules)" "${excluded[@]}" . | tar -x -C "$root/node_modules"

cat >"$root/environment" <<'END'
# To be read by the shell, in this folder: . ./environment
export PATH="$PWD/node/bin:$PATH"
export npm_config_update_notifier=false npm_config_offline=true
END

mkdir -p "$(dirname "$archive")"
tar -c -C "$work" loko-gpu | xz -T0 -6 >"$archive.partial"
size=$(stat -c %s "$archive.partial")
if ((size > largest)); then
  echo "The bundle would have $size bytes; $largest are allowed. What has grown?" >&2
  rm "$archive.partial"
  exit 1
fi
mv "$archive.partial" "$archive"
echo "$archive: $((size / 1000000)) MB"
