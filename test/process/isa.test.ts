import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const OBJECTS = fileURLToPath(
  new URL("../../build/CMakeFiles/loko_core.dir/native/cpu/", import.meta.url),
);

/** Symbols of an object file that the linker may merge with another file's copy (`nm` class W, V, u). */
function mergeableSymbols(object: string): string[] {
  return execFileSync("nm", ["--defined-only", "--demangle", object], { encoding: "utf8" })
    .split("\n")
    .filter((line) => /^[0-9a-f]+ [WVu] /.test(line));
}

// Linux on x64 always has the objects: a build that puts them elsewhere must not switch this off.
describe.runIf(process.platform === "linux" && process.arch === "x64")("per-ISA kernels", () => {
  // One merged inline function is enough to make the addon die with SIGILL on a machine without the
  // instruction set, and no test on a machine that has it would notice.
  test("define nothing that the linker could choose for the rest of the program", () => {
    const objects = readdirSync(OBJECTS).filter((name) =>
      /^kernels_(avx|amx)\w*\.cc\.o$/.test(name),
    );

    expect(objects.length).toBeGreaterThan(0);
    for (const name of objects)
      expect([name, mergeableSymbols(OBJECTS + name)]).toEqual([name, []]);
  });
});
