import { describe, LokoError } from "../errors.js";
import { checkMetricsFit, type MetricName, type Task } from "../metrics/accumulator.js";
import { Model } from "../model.js";
import type { Feed } from "./feed.js";
import { explainSize, openImageFeed, processedSize } from "./image-feed.js";
import type { DataOptions, ModelCommandOptions } from "./options.js";
import { openTextFeed } from "./text-feed.js";

/** A model, ready to be fed. */
export interface Session extends Disposable {
  readonly model: Model;
  readonly task: Task;
  readonly feed: Feed;
}

/**
 * Loads the model of a folder with its tokenizer or image processor, and the adapter where there is one. A
 * model of images is loaded for the images that its processor makes.
 *
 * @param training - whether the model will be trained: then the adapter is trainable, and a new head is no
 * surprise.
 * @throws LokoError those of `Model.fromPretrained`, `Tokenizer.fromPretrained`,
 * `ImageProcessor.fromPretrained` and `Model.loadAdapter`; ERR_UNSUPPORTED for options that are not for
 * this kind of model.
 */
export async function openSession(
  options: ModelCommandOptions & DataOptions,
  training?: { readonly seed: number },
): Promise<Session> {
  const { model: dir, adapter } = options;
  const { device, precision, threads, numLabels, ignoreMismatchedSizes } = options;
  const imageSize = await processedSize(dir);
  const model = await Model.fromPretrained(dir, {
    device,
    precision,
    threads,
    numLabels,
    ignoreMismatchedSizes,
    seed: training?.seed,
    imageSize,
  }).catch((error) => {
    throw imageSize === undefined ? error : explainSize(error, dir, imageSize);
  });
  try {
    const task = taskOf(model);
    const { input } = model;
    const feed =
      input.kind === "text"
        ? await openTextFeed(options, model, input, task)
        : await openImageFeed(options, model, input, task);
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
    return { model, task, feed, [Symbol.dispose]: () => model.dispose() };
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

/**
 * The metrics that were asked for; nothing: the default of the task.
 *
 * @throws LokoError ERR_OPTION for one that has no meaning for the model.
 */
export function metricsFor(
  asked: readonly string[] | undefined,
  { model, task }: Session,
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
