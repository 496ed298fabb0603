import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { JsonObject } from "../../../lib/io/json.js";
import { MANIFEST_FILE, verifyManifest } from "../../../lib/io/manifest.js";
import { writeCheckpoint } from "../../../lib/train/checkpoint.js";
import { History, ZERO } from "../../../lib/train/history.js";
import { parseTrainerState, type TrainerState } from "../../../lib/train/trainer-state.js";
import { expectError } from "../model/checkpoints.js";
import { MODELS, OPTIMIZERS, temporaryFolder } from "./trainer-fixtures.js";

const GOOD = {
  ...{ best_global_step: null, best_metric: null, best_model_checkpoint: null },
  global_step: 4,
  log_history: [{ loss: 0.5, step: 4 }],
  stateful_callbacks: {
    EarlyStoppingCallback: { attributes: { early_stopping_patience_counter: 1 } },
  },
  loko: { format: 1, position: { epoch: 0, batch: 4 }, run: {}, window: ZERO, total: ZERO },
};

describe("the state of a training", () => {
  test("is accepted with all that a run reads", () => {
    expect(parseTrainerState(structuredClone(GOOD))).toEqual(GOOD);
    expect(() => parseTrainerState({ ...GOOD, stateful_callbacks: {} })).not.toThrow();
  });

  test.each<[string, JsonObject]>([
    ["global_step", { global_step: -1 }],
    ["global_step", { global_step: "4" }],
    ["log_history", { log_history: [null] }],
    ["log_history", { log_history: [{ loss: "low" }] }],
    ["log_history", { log_history: {} }],
    ["best_metric", { best_metric: "0.5" }],
    ["best_global_step", { best_global_step: 0.5 }],
    ["best_model_checkpoint", { best_model_checkpoint: 7 }],
    ["stateful_callbacks", { stateful_callbacks: undefined }],
    ["stateful_callbacks", { stateful_callbacks: { EarlyStoppingCallback: {} } }],
    ["stateful_callbacks", { stateful_callbacks: { EarlyStoppingCallback: null } }],
    ["stateful_callbacks", { stateful_callbacks: { TrainerControl: null } }],
    ["stateful_callbacks", { stateful_callbacks: { TrainerControl: { args: {} } } }],
    ["loko.last", { loko: { ...GOOD.loko, last: { p_mean: "small" } } }],
    ["loko.position", { loko: { ...GOOD.loko, position: { epoch: 0 } } }],
    ["loko.ends_pass", { loko: { ...GOOD.loko, ends_pass: 1 } }],
    ["loko.run", { loko: { ...GOOD.loko, run: null } }],
    ["loko.window", { loko: { ...GOOD.loko, window: { ...ZERO, lossSum: null } } }],
    ["loko.total", { loko: { ...GOOD.loko, total: {} } }],
    ["format", { loko: [] }],
    ["format", { loko: undefined }],
  ])("is refused without a good %s", async (name, change) => {
    const action = () => parseTrainerState({ ...structuredClone(GOOD), ...change });
    await expectError(action, "ERR_CHECKPOINT_FORMAT", name);
  });

  test.each([Number.NaN, "host-1"])("is not written with %s in its log", async (value) => {
    using folder = temporaryFolder();
    using model = await MODELS.ViT();
    const state = { ...GOOD, log_history: [{ loss: value, step: 4 }] } as unknown as TrainerState;
    const parts = { model, optimizer: OPTIMIZERS.AdamW(model), state, args: {} };
    const action = () => writeCheckpoint(folder.path, parts);
    await expectError(action, "ERR_CHECKPOINT_FORMAT", "checkpoint-4", "log_history");
    expect(readdirSync(folder.path)).toEqual([]);
  });

  test("has a log of any length", () => {
    const log = Array.from({ length: 300_000 }, (_, step) => ({ loss: 1, step }));
    expect(History.from({ window: ZERO, total: ZERO, log }).log).toHaveLength(log.length);
  });
});

test.each([
  ["no files", { format: 1 }],
  ["files that are none", { format: 1, files: { "a.txt": null } }],
  ["a size that is none", { format: 1, files: { "a.txt": { size: "3", sha256: "" } } }],
  ["no digest", { format: 1, files: { "a.txt": { size: 3 } } }],
  ["a name that cannot be", { format: 1, files: { "a\0": { size: 3, sha256: "" } } }],
])("a manifest with %s is refused", async (_, manifest) => {
  using folder = temporaryFolder();
  writeFileSync(join(folder.path, MANIFEST_FILE), JSON.stringify(manifest));
  const action = () => verifyManifest(folder.path, []);
  await expectError(action, "ERR_CHECKPOINT_FORMAT", MANIFEST_FILE);
});
