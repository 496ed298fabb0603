// Faults from outside: each gives a coded error in a process that lives on, and nothing half written.
import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { vitFolder } from "../parity/fixtures.js";
import { runChild } from "./child.js";
import { vitConfig, writeCheckpoint } from "./synthetic.js";

const CHILD = fileURLToPath(new URL("children/faults.mjs", import.meta.url));

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "loko-faults-"));
  // Another user must be able to look into it.
  chmodSync(dir, 0o755);
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function makeFolder(name: string): string {
  const path = join(dir, name);
  mkdirSync(path);
  return path;
}

/** What a case prints. */
async function run(name: string, ...args: string[]): Promise<Record<string, unknown>> {
  const { code, signal, stdout, stderr } = await runChild("faults.mjs", [name, ...args]);
  expect({ code, signal, stderr }).toEqual({ code: 0, signal: null, stderr: "" });
  return JSON.parse(stdout) as Record<string, unknown>;
}

// V8 itself ends a process in which it finds no memory for its own heap: at the edge that is chance, and no
// native module can prevent it.
const V8_IS_OUT = "JavaScript heap out of memory";

/** The same under limits of the shell. */
function runLimited(limit: string, ...args: string[]): Record<string, unknown> {
  const command = ["exec", process.execPath, CHILD, ...args].map((word) => `'${word}'`).join(" ");
  const live = () =>
    spawnSync("sh", ["-c", `ulimit ${limit} && ${command.replace("'exec'", "exec")}`], {
      encoding: "utf8",
      timeout: 50_000,
      killSignal: "SIGKILL",
    });
  let child = live();
  for (let again = 0; again < 2 && child.stderr.includes(V8_IS_OUT); again++) child = live();
  const { status, signal, stdout, stderr } = child;
  expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: "" });
  return JSON.parse(stdout) as Record<string, unknown>;
}

const NOTHING_WRITTEN = {
  ...{ adapter: "ERR_FILE_WRITE", state: "ERR_FILE_WRITE", model: "ERR_FILE_WRITE" },
  ...{ left: [], usable: "ok" },
};

test("two models of one process train at once, each with the bits that it has alone", async () => {
  expect(await run("two-models", vitFolder("odd"))).toEqual({ equal: true, different: true });
});

test("the files of a model may vanish while it is in use", async () => {
  const model = join(dir, "vanishing");
  cpSync(vitFolder("odd"), model, { recursive: true });
  expect(await run("vanished", model, makeFolder("after"))).toEqual({
    step: "ok",
    saveAdapter: "ok",
    // Tokenizer and image processor are copied from there.
    saveModel: "ERR_FILE_NOT_FOUND",
    load: "ERR_FILE_NOT_FOUND",
    left: ["adapter"],
  });
});

describe.runIf(process.platform === "linux")("what cannot be saved", () => {
  test("for a limit of the size of files is refused whole, and the model goes on", () => {
    // In blocks of 512 bytes (1024 in some shells): less than either file of weights.
    const codes = runLimited("-f 8", "save", vitFolder("odd"), makeFolder("limited"));
    expect(codes).toEqual(NOTHING_WRITTEN);
  });

  test("on a full disk is refused whole, and the model goes on", async ({ skip }) => {
    const disk = makeFolder("disk");
    const mount = spawnSync("mount", ["-t", "tmpfs", "-o", "size=16k", "tmpfs", disk]);
    if (mount.status !== 0) skip("only root may mount a small disk");
    try {
      expect(await run("save", vitFolder("odd"), disk)).toEqual(NOTHING_WRITTEN);
    } finally {
      execFileSync("umount", [disk]);
    }
  });

  test("in a folder that may not be written is refused, and the model goes on", async () => {
    const folder = makeFolder("read-only");
    chmodSync(folder, 0o555);
    expect(await run("read-only", vitFolder("odd"), folder)).toEqual(NOTHING_WRITTEN);
  });
});

describe.runIf(process.platform === "linux")("a process that has no more memory", () => {
  /** In MiB: enough for the inputs of the child and the state that it saves, and not for what is computed of them. */
  const ROOM = 128;

  test("gets coded errors, lives on, and learns as if nothing had happened", async () => {
    const model = makeFolder("vit");
    const size = { hidden: 192, layers: 6, heads: 3, image: 64, patch: 8, labels: 10 };
    writeCheckpoint(model, vitConfig(size));
    const { peak } = await run("out-of-memory", model);
    const limit = `-v ${Number(peak) + ROOM * 1024}`;
    expect(runLimited(limit, "out-of-memory", model, makeFolder("memory"))).toEqual({
      forward: "ERR_OUT_OF_MEMORY",
      jacobian: "ERR_OUT_OF_MEMORY",
      step: "ERR_OUT_OF_MEMORY",
      again: "ERR_OUT_OF_MEMORY",
      load: "ERR_OUT_OF_MEMORY",
      equal: true,
    });
  });
});
