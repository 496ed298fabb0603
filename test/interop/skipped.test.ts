import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { expect, test } from "vitest";
import { FIXTURES } from "../parity/fixtures.js";

test("npm run test:interop says SKIPPED and why where there is no Python with peft", () => {
  const script = join(FIXTURES, "../../scripts/test-interop.mjs");
  const { status, stdout } = spawnSync(process.execPath, [script], {
    encoding: "utf8",
    env: { ...process.env, LOKO_PYTHON: "/nowhere/python" },
  });
  expect(stdout).toContain("*** SKIPPED: /nowhere/python: spawnSync /nowhere/python ENOENT");
  expect(stdout).toContain("*** SKIPPED: nothing was compared");
  expect(stdout).not.toContain("passed");
  expect(status).toBe(0);
});
