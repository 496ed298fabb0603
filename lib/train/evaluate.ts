import { abortSignal } from "../abort.js";
import { type Evaluation, MetricAccumulator, type MetricName } from "../metrics/accumulator.js";
import { Model } from "../model.js";
import { checkOptions } from "../options.js";
import { inputError, readSamples, type SampleStream } from "./stream.js";

/** Options of {@link evaluate}. */
export interface EvaluateOptions {
  /** What to compute. Default `["accuracy"]` for class indices, `["meanSquaredError"]` for floats. */
  metrics?: readonly MetricName[];
  /** Ends the evaluation: it rejects with `signal.reason`. A forward pass that runs is finished. */
  signal?: AbortSignal;
}

/**
 * Predicts all samples of a held-out set without learning.
 *
 * @param batches - a sync or async iterable of batches of any size, for example of `encodeExamples`.
 * @throws LokoError as `Model.forward` and `MetricAccumulator.add`; `ERR_INPUT_TYPE` for a stream or an
 * item of it that is none, `ERR_SHAPE_MISMATCH` when it has no sample, `ERR_OPTION`. Rejects with
 * `signal.reason` when aborted.
 *
 * @example
 * ```ts
 * const heldOut = encodeExamples(tokenizer, textDataset("dev.tsv"), { batchSize: 8 });
 * const { loss, accuracy, f1 } = await evaluate(model, heldOut, { metrics: ["accuracy", "f1"] });
 * ```
 */
export async function evaluate(
  model: Model,
  batches: SampleStream,
  options: EvaluateOptions = {},
): Promise<Evaluation> {
  if (!(model instanceof Model)) throw inputError("evaluate", "a Model as model", model);
  checkOptions("evaluate", options, {
    metrics: { expected: "an array of metrics", accepts: Array.isArray },
    signal: abortSignal,
  });
  const { metrics, signal } = options;
  const accumulator = new MetricAccumulator({ metrics, outputs: model.numLabels });
  for await (const { inputs, labels } of readSamples("evaluate", batches, signal)) {
    using logits = await model.forward(inputs);
    signal?.throwIfAborted();
    accumulator.add({ logits: logits.dataSync(), labels });
  }
  return accumulator.result();
}
