import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

describe("the npm package", () => {
  const manifest = JSON.parse(readFileSync(new URL("package.json", `file://${ROOT}`), "utf8")) as {
    scripts: Record<string, string>;
  };

  test("runs nothing when it is installed", () => {
    // `prebuild` is here because npm would run it before `build`, which nobody expects of it.
    const names = ["preinstall", "install", "postinstall", "prepare", "prepublish", "prebuild"];

    expect(Object.keys(manifest.scripts).filter((name) => names.includes(name))).toEqual([]);
  });

  test("contains the compiled library and the binaries, and no sources", () => {
    const json = execFileSync("npm", ["pack", "--dry-run", "--json", "--loglevel=error"], {
      cwd: ROOT,
      encoding: "utf8",
    });
    const [{ files }] = JSON.parse(json) as [{ files: { path: string }[] }];
    const always = ["LICENSE", "README.md", "package.json"];
    const paths = files.map((file) => file.path).filter((path) => !always.includes(path));

    expect(paths).toContain("dist/index.js");
    expect(paths).toContain("dist/index.d.ts");
    expect(
      paths.filter(
        (path) => !/^dist\/.+\.(js|d\.ts)$/.test(path) && !/^prebuilds\/[^/]+\/[^/]+$/.test(path),
      ),
    ).toEqual([]);
  });

  test("can be imported by its name, and required, without loading the addon", () => {
    // In a child process: Vitest would resolve the name its own way.
    const script = `
      const required = require("loko");
      import("loko").then((imported) => {
        if (imported.LokoError !== required.LokoError) throw new Error("two copies");
      });`;

    execFileSync(process.execPath, ["-e", script], { cwd: ROOT, stdio: "pipe" });
  });
});
