import { describe, expect, test } from "vitest";
import { AdamW, LoKO, Model } from "../../../lib/index.js";
import { resolveAdapterOptions } from "../../../lib/lora/config.js";
import { layOutParameters, planAdapter } from "../../../lib/models/parameters.js";
import { type Conv2dOptions, GraphBuilder } from "../../../lib/nn/graph.js";
import { readVision, type VisionCase, visionFolder } from "../../parity/fixtures.js";
import { errorOf } from "../io/helpers.js";

/** One convolution of 8 to 12 channels before a head. */
function graphWith(options: Partial<Conv2dOptions>) {
  const g = new GraphBuilder();
  const x = g.conv2d(g.pixels(g.image(4, 8, 8)), { module: "stem", out: 8, kernel: 1 });
  const conv = { module: "block.conv", out: 12, kernel: [3, 2] as const, padding: 1, ...options };
  const [logits] = g.linear(g.meanRows(g.conv2d(x, conv)), [{ module: "head", out: 2 }]);
  return g.finish(logits);
}

function shapesOf(
  graph: ReturnType<typeof graphWith>,
  r: number,
): Record<string, readonly number[]> {
  const config = resolveAdapterOptions({ r, targetModules: ["conv"], modulesToSave: [] }, "resnet");
  const { parameters } = layOutParameters(graph, planAdapter(graph, "head", config));
  return Object.fromEntries(parameters.map(({ name, shape }) => [name.slice(17), shape]));
}

// The shapes of `_ConvNd.update_layer` in huggingface/peft 0.21.
describe("the factors of a convolution", () => {
  test("are a convolution with its kernel and a 1x1 one", () => {
    expect(shapesOf(graphWith({}), 3)).toEqual({
      "block.conv.lora_A.weight": [3, 8, 3, 2],
      "block.conv.lora_B.weight": [12, 3, 1, 1],
    });
  });

  test("share the groups of the base in B alone", () => {
    expect(shapesOf(graphWith({ groups: 2 }), 4)).toEqual({
      "block.conv.lora_A.weight": [4, 8, 3, 2],
      "block.conv.lora_B.weight": [12, 2, 1, 1],
    });
  });

  test("are refused where the groups do not divide the rank", async () => {
    const error = await errorOf("ERR_UNSUPPORTED", () => shapesOf(graphWith({ groups: 4 }), 6));
    expect(error.message).toContain('"block.conv" has 4 groups, which do not divide the rank 6');
    expect(error.message).toContain("excludeModules");
  });

  test("are refused where the base is dilated, unless its kernel is one pixel", async () => {
    const dilated = graphWith({ dilation: [1, 2] });
    const error = await errorOf("ERR_UNSUPPORTED", () => shapesOf(dilated, 3));
    expect(error.message).toContain('"block.conv" has dilation 1x2');
    expect(Object.keys(shapesOf(graphWith({ kernel: 1, dilation: 2 }), 3))).toHaveLength(2);
  });
});

async function load(name: VisionCase): Promise<Model> {
  return Model.fromPretrained(visionFolder(name), name === "lenet" ? {} : { imageSize: 40 });
}

describe("addAdapter", () => {
  test("does not count convolutions as linear", async () => {
    using model = await load("resnet_basic");
    const error = await errorOf("ERR_TARGET_MODULES", () =>
      model.addAdapter({ targetModules: "all-linear" }),
    );
    expect(error.message).toContain("resnet.embedder.embedder.convolution");
  });

  test("takes every convolution where nothing else is asked for", async () => {
    for (const [name, sites] of [
      ["resnet_basic", 8],
      ["timm_resnet18", 15],
      ["timm_resnet50", 20],
      ["densenet", 17],
      ["lenet", 4],
    ] as const) {
      using model = await load(name);
      await model.addAdapter({ r: 1 });
      const factors = model.parameters().filter(({ group }) => group === "loraA");
      expect(factors, name).toHaveLength(sites);
    }
  });

  test.each([
    ["a convolution", "resnet_basic", { modulesToSave: ["shortcut.convolution"] }, "a convolution"],
    ["a batch norm", "timm_resnet18", { modulesToSave: ["bn1"] }, "a batch norm"],
    ["a module whose output is scaled", "dinov2", { modulesToSave: ["mlp.fc2"] }, "scaled"],
    ["the biases of batch norms", "densenet", { bias: "all" }, "norm"],
    ["the biases of convolutions", "lenet", { bias: "lora_only" }, "a convolution"],
    ["biases whose output is scaled", "dinov2", { bias: "all" }, "scaled"],
  ] as const)("refuses to train %s in full", async (_, name, options, words) => {
    using model = await (name === "dinov2" ? Model.fromPretrained(visionFolder(name)) : load(name));
    const error = await errorOf("ERR_UNSUPPORTED", () => model.addAdapter(options));
    expect(error.message).toContain(words);
    expect(model.parameters()).toEqual([]);
  });
});

describe("training", () => {
  // An update along the gradient, or the filter's, of one sample lowers its own loss.
  test.each<VisionCase>(["resnet_basic", "timm_resnet50", "densenet", "lenet", "dinov2"])(
    "%s learns a sample with LoKO and with AdamW",
    async (name) => {
      const { inputs } = await readVision(name);
      const [, ...sample] = inputs.shape as [number, number, number, number];
      const one = {
        pixelValues: inputs.pixelValues.slice(
          0,
          sample.reduce((a, b) => a * b),
        ),
        shape: [1, ...sample],
      };
      for (const make of [
        (model: Model) => new LoKO(model),
        (model: Model) => new AdamW(model, { lr: 3e-3 }),
      ]) {
        using model = await Model.fromPretrained(visionFolder(name), {
          imageSize: [sample[1]!, sample[2]!],
        });
        await model.addAdapter({ r: 2, loraAlpha: 4 });
        const optimizer = make(model);
        const losses: number[] = [];
        for (let step = 0; step < 30; step++) {
          const { loss, skipped } = await optimizer.step(one, Int32Array.of(2));
          expect(skipped).toBeNull();
          losses.push(loss);
        }
        expect(losses.at(-1)).toBeLessThan(0.5 * losses[0]!);
      }
    },
  );
});

describe("loadAdapter refuses", () => {
  test("the adapter of another net, naming a tensor", async () => {
    using model = await load("resnet_basic");
    const error = await errorOf("ERR_ADAPTER_MISMATCH", () =>
      model.loadAdapter(visionFolder("resnet_early", "adapter")),
    );
    expect(error.message).toContain("lora_");
  });

  test("factors of another kernel", async () => {
    using model = await load("timm_resnet18");
    const error = await errorOf("ERR_ADAPTER_MISMATCH", () =>
      model.loadAdapter(visionFolder("timm_resnet50", "adapter")),
    );
    expect(error.message).toContain("the model needs [r, ");
  });

  test("the adapter of a LeNet with other layers", async () => {
    using model = await load("lenet");
    await errorOf("ERR_ADAPTER_MISMATCH", () =>
      model.loadAdapter(visionFolder("lenet_average", "adapter")),
    );
  });
});
