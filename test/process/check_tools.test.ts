import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const SCRIPTS = fileURLToPath(new URL("../../scripts/", import.meta.url));

describe.runIf(process.platform === "linux")("scripts/check-tools.mjs", () => {
  let bin: string;

  beforeEach(() => {
    bin = mkdtempSync(join(tmpdir(), "loko-path-"));
  });
  afterEach(() => rmSync(bin, { recursive: true, force: true }));

  /** Puts only these tools on the PATH. Each is echo, which answers --version with a number above 3.25. */
  function runWith(script: string, tools: string[]) {
    for (const tool of tools) symlinkSync("/bin/echo", join(bin, tool));
    const { CXX: _, ...env } = process.env;
    const result = spawnSync(process.execPath, [join(SCRIPTS, script)], {
      encoding: "utf8",
      env: { ...env, PATH: bin },
    });
    return { status: result.status, lines: result.stderr.trim().split("\n"), out: result.stdout };
  }

  test("names every missing tool in one line that installs exactly those", () => {
    const { status, lines } = runWith("check-tools.mjs", []);

    expect(status).toBe(1);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/Missing build tools \(g\+\+, cmake, make\): .*g\+\+.* cmake make$/);
  });

  test("does not ask for what is there", () => {
    const { status, lines } = runWith("check-tools.mjs", ["g++", "ninja"]);

    expect(status).toBe(1);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/^Missing build tools \(cmake\): .* cmake$/);
  });

  test("stops the native build before anything is configured", () => {
    const { status, lines, out } = runWith("build-native.mjs", ["cmake", "make"]);

    expect(status).toBe(1);
    expect(out).toBe("");
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/^Missing build tools \(g\+\+\): .*(g\+\+|gcc-c\+\+)$/);
  });
});
