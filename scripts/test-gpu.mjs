// All checks that need a GPU, after `npm run build` (npm run test:gpu):
//
//   node scripts/test-gpu.mjs             without a GPU: says why, exit code 0
//   node scripts/test-gpu.mjs --require   without a GPU: exit code 1
//
// 1. build/loko_gpu_tests: every operation of the plan on the GPU against the reference in float64
// 2. the same under compute-sanitizer's memcheck and racecheck, where the toolkit has it
// 3. test/parity with the model on the GPU, and test/gpu: trajectories, determinism, memory
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { deviceInfo } from "../dist/index.js";
import { projectRoot } from "./check-tools.mjs";

const TESTS = join(projectRoot, "build", "loko_gpu_tests");

function main() {
  const { available, reason, devices } = deviceInfo().cuda;
  if (!available) {
    console.log(`Skipped: these tests need a GPU; ${reason}.`);
    return process.argv.includes("--require") ? 1 : 0;
  }
  console.log(`On ${devices[0].name}, compute capability ${devices[0].computeCapability}`);
  const results = [
    [
      "operations",
      run(process.execPath, ["scripts/build-native.mjs", "--target=loko_gpu_tests"]) && run(TESTS),
    ],
    ["memcheck", sanitize("memcheck")],
    ["racecheck", sanitize("racecheck")],
    ["parity", vitest("test/parity", "-t", "on device cuda")],
    ["training and memory", vitest("test/gpu")],
  ];
  console.log("");
  for (const [name, passed] of results) console.log(`${outcome(passed)}  ${name}`);
  return results.every(([, passed]) => passed !== false) ? 0 : 1;
}

/** Undefined where compute-sanitizer is not installed. */
function sanitize(tool) {
  if (spawnSync("compute-sanitizer", ["--version"]).status !== 0) return undefined;
  return run("compute-sanitizer", ["--tool", tool, "--error-exitcode", "1", TESTS]);
}

function vitest(...args) {
  return run(process.execPath, ["node_modules/vitest/vitest.mjs", "run", ...args]);
}

function run(command, args = []) {
  console.log(`\n$ ${[command, ...args].join(" ")}`);
  return spawnSync(command, args, { cwd: projectRoot, stdio: "inherit" }).status === 0;
}

const outcome = (passed) => (passed === undefined ? "absent" : passed ? "passed" : "FAILED");

process.exitCode = main();
