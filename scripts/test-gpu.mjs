// All checks that need a GPU, after `npm run build` (npm run test:gpu):
//
//   node scripts/test-gpu.mjs             without a GPU: says why, exit code 0
//   node scripts/test-gpu.mjs --require   without a GPU: exit code 1
//   node scripts/test-gpu.mjs --only operations,parity
//
// operations            build/loko_gpu_tests: every operation of the plan on the GPU against the reference in float64
// memcheck, racecheck   every tenth case of these under compute-sanitizer, where the toolkit has it
// parity                test/parity with the model on the GPU
// training              test/gpu: trajectories, determinism, memory
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { deviceInfo } from "../dist/index.js";
import { projectRoot } from "./check-tools.mjs";

const TESTS = join(projectRoot, "build", "loko_gpu_tests");

const PARTS = {
  operations: () => built() && run(TESTS),
  memcheck: () => sanitize("memcheck", "--report-api-errors", "no"),
  racecheck: () => sanitize("racecheck"),
  parity: () => vitest("test/parity", "-t", "on device cuda"),
  // One file after the other: the tests of memory look at what the whole GPU has in use.
  training: () => vitest("test/gpu", "--no-file-parallelism"),
};

function main() {
  const { values } = parseArgs({
    options: { require: { type: "boolean", default: false }, only: { type: "string" } },
  });
  const names = values.only?.split(",") ?? Object.keys(PARTS);
  const unknown = names.find((name) => !Object.hasOwn(PARTS, name));
  if (unknown !== undefined) {
    console.error(`--only takes ${Object.keys(PARTS).join(", ")}; got "${unknown}".`);
    return 2;
  }
  const { available, reason, devices } = deviceInfo().cuda;
  if (!available) {
    console.log(`Skipped: these tests need a GPU; ${reason}.`);
    return values.require ? 1 : 0;
  }
  console.log(`On ${devices[0].name}, compute capability ${devices[0].computeCapability}`);
  const results = names.map((name) => [name, PARTS[name]()]);
  console.log("");
  for (const [name, passed] of results) console.log(`${outcome(passed)}  ${name}`);
  return results.every(([, passed]) => passed !== false) ? 0 : 1;
}

function built() {
  return run(process.execPath, ["scripts/build-native.mjs", "--target=loko_gpu_tests"]);
}

/** Undefined where compute-sanitizer is not installed. */
function sanitize(tool, ...options) {
  if (spawnSync("compute-sanitizer", ["--version"]).status !== 0) return undefined;
  // Without cuBLASLt, whose own kernels are not ours to judge.
  const env = { LOKO_CUBLASLT: "off", LOKO_TEST_EVERY: "10" };
  const args = ["--tool", tool, ...options, "--error-exitcode", "1", TESTS];
  return built() && run("compute-sanitizer", args, env);
}

function vitest(...args) {
  return run(process.execPath, ["node_modules/vitest/vitest.mjs", "run", ...args]);
}

function run(command, args = [], env = {}) {
  const settings = Object.entries(env).map(([name, value]) => `${name}=${value}`);
  console.log(`\n$ ${[...settings, command, ...args].join(" ")}`);
  const options = { cwd: projectRoot, stdio: "inherit", env: { ...process.env, ...env } };
  return spawnSync(command, args, options).status === 0;
}

const outcome = (passed) => (passed === undefined ? "absent" : passed ? "passed" : "FAILED");

process.exitCode = main();
