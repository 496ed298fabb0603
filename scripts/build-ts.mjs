// Builds dist/: TypeScript writes modules to build/lib and declarations to dist, and Rolldown joins the
// modules into few files. Of a package's cold import most is spent on finding and opening modules, about
// half a millisecond each, and lib/ has more than a hundred (docs/decisions/dist-is-bundled.md).
//
// Dependencies are not bundled: npm installs them, with their licences.
import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { rolldown } from "rolldown";
import { projectRoot } from "./check-tools.mjs";

const require = createRequire(import.meta.url);
const modules = join(projectRoot, "build", "lib");
const dist = join(projectRoot, "dist");

for (const folder of [modules, dist]) rmSync(folder, { recursive: true, force: true });

const { status } = spawnSync(
  process.execPath,
  [require.resolve("typescript/bin/tsc"), "-p", "tsconfig.build.json"],
  { cwd: projectRoot, stdio: "inherit" },
);
if (status !== 0) process.exit(status ?? 1);

/** A chunk of these modules with all that it imports, as far as no chunk of a higher priority has it. */
function chunk(name, priority, ...names) {
  const paths = names.map((module) => join(modules, module));
  return { name, priority, test: (id) => paths.includes(id) };
}

const bundle = await rolldown({
  cwd: modules,
  input: {
    index: "./index.js",
    "cli/main": "./cli/main.js",
    // Beside the chunk that starts it, as lib/images/worker.ts is beside lib/images/pool.ts.
    worker: "./images/worker.js",
  },
  platform: "node",
  external: (id) => !/^[./]/.test(id),
});
await bundle.write({
  dir: dist,
  format: "esm",
  chunkFileNames: "[name].js",
  codeSplitting: {
    groups: [
      // The command line starts with little, a worker with the images alone; both share it with the rest.
      chunk("base", 3, "errors.js", "version.js", "io/output-folder.js"),
      chunk("images", 2, "images/processor.js"),
      chunk("core", 1, "index.js"),
    ],
  },
});
await bundle.close();
