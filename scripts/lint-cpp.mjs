// Formats (clang-format) and lints (cppcheck) the C++ sources; `--fix` writes the formatting.
import { spawnSync } from "node:child_process";
import { projectRoot } from "./check-tools.mjs";

function run(command, args) {
  const { error, status } = spawnSync(command, args, { cwd: projectRoot, stdio: "inherit" });
  if (error?.code === "ENOENT") {
    console.error(`Missing lint tool: apt-get install -y ${command}`);
    process.exit(1);
  }
  if (status !== 0) process.exit(status ?? 1);
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
const sources = listed.stdout
  .split("\0")
  .filter((path) => /\.(cc|h)$/.test(path) && !path.startsWith("native/third_party/"));

if (process.argv.includes("--fix")) {
  run("clang-format", ["-i", ...sources]);
} else {
  run("clang-format", ["--dry-run", "--Werror", ...sources]);
}
