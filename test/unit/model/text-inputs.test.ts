import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Model } from "../../../lib/model.js";
import { checkInputs, type InputRules, type TextInputs } from "../../../lib/models/inputs.js";
import { textFolder } from "../../parity/fixtures.js";
import { expectError } from "./checkpoints.js";

const LIMITS = {
  kind: "text",
  vocabulary: 100,
  positionCount: 20,
  typeCount: 2,
  maxTokens: 8,
} as const;
const BERT: InputRules = {
  input: LIMITS,
  tokens: { padTokenId: 0, positionsSkipPadding: false },
};
const ROBERTA: InputRules = {
  input: LIMITS,
  tokens: { padTokenId: 1, positionsSkipPadding: true },
};
const HIDDEN = Number.NEGATIVE_INFINITY;

function blocks(inputs: TextInputs, rules: InputRules): number[][] {
  const { values, batch, tokens } = checkInputs(inputs, rules);
  return Array.from({ length: 4 }, (_, i) => [
    ...values.subarray(i * batch * tokens, (i + 1) * batch * tokens),
  ]);
}

describe("a batch of texts", () => {
  test("is laid out as ids, positions, types and what is added to the scores", () => {
    const inputs = {
      inputIds: Int32Array.of(5, 6, 7, 8, 9, 0),
      attentionMask: Int32Array.of(1, 1, 1, 1, 1, 0),
      tokenTypeIds: Int32Array.of(0, 0, 1, 0, 1, 0),
      shape: [2, 3],
    };
    expect(blocks(inputs, BERT)).toEqual([
      [5, 6, 7, 8, 9, 0],
      [0, 1, 2, 0, 1, 2],
      [0, 0, 1, 0, 1, 0],
      [0, 0, 0, 0, 0, HIDDEN],
    ]);
  });

  test("has RoBERTa's positions counted from the ids, whatever the mask says", () => {
    // transformers' create_position_ids_from_input_ids with padding index 1.
    const inputs = {
      inputIds: Int32Array.of(0, 9, 9, 2, 1, 1, 0, 1, 9, 1, 2, 1),
      attentionMask: Int32Array.of(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1),
      shape: [2, 6],
    };
    expect(blocks(inputs, ROBERTA)[1]).toEqual([2, 3, 4, 5, 1, 1, 2, 1, 3, 1, 4, 1]);
  });

  test("loses the columns at its end that every sample masks, and no others", () => {
    const inputs = {
      inputIds: Int32Array.of(5, 6, 0, 0, 7, 8, 9, 0),
      attentionMask: Int32Array.of(1, 1, 0, 0, 1, 0, 1, 0),
      shape: [2, 4],
    };
    expect(blocks(inputs, BERT)).toEqual([
      [5, 6, 0, 7, 8, 9],
      [0, 1, 2, 0, 1, 2],
      [0, 0, 0, 0, 0, 0],
      [0, 0, HIDDEN, 0, HIDDEN, 0],
    ]);
  });

  test("may be padded beyond the limit of the model", () => {
    const inputIds = new Int32Array(12).fill(3);
    const attentionMask = new Int32Array(12).fill(1, 0, 8);
    expect(checkInputs({ inputIds, attentionMask, shape: [1, 12] }, BERT).tokens).toBe(8);
  });

  test("is read once: later changes of the caller's arrays have no effect", () => {
    const inputIds = Int32Array.of(5, 6);
    const { values } = checkInputs({ inputIds, shape: [1, 2] }, BERT);
    inputIds.fill(9);
    expect([...values.subarray(0, 2)]).toEqual([5, 6]);
  });
});

describe("a bad batch of texts is refused:", () => {
  const good = { inputIds: Int32Array.of(1, 2, 3, 4), shape: [2, 2] };
  const cases: [string, unknown, string, string[]][] = [
    ["no object", 7, "ERR_INPUT_TYPE", ["{ inputIds, shape }", "7"]],
    [
      "ids in a plain array",
      { ...good, inputIds: [1, 2, 3, 4] },
      "ERR_INPUT_TYPE",
      ["inputIds", "Int32Array"],
    ],
    [
      "64-bit ids",
      { ...good, inputIds: new BigInt64Array(4) },
      "ERR_INPUT_TYPE",
      ["BigInt64Array"],
    ],
    [
      "pixels",
      { pixelValues: new Float32Array(4), shape: [2, 2] },
      "ERR_INPUT_TYPE",
      ["inputIds", "undefined"],
    ],
    ["no shape", { inputIds: good.inputIds }, "ERR_INPUT_TYPE", ["inputs.shape", "undefined"]],
    ["three extents", { ...good, shape: [1, 2, 2] }, "ERR_INPUT_TYPE", ["[B, T]"]],
    ["no token", { ...good, shape: [2, 0] }, "ERR_SHAPE_MISMATCH", ["[2, 0]"]],
    ["half a token", { ...good, shape: [2, 1.5] }, "ERR_SHAPE_MISMATCH", ["1.5"]],
    ["another number of ids", { ...good, shape: [2, 3] }, "ERR_SHAPE_MISMATCH", ["2 x 3", "got 4"]],
    [
      "a mask of another size",
      { ...good, attentionMask: Int32Array.of(1) },
      "ERR_SHAPE_MISMATCH",
      ["attentionMask", "got 1"],
    ],
    [
      "an id beyond the vocabulary",
      { ...good, inputIds: Int32Array.of(1, 2, 3, 100) },
      "ERR_TOKEN_RANGE",
      ["[0, 100)", "got 100 at token 1 of sample 1"],
    ],
    [
      "a negative id",
      { ...good, inputIds: Int32Array.of(1, -1, 3, 4) },
      "ERR_TOKEN_RANGE",
      ["got -1 at token 1 of sample 0"],
    ],
    [
      "an unknown token type",
      { ...good, tokenTypeIds: Int32Array.of(0, 0, 2, 0) },
      "ERR_TOKEN_RANGE",
      ["tokenTypeIds", "[0, 2)", "sample 1"],
    ],
    [
      "a mask that is no mask",
      { ...good, attentionMask: Int32Array.of(1, 1, 5, 1) },
      "ERR_TOKEN_RANGE",
      ["attentionMask", "0 or 1"],
    ],
    [
      "a text that is all padding",
      { ...good, attentionMask: Int32Array.of(1, 1, 0, 0) },
      "ERR_INPUT_TYPE",
      ["attentionMask", "sample 1"],
    ],
    [
      "too many tokens",
      { inputIds: new Int32Array(9), shape: [1, 9] },
      "ERR_SEQUENCE_LENGTH",
      ["9 tokens", "positions for 8", "maxLength: 8"],
    ],
  ];
  test.each(cases)("%s", async (_, inputs, code, words) => {
    await expectError(() => checkInputs(inputs as TextInputs, BERT), code, ...words);
  });

  test("through the model, which is unchanged and goes on", async () => {
    using model = await Model.fromPretrained(textFolder("bert_small"));
    const inputs = { inputIds: Int32Array.of(1, 2, 3), shape: [1, 3] };
    const before = await (await model.forward(inputs)).data();
    await expectError(
      () => model.forward({ inputIds: Int32Array.of(100_000), shape: [1, 1] }),
      "ERR_TOKEN_RANGE",
    );
    await expectError(
      () => model.forward({ pixelValues: new Float32Array(3), shape: [1, 3, 1, 1] }),
      "ERR_INPUT_TYPE",
      "inputIds",
    );
    expect(await (await model.forward(inputs)).data()).toEqual(before);
  });
});

describe("a model of text", () => {
  let model: Model;
  beforeAll(async () => {
    model = await Model.fromPretrained(textFolder("roberta_small"));
  });
  afterAll(() => model.dispose());

  test("says what it takes", () => {
    expect(model.input).toMatchObject({ kind: "text", typeVocabSize: 1, padTokenId: 1 });
  });
});
