import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { makeFolder } from "../../../lib/io/make-folder.js";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "loko-folder-"));
});
afterEach(() => rmSync(dir, { recursive: true }));

describe("makeFolder", () => {
  test("makes what is missing, and says which folder was the first of it", async () => {
    expect(await makeFolder(join(dir, "a", "b", "c"))).toBe(join(dir, "a"));
    expect(existsSync(join(dir, "a", "b", "c"))).toBe(true);
    expect(await makeFolder(join(dir, "a", "b", "d"))).toBe(join(dir, "a", "b", "d"));
    expect(await makeFolder(join(dir, "a", "b"))).toBeUndefined();
  });

  test("fails where a file is in the way", async () => {
    writeFileSync(join(dir, "file"), "");
    await expect(makeFolder(join(dir, "file"))).rejects.toMatchObject({ code: "EEXIST" });
    await expect(makeFolder(join(dir, "file", "x"))).rejects.toMatchObject({ code: "ENOTDIR" });
  });

  // Node's own, with `recursive`, tries for ever.
  test.runIf(process.platform === "linux")("fails where no folder can be made", async () => {
    await expect(makeFolder("/proc/x/y")).rejects.toMatchObject({ code: "ENOENT" });
  });
});
