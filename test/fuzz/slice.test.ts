// A small, fixed part of what `npm run fuzz` runs for as long as one likes.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { runCase, writeFiles } from "./reader.js";
import { openReaders } from "./readers.js";

const SEED = 7;
const CASES = 15;

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "loko-fuzz-"));
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const readers = await openReaders();

test("there is a reader for every kind of file", () => {
  expect(readers.length).toBeGreaterThanOrEqual(25);
  expect(new Set(readers.map(({ name }) => name)).size).toBe(readers.length);
});

let [good, refused] = [0, 0];

test.each(readers.map((reader) => [reader.name, reader] as const))(
  "%s: changed files give a result or a coded error",
  async (_, reader) => {
    for (let index = 0; index < CASES; index++) {
      const outcome = await runCase(reader, SEED, index, join(dir, "case"));
      if (outcome === "ok") good++;
      else refused++;
    }
  },
);

test("the changes leave some files good, and others not", () => {
  expect(good).toBeGreaterThan(20);
  expect(refused).toBeGreaterThan(100);
});

test("an unchanged file of every reader is read", async () => {
  for (const reader of readers) {
    for (const files of reader.originals) {
      writeFiles(join(dir, "whole"), files);
      await reader.read(join(dir, "whole"));
    }
  }
});
