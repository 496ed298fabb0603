// Checks the binaries in prebuilds/ and prints what they need. Linux only; `readelf` is of binutils.
//
//   node scripts/verify-prebuilds.mjs                 as built on this machine
//   node scripts/verify-prebuilds.mjs --glibc 2.28    as a release needs it: the glibc of Node.js 20
//   node scripts/verify-prebuilds.mjs --cuda          with the CUDA backend inside
//   node scripts/verify-prebuilds.mjs linux-x64/loko.glibc.node …   which must be there, default: this platform's
import { execFileSync } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { projectRoot } from "./check-tools.mjs";

/** Of Debian 12: threads have been in libc itself since 2.34. */
const DEFAULT_GLIBC = "2.34";

/** On every system that runs Node.js. libpthread, libdl and librt are empty since glibc 2.34. */
const LIBRARIES =
  /^(?:lib(?:c|m|gcc_s|pthread|dl|rt)\.so\.\d+|ld-linux-[\w-]+\.so\.\d+|libc\.musl-\w+\.so\.1)$/;

const ENTRY_POINTS = ["napi_register_module_v1", "node_api_module_get_api_version_v1"];

/** What `readelf` says of a binary, as far as it is checked. */
export function readBinary(path) {
  const run = (...options) =>
    execFileSync("readelf", ["-W", ...options, path], { encoding: "utf8" });
  const symbols = run("--dyn-syms");
  const sections = run("--sections");
  const versions = (name) =>
    [...symbols.matchAll(new RegExp(`@${name}_([\\d.]+)`, "g"))].map(([, version]) => version);
  return {
    bytes: statSync(path).size,
    glibc: versions("GLIBC").sort(compareVersions).at(-1) ?? null,
    glibcxx: [...versions("GLIBCXX"), ...versions("CXXABI")],
    libraries: [...run("--dynamic").matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, name]) => name),
    exports: [...symbols.matchAll(/ (?:GLOBAL|WEAK|UNIQUE) +DEFAULT +\d+ (\S+)/g)].map(
      ([, name]) => name,
    ),
    hasExecutableStack: / GNU_STACK .* RWE /.test(run("--segments")),
    isStripped: !/ \.symtab /.test(sections),
    hasCuda: / \.nv_fatbin /.test(sections),
  };
}

/** What is wrong with a binary, one sentence each. */
export function problemsOf(binary, { glibc = DEFAULT_GLIBC, cuda = false } = {}) {
  const foreign = binary.libraries.filter((name) => !LIBRARIES.test(name));
  const extra = binary.exports.filter((name) => !ENTRY_POINTS.includes(name));
  const checks = [
    [
      binary.glibc !== null && compareVersions(binary.glibc, glibc) > 0,
      `needs glibc ${binary.glibc}, and at most ${glibc} is allowed`,
    ],
    [binary.glibcxx.length > 0, "needs a shared C++ library: build it with --prebuild"],
    [foreign.length > 0, `needs libraries that a system may lack: ${foreign.join(", ")}`],
    [extra.length > 0, `exports more than Node.js looks up: ${extra.slice(0, 5).join(", ")}`],
    [binary.hasExecutableStack, "asks for an executable stack"],
    [!binary.isStripped, "is not stripped"],
    [cuda && !binary.hasCuda, "has no CUDA backend"],
  ];
  return checks.filter(([isWrong]) => isWrong).map(([, problem]) => problem);
}

function compareVersions(a, b) {
  const [left, right] = [a, b].map((version) => version.split(".").map(Number));
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

function ownBinary() {
  const libc = existsSync("/etc/alpine-release") ? "musl" : "glibc";
  return `${process.platform}-${process.arch}/loko.${libc}.node`;
}

function verify() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { glibc: { type: "string" }, cuda: { type: "boolean", default: false } },
  });
  for (const name of positionals.length > 0 ? positionals : [ownBinary()]) {
    const path = resolve(projectRoot, "prebuilds", name);
    const binary = existsSync(path) ? readBinary(path) : undefined;
    const problems = binary === undefined ? ["is missing"] : problemsOf(binary, values);
    if (binary !== undefined) {
      const { bytes, glibc, hasCuda, libraries } = binary;
      const facts = [
        `${(bytes / 2 ** 20).toFixed(2)} MiB`,
        `glibc ${glibc ?? "not used"}`,
        hasCuda ? "with CUDA" : "without CUDA",
        libraries.join(" "),
      ];
      console.log(`prebuilds/${name}: ${facts.join(", ")}`);
    }
    for (const problem of problems) {
      console.error(`prebuilds/${name} ${problem}.`);
      process.exitCode = 1;
    }
  }
}

if (process.argv[1] === import.meta.filename) verify();
