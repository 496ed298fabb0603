import { cp, mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { describe, expect, test, vi } from "vitest";

import type { LokoErrorCode } from "../../../lib/errors.js";
import { LoKO, Model, type ModelInputs, SGD } from "../../../lib/index.js";
import { openSafetensors, readTensor } from "../../../lib/io/safetensors.js";
import {
  bytesOf,
  type TensorSource,
  writeSafetensors,
} from "../../../lib/io/safetensors-writer.js";
import { FIXTURES, visionFolder } from "../../parity/fixtures.js";
import { errorOf, temporaryFolder } from "../io/helpers.js";

const fixture = (...path: string[]) => join(FIXTURES, "peft", ...path);
const TEXT: ModelInputs = { inputIds: Int32Array.of(2, 3, 4, 5), shape: [1, 4] };
const PREFIX = "base_model.model.";

async function logitsOf(model: Model): Promise<Float32Array> {
  using logits = await model.forward(TEXT);
  return logits.data();
}

type Config = Record<string, unknown>;
type Tensors = Map<string, TensorSource>;

/** A copy of an adapter folder, with its files changed. */
async function changed(
  name: string,
  edit: { config?: (config: Config) => void; tensors?: (tensors: Tensors) => void },
): Promise<string> {
  const dir = join(await temporaryFolder(), "adapter");
  await cp(fixture(name), dir, { recursive: true });
  const configFile = join(dir, "adapter_config.json");
  const config = JSON.parse(await readFile(configFile, "utf8")) as Config;
  edit.config?.(config);
  await writeFile(configFile, JSON.stringify(config));
  const weights = join(dir, "adapter_model.safetensors");
  const tensors: Tensors = new Map();
  for (const info of (await openSafetensors(weights)).tensors.values()) {
    const bytes = bytesOf(Float32Array.from((await readTensor(info)) as Float32Array));
    tensors.set(info.name, tensor(info.name, info.shape, bytes));
  }
  edit.tensors?.(tensors);
  await writeSafetensors(weights, [...tensors.values()]);
  return dir;
}

function tensor(name: string, shape: readonly number[], bytes?: Uint8Array): TensorSource {
  const size = 4 * shape.reduce((product, extent) => product * extent, 1);
  return { name, shape, dtype: "F32", read: () => bytes ?? new Uint8Array(size) };
}

/** BERT as a checkpoint of another task, without the weights that match. */
async function baseWithout(removed: RegExp): Promise<string> {
  const base = await temporaryFolder();
  await cp(fixture("bert/base"), base, { recursive: true });
  const weights = join(base, "model.safetensors");
  const file = await readFile(weights);
  const kept = [...(await openSafetensors(weights)).tensors.values()]
    .filter(({ name }) => !removed.test(name))
    .map(({ name, shape, byteOffset, byteLength }) =>
      tensor(name, shape, file.subarray(byteOffset, byteOffset + byteLength)),
    );
  await writeSafetensors(weights, kept);
  const config = JSON.parse(await readFile(join(base, "config.json"), "utf8")) as Config;
  config.architectures = ["BertForMaskedLM"];
  await writeFile(join(base, "config.json"), JSON.stringify(config));
  return base;
}

const add = (name: string, shape: readonly number[]) => (tensors: Tensors) =>
  tensors.set(name, tensor(name, shape));

const LAYER = `${PREFIX}bert.encoder.layer.0.attention.self`;

describe("loadAdapter refuses", () => {
  /** Loads into a model, which must then be as it was. */
  async function refusal(
    code: LokoErrorCode,
    dir: string,
    base = fixture("bert/base"),
    options = {},
  ): Promise<string> {
    using model = await Model.fromPretrained(base, options);
    const before = await logitsOf(model);
    const { message } = await errorOf(code, () => model.loadAdapter(dir));
    expect(message).toContain(dir);
    expect(model.parameters()).toEqual([]);
    expect(await logitsOf(model)).toEqual(before);
    await model.addAdapter({ r: 1 });
    return message;
  }

  test("a folder without an adapter, and names the adapters inside it", async () => {
    const parent = await temporaryFolder();
    expect(await refusal("ERR_FILE_NOT_FOUND", join(parent, "x"))).toContain("adapter_config.json");
    await cp(fixture("bert/plain"), join(parent, "mine"), { recursive: true });
    const message = await refusal("ERR_FILE_NOT_FOUND", parent);
    expect(message).toContain(`there are adapters in "${join(parent, "mine")}"`);
  });

  test("a pickle, and says how to convert it", async () => {
    const dir = await changed("bert/plain", {});
    await rm(join(dir, "adapter_model.safetensors"));
    expect(await refusal("ERR_FILE_NOT_FOUND", dir)).toContain("adapter_model.safetensors");
    await writeFile(join(dir, "adapter_model.bin"), "");
    expect(await refusal("ERR_UNSUPPORTED", dir)).toContain("save_pretrained(dir)");
  });

  test("a configuration that is not JSON", async () => {
    const dir = await changed("bert/plain", {});
    await writeFile(join(dir, "adapter_config.json"), "{");
    await refusal("ERR_CONFIG", dir);
  });

  test("an adapter without the head that its task has", async () => {
    const withoutHead = (tensors: Tensors) => tensors.delete(`${PREFIX}classifier.weight`);
    const dir = await changed("bert/plain", { tensors: withoutHead });
    const message = await refusal("ERR_ADAPTER_FORMAT", dir);
    expect(message).toContain(`expected "${PREFIX}classifier.weight"`);
    expect(message).toContain("trained in full");
  });

  test("an adapter that has no head and does not say so, as PEFT does", async () => {
    const dir = await changed("bert/plain", {
      config: (config) => Object.assign(config, { modules_to_save: null }),
      tensors: (tensors) => {
        for (const end of ["weight", "bias"]) tensors.delete(`${PREFIX}classifier.${end}`);
      },
    });
    expect(await refusal("ERR_ADAPTER_FORMAT", dir)).toContain("trained in full");
  });

  test("an adapter without a head for a model that has none", async () => {
    const dir = await changed("bert/plain", {
      config: (config) => Object.assign(config, { task_type: null, modules_to_save: null }),
      tensors: (tensors) => {
        for (const end of ["weight", "bias"]) tensors.delete(`${PREFIX}classifier.${end}`);
      },
    });
    using model = await Model.fromPretrained(fixture("bert/base"));
    await model.loadAdapter(dir); // this one has a head
    const message = await refusal("ERR_ADAPTER_FORMAT", dir, await baseWithout(/classifier/));
    expect(message).toContain('holds no "classifier.weight"');
  });

  test("a rank that is not the one of the configuration", async () => {
    const config = (json: Config) => Object.assign(json, { r: 4 });
    const message = await refusal("ERR_ADAPTER_FORMAT", await changed("bert/plain", { config }));
    expect(message).toContain("has the shape [3,12]");
    expect(message).toContain("the rank 4");
  });

  test.each([
    ["a module that the file has no factors for", ["query", "key", "value"], `${LAYER}.key.lora_A`],
    ["factors of a module that is no target", ["value"], `${LAYER}.query.lora_A.weight`],
  ])("%s", async (_, target_modules, name) => {
    const config = (json: Config) => Object.assign(json, { target_modules });
    const message = await refusal("ERR_ADAPTER_FORMAT", await changed("bert/plain", { config }));
    expect(message).toContain(name);
  });

  test.each([
    ["bert.encoder.layer.0.attention.self.query.lora_A.weight", [3, 12]],
    [`${LAYER}.query.lora_C.weight`, [3, 12]],
    [`${LAYER}.query.base_layer.bias`, [12]],
    [`${PREFIX}score.weight`, [3, 12]],
    ["foreign", [1]],
  ])("the foreign tensor %s", async (name, shape) => {
    const dir = await changed("bert/plain", { tensors: add(name, shape) });
    expect(await refusal("ERR_ADAPTER_FORMAT", dir)).toContain(`"${name}"`);
  });

  test.each([
    [`${LAYER}.query.lora_magnitude_vector`, "DoRA"],
    [`${LAYER}.query.lora_magnitude_vector.weight`, "DoRA"],
    [`${LAYER}.query.lora_B.bias`, "lora_bias"],
    [`${LAYER}.query.lora_E`, "AdaLoRA"],
    [`${LAYER}.query.ia3_l`, "IA3"],
    [`${PREFIX}bert.embeddings.word_embeddings.lora_embedding_A`, "LoRA on embeddings"],
    [`${PREFIX}bert.embeddings.LayerNorm.lora_A.weight`, "not a linear module"],
    [`${PREFIX}bert.embeddings.LayerNorm.weight`, "not a linear module"],
  ])("%s, which belongs to %s", async (name, feature) => {
    using model = await Model.fromPretrained(fixture("bert/base"));
    const dir = await changed("bert/plain", { tensors: add(name, [12]) });
    const { message } = await errorOf("ERR_UNSUPPORTED", () => model.loadAdapter(dir));
    expect(message).toContain(feature);
    expect(message).toContain(name.replace(PREFIX, "").replace(/\.weight$/, ""));
    expect(model.parameters()).toEqual([]);
  });

  test("a feature that the configuration asks for", async () => {
    const config = (json: Config) => Object.assign(json, { use_dora: true });
    const message = await refusal("ERR_UNSUPPORTED", await changed("bert/plain", { config }));
    expect(message).toContain('"use_dora": true');
  });

  test("an adapter for another model, and names the tensor, the model's and the base", async () => {
    const config = (json: Config) => Object.assign(json, { base_model_name_or_path: "roberta-x" });
    const roberta = await changed("roberta/plain", { config });
    const message = await refusal("ERR_ADAPTER_MISMATCH", roberta);
    expect(message).toContain(
      `"${PREFIX}roberta.encoder.layer.0.attention.self.query.lora_A.weight"`,
    );
    expect(message).toContain('"bert.encoder.layer.0.attention.self.query"');
    expect(message).toContain('"roberta-x"');
  });

  test("an adapter for a model of another size", async () => {
    const larger = join(FIXTURES, "text/bert_small/base");
    using model = await Model.fromPretrained(larger);
    const width = model.runtime.graph.linears[0]!.inFeatures;
    const dir = await changed("bert/plain", {});
    const { message } = await errorOf("ERR_ADAPTER_MISMATCH", () => model.loadAdapter(dir));
    expect(message).toContain(`has the shape [3,12], and the model needs [r, ${width}]`);
  });

  test("a head with another number of labels, and says which the model needs", async () => {
    const dir = await changed("bert/plain", {});
    const options = { numLabels: 5, ignoreMismatchedSizes: true };
    const message = await refusal("ERR_ADAPTER_MISMATCH", dir, fixture("bert/base"), options);
    expect(message).toContain(
      `"${PREFIX}classifier.weight" has the shape [3,12], and the model's is [5,12]`,
    );
    expect(message).toContain("numLabels: 3");
  });

  test("numbers that are not finite", async () => {
    const name = `${LAYER}.query.lora_A.weight`;
    const bytes = bytesOf(new Float32Array(36).fill(Number.NaN, 7, 8));
    const tensors = (all: Tensors) => all.set(name, tensor(name, [3, 12], bytes));
    const message = await refusal(
      "ERR_WEIGHT_NOT_FINITE",
      await changed("bert/plain", { tensors }),
    );
    expect(message).toContain(`"${name}" holds NaN at element 7`);
  });

  test("a file that is cut short", async () => {
    const dir = await changed("bert/plain", {});
    const weights = join(dir, "adapter_model.safetensors");
    await writeFile(weights, (await readFile(weights)).subarray(0, -4));
    await refusal("ERR_SAFETENSORS_TRUNCATED", dir);
  });

  test("two names of one tensor that hold different values", async () => {
    const name = `${PREFIX}vit.layers.0.attention.q_proj.lora_A.weight`;
    const tensors = (all: Tensors) => all.set(name, tensor(name, all.get(name)!.shape));
    const dir = await changed("vit/both", { tensors });
    using model = await Model.fromPretrained(fixture("vit/base"));
    const { message } = await errorOf("ERR_ADAPTER_FORMAT", () => model.loadAdapter(dir));
    expect(message).toContain("are names of one tensor, and hold different values");
    expect(message).toContain(name);
  });

  test("a second adapter, bad arguments, and a model that is gone", async () => {
    using model = await Model.fromPretrained(fixture("bert/base"));
    await errorOf("ERR_INPUT_TYPE", () => model.loadAdapter(3 as unknown as string));
    await errorOf("ERR_OPTION", () => model.loadAdapter("x", { trainable: true } as object));
    await model.loadAdapter(fixture("bert/plain"));
    await errorOf("ERR_LORA_CONFIG", () => model.loadAdapter(fixture("bert/plain")));
    model.dispose();
    await errorOf("ERR_DISPOSED", () => model.loadAdapter(fixture("bert/plain")));
  });

  test("to leave half an adapter when the values cannot be written", async () => {
    using model = await Model.fromPretrained(fixture("bert/base"));
    const before = await logitsOf(model);
    const { runtime } = model;
    const run = runtime.run.bind(runtime);
    let calls = 0;
    vi.spyOn(runtime, "run").mockImplementation((action) => {
      calls++;
      return calls === 2 ? Promise.reject(new Error("no memory")) : run(action);
    });
    await expect(model.loadAdapter(fixture("bert/plain"))).rejects.toThrow("no memory");
    expect(model.parameters()).toEqual([]);
    expect(await model.readParameters()).toHaveLength(0); // native code counts as well
    expect(await logitsOf(model)).toEqual(before);
  });
});

describe("loadAdapter", () => {
  test("says what it found", async () => {
    using model = await Model.fromPretrained(fixture("bert/base"));
    const summary = await model.loadAdapter(fixture("bert/saved_modules"));
    expect(summary).toEqual({
      adaptedModules: [0, 1].flatMap((layer) =>
        ["query", "value"].map((name) => `bert.encoder.layer.${layer}.attention.self.${name}`),
      ),
      savedModules: [
        "bert.encoder.layer.0.intermediate.dense",
        "bert.encoder.layer.1.intermediate.dense",
        "classifier",
      ],
      baseModel: "../base",
      unknownKeys: [],
    });
  });

  test("tells Python's users how to open one with a new head", async () => {
    const dir = join(await temporaryFolder(), "adapter");
    const options = { numLabels: 5, ignoreMismatchedSizes: true };
    using model = await Model.fromPretrained(fixture("bert/base"), options);
    await model.addAdapter();
    await model.saveAdapter(dir);
    expect(await readFile(join(dir, "README.md"), "utf8")).toContain(
      "num_labels=5, ignore_mismatched_sizes=True)",
    );
  });

  test.each([
    [
      "timm",
      "timm_resnet18",
      'timm.create_model("local-dir:',
      "num_classes=3)",
      "torchvision.models.resnet18(",
    ],
    [
      "the module of the user",
      "lenet",
      "base = LeNet5(...)",
      "load_model(base, ",
      "/model.safetensors",
    ],
    [
      "transformers",
      "resnet_basic",
      "ResNetForImageClassification.from_pretrained(",
      "num_labels=3)",
      "import ResNetForImageClassification",
    ],
  ] as const)("tells how to open one with %s", async (_, name, ...words) => {
    const dir = join(await temporaryFolder(), "adapter");
    using model = await Model.fromPretrained(visionFolder(name), {});
    await model.addAdapter({ r: 1 });
    await model.saveAdapter(dir);
    const card = await readFile(join(dir, "README.md"), "utf8");
    for (const word of words) expect(card).toContain(word);
    const { auto_mapping: mapping } = JSON.parse(
      await readFile(join(dir, "adapter_config.json"), "utf8"),
    );
    const modules = {
      timm_resnet18: { base_model_class: "ResNet", parent_library: "timm.models.resnet" },
      lenet: null,
      resnet_basic: {
        base_model_class: "ResNetForImageClassification",
        parent_library: "transformers.models.resnet.modeling_resnet",
      },
    };
    expect(mapping).toEqual(modules[name]);
  });

  test("names the base model by its absolute path, however it was given", async () => {
    const parent = await temporaryFolder();
    using model = await Model.fromPretrained(relative(process.cwd(), fixture("bert/base")));
    expect(model.directory).toBe(fixture("bert/base"));
    await model.addAdapter();
    const dir = join(parent, "adapter");
    await model.saveAdapter(dir);
    const config = JSON.parse(await readFile(join(dir, "adapter_config.json"), "utf8"));
    expect(config.base_model_name_or_path).toBe(fixture("bert/base"));
  });

  test("freezes the adapter unless it is to be trained, as PEFT does", async () => {
    const labels = Int32Array.of(1);
    for (const Optimizer of [LoKO, SGD]) {
      using frozen = await Model.fromPretrained(fixture("bert/base"));
      await frozen.loadAdapter(fixture("bert/plain"));
      const error = await errorOf("ERR_NO_TRAINABLE_PARAMETERS", () => new Optimizer(frozen));
      expect(error.message).toContain("isTrainable: true");
      expect(frozen.parameterCounts().trainable).toBe(0);
    }
    using model = await Model.fromPretrained(fixture("bert/base"));
    await model.loadAdapter(fixture("bert/plain"), { isTrainable: true });
    expect(model.parameterCounts().trainable).toBe(
      model.parameters().reduce((n, { size }) => n + size, 0),
    );
    const before = await model.readParameters();
    await new LoKO(model).step(TEXT, labels);
    expect(await model.readParameters()).not.toEqual(before);
  });

  test("warns of unknown keys, and of dropout where it would be trained", async () => {
    const emit = vi.spyOn(process, "emitWarning").mockImplementation(() => {});
    const codes = () => emit.mock.calls.map(([, options]) => (options as { code: string }).code);
    const load = async (name: string, isTrainable: boolean) => {
      using model = await Model.fromPretrained(fixture("bert/base"));
      await model.loadAdapter(fixture("bert", name), { isTrainable });
    };
    await load("dropout", false);
    expect(codes()).toEqual([]);
    await load("dropout", true);
    expect(codes()).toEqual(["LOKO_ADAPTER_DROPOUT"]);
    await load("unknown_key", false);
    expect(codes()).toEqual(["LOKO_ADAPTER_DROPOUT", "LOKO_ADAPTER_KEYS"]);
    expect(String(emit.mock.calls[1]![0])).toContain("a_key_of_the_future");
    emit.mockRestore();
  });

  test("tolerates dead entries, as PEFT does", async () => {
    const dir = await changed("bert/plain", {
      config: (json) =>
        Object.assign(json, {
          target_modules: ["query", "value", "q_proj"],
          rank_pattern: { k: 9 },
        }),
    });
    using model = await Model.fromPretrained(fixture("bert/base"));
    expect((await model.loadAdapter(dir)).adaptedModules).toHaveLength(4);
  });

  test("applies patterns to the names that the file has", async () => {
    // The targets are there in both namings, the patterns in that of version 5 alone.
    const config = (json: Config) =>
      Object.assign(json, { target_modules: ".*(q_proj|v_proj|query|value)" });
    const dir = await changed("vit/patterns", { config });
    using model = await Model.fromPretrained(fixture("vit/base"));
    await model.loadAdapter(dir);
    const sites = model.runtime.layout!.plan.sites.slice(0, 2);
    expect(sites.map(({ r, alpha }) => [r, alpha])).toEqual([
      [3, 7.5],
      [4, 5],
    ]);
  });

  test("reads the names of one version of transformers and the targets of the other", async () => {
    const config = (json: Config) => Object.assign(json, { target_modules: ["q_proj", "v_proj"] });
    const mixed = await changed("vit/v4", { config });
    using model = await Model.fromPretrained(fixture("vit/base"));
    await model.loadAdapter(mixed);
    using other = await Model.fromPretrained(fixture("vit/base"));
    await other.loadAdapter(fixture("vit/plain"));
    expect(await model.readParameters()).toEqual(await other.readParameters());
  });
});

describe("saveAdapter", () => {
  async function save(model: Model, options = {}): Promise<string> {
    const dir = join(await temporaryFolder(), "adapter");
    await model.saveAdapter(dir, options);
    return dir;
  }
  const readConfig = async (dir: string): Promise<Config> =>
    JSON.parse(await readFile(join(dir, "adapter_config.json"), "utf8"));
  const namesIn = async (dir: string) => [
    ...(await openSafetensors(join(dir, "adapter_model.safetensors"))).tensors.keys(),
  ];

  test("writes the files, keys, names and bytes that PEFT wrote", async () => {
    using model = await Model.fromPretrained(fixture("bert/base"));
    await model.loadAdapter(fixture("bert/plain"));
    const dir = await save(model);
    expect((await readdir(dir)).sort()).toEqual([
      "README.md",
      "adapter_config.json",
      "adapter_model.safetensors",
    ]);
    const weights = "adapter_model.safetensors";
    expect(await readFile(join(dir, weights))).toEqual(
      await readFile(fixture("bert/plain", weights)),
    );
    const reference = JSON.parse(
      await readFile(fixture("bert/plain/adapter_config.json"), "utf8"),
    ) as Config;
    expect(await readConfig(dir)).toEqual({
      ...reference,
      base_model_name_or_path: fixture("bert/base"),
      modules_to_save: ["classifier"],
    });
  });

  test("names a ViT's class, and its modules as both versions of transformers do", async () => {
    using model = await Model.fromPretrained(fixture("vit/base"));
    await model.addAdapter({ r: 2 });
    const both = await save(model);
    expect(await readConfig(both)).toMatchObject({
      task_type: null,
      auto_mapping: {
        base_model_class: "ViTForImageClassification",
        parent_library: "transformers.models.vit.modeling_vit",
      },
      target_modules: ["query", "value", "q_proj", "v_proj"],
    });
    const v4 = await namesIn(await save(model, { dialect: "v4" }));
    const v5 = await namesIn(await save(model, { dialect: "v5" }));
    expect(v4.sort()).toEqual((await namesIn(fixture("vit/v4"))).sort());
    expect(v5.sort()).toEqual((await namesIn(fixture("vit/plain"))).sort());
    expect((await namesIn(both)).sort()).toEqual((await namesIn(fixture("vit/both"))).sort());
  });

  test("repeats no name of an adapter that spoke in both namings already", async () => {
    using model = await Model.fromPretrained(fixture("vit/base"));
    await model.loadAdapter(fixture("vit/both"));
    const { target_modules } = await readConfig(await save(model));
    expect(target_modules).toEqual(["query", "q_proj", "value", "v_proj"]);
  });

  test("always holds the head of a text model, trained or not", async () => {
    using model = await Model.fromPretrained(fixture("roberta/base"));
    await model.addAdapter({ r: 2, modulesToSave: ["classifier.out_proj"] });
    const dir = await save(model);
    expect((await readConfig(dir)).modules_to_save).toEqual(["classifier"]);
    const head = (await namesIn(dir)).filter((name) => name.includes("classifier"));
    const all = ["dense.bias", "dense.weight", "out_proj.bias", "out_proj.weight"];
    expect(head).toEqual(all.map((name) => `${PREFIX}classifier.${name}`));
  });

  test("holds a frozen head once where its bias is trained", async () => {
    using model = await Model.fromPretrained(fixture("bert/base"));
    await model.addAdapter({ r: 1, bias: "all", modulesToSave: [], initLoraWeights: false });
    const theta = await model.readParameters();
    await model.writeParameters(theta.map((value) => value + 0.25));
    const dir = await save(model);
    using again = await Model.fromPretrained(fixture("bert/base"));
    await again.loadAdapter(dir);
    expect(await logitsOf(again)).toEqual(await logitsOf(model));
  });

  test("holds a head that was drawn, trained or not", async () => {
    using model = await Model.fromPretrained(join(FIXTURES, "vit/odd/headless"));
    await model.addAdapter({ r: 2, modulesToSave: [] });
    const dir = await save(model);
    expect((await readConfig(dir)).modules_to_save).toEqual(["classifier"]);
    expect(await namesIn(dir)).toContain(`${PREFIX}classifier.weight`);
    await errorOf("ERR_ADAPTER_MISMATCH", async () => {
      using other = await Model.fromPretrained(fixture("vit/base"));
      await other.loadAdapter(dir);
    });
  });

  test("refuses new weights that PEFT has no place for", async () => {
    const base = await baseWithout(/pooler|classifier/);
    using model = await Model.fromPretrained(base);
    expect(model.newWeights).toContain("bert.pooler.dense.weight");
    await model.addAdapter({ r: 2, targetModules: "all-linear" });
    const dir = join(await temporaryFolder(), "adapter");
    const error = await errorOf("ERR_UNSUPPORTED", () => model.saveAdapter(dir));
    expect(error.message).toContain("bert.pooler.dense");
  });

  test("refuses a model without an adapter, an occupied folder and bad arguments", async () => {
    const dir = await temporaryFolder();
    using model = await Model.fromPretrained(fixture("bert/base"));
    const error = await errorOf("ERR_LORA_CONFIG", () => model.saveAdapter(dir));
    expect(error.message).toContain("addAdapter or loadAdapter");
    await model.addAdapter();
    await writeFile(join(dir, "mine"), "");
    await errorOf("ERR_OUTPUT_EXISTS", () => model.saveAdapter(dir));
    await model.saveAdapter(dir, { overwrite: true });
    await model.saveAdapter(dir, { overwrite: true });
    expect(await readdir(dir)).toContain("mine");
    await rename(join(dir, "mine"), join(dir, "config.json"));
    await errorOf("ERR_OUTPUT_EXISTS", () => model.saveAdapter(dir, { overwrite: true }));
    await errorOf("ERR_OPTION", () => model.saveAdapter(dir, { dialect: "v6" } as object));
    await errorOf("ERR_INPUT_TYPE", () => model.saveAdapter(""));
    await mkdir(join(dir, "empty"));
    await model.saveAdapter(join(dir, "empty"));
  });
});

describe("trained biases", () => {
  test.each(["lora_only", "all"] as const)(
    "%s: the Jacobian is that of the biases",
    async (bias) => {
      // Central differences in float64 arithmetic; θ itself is float32, so h is a power of two.
      const h = 2 ** -9;
      using model = await Model.fromPretrained(fixture("bert/base"), { device: "ref" });
      await model.addAdapter({ r: 1, bias, initLoraWeights: false });
      const theta = await model.readParameters();
      using jacobian = await model.jacobian(TEXT);
      const [, m, n] = jacobian.shape as [number, number, number];
      const exact = await jacobian.data();
      const biases = model.parameters().filter(({ group }) => group === "bias");
      const graph = model.runtime.graph.weights.filter(({ name }) => name.endsWith(".bias"));
      // Every bias but that of the head, which is trained in full; those of query and value of 2 layers.
      expect(biases).toHaveLength(bias === "all" ? graph.length - 1 : 4);
      for (const { name, offset, size } of biases) {
        const index = offset + (size >> 1);
        const at = async (step: number) => {
          await model.writeParameters(
            theta.map((value, i) => (i === index ? value + step : value)),
          );
          return logitsOf(model);
        };
        const [plus, minus] = [await at(h), await at(-h)];
        for (let row = 0; row < m; row++) {
          const difference = (plus[row]! - minus[row]!) / (2 * h);
          // Rounding of the logits to float32 is 1e-7 / h, the rest is h².
          expect(Math.abs(difference - exact[row * n + index]!), name).toBeLessThan(5e-4);
        }
      }
    },
  );
});
