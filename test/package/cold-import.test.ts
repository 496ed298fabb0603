import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, test } from "vitest";
import { ROOT } from "./tarball.js";

/** The files that importing `entry` opens, relative to dist/, and the modules of others that it needs. */
function staticImports(entry: string): { files: string[]; others: string[] } {
  const files = new Set([entry]);
  const others = new Set<string>();
  // A set grows while it is iterated over.
  for (const file of files) {
    const code = readFileSync(join(ROOT, "dist", file), "utf8");
    for (const [, specifier] of code.matchAll(/^(?:import|export)\b[^;'"]*["']([^"']+)["'];$/gm)) {
      if (specifier!.startsWith(".")) files.add(join(dirname(file), specifier!));
      else if (!specifier!.startsWith("node:")) others.add(specifier!);
    }
  }
  return { files: [...files].sort(), others: [...others] };
}

describe('a cold import of "loko"', () => {
  test("opens four files, and no dependency", () => {
    expect(staticImports("index.js")).toEqual({
      files: ["base.js", "core.js", "images.js", "index.js"],
      others: [],
    });
  });

  test("is not what the command line pays for its help", () => {
    const { files, others } = staticImports("cli/main.js");

    expect(files).not.toContain("core.js");
    expect(others).toEqual(["commander"]);
  });

  test("is not what a thread for images pays", () => {
    expect(staticImports("worker.js")).toEqual({
      files: ["base.js", "images.js", "worker.js"],
      others: [],
    });
  });

  // Processor time of a loaded machine grows for all alike, so the bar is a ratio. The goal is 40 ms by the clock of
  // an idle one, where Node's own modules that the library needs take some 10 ms. Measured: 2 to 3.3 times; with one
  // file for each module of lib/, and every dependency at once, 10 times.
  test("takes at most five times what Node's own modules take in it", () => {
    const output = execFileSync(
      process.execPath,
      [join(ROOT, "scripts", "cold-import.mjs"), "5", "--json"],
      { encoding: "utf8" },
    );
    const [library, own] = JSON.parse(output) as { name: string; processor: number }[];

    expect(own!.name).toBe("import of Node's modules in it");
    expect(library!.processor / own!.processor).toBeLessThan(5);
  });
});
