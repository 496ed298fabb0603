import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { EventLog } from "../../../lib/report/event-log.js";
import { temporaryFolder } from "../train/trainer-fixtures.js";

test("a log begins on a line of its own, whatever was written before it", async () => {
  using folder = temporaryFolder();
  const path = join(folder.path, "log.jsonl");
  // What a process leaves that is killed in the middle of a line.
  writeFileSync(path, '{"a":1}\n{"b"');
  const log = new EventLog(path);
  await log.append({ c: 3 });
  await log.append({ d: Number.NaN });
  expect(readFileSync(path, "utf8")).toBe('{"a":1}\n{"b"\n{"c":3}\n{"d":null}\n');
  await new EventLog(path).append({ e: 5 });
  expect(readFileSync(path, "utf8")).toMatch(/\{"d":null\}\n\{"e":5\}\n$/);
});
