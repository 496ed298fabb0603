import { describe, expect, test } from "vitest";
import type { GraphNode, GraphSpec } from "../../../lib/native/addon.js";
import { loadAddon } from "../../../lib/native/loader.js";

const image: GraphNode = { op: "image", channels: 2, height: 6, width: 5 };
const pixels: GraphNode = { op: "patchify", input: 0, patch: 1 };
const conv = {
  op: "conv2d",
  input: 1,
  module: "conv",
  weight: "conv.weight",
  out: 4,
  kernel: [3, 3],
  stride: [1, 1],
  padding: [1, 1],
  dilation: [1, 1],
  groups: 1,
} as const;
const pool = {
  op: "maxPool",
  input: 1,
  kernel: [2, 2],
  stride: [2, 2],
  padding: [0, 0],
  ceilMode: false,
} as const;

/** The error of a session with one node after the pixels; the graph ends in one row. */
function errorOf(node: object): { code: string; message: string } {
  const nodes = [image, pixels, node, { op: "meanRows", input: 2, skip: 0 }];
  try {
    loadAddon()
      .createSession({
        device: "cpu",
        precision: "float32",
        threads: 1,
        seed: 0,
        graph: { nodes, output: 3 } as GraphSpec,
        weights: [],
      })
      .dispose();
  } catch (error) {
    return error as { code: string; message: string };
  }
  return { code: "none", message: "" };
}

describe("the addon's reader of graphs", () => {
  test("takes every operation of convolutional nets", () => {
    const norm = { weight: "w", bias: "b", mean: "m", variance: "v", eps: 1e-5 };
    for (const node of [
      { ...conv, bias: "conv.bias", norm, activation: "relu" },
      { ...conv, groups: 2, kernel: [1, 2], stride: [2, 3], padding: [0, 4], dilation: [7, 2] },
      { op: "batchNorm", input: 1, ...norm, activation: "relu" },
      pool,
      { ...pool, op: "avgPool", ceilMode: true, countIncludePad: false },
      { op: "concat", inputs: [1, 1] },
      { op: "flatten", input: 1 },
    ]) {
      expect(errorOf(node)).toEqual({ code: "none", message: "" });
    }
  });

  test.each<[string, object, string]>([
    ["a kernel that does not fit", { ...conv, kernel: [9, 3] }, "a kernel that fits in 6x5 pixels"],
    [
      "groups that divide nothing",
      { ...conv, groups: 3 },
      "a number of groups that divides 2 and 4",
    ],
    ["absurd padding", { ...conv, padding: [2 ** 31 - 1, 2 ** 31 - 1] }, "less than 2^30 pixels"],
    ["absurd dilation", { ...conv, dilation: [2 ** 31 - 1, 1] }, "a kernel that fits"],
    ["absurd channels", { ...conv, out: 2 ** 31 - 1, padding: [999, 999] }, "at most 2^40 numbers"],
    ["an absurd kernel", { ...conv, kernel: [2 ** 30, 2 ** 30] }, "at most 2^24 taps"],
    ["a residual of another shape", { ...conv, residual: 1 }, "a residual of shape [30, 4]"],
    ["pooling of nothing", { ...pool, padding: [2, 2] }, "at most half the kernel"],
    ["pooling of an image", { ...pool, input: 0 }, "a value with pixels"],
    ["different rows side by side", { op: "concat", inputs: [0, 1] }, "values of 12 rows"],
    ["nothing side by side", { op: "concat", inputs: [] }, "at least one value"],
    ["a mean of no rows", { op: "meanRows", input: 1, skip: 30 }, "at least one row"],
  ])("refuses %s", (_, node, message) => {
    const error = errorOf(node);
    expect(error.code).toBe("ERR_SHAPE_MISMATCH");
    expect(error.message).toContain(message);
  });

  test.each<[string, object]>([
    ["a value that does not exist yet", { ...conv, input: 2 }],
    ["an extent of one number", { ...conv, kernel: [3] }],
    ["a fraction", { ...conv, stride: [1.5, 1] }],
    ["a stride of 0", { ...conv, stride: [0, 1] }],
    ["a negative padding", { ...conv, padding: [-1, 0] }],
    [
      "an activation that a batch norm does not have",
      { op: "batchNorm", input: 1, activation: "gelu" },
    ],
    ["a value out of range", { op: "concat", inputs: [1, 7] }],
    ["a missing field", { ...conv, weight: undefined }],
  ])("reports %s as a fault of the library", (_, node) => {
    expect(errorOf(node).code).toBe("ERR_INTERNAL");
  });
});
