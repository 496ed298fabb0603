import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ROOT, readPage } from "./blocks.js";

test("docs/errors.md says of every code what lib/errors.ts says", () => {
  const source = readFileSync(join(ROOT, "lib/errors.ts"), "utf8");
  const codes = [...source.matchAll(/\/\*\* (.+)\. \*\/\n {2}"(ERR_\w+)",/g)].map(
    ([, meaning, code]) => [code, meaning],
  );
  const table = [...readPage("docs/errors.md").matchAll(/^\| `(ERR_\w+)` \| (.+) \|$/gm)].map(
    ([, code, meaning]) => [code, meaning],
  );
  expect(codes.length).toBe([...source.matchAll(/^ {2}"ERR_\w+",$/gm)].length);
  expect(new Map(table as [string, string][])).toEqual(new Map(codes as [string, string][]));
  expect(table).toHaveLength(codes.length);
});
