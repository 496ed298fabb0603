// The folders in which the documentation's code runs: small stand-ins for the models and data that it names.
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import sharp from "sharp";
import { expect } from "vitest";
import { openSafetensors } from "../../lib/io/safetensors.js";
import { Model } from "../../lib/model.js";
import { vitConfig, writeCheckpoint } from "../process/synthetic.js";
import { writeSentences, writeSyntheticBert } from "../process/synthetic-bert.js";
import { imageFile } from "../unit/images/helpers.js";
import { ROOT } from "./blocks.js";

export interface Scenario {
  /** Fills the empty folder. */
  prepare(dir: string): void | Promise<void>;
  /** Looks at what the scenario has printed and left; that it ended without an error is known. */
  check?(dir: string, lines: readonly string[]): void | Promise<void>;
}

const LABELS = ["negative", "positive"];

/** A BERT that reads the sentences of synthetic-bert.ts. */
function writeBert(dir: string, hidden = 32): void {
  writeSyntheticBert(dir, { hidden, layers: 2, heads: 4, labels: LABELS });
}

function writeVit(dir: string, size: { image: number; labels: number; hidden?: number }): void {
  const { image, labels, hidden = 16 } = size;
  writeCheckpoint(dir, vitConfig({ hidden, layers: 1, heads: 2, image, patch: image / 2, labels }));
  const processor = { image_processor_type: "ViTImageProcessor", size: image, resample: 2 };
  writeFileSync(join(dir, "preprocessor_config.json"), JSON.stringify(processor));
}

/** Photographs of two classes, `count` copies of one for each. */
function writePets(dir: string, count: number): void {
  for (const [label, file] of [
    ["bengal", "photo-444.jpg"],
    ["boxer", "rgb.png"],
  ] as const) {
    mkdirSync(join(dir, label), { recursive: true });
    for (let i = 0; i < count; i++) {
      cpSync(imageFile(file), join(dir, label, `${i}${file.slice(-4)}`));
    }
  }
}

/** Noise of one colour for each class. */
async function writeColours(dir: string, count: number, seed: number): Promise<void> {
  for (const [name, channel] of [
    ["red", 0],
    ["blue", 2],
  ] as const) {
    mkdirSync(join(dir, name), { recursive: true });
    for (let i = 0; i < count; i++) {
      const data = Uint8Array.from({ length: 20 * 24 * 3 }, (_, at) =>
        at % 3 === channel ? 200 + ((at * 31 + i * 17 + seed) % 50) : (at * 13 + i * 7 + seed) % 60,
      );
      const image = sharp(data, { raw: { width: 24, height: 20, channels: 3 } });
      await image.jpeg({ quality: 95 }).toFile(join(dir, name, `${i}.jpg`));
    }
  }
}

/** What the outputs in docs/cli.md are of. */
function prepareTexts(dir: string): void {
  writeBert(join(dir, "bert"), 64);
  writeSentences(join(dir, "train.tsv"), 2000, 1);
  writeSentences(join(dir, "dev.tsv"), 300, 99);
}

function prepareSst2(dir: string): void {
  writeBert(join(dir, "bert-base-uncased"));
  mkdirSync(join(dir, "SST-2"));
  writeSentences(join(dir, "SST-2/train.tsv"), 50);
}

const checkpointsIn = (dir: string) =>
  readdirSync(dir).filter((name) => name.startsWith("checkpoint-"));

/** The examples of this repository, under the path that the documentation names. */
function linkExamples(dir: string): void {
  symlinkSync(join(ROOT, "examples"), join(dir, "examples"));
}

const adapterOf = async (dir: string) => {
  const { tensors } = await openSafetensors(join(dir, "adapter_model.safetensors"));
  return tensors;
};

/** A model whose merged weights were saved predicts what the base model with the adapter predicts. */
async function expectMerged(base: string, adapter: string, merged: string): Promise<void> {
  using whole = await Model.fromPretrained(merged);
  expect(whole.id2label).toEqual(LABELS);
  using parts = await Model.fromPretrained(base);
  await parts.loadAdapter(adapter);
  const inputs = { inputIds: Int32Array.of(2, 7, 9, 3), shape: [1, 4] };
  const expected = await (await parts.forward(inputs)).data();
  const actual = await (await whole.forward(inputs)).data();
  // Merging rounds each weight once.
  actual.forEach((logit, i) => {
    expect(Math.abs(logit - expected[i]!)).toBeLessThan(1e-5);
  });
}

export const SCENARIOS: Readonly<Record<string, Scenario>> = {
  /** The quickstart's ViT. */
  "vit-stream": {
    prepare: linkExamples,
    check(_, lines) {
      const accuracies = lines.map((line) => Number(/^\d00 (0\.\d{3})$/.exec(line)![1]));
      expect(accuracies).toHaveLength(4);
      // Chance is 0.1.
      expect(accuracies.at(-1)).toBeGreaterThan(0.3);
    },
  },
  /** From a file of texts to a merged model. */
  sst2: {
    prepare: prepareSst2,
    async check(dir, lines) {
      expect(lines).toHaveLength(50);
      const path = (name: string) => join(dir, name);
      await expectMerged(path("bert-base-uncased"), path("sst2-adapter"), path("sst2-model"));
    },
  },
  "readme-cli": {
    prepare: prepareSst2,
    async check(dir) {
      expect((await adapterOf(join(dir, "sst2-adapter"))).size).toBeGreaterThan(0);
    },
  },
  /** Two images to label. */
  "vit-files": {
    prepare(dir) {
      writeVit(join(dir, "vit-base-patch16-224"), { image: 32, labels: 3 });
      cpSync(imageFile("photo-420.jpg"), join(dir, "cat.jpg"));
      cpSync(imageFile("tall.png"), join(dir, "dog.png"));
    },
    check(_, lines) {
      expect(lines).toHaveLength(2);
      for (const line of lines) expect(line).toMatch(/^LABEL_[012]$/);
    },
  },
  /** 120 photographs of two classes, for a model of three. */
  "vit-pets": {
    prepare(dir) {
      writeVit(join(dir, "vit-base-patch16-224"), { image: 32, labels: 3 });
      writePets(join(dir, "pets/train"), 60);
    },
    async check(dir, [progress, classes]) {
      expect(progress).toMatch(/^100 [01]\.\d{3}$/);
      expect(classes).toBe("bengal,boxer");
      const tensors = await adapterOf(join(dir, "pets-adapter"));
      expect(tensors.get("base_model.model.classifier.weight")!.shape).toEqual([2, 16]);
    },
  },
  /** A BERT and files of its sentences, for the Trainer. */
  training: {
    prepare(dir) {
      writeBert(join(dir, "bert"));
      writeSentences(join(dir, "train.tsv"), 3200, 1);
      writeSentences(join(dir, "dev.tsv"), 40, 99);
    },
    check(dir, [loss, ...rest]) {
      // Of two classes, and log 2 is chance.
      expect(Number(loss)).toBeLessThan(Math.log(2) + 0.1);
      expect(rest.join()).toContain("learning_rate");
      expect(checkpointsIn(join(dir, "run"))).toHaveLength(2);
      expect(readdirSync(join(dir, "adapter"))).toContain("adapter_model.safetensors");
    },
  },
  /** The same for a program of a few steps. */
  bert: {
    prepare(dir) {
      writeBert(join(dir, "bert"));
      writeSentences(join(dir, "train.tsv"), 200, 1);
      writeSentences(join(dir, "dev.tsv"), 40, 99);
    },
  },
  "cli-texts": {
    prepare: prepareTexts,
    check(dir) {
      const results = JSON.parse(readFileSync(join(dir, "adapter/results.json"), "utf8"));
      expect(results.status).toBe("completed");
    },
  },
  /** Also a file of options with a misspelt name. */
  "cli-run-file": {
    prepare(dir) {
      prepareTexts(dir);
      writeFileSync(join(dir, "misspelt.json"), '{ "model": "./bert", "batchsize": 16 }');
    },
  },
  "cli-long-run": {
    prepare: prepareTexts,
    check(dir) {
      expect(checkpointsIn(join(dir, "adapter-checkpoints"))).toHaveLength(2);
    },
  },
  "cli-images": {
    async prepare(dir) {
      writeVit(join(dir, "vit"), { image: 16, labels: 2, hidden: 32 });
      await writeColours(join(dir, "colours/train"), 60, 1);
      await writeColours(join(dir, "colours/val"), 10, 100);
    },
  },
  /** A filter of one parameter, which equals batch Bayes: precision 1 + Σx²/R, mean Σxy/R over it. */
  "one-parameter": {
    prepare: () => {},
    check(_, lines) {
      const precision = 1 + (1 + 4 + 1 + 9) / 0.1;
      const theta = (2.1 + 7.8 + 2.2 + 18.3) / 0.1 / precision;
      expect(lines).toEqual([`${theta.toFixed(3)} ${(1 / precision).toFixed(4)}`]);
    },
  },
  /** What is printed is of the machine. */
  machine: { prepare: () => {} },
  /** No files at all. */
  empty: { prepare: () => {} },
};
