// Compiles the fuzzer of test/fuzz with the sources of lib/, and runs it: see test/fuzz/main.ts.
//
//   npm run fuzz -- --minutes 60 --seed 1
import { spawnSync } from "node:child_process";
import { copyFileSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import { projectRoot } from "./check-tools.mjs";

function run(...args) {
  const { status } = spawnSync(process.execPath, args, { cwd: projectRoot, stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

const tree = join(projectRoot, "build/fuzz");
run(join(projectRoot, "node_modules/typescript/bin/tsc"), "-p", "tsconfig.fuzz.json");
// The compiled sources look for their package, and the addon in it, where they lie.
mkdirSync(join(tree, "build/Release"), { recursive: true });
copyFileSync(join(projectRoot, "package.json"), join(tree, "package.json"));
copyFileSync(join(projectRoot, "build/Release/loko.node"), join(tree, "build/Release/loko.node"));
run(join(tree, "test/fuzz/main.js"), ...process.argv.slice(2));
