import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runChild } from "./child.js";
import { ROBERTA_BASE, writeCheckpoint } from "./synthetic.js";

let dir = "";
let weightBytes = 0;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "loko-load-"));
  weightBytes = writeCheckpoint(dir, ROBERTA_BASE);
  readFileSync(join(dir, "model.safetensors")); // into the page cache
}, 60_000);
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test("a model of RoBERTa-base's size loads within 2 s, in 2.2 times the memory of its weights", async () => {
  const { code, stdout, stderr } = await runChild("load.mjs", [dir]);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  const { seconds, loaded, trained } = JSON.parse(stdout) as Record<string, number>;
  expect(seconds).toBeLessThan(2);
  // Peaks of the whole process, Node's own 50 MB included. Training packs the frozen matrices a second
  // time, for the way back.
  expect(loaded! / weightBytes).toBeLessThan(2.2);
  expect(trained! / weightBytes).toBeLessThan(2.2);
}, 90_000);
