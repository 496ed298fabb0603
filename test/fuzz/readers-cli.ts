// The configuration file of `loko train`.
import { join } from "node:path";
import { Command } from "commander";
import { checkOptimizer } from "../../lib/cli/optimizers.js";
import { SharedOptions } from "../../lib/cli/options.js";
import { addTrainOptions, readTrainOptions } from "../../lib/cli/train.js";
import type { Files, Reader } from "./reader.js";

/** A value of every kind that an option may have. */
const CONFIGS = [
  { model: "bert", train: "train.tsv", output: "adapter" },
  {
    model: "bert",
    train: "train.tsv",
    eval: "dev.tsv",
    output: "adapter",
    overwrite: true,
    optimizer: "adamw",
    optimizerOptions: { weightDecay: 0.01, betas: [0.9, 0.999] },
    lr: 1e-4,
    epochs: 3,
    batchSize: 16,
    maxSteps: 1000,
    seed: 7,
    lrSchedulerType: "linear",
    warmupSteps: 0.1,
    maxGradNorm: 1,
    saveEvery: 100,
    saveTotalLimit: 2,
    resume: true,
    r: 4,
    loraAlpha: 8,
    targetModules: ["query", "value"],
    modulesToSave: ["classifier"],
    bias: "lora_only",
    useRslora: true,
  },
  {
    model: "vit",
    adapter: "adapter",
    device: "cpu",
    threads: 1,
    numLabels: 37,
    ignoreMismatchedSizes: true,
    train: "pets",
    format: "folder",
    workers: 2,
    onError: "skip",
    unlistedClasses: "skip",
    output: "out",
    metrics: ["accuracy", "f1"],
    targetModules: "all-linear",
    evalEvery: 10,
    earlyStoppingPatience: 3,
    loadBest: true,
    checkpointDir: "checkpoints",
    resume: "checkpoints/checkpoint-10",
    logDir: "runs",
    logEvery: 1,
    json: true,
  },
];

/** Read and checked, not followed: what a changed path names is no business of a fuzzer. */
export const trainConfig: Reader = {
  name: "train-config",
  originals: CONFIGS.map((config): Files => {
    return new Map([["run.json", Buffer.from(JSON.stringify(config))]]);
  }),
  async read(dir) {
    const options = addTrainOptions(new SharedOptions(new Command("train")));
    const given = await readTrainOptions(options, join(dir, "run.json"));
    for (const path of [given.model, given.train, given.output]) {
      if (typeof path !== "string" || path === "") throw new Error("a path that is none");
    }
    for (const size of [given.epochs, given.batchSize, given.logEvery]) {
      if (!Number.isSafeInteger(size) || size < 1) throw new Error(`a size of ${size}`);
    }
    checkOptimizer(given);
  },
};
