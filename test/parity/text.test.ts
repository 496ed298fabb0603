import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { deviceInfo } from "../../lib/device.js";
import { Model } from "../../lib/model.js";
import type { TextInputs } from "../../lib/models/text-inputs.js";
import { expectJacobian, logitsOf } from "./compare.js";
import {
  adapt,
  DEVICES,
  loadAdaptedText,
  maxAbsError,
  readText,
  relativeError,
  TEXT_CASES,
  type TextFixture,
  textFolder,
} from "./fixtures.js";

// Expected values: PyTorch, transformers and PEFT in float64 (test/fixtures/README.md). The bars are those
// of the ViT tests, for the same reasons.
const LOGIT_TOLERANCE = { cpu: 1e-5, cuda: 1e-5, ref: 1e-6 } as const;

/** Compares the logits of every batch: padded, without a mask, of one token, of the longest length. */
async function expectLogits(
  model: Model,
  { batches, expected }: TextFixture,
  key: "logits" | "logits_b0" | "logits_base",
  tolerance: number,
): Promise<void> {
  for (const [batch, inputs] of batches) {
    const logits = await logitsOf(model, { inputs });
    const reference = expected.get(`${batch}/${key}`)!;
    expect(maxAbsError(logits, reference.values), batch).toBeLessThan(tolerance);
  }
}

function mainOf({ batches, expected }: TextFixture) {
  return { inputs: batches.get("main")!, expected };
}

describe.each(DEVICES)("text models on device %s", (device) => {
  describe.each(TEXT_CASES)("case %s", (name) => {
    test("compute PyTorch's logits, bare and with the adapter", async () => {
      const fixture = await readText(name);
      using bare = await Model.fromPretrained(textFolder(name), { device });
      expect(bare.unusedWeights).toEqual([]);
      expect(bare.newWeights).toEqual([]);
      await expectLogits(bare, fixture, "logits_base", LOGIT_TOLERANCE[device]);
      using adapted = await adapt(bare, fixture);
      await expectLogits(adapted, fixture, "logits", LOGIT_TOLERANCE[device]);
    });

    test("compute PyTorch's Jacobians where B is not zero", async () => {
      const fixture = await readText(name);
      using model = await loadAdaptedText(name, fixture, { device });
      await expectJacobian(model, mainOf(fixture), "logits", "jacobian");
      await expectJacobian(model, mainOf(fixture), "softmax", "jacobian");
    });

    test("compute PyTorch's logits and Jacobians where B is zero", async () => {
      const fixture = await readText(name);
      using model = await loadAdaptedText(name, fixture, { device }, true);
      await expectLogits(model, fixture, "logits_b0", LOGIT_TOLERANCE[device]);
      if (!fixture.zeroB) return;
      await expectJacobian(model, mainOf(fixture), "logits", "jacobian_b0");
      await expectJacobian(model, mainOf(fixture), "softmax", "jacobian_b0");
    });
  });
});

test("one label without a problem type is a regression", async () => {
  using model = await Model.fromPretrained(textFolder("roberta_all"));
  expect(model.problemType).toBe("regression");
  expect(model.numLabels).toBe(1);
});

describe("checkpoint formats", () => {
  test.each([
    ["float16 weights", "bert_small", "base_f16", "logits_base_f16"],
    ["bfloat16 weights", "bert_small", "base_bf16", "logits_base_bf16"],
    ["gamma, beta and position_ids", "bert_small", "old_names", "logits_base"],
    ["gamma, beta and position_ids", "roberta_small", "old_names", "logits_base"],
  ] as const)("%s give PyTorch's logits: %s", async (_, name, folder, key) => {
    const fixture = await readText(name);
    using model = await Model.fromPretrained(textFolder(name, folder));
    const logits = await logitsOf(model, mainOf(fixture));
    expect(model.newWeights).toEqual([]);
    expect(model.unusedWeights).toEqual([]);
    expect(maxAbsError(logits, fixture.expected.get(`main/${key}`)!.values)).toBeLessThan(1e-5);
  });

  const BERT_HEAD = ["classifier.weight", "classifier.bias"];
  const ROBERTA_HEAD = [
    "classifier.dense.weight",
    "classifier.dense.bias",
    "classifier.out_proj.weight",
    "classifier.out_proj.bias",
  ];

  test.each([
    ["BertModel", "bert_small", "headless", BERT_HEAD],
    ["BertForPreTraining", "bert_small", "pretraining", BERT_HEAD],
    ["RobertaModel", "roberta_small", "headless", ROBERTA_HEAD],
    ["RobertaForMaskedLM", "roberta_small", "mlm", ROBERTA_HEAD],
  ] as const)(
    "%s gets a new head and otherwise the same numbers",
    async (_, name, folder, head) => {
      const fixture = await readText(name);
      using model = await Model.fromPretrained(textFolder(name, folder));
      expect(model.newWeights).toEqual(head);
      expect(model.unusedWeights).toEqual([]);

      // With the fixture's head and adapter the backbone must give the fixture's logits.
      await adapt(model, fixture);
      await expectLogits(model, fixture, "logits", 1e-5);
    },
  );

  test("BertForMaskedLM has no pooler and gets a new one", async () => {
    const inputs = mainOf(await readText("bert_small"));
    const results: Float32Array[] = [];
    for (const seed of [1, 1, 2]) {
      using model = await Model.fromPretrained(textFolder("bert_small", "mlm"), { seed });
      expect(model.newWeights).toEqual([
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        ...BERT_HEAD,
      ]);
      expect(model.unusedWeights).toEqual([]);
      results.push(await logitsOf(model, inputs));
    }
    expect(results[1]).toEqual(results[0]);
    expect(maxAbsError(results[2]!, results[0]!)).toBeGreaterThan(1e-4);
    // 24 inputs of order one and weights N(0, 0.02²), twice: 0.02·√24 = 0.1, then 0.01.
    expect(results[0]!.every((logit) => logit !== 0 && Math.abs(logit) < 0.1)).toBe(true);
  });
});

// Set for this process only: the native code reads it whenever a model is loaded.
describe.each(deviceInfo().cpu.instructionSets)("instruction set %s", (isa) => {
  beforeEach(() => {
    process.env.LOKO_CPU_ISA = isa;
  });
  afterEach(() => {
    delete process.env.LOKO_CPU_ISA;
  });

  test.each(TEXT_CASES)("computes PyTorch's logits and Jacobians in case %s", async (name) => {
    const fixture = await readText(name);
    using model = await loadAdaptedText(name, fixture, { device: "cpu" });
    const description = model.runtime.call((session) => session.description());
    expect(description).toContain(`${isa},`);
    await expectLogits(model, fixture, "logits", LOGIT_TOLERANCE.cpu);
    await expectJacobian(model, mainOf(fixture), "logits", "jacobian");
    await expectJacobian(model, mainOf(fixture), "softmax", "jacobian");
  });

  test.each(["bert_all", "bert_long", "roberta_pads"] as const)(
    "gives the same bits with one and two threads in case %s",
    async (name) => {
      const fixture = await readText(name);
      const results = [];
      for (const threads of [1, 2]) {
        using model = await loadAdaptedText(name, fixture, { device: "cpu", threads });
        results.push(await outputsOf(model, mainOf(fixture).inputs));
      }
      expect(results[1]).toEqual(results[0]);
    },
  );

  test.each([
    ["bert_pairs", "main"],
    ["bert_deep", "left"],
    ["bert_long", "main"],
    ["roberta_pads", "main"],
  ] as const)("a sample has the same bits alone and in a batch of %s", async (name, key) => {
    const fixture = await readText(name);
    using model = await loadAdaptedText(name, fixture, { device: "cpu" });
    const batch = fixture.batches.get(key)!;
    const together = await outputsOf(model, batch);
    for (let row = 0; row < batch.shape[0]!; row++) {
      expect(await outputsOf(model, sampleOf(batch, row)), `sample ${row}`).toEqual(
        ofSample(together, row, batch.shape[0]!),
      );
    }
  });
});

describe("padding and lengths", () => {
  test.each([
    ["bert_pairs", 1],
    ["bert_pairs", 90],
    ["bert_long", 40],
    ["roberta_pads", 5],
  ] as const)("%s: %i more columns of padding change no bit", async (name, columns) => {
    const fixture = await readText(name);
    using model = await loadAdaptedText(name, fixture);
    const { inputs } = mainOf(fixture);
    const padded = padTo(inputs, inputs.shape[1]! + columns, padTokenOf(model));
    expect(await outputsOf(model, padded)).toEqual(await outputsOf(model, inputs));
  });

  test.each(["bert_pairs", "roberta_pads"] as const)(
    "%s: a sample has the same bits beside a longer one",
    async (name) => {
      const fixture = await readText(name);
      using model = await loadAdaptedText(name, fixture);
      const { inputs } = mainOf(fixture);
      const [batch, columns] = inputs.shape as [number, number];
      const together = await outputsOf(model, inputs);
      for (let row = 0; row < batch; row++) {
        const { attentionMask } = sampleOf(inputs, row);
        const length = attentionMask!.lastIndexOf(1) + 1;
        if (length === columns) continue;
        const alone = await outputsOf(model, sampleOf(inputs, row, length));
        expect(alone, `sample ${row}`).toEqual(ofSample(together, row, batch));
      }
    },
  );

  // Logits never depend on what is padded. The cotangents of keys and values are summed over queries in
  // blocks of 65536 / T (native/cpu/attention.cc): the padded length T regroups the sum of a sample of
  // L tokens where L·T > 65536. Each regrouping rounds differently, by a few 2^-24 of the block's norm.
  test.each([
    [1, 2],
    [1, 320],
    [17, 255],
    [255, 256],
    [204, 320],
    [205, 320],
    [250, 300],
    [257, 258],
    [319, 320],
  ])("%i tokens give the same beside a text of %i", async (length, longest) => {
    const fixture = await readText("bert_long");
    using model = await loadAdaptedText("bert_long", fixture);
    const text = fixture.batches.get("limit")!;
    const alone = await outputsOf(model, sampleOf(text, 0, length));
    const together = await outputsOf(model, {
      inputIds: new Int32Array([...text.inputIds, ...text.inputIds]),
      attentionMask: Int32Array.from({ length: 640 }, (_, i) =>
        i % 320 < (i < 320 ? longest : length) ? 1 : 0,
      ),
      shape: [2, 320],
    });
    const { logits, jacobian } = ofSample(together, 1, 2);
    expect(logits).toEqual(alone.logits);
    if (length * longest <= 65536) expect(jacobian).toEqual(alone.jacobian);
    else expect(relativeError(jacobian, alone.jacobian)).toBeLessThan(3e-7);
  });

  test("60 lengths through one model give what 60 models give", async () => {
    const fixture = await readText("bert_long");
    const { inputs } = mainOf(fixture);
    using model = await loadAdaptedText("bert_long", fixture);
    const shortest = sampleOf(inputs, 0, 1);
    const first = await outputsOf(model, shortest);
    for (let i = 0; i < 60; i++) {
      const length = 2 + ((i * 37) % 60) * 5; // 2, 187, 72, ... up to 297, in no order
      const text = sampleOf(inputs, 0, length);
      using fresh = await loadAdaptedText("bert_long", fixture);
      expect(await outputsOf(model, text), `${length} tokens`).toEqual(
        await outputsOf(fresh, text),
      );
    }
    expect(await outputsOf(model, shortest)).toEqual(first);
  });
});

function padTokenOf({ input }: Model): number {
  return input.kind === "text" ? input.padTokenId : Number.NaN;
}

/** The batch with columns of padding added at the end. */
function padTo(inputs: TextInputs, length: number, padTokenId: number): TextInputs {
  const [batch, columns] = inputs.shape as [number, number];
  const pad = (values: Int32Array, filler: number) => {
    const padded = new Int32Array(batch * length).fill(filler);
    for (let row = 0; row < batch; row++) {
      padded.set(values.subarray(row * columns, (row + 1) * columns), row * length);
    }
    return padded;
  };
  const { inputIds, attentionMask, tokenTypeIds } = inputs;
  return {
    inputIds: pad(inputIds, padTokenId),
    attentionMask: pad(attentionMask ?? new Int32Array(batch * columns).fill(1), 0),
    tokenTypeIds: tokenTypeIds && pad(tokenTypeIds, 0),
    shape: [batch, length],
  };
}

interface Outputs {
  readonly logits: Float32Array;
  readonly jacobian: Float32Array;
}

async function outputsOf(model: Model, inputs: TextInputs): Promise<Outputs> {
  using logits = await model.forward(inputs);
  using jacobian = await model.jacobian(inputs);
  return { logits: await logits.data(), jacobian: await jacobian.data() };
}

/** The part of one sample in the results of a batch. */
function ofSample({ logits, jacobian }: Outputs, row: number, batch: number): Outputs {
  const part = (values: Float32Array) => {
    const size = values.length / batch;
    return values.slice(row * size, (row + 1) * size);
  };
  return { logits: part(logits), jacobian: part(jacobian) };
}

/** One sample of a batch as a batch, cut to `length` columns. */
function sampleOf(inputs: TextInputs, row: number, length = inputs.shape[1]!): TextInputs {
  const start = row * inputs.shape[1]!;
  const part = (values: Int32Array | undefined) => values?.slice(start, start + length);
  return {
    inputIds: part(inputs.inputIds)!,
    attentionMask: part(inputs.attentionMask),
    tokenTypeIds: part(inputs.tokenTypeIds),
    shape: [1, length],
  };
}
