// Formats (clang-format) and lints (clang-tidy) the C++ sources; `--fix` only writes the formatting.
import { execFile, spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { projectRoot } from "./check-tools.mjs";

const buildDir = join(projectRoot, "build");
// The compile commands are GCC's: Clang need not know all of its warnings.
const TIDY_ARGS = ["-p", buildDir, "--quiet", "--extra-arg=-Wno-unknown-warning-option"];
const isOurs = (path) => /\.(cc|cu|cuh|h)$/.test(path) && !path.includes("native/third_party/");
// clang-tidy 14 knows no CUDA newer than 11.5; the emulated device has CUDA's names, not ours, and its
// units in the build folder only include the files of native/cuda.
const isTidied = (path) =>
  isOurs(path) && !path.endsWith(".cu") && !/cuda_emulat(ion|ed)/.test(path);

function run(command, args) {
  const { error, status } = spawnSync(command, args, { cwd: projectRoot, stdio: "inherit" });
  if (error?.code === "ENOENT") explainMissing(command);
  if (status !== 0) process.exit(status ?? 1);
}

function explainMissing(command) {
  console.error(`Missing lint tool (${command}): apt-get install -y ${command}`);
  process.exit(1);
}

/** Runs clang-tidy on every file, as many at a time as there are cores; false when one has findings. */
async function tidy(files) {
  const queue = files.values();
  let clean = true;
  const worker = async () => {
    for (const file of queue) {
      try {
        await promisify(execFile)("clang-tidy", [...TIDY_ARGS, file]);
      } catch (error) {
        if (error.code === "ENOENT") explainMissing("clang-tidy");
        // Findings are on stdout; stderr only counts the suppressed ones of system headers.
        console.error(error.stdout || error.stderr);
        clean = false;
      }
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  return clean;
}

// Also the files that are not committed yet, but none that git ignores.
const listed = spawnSync(
  "git",
  ["ls-files", "--cached", "--others", "--exclude-standard", "-z", "native"],
  { cwd: projectRoot, encoding: "utf8" },
);
if (listed.status !== 0) {
  console.error(listed.stderr);
  process.exit(1);
}
const sources = listed.stdout.split("\0").filter(isOurs);

if (process.argv.includes("--fix")) {
  run("clang-format", ["-i", ...sources]);
} else {
  run("clang-format", ["--dry-run", "--Werror", ...sources]);
  run(process.execPath, [join(projectRoot, "scripts", "build-native.mjs"), "--configure-only"]);
  const commands = JSON.parse(readFileSync(join(buildDir, "compile_commands.json"), "utf8"));
  const units = [...new Set(commands.map(({ file }) => file))].filter(isTidied);
  if (!(await tidy(units))) process.exitCode = 1;
}
