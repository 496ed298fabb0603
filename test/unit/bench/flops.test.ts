import { describe, expect, test } from "vitest";
import { adapterSize, countFlops, kalmanFlops, stepFlops } from "../../../benchmarks/flops.js";
import { MODELS, type ModelShape, weightsOf } from "../../../benchmarks/models.js";

const ROBERTA = MODELS.get("roberta-base")!;
const RESNET = MODELS.get("resnet-50")!;
const VIT = MODELS.get("vit-base")!;
const ADAPTER = { classes: 2, rank: 8, targetModules: ["query", "value"] };

describe("operations of published models, in units of 1e9", () => {
  // Counted elsewhere by hand, with the adapters' share of up to 0.08 % left whole where ours is pruned.
  test.each([
    ["RoBERTa-base", ROBERTA, { tokens: 128, pruned: false }, 22.42, 23.1],
    ["RoBERTa-base, pruned", ROBERTA, { tokens: 128 }, 20.88, 21.03],
    ["ViT-B/16", VIT, { pruned: false }, 35.24, 36.56],
    ["ViT-B/16, pruned", VIT, {}, 32.81, 33.25],
  ])("%s", (_, shape, options, forward, backward) => {
    const flops = countFlops(shape, { ...ADAPTER, ...options });
    expect(Math.abs(flops.forward / 1e9 / forward - 1)).toBeLessThan(1e-3);
    expect(Math.abs(flops.backward / 1e9 / backward - 1)).toBeLessThan(1e-3);
  });

  test("a frozen ResNet-50 takes twice the published 4.1 multiply-adds", () => {
    const options = { classes: 1000, rank: 0, targetModules: [] };
    const { forward, backward } = countFlops(RESNET, options);
    expect(forward / 2e9).toBeCloseTo(4.1, 1);
    // Back all but the stem's 0.118; the head twice.
    expect((forward - backward) / 2e9).toBeCloseTo(0.118 - 0.002, 3);
  });

  test("a frozen ViT-B/16 takes twice the published 17.6 multiply-adds", () => {
    const { forward } = countFlops(VIT, { ...ADAPTER, targetModules: [], pruned: false });
    expect(forward / 2e9).toBeCloseTo(17.6, 1);
  });
});

describe("pruning by hand, in a model of one token's width 1 and one layer", () => {
  const shape: ModelShape = {
    kind: "text",
    hidden: 1,
    layers: 1,
    heads: 1,
    vocabulary: 9,
    maxTokens: 9,
  };
  const count = (targetModules: string[], pruned = true) =>
    countFlops(shape, { tokens: 3, classes: 2, rank: 1, targetModules, pruned });
  const head = 2 + 4;

  test("forward keeps keys and values of all tokens and the rest of the first", () => {
    // q 1, k 3, v 3; output projection and MLP 9; scores and weighted sum 3 each; factors of value 2 · 3
    expect(count(["value"]).forward).toBe(2 * (1 + 3 + 3 + 9 + 6 + 6) + head);
    expect(count(["value"], false).forward).toBe(2 * (9 + 27 + 18 + 6) + head);
  });

  test("backward ends at the adapted projections of the first block", () => {
    const toAttention = 2 * 9 + 2 * head;
    // dV; then dY·B, dB, dA on three rows
    expect(count(["value"]).backward).toBe(toAttention + 2 * 3 + 2 * 9);
    // dP and dQ; the query has one row
    expect(count(["query"]).backward).toBe(toAttention + 2 * 6 + 2 * 3);
    expect(count(["query", "key", "value"]).backward).toBe(toAttention + 2 * 12 + 2 * (3 + 9 + 9));
  });
});

test("adapter sizes are those of the stored Jacobian rows", () => {
  expect(adapterSize(ROBERTA, ADAPTER)).toBe(294_912);
  expect(adapterSize(VIT, ADAPTER)).toBe(294_912);
  // PEFT counts 656,034 with the head of 10 classes, see test/fixtures/counts.
  expect(adapterSize(RESNET, { ...ADAPTER, targetModules: ["convolution"] })).toBe(
    656_034 - 20_490,
  );
});

test("the filter costs 1.2 and 4.1 million operations for 1 and 2 rows of RoBERTa-base", () => {
  expect(kalmanFlops(1, 294_912) / 1e6).toBeCloseTo(1.2, 1);
  expect(kalmanFlops(2, 294_912) / 1e6).toBeCloseTo(4.1, 1);
  // ViT, 100 rows: 3.0 for S and 5.9 for the update, in units of 1e9
  expect(kalmanFlops(100, 294_912) / 1e9).toBeCloseTo(8.9, 1);
});

test("a step is a forward pass and as many backward rows as it propagates", () => {
  const sample = { forward: 10, backward: 7 };
  const step = { batch: 4, rows: 3, parameters: 5 };
  expect(stepFlops(sample, { ...step, work: "predict" })).toBe(40);
  expect(stepFlops(sample, { ...step, work: "adamw" })).toBe(68);
  expect(stepFlops(sample, { ...step, work: "loko" })).toBe(10 + 21 + 3 * 4 * 5 + 2 * 9 * 5);
});

test("the drawn models have the parameters of the published ones", () => {
  const parameters = (shape: ModelShape, classes: number) =>
    weightsOf(shape, classes).reduce((sum, w) => sum + w.shape.reduce((a, b) => a * b), 0);
  // As transformers counts RobertaForSequenceClassification and ViTForImageClassification.
  expect(parameters(ROBERTA, 2)).toBe(124_647_170);
  expect(parameters(VIT, 1000)).toBe(86_567_656);
});
