import type { Command } from "commander";
import { readJsonObject } from "../io/json.js";
import { nonNegativeNumber, positiveNumber } from "../options.js";
import type { LearningRateSchedule } from "../train/trainer-options.js";
import { OPTIMIZERS } from "./optimizers.js";
import {
  addCommonOptions,
  addDataOptions,
  addLabelOptions,
  addModelOptions,
  choice,
  type DataOptions,
  integer,
  type LabelOptions,
  list,
  listOr,
  type ModelCommandOptions,
  number,
  object,
  resume,
  SharedOptions,
  text,
} from "./options.js";

/** What `loko train` runs with, after flags, file and defaults. */
export interface TrainOptions extends ModelCommandOptions, DataOptions, LabelOptions {
  readonly train: string;
  readonly eval?: string;
  readonly output: string;
  readonly overwrite?: boolean;
  readonly optimizer: keyof typeof OPTIMIZERS;
  readonly lr?: number;
  readonly optimizerOptions?: object;
  readonly epochs: number;
  readonly batchSize: number;
  readonly maxSteps?: number;
  readonly seed: number;
  readonly gradientAccumulationSteps?: number;
  readonly lrSchedulerType?: LearningRateSchedule;
  readonly warmupSteps?: number;
  readonly maxGradNorm?: number;
  readonly evalEvery?: number;
  readonly earlyStoppingPatience?: number;
  readonly loadBest?: boolean;
  readonly saveEvery?: number;
  readonly saveTotalLimit?: number;
  readonly checkpointDir?: string;
  readonly resume?: string | true;
  readonly logDir?: string;
  readonly logEvery: number;
  readonly r?: number;
  readonly loraAlpha?: number;
  readonly targetModules?: string | readonly string[];
  readonly modulesToSave?: readonly string[];
  readonly bias?: "none" | "all" | "lora_only";
  readonly useRslora?: boolean;
}

const EXAMPLES = `
Examples:
  loko train --model ./bert --train train.tsv --output adapter
  loko train --model ./vit --train pets/train --eval pets/val --output adapter \\
    --num-labels 37 --ignore-mismatched-sizes
  loko train run.json --lr 1e-4
  loko train run.json --save-every 500 --save-total-limit 2 --resume

A configuration file has the same names in camelCase, and flags win:
  { "model": "./bert", "train": "train.tsv", "output": "adapter",
    "optimizer": "adamw", "batchSize": 16, "targetModules": ["query", "value"] }

Ctrl-C finishes the running step and saves the adapter; a second one ends at once.`;

export function define(command: Command): void {
  command.argument("[config]", "JSON file with options").addHelpText("after", EXAMPLES);
  const options = addTrainOptions(new SharedOptions(command));
  command.action(async (config: string | undefined) => {
    const given = await readTrainOptions(options, config);
    const { train } = await import("./training.js");
    await train(given);
  });
}

/** Those of the flags and, where there is one, of a configuration file. */
export async function readTrainOptions(
  options: SharedOptions,
  config: string | undefined,
): Promise<TrainOptions> {
  const file =
    config === undefined ? undefined : { path: config, values: await readJsonObject(config) };
  return options.resolve<TrainOptions>(["model", "train", "output"], file);
}

export function addTrainOptions(options: SharedOptions): SharedOptions {
  addModelOptions(options)
    .group("Data:")
    .value("--train <path>", "examples: TSV, CSV, JSON lines, Parquet; images (see --format)", text)
    .value("--eval <path>", "held-out examples", text);
  addLabelOptions(addDataOptions(options))
    .group("Training:")
    .value("--output <dir>", "folder for the adapter and results.json", text)
    .flag("--overwrite", "replace an adapter that is there")
    .value(
      "--optimizer <name>",
      Object.keys(OPTIMIZERS).join(", "),
      choice(...Object.keys(OPTIMIZERS)),
      "loko",
    )
    .value("--lr <number>", "learning rate; LoKO has none", number(nonNegativeNumber))
    .value("--optimizer-options <json>", "other options of the optimizer's class", object)
    .value("--epochs <n>", "passes over the examples", integer(1), 1)
    .value("--batch-size <n>", "examples of a step; LoKO is made for 1", integer(1, 2 ** 16), 1)
    .value("--max-steps <n>", "stop after this many steps", integer(1))
    .value("--seed <n>", "of the order, of a new head and of the adapter", integer(0), 0)
    .value("--gradient-accumulation-steps <n>", "batches of a step (default: 1)", integer(1))
    .value(
      "--lr-scheduler-type <name>",
      "constant (default), constant_with_warmup, linear, cosine",
      choice("constant", "constant_with_warmup", "linear", "cosine"),
    )
    .value("--warmup-steps <n>", "or, below 1, their share of all steps", number(nonNegativeNumber))
    .value(
      "--max-grad-norm <number>",
      "clip gradients (default: 0, off)",
      number(nonNegativeNumber),
    )
    .group("While training:")
    .value("--save-every <n>", "steps between checkpoints (default: none)", integer(1))
    .value("--save-total-limit <n>", "keep this many, the newest and the best", integer(1))
    .value(
      "--checkpoint-dir <dir>",
      "for checkpoints and report.html (default: OUTPUT-checkpoints)",
      text,
    )
    .value("--resume [checkpoint]", "go on from it, or from the newest good one", resume)
    .value("--eval-every <n>", "steps between evaluations of --eval", integer(1))
    .value("--early-stopping-patience <n>", "stop after so many without a lower loss", integer(1))
    .flag("--load-best", "end with the checkpoint of the lowest loss")
    .value("--log-dir <dir>", "for TensorBoard's event files", text)
    .value("--log-every <n>", "steps between log entries", integer(1), 50)
    .group("Adapter:")
    .value("--r <n>", "rank (default: 8)", integer(1))
    .value("--lora-alpha <number>", "scale is alpha / r (default: 16)", number(positiveNumber))
    .value("--target-modules <names>", 'as query,value, or "all-linear"', listOr("all-linear"))
    .value("--modules-to-save <names>", "trained in full (default: the head)", list)
    .value(
      "--bias <which>",
      "biases to train: none, all, lora_only",
      choice("none", "all", "lora_only"),
    )
    .flag("--use-rslora", "scale is alpha / sqrt(r)");
  return addCommonOptions(options);
}
