import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Model } from "../../../lib/model.js";
import { AdamW } from "../../../lib/optim/gradient.js";
import { LoKO } from "../../../lib/optim/loko.js";
import { textFolder } from "../../parity/fixtures.js";
import { expectError } from "./checkpoints.js";

const INPUTS = { inputIds: Int32Array.of(3, 4, 5), shape: [1, 3] };

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "loko-text-"));
});
afterEach(() => rmSync(dir, { recursive: true }));

/** A copy of a fixture's checkpoint with some keys of its configuration changed; undefined removes one. */
function copy(folder: string, changes: Record<string, unknown>): string {
  cpSync(folder, dir, { recursive: true });
  const path = join(dir, "config.json");
  const config = JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
  writeFileSync(path, JSON.stringify({ ...config, ...changes }));
  return dir;
}

describe("a BERT configuration is refused with", () => {
  const cases: [string, Record<string, unknown>, string, string[]][] = [
    [
      "relative positions",
      { position_embedding_type: "relative_key" },
      "ERR_UNSUPPORTED",
      ["relative_key"],
    ],
    ["a decoder's mask", { is_decoder: true }, "ERR_UNSUPPORTED", ["is_decoder"]],
    ["cross attention", { add_cross_attention: true }, "ERR_UNSUPPORTED", ["add_cross_attention"]],
    ["an unknown activation", { hidden_act: "mish" }, "ERR_UNKNOWN_ACTIVATION", ["mish", '"gelu"']],
    [
      "heads that do not divide the width",
      { num_attention_heads: 5 },
      "ERR_CONFIG",
      ["num_attention_heads"],
    ],
    ["an unknown problem", { problem_type: "ranking" }, "ERR_CONFIG", ["ranking", "regression"]],
    [
      "labels that are no names",
      { id2label: { 0: "a", 1: 7 } },
      "ERR_CONFIG",
      ["id2label", '"1"', "7"],
    ],
    ["labels with a gap", { id2label: { 0: "a", 2: "b" } }, "ERR_CONFIG", ["id2label", '"1"']],
    [
      "more positions than the file has",
      { max_position_embeddings: 17 },
      "ERR_WEIGHT_SHAPE",
      ["position_embeddings", "[17,24]"],
    ],
    [
      "more layers than the file has",
      { num_hidden_layers: 9 },
      "ERR_WEIGHT_MISSING",
      ["9 layers", "holds 1"],
    ],
    // transformers' own defaults of these differ from the files of the hub, so that none is assumed.
    ...[
      "layer_norm_eps",
      "hidden_act",
      "type_vocab_size",
      "max_position_embeddings",
      "vocab_size",
      "pad_token_id",
    ].map((key): [string, Record<string, unknown>, string, string[]] => [
      `no ${key}`,
      { [key]: undefined },
      "ERR_CONFIG",
      [key, "absent"],
    ]),
  ];
  test.each(cases)("%s", async (_, changes, code, words) => {
    const folder = copy(textFolder("bert_small"), changes);
    await expectError(() => Model.fromPretrained(folder), code, ...words);
  });
});

test("RoBERTa needs positions for its padding and for one token", async () => {
  const folder = copy(textFolder("roberta_small"), { pad_token_id: 4000 });
  await expectError(
    () => Model.fromPretrained(folder),
    "ERR_CONFIG",
    "max_position_embeddings",
    "4000",
  );
});

describe("labels", () => {
  test("have the names of the configuration", async () => {
    const id2label = { 0: "negative", 1: "positive" };
    using model = await Model.fromPretrained(copy(textFolder("bert_small"), { id2label }), {
      ignoreMismatchedSizes: true,
      numLabels: 2,
    });
    expect(model.id2label).toEqual(["negative", "positive"]);
    expect([...model.label2id]).toEqual([
      ["negative", 0],
      ["positive", 1],
    ]);
    expect(model.problemType).toBe("single_label_classification");
  });

  test("have names of their own where the number of labels is another one", async () => {
    using model = await Model.fromPretrained(textFolder("bert_small"), {
      ignoreMismatchedSizes: true,
      numLabels: 3,
    });
    expect(model.id2label).toEqual(["LABEL_0", "LABEL_1", "LABEL_2"]);
    expect(model.newWeights).toEqual(["classifier.weight", "classifier.bias"]);
  });
});

describe("RoBERTa's head with another number of labels", () => {
  test("keeps its dense layer and draws the output, as transformers does", async () => {
    using model = await Model.fromPretrained(textFolder("roberta_small"), {
      ignoreMismatchedSizes: true,
      numLabels: 5,
    });
    expect(model.newWeights).toEqual(["classifier.out_proj.weight", "classifier.out_proj.bias"]);
  });
});

describe("a regression", () => {
  const one = { ignoreMismatchedSizes: true, numLabels: 1 };

  test("is a model of one label, and learns float targets by default", async () => {
    for (const create of [
      (model: Model) => new LoKO(model),
      (model: Model) => new AdamW(model, { lr: 0.01 }),
    ]) {
      using model = await Model.fromPretrained(textFolder("bert_small"), one);
      expect(model.problemType).toBe("regression");
      await model.addAdapter();
      const optimizer = create(model);
      const losses: number[] = [];
      for (let i = 0; i < 25; i++) {
        const { loss, logits } = await optimizer.step(INPUTS, Float32Array.of(1.5));
        losses.push(loss);
        // The mean squared error of the prediction before the step.
        expect(loss).toBeCloseTo((logits[0]! - 1.5) ** 2, 5);
      }
      expect(losses.at(-1)).toBeLessThan(losses[0]! / 10);
    }
  });

  test("refuses labels", async () => {
    using model = await Model.fromPretrained(textFolder("bert_small"), one);
    await model.addAdapter();
    for (const optimizer of [new LoKO(model), new AdamW(model)]) {
      await expectError(
        () => optimizer.step(INPUTS, Int32Array.of(0)),
        "ERR_INPUT_TYPE",
        "Float32Array",
      );
    }
  });
});

test("several labels at once can be predicted and not trained", async () => {
  const folder = copy(textFolder("bert_small"), { problem_type: "multi_label_classification" });
  using model = await Model.fromPretrained(folder);
  expect((await (await model.forward(INPUTS)).data()).length).toBe(model.numLabels);
  await model.addAdapter();
  await expectError(() => new LoKO(model), "ERR_UNSUPPORTED", "multi_label_classification");
  await expectError(() => new AdamW(model), "ERR_UNSUPPORTED", "multi_label_classification");
});
