import type { Dataset } from "../data/dataset.js";
import { type TextExample, textDataset } from "../data/text.js";
import { describe, LokoError } from "../errors.js";
import { checkMetricsFit, type MetricName, type Task } from "../metrics/accumulator.js";
import { Model } from "../model.js";
import { Tokenizer } from "../text/tokenizer.js";
import type { DataOptions, ModelCommandOptions } from "./options.js";

/** A text model, ready to be fed. */
export interface TextSession extends Disposable {
  readonly model: Model;
  readonly tokenizer: Tokenizer;
  readonly task: Task;
  /** Longest sequence, `--max-length` or what the model can take. */
  readonly maxLength: number;
}

/**
 * Loads the model and the tokenizer of a folder, and the adapter where there is one.
 *
 * @param training - whether the model will be trained: then the adapter is trainable, and a new head is no
 * surprise.
 * @throws LokoError ERR_UNSUPPORTED for an image model, and those of `Model.fromPretrained`,
 * `Tokenizer.fromPretrained` and `Model.loadAdapter`.
 */
export async function openTextSession(
  options: ModelCommandOptions,
  training?: { readonly seed: number },
): Promise<TextSession> {
  const { model: dir, adapter, maxLength } = options;
  const { device, threads, numLabels, ignoreMismatchedSizes } = options;
  const model = await Model.fromPretrained(dir, {
    device,
    threads,
    numLabels,
    ignoreMismatchedSizes,
    seed: training?.seed,
  });
  try {
    const { input } = model;
    if (input.kind !== "text") {
      throw new LokoError(
        "ERR_UNSUPPORTED",
        `${dir}: ${describe(model.modelType)} takes images, and this command reads texts alone. Use ` +
          "the library (Model, trainOnline, evaluate) for images.",
      );
    }
    const tokenizer = await Tokenizer.fromPretrained(dir, { maxLength: input.maxLength });
    if (tokenizer.vocabularySize > input.vocabSize) {
      throw new LokoError(
        "ERR_TOKENIZER",
        `${dir}: the tokenizer has ${tokenizer.vocabularySize} tokens and the model ${input.vocabSize}; ` +
          "the tokenizer is of another model. Copy its own files into the folder.",
      );
    }
    if (model.unusedWeights.length > 0) {
      const { unusedWeights } = model;
      const message =
        `${dir}: ${unusedWeights.length} weights of the checkpoint are not part of the model that ` +
        `config.json describes, the first is ${unusedWeights[0]}.`;
      process.emitWarning(message, { type: "LokoWarning", code: "LOKO_UNUSED_WEIGHTS" });
    }
    if (adapter !== undefined) {
      await model.loadAdapter(adapter, { isTrainable: training !== undefined });
    } else if (training === undefined && model.newWeights.length > 0) {
      const message = `${dir}: ${model.newWeights.join(", ")} are drawn at random, and so are predictions.`;
      process.emitWarning(message, { type: "LokoWarning", code: "LOKO_NEW_HEAD" });
    }
    return {
      model,
      tokenizer,
      task: taskOf(model),
      maxLength: Math.min(maxLength, tokenizer.maxLength ?? input.maxLength),
      [Symbol.dispose]: () => model.dispose(),
    };
  } catch (error) {
    model.dispose();
    throw error;
  }
}

function taskOf({ problemType, numLabels, directory }: Model): Task {
  if (problemType === "single_label_classification") return "classification";
  if (problemType === "regression" && numLabels === 1) return "regression";
  throw new LokoError(
    "ERR_UNSUPPORTED",
    `${directory}: problem_type ${describe(problemType)} with ${numLabels} labels is not supported; ` +
      `only "single_label_classification", and "regression" with one, are.`,
  );
}

/** The examples of a data file, with the labels of the model. */
export function openData(
  path: string,
  { format, textColumn, pairColumn, labelColumn }: DataOptions & { labelColumn?: string | false },
  { model, task }: TextSession,
): Dataset<TextExample> {
  return textDataset(path, {
    format: format as "auto",
    textColumn,
    pairColumn,
    labelColumn,
    label2id: model.label2id,
    numLabels: model.numLabels,
    regression: task === "regression",
  });
}

/**
 * Reads a whole data file, so that a bad row fails before hours of training and not after.
 *
 * @returns the number of examples, at least 1.
 * @throws LokoError ERR_DATA_COLUMN for an example without a label, and those of reading.
 */
export async function checkData(path: string, data: Dataset<TextExample>): Promise<number> {
  let rows = 0;
  for await (const { label, row } of data) {
    rows++;
    if (label !== undefined) continue;
    throw new LokoError(
      "ERR_DATA_COLUMN",
      `${path}: row ${row} has no label; -1 and an absent one say so. Leave such rows out.`,
    );
  }
  return rows;
}

/**
 * The metrics that were asked for; nothing: the default of the task.
 *
 * @throws LokoError ERR_OPTION for one that has no meaning for the model.
 */
export function metricsFor(
  asked: readonly string[] | undefined,
  { model, task }: TextSession,
): readonly MetricName[] | undefined {
  const metrics = asked as readonly MetricName[] | undefined;
  checkMetricsFit(metrics ?? [], task);
  if (metrics?.includes("f1") && model.numLabels !== 2) {
    throw new LokoError(
      "ERR_OPTION",
      `The metric "f1" is of two labels, and the model has ${model.numLabels}; use "f1Macro", ` +
        `"f1Micro" or "f1Weighted".`,
    );
  }
  return metrics;
}
