// Builds the addon (build/Release/loko.node), the C++ tests and the GEMM benchmark with cmake-js.
//
//   node scripts/build-native.mjs                        the normal build, in build/
//   node scripts/build-native.mjs --sanitize=address     only the C++ tests, in build/sanitize-address/
//   node scripts/build-native.mjs --target=loko_gpu_tests  only this, in build/
//   node scripts/build-native.mjs --prebuild             only the addon, as it is shipped
//   node scripts/build-native.mjs --configure-only       only compile_commands.json, for the linter
//   LOKO_WERROR=ON node scripts/build-native.mjs         warnings as errors, as in CI
//   LOKO_CUDA=ON|OFF node scripts/build-native.mjs       with CUDA or not; default AUTO: where nvcc is found
//   LOKO_CUDA_ARCHITECTURES=90-real ...                  machine code for one GPU only, see CMakeLists.txt
//
// Why not `cmake-js build` itself: on a configured tree it silently ignores changed options. Here the
// options and tools of the last configure are kept beside the tree, and a difference configures anew
// (object files whose flags did not change are kept).
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { projectRoot, requireTools } from "./check-tools.mjs";

requireTools();

const { values } = parseArgs({
  options: {
    sanitize: { type: "string", default: "off" },
    debug: { type: "boolean", default: false },
    prebuild: { type: "boolean", default: false },
    "configure-only": { type: "boolean", default: false },
    target: { type: "string" },
  },
});
// Machine code for every GPU generation since Ampere; PTX of the last one is for later ones. A driver that is
// older than the toolkit can run its machine code and not its PTX.
const SHIPPED_ARCHITECTURES = "80-real;86-real;89-real;90";

const sanitized = values.sanitize !== "off";
const config = values.debug ? "Debug" : "Release";
const outDir = join(projectRoot, "build", sanitized ? `sanitize-${values.sanitize}` : "");
const definitions = {
  LOKO_WERROR: process.env.LOKO_WERROR ?? "OFF",
  LOKO_CUDA: process.env.LOKO_CUDA ?? "AUTO",
  LOKO_STATIC_STDCXX: values.prebuild ? "ON" : "OFF",
  LOKO_SANITIZE: values.sanitize,
  // Empty: that of CMakeLists.txt.
  LOKO_CUDA_ARCHITECTURES:
    process.env.LOKO_CUDA_ARCHITECTURES ?? (values.prebuild ? SHIPPED_ARCHITECTURES : ""),
};

const require = createRequire(import.meta.url);
const cmakeJs = join(require.resolve("cmake-js/package.json"), "..", "bin", "cmake-js");

function runCmakeJs(command, ...args) {
  const { status } = spawnSync(
    process.execPath,
    [cmakeJs, command, "--log-level=warn", `--config=${config}`, `--out=${outDir}`, ...args],
    { cwd: projectRoot, stdio: "inherit" },
  );
  if (status !== 0) process.exit(status ?? 1);
}

const hasNinja = spawnSync("ninja", ["--version"]).status === 0;
const signature = JSON.stringify({
  projectRoot,
  config,
  definitions,
  node: `${process.version} ${process.platform}-${process.arch}`,
  generator: hasNinja ? "ninja" : "make",
  compiler: [process.env.CC, process.env.CXX, process.env.CUDACXX],
  // A toolkit that was installed since is noticed.
  nvcc: spawnSync(process.env.CUDACXX ?? "nvcc", ["--version"], { encoding: "utf8" }).stdout,
});
const signatureFile = join(outDir, "loko-configure.json");
const cacheFile = join(outDir, "CMakeCache.txt");
const isConfigured =
  existsSync(cacheFile) &&
  existsSync(signatureFile) &&
  readFileSync(signatureFile, "utf8") === signature;

if (!isConfigured) {
  mkdirSync(outDir, { recursive: true });
  for (const stale of ["CMakeCache.txt", "CMakeFiles/cmake.check_cache", "loko-configure.json"]) {
    rmSync(join(outDir, stale), { force: true });
  }
  runCmakeJs(
    "configure",
    ...Object.entries(definitions).map(([key, value]) => `--CD${key}=${value}`),
  );
  writeFileSync(signatureFile, signature);
}
if (!values["configure-only"]) {
  const part = sanitized ? "loko_native_tests" : values.prebuild ? "loko" : undefined;
  const target = values.target ?? part;
  runCmakeJs(
    "build",
    `--parallel=${availableParallelism()}`,
    ...(target === undefined ? [] : [`--target=${target}`]),
  );
}
