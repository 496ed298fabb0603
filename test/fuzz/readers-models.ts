// Readers of models, adapters, tokenizers and what a training leaves.
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openSafetensors, readTensor } from "../../lib/io/safetensors.js";
import { Model } from "../../lib/model.js";
import { AdamW } from "../../lib/optim/gradient.js";
import { LoKO } from "../../lib/optim/loko.js";
import type { Optimizer } from "../../lib/optim/optimizer.js";
import { Tokenizer } from "../../lib/text/tokenizer.js";
import { Trainer } from "../../lib/train/trainer.js";
import { sampleOf, samplesOf } from "../unit/train/trainer-fixtures.js";
import { fixtureFolder, fixturePath, type Reader, readFolder } from "./reader.js";

const OPTIONS = { device: "cpu", threads: 1 } as const;

const safetensors: Reader = {
  name: "safetensors",
  originals: ["vision/lenet/base", "text/bert_small/base", "peft/vit/bf16", "peft/bert/plain"].map(
    (folder) => {
      const [file] = [...fixtureFolder(folder)].filter(([name]) => name.endsWith(".safetensors"));
      return new Map([["a.safetensors", file![1]]]);
    },
  ),
  async read(dir) {
    const { tensors } = await openSafetensors(join(dir, "a.safetensors"));
    for (const tensor of tensors.values()) await readTensor(tensor);
  },
};

/** Loads it, predicts and learns with it. */
function models(name: string, folders: readonly string[], targetModules = "all-linear"): Reader {
  return {
    name,
    originals: folders.map(fixtureFolder),
    async read(dir) {
      using model = await Model.fromPretrained(dir, OPTIONS);
      const { inputs, labels } = sampleOf(model, 1);
      using logits = await model.forward(inputs);
      await logits.data();
      await model.addAdapter({ r: 2, targetModules });
      await new LoKO(model).step(inputs, labels);
    },
  };
}

/** @throws where an adapter that was refused has changed the model. */
function adapters(kind: string): Reader {
  const base = fixturePath(`peft/${kind}/base`);
  const folders = readdirSync(fixturePath(`peft/${kind}`), { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name !== "base")
    .map((entry) => `peft/${kind}/${entry.name}`);
  let model: Model | undefined;
  let expected: Float32Array | undefined;
  const predict = async (of: Model) => {
    using logits = await of.forward(sampleOf(of, 1).inputs);
    return Float32Array.from(await logits.data());
  };
  return {
    name: `adapter-${kind}`,
    originals: folders.map(fixtureFolder),
    async read(dir) {
      model ??= await Model.fromPretrained(base, OPTIONS);
      expected ??= await predict(model);
      try {
        await model.loadAdapter(dir, { isTrainable: true });
      } catch (error) {
        const after = await predict(model);
        if (Buffer.compare(Buffer.from(after.buffer), Buffer.from(expected.buffer)) !== 0) {
          throw new Error("a refused adapter has changed the model", { cause: error });
        }
        throw error;
      }
      using adapted = model;
      model = undefined;
      await predict(adapted);
      const { inputs, labels } = sampleOf(adapted, 1);
      await new AdamW(adapted).step(inputs, labels);
    },
  };
}

const TEXTS = [
  "",
  "a b",
  "hello worlds [SEP]",
  "é É\u0301 中国 \u{1f600}",
  "\ud800 <mask>ab?",
  "x".repeat(300),
];

function tokenizers(): Reader {
  const folders = readdirSync(fixturePath("tokenizers"), { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map((entry) => `tokenizers/${entry.name}`);
  return {
    name: "tokenizer",
    originals: folders.map(fixtureFolder),
    async read(dir) {
      const tokenizer = await Tokenizer.fromPretrained(dir);
      const { inputIds } = tokenizer.batch([...TEXTS, ["a", ""]], { maxLength: 12 });
      for (const id of inputIds) {
        if (!(id >= 0 && id < tokenizer.vocabularySize)) throw new Error(`id ${id}`);
      }
    },
  };
}

const ADAPTER = { r: 2, loraAlpha: 4, targetModules: ["query"] };

const KINDS: Readonly<Record<string, (model: Model) => Optimizer>> = {
  loko: (model) => new LoKO(model),
  adamw: (model) => new AdamW(model, { lr: 1e-3 }),
};

/** State of an optimizer after a few steps; a state that is refused must leave θ as it was. */
async function states(kind: keyof typeof KINDS): Promise<Reader> {
  const model = await Model.fromPretrained(fixturePath("vit/odd/base"), OPTIONS);
  await model.addAdapter(ADAPTER);
  const optimizer = KINDS[kind]!(model);
  const { inputs, labels } = sampleOf(model, 1);
  for (let i = 0; i < 3; i++) await optimizer.step(inputs, labels);
  const folder = temporaryFolder();
  const good = join(folder, "optimizer.safetensors");
  await optimizer.saveState(good);
  const theta = Buffer.from((await model.readParameters()).buffer);
  return {
    name: `state-${kind}`,
    originals: [readFolder(folder)],
    async read(dir) {
      try {
        await optimizer.loadState(join(dir, "optimizer.safetensors"));
      } catch (error) {
        const after = Buffer.from((await model.readParameters()).buffer);
        if (!theta.equals(after))
          throw new Error("a refused state has changed θ", { cause: error });
        throw error;
      }
      await optimizer.step(inputs, labels);
      await optimizer.loadState(good);
    },
  };
}

/** A folder of checkpoints, from which a training goes on. */
async function checkpoints(kind: keyof typeof KINDS): Promise<Reader> {
  const model = await Model.fromPretrained(fixturePath("vit/odd/base"), OPTIONS);
  await model.addAdapter(ADAPTER);
  const optimizer = KINDS[kind]!(model);
  const dataset = samplesOf(model, 6);
  const common = { epochs: 2, reportTo: [], progressBar: false, evalDataset: samplesOf(model, 2) };
  const best = { evalStrategy: "steps", evalSteps: 2, earlyStoppingPatience: 100 } as const;
  const folder = temporaryFolder();
  const first = new Trainer(model, optimizer, {
    ...common,
    ...best,
    outputDir: folder,
    saveSteps: 2,
    saveTotalLimit: 2,
  });
  for await (const { type, globalStep } of first.run(dataset)) {
    if (type === "save" && globalStep === 4) break;
  }
  return {
    name: `checkpoint-${kind}`,
    originals: [readFolder(folder)],
    repair: repairManifests,
    async read(outputDir) {
      // Nothing is saved: the folder is that of the case.
      const options = { ...common, ...best, outputDir, saveStrategy: "no" } as const;
      const trainer = new Trainer(model, optimizer, options);
      await trainer.train(dataset, { resumeFromCheckpoint: true });
    },
  };
}

/** Writes the digests of what is there, so that changed files get past the manifest. */
function repairManifests(dir: string): void {
  for (const entry of readdirSync(dir, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    const path = join(dir, entry.name);
    const files = readdirSync(path).filter((name) => name !== "manifest.json");
    const digests = files.map((name) => {
      const bytes = readFileSync(join(path, name));
      const sha256 = createHash("sha256").update(bytes).digest("hex");
      return [name, { size: bytes.length, sha256 }];
    });
    const manifest = { format: 1, files: Object.fromEntries(digests) };
    writeFileSync(join(path, "manifest.json"), JSON.stringify(manifest));
  }
}

const folders: string[] = [];
process.on("exit", () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

/** Removed when the process ends. */
function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "loko-fuzz-"));
  folders.push(folder);
  return folder;
}

export async function modelReaders(): Promise<Reader[]> {
  return [
    safetensors,
    models("model-vit", ["vit/odd/base", "vit/odd/base_sharded", "vision/dinov2/base"]),
    models("model-text", ["text/bert_small/base", "text/roberta_small/base"]),
    models(
      "model-conv",
      ["resnet_basic", "timm_resnet18", "densenet", "lenet"].map((name) => `vision/${name}/base`),
      ".*conv.*",
    ),
    adapters("bert"),
    adapters("vit"),
    adapters("resnet"),
    tokenizers(),
    await states("loko"),
    await states("adamw"),
    await checkpoints("loko"),
    await checkpoints("adamw"),
  ];
}
