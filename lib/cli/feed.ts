import type { ShuffleOptions } from "../data/dataset.js";
import { LokoError } from "../errors.js";
import type { ModelInputs } from "../models/inputs.js";
import type { OnlineSample } from "../train/stream.js";
import { flagOf } from "./checks.js";
import type { DataOptions, LabelOptions } from "./options.js";

/** Labelled examples that were looked over once and found good. */
export interface CheckedData {
  readonly path: string;
  readonly rows: number;
  /** Names of the classes by the outputs of the model, where the data has names. */
  readonly classes?: readonly string[];
  /**
   * @param options.order - absent: the order of the data.
   * @param options.skip - batches to leave out at the beginning. Default 0.
   */
  encode(options: {
    batchSize: number;
    order?: ShuffleOptions;
    skip?: number;
  }): AsyncIterable<OnlineSample>;
}

/** Examples to predict, and for each what tells it apart in the output. */
export interface PredictBatch {
  readonly inputs: ModelInputs;
  readonly facts: readonly Readonly<Record<string, unknown>>[];
}

/** What `loko predict` is given to predict; all absent: the lines of stdin. */
export interface PredictSource extends DataOptions {
  readonly text?: string;
  readonly pair?: string;
  readonly image?: string;
  readonly data?: string;
}

/** Turns data into what the model takes: one for texts, one for images. */
export interface Feed {
  /** What one example is called. */
  readonly noun: "row" | "image";
  /** Longest sequence, `--max-length` or what the model can take; only of texts. */
  readonly maxLength?: number;
  /** Names of the outputs that were given with `--classes`. */
  readonly classes?: readonly string[];
  /**
   * Reads all labels of a file or folder, so that a bad one fails before hours of training and not after.
   *
   * @param split - of a folder that holds both.
   * @param like - data whose classes these have as well.
   */
  open(
    path: string,
    options: DataOptions & LabelOptions,
    split: "train" | "test",
    like?: CheckedData,
  ): Promise<CheckedData>;
  predict(source: PredictSource, batchSize: number): AsyncIterable<PredictBatch>;
}

/** @throws LokoError ERR_UNSUPPORTED for the first option that is given and not for this kind of model. */
export function refuseOptions(
  options: object,
  flags: readonly string[],
  { dir, takes }: { dir: string; takes: "texts" | "images" },
): void {
  const values = options as Record<string, unknown>;
  const name = flags.find((flag) => values[flag] !== undefined);
  if (name === undefined) return;
  throw new LokoError(
    "ERR_UNSUPPORTED",
    `${dir}: the model takes ${takes}, and ${flagOf(name)} is not for ${takes}.`,
  );
}
