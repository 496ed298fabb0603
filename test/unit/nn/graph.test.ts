import { describe, expect, test } from "vitest";
import type { Extent } from "../../../lib/native/addon.js";
import { type Conv2dOptions, GraphBuilder, type MaxPoolOptions } from "../../../lib/nn/graph.js";

function pixels(channels: number, height: number, width: number) {
  const g = new GraphBuilder();
  return { g, x: g.pixels(g.image(channels, height, width)) };
}

function finished(g: GraphBuilder, x: ReturnType<GraphBuilder["conv2d"]>) {
  const [logits] = g.linear(g.meanRows(x), [{ module: "head", out: 2 }]);
  return g.finish(logits);
}

// Sizes as torch 2.13 gives them: tuple(torch.nn.Conv2d(...)(x).shape[2:]), and the same for the poolings.
describe("the grid of an operation on pixels", () => {
  test.each<[string, [number, number], Omit<Conv2dOptions, "module" | "out">, [number, number]]>([
    ["the stem of a ResNet", [224, 224], { kernel: 7, stride: 2, padding: 3 }, [112, 112]],
    ["an odd image and stride 2", [17, 15], { kernel: 3, stride: 2, padding: 1 }, [9, 8]],
    ["a rectangular kernel", [8, 8], { kernel: [3, 2], padding: [1, 0] }, [8, 7]],
    ["dilation", [16, 16], { kernel: 3, dilation: [2, 3] }, [12, 10]],
    ["a kernel larger than the image", [3, 3], { kernel: 5, padding: 2 }, [3, 3]],
  ])("of a convolution: %s", (_, [height, width], options, [outHeight, outWidth]) => {
    const { g, x } = pixels(4, height, width);
    const y = g.conv2d(x, { module: "conv", out: 6, ...options });
    expect(y).toMatchObject({
      rows: outHeight * outWidth,
      cols: 6,
      grid: { height: outHeight, width: outWidth },
    });
  });

  test.each<[string, number, MaxPoolOptions, number]>([
    ["the stem of a ResNet", 112, { kernel: 3, stride: 2, padding: 1 }, 56],
    ["the kernel as stride", 9, { kernel: 2 }, 4],
    ["rounded up", 9, { kernel: 2, ceilMode: true }, 5],
    [
      "rounded up, but no window beyond the padding",
      6,
      { kernel: 1, stride: 4, ceilMode: true },
      2,
    ],
    ["rounded up behind padding", 5, { kernel: 2, stride: 3, padding: 1, ceilMode: true }, 2],
  ])("of a pooling: %s", (_, size, options, expected) => {
    const { g, x } = pixels(1, size, size);
    expect(g.maxPool(x, options).grid).toEqual({ height: expected, width: expected });
    expect(g.avgPool(x, options).grid).toEqual({ height: expected, width: expected });
  });

  test("a window that does not fit is refused with both sizes", () => {
    const { g, x } = pixels(1, 4, 6);
    expect(() => g.conv2d(x, { module: "conv", out: 1, kernel: 5 })).toThrow(
      expect.objectContaining({
        code: "ERR_SHAPE_MISMATCH",
        message: "The window of conv does not fit in 4x6 pixels and their padding.",
      }),
    );
  });
});

describe("a graph of convolutions", () => {
  test("asks for the weights of the checkpoint, those of folded norms included", () => {
    const { g, x } = pixels(4, 8, 8);
    const norm = { module: "norm", eps: 1e-5 };
    const y = g.conv2d(x, { module: "conv", out: 6, kernel: [3, 2], groups: 2, bias: true, norm });
    const { weights, modules } = finished(g, y);
    expect(weights.slice(0, 6)).toEqual([
      { name: "conv.weight", shape: [6, 2, 3, 2] },
      { name: "conv.bias", shape: [6] },
      { name: "norm.weight", shape: [6] },
      { name: "norm.bias", shape: [6] },
      { name: "norm.running_mean", shape: [6] },
      { name: "norm.running_var", shape: [6] },
    ]);
    expect(modules).toEqual(["conv", "norm", "head"]);
  });

  test("lists its convolutions, projections of patches included, apart from linear modules", () => {
    const g = new GraphBuilder();
    const weightShape = [5, 3, 4, 4];
    const [x] = g.linear(g.patchify(g.image(3, 8, 12), 4), [{ module: "p", out: 5, weightShape }]);
    const y = g.conv2d(x, {
      module: "conv",
      out: 6,
      kernel: 3,
      stride: 2,
      padding: 1,
      dilation: 1,
    });
    const { convolutions, linears } = finished(g, y);
    const square = (size: number): Extent => [size, size];
    expect(convolutions).toEqual([
      {
        path: "p",
        inChannels: 3,
        outChannels: 5,
        kernel: square(4),
        stride: square(4),
        padding: square(0),
        dilation: square(1),
        groups: 1,
      },
      {
        path: "conv",
        inChannels: 5,
        outChannels: 6,
        kernel: square(3),
        stride: square(2),
        padding: square(1),
        dilation: square(1),
        groups: 1,
      },
    ]);
    expect(linears.map(({ path }) => path)).toEqual(["head"]);
  });

  test("adds the columns of a concatenation and flattens channels before pixels", () => {
    const { g, x } = pixels(4, 3, 2);
    const y = g.concat([x, g.batchNorm(x, { module: "norm", eps: 1e-5, activation: "relu" })]);
    expect(y).toMatchObject({ rows: 6, cols: 8, grid: { height: 3, width: 2 } });
    expect(g.flatten(y)).toMatchObject({ rows: 1, cols: 48 });
    expect(() => g.concat([x, g.meanRows(x)])).toThrow("same rows");
  });

  test("names the layer scale of a linear part and asks for it", () => {
    const { g, x } = pixels(4, 3, 2);
    const [y] = g.linear(x, [{ module: "fc", out: 4, outputScale: "scale.lambda1" }], {
      residual: x,
    });
    const { spec, weights } = finished(g, y);
    expect(weights).toContainEqual({ name: "scale.lambda1", shape: [4] });
    expect(spec.nodes).toContainEqual(
      expect.objectContaining({
        parts: [expect.objectContaining({ outputScale: "scale.lambda1" })],
      }),
    );
  });
});
