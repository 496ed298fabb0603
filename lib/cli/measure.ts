import type { Evaluation, MetricName } from "../metrics/accumulator.js";
import { encodeExamples } from "../train/encode.js";
import { evaluate } from "../train/evaluate.js";
import type { OnlineSample } from "../train/stream.js";
import type { Interrupt } from "./interrupt.js";
import { startProgress } from "./progress.js";
import type { TextSession } from "./session.js";
import type { CheckedData } from "./training.js";

export interface MeasureOptions {
  readonly metrics: readonly MetricName[] | undefined;
  readonly batchSize: number;
}

/** Evaluates on a data file and shows how far it is. */
export async function measure(
  { model, tokenizer, task, maxLength }: TextSession,
  { examples, rows }: CheckedData,
  { metrics, batchSize }: MeasureOptions,
  interrupt?: Interrupt,
): Promise<Evaluation> {
  const regression = task === "regression";
  const batches = encodeExamples(tokenizer, examples, { maxLength, batchSize, regression });
  const total = Math.ceil(rows / batchSize);
  using progress = startProgress(total, { quiet: true });
  if (interrupt !== undefined) {
    interrupt.onAsk = () => progress.note("Stopping; the adapter has been saved.");
  }
  async function* followed(): AsyncGenerator<OnlineSample> {
    let done = 0;
    for await (const batch of batches) {
      yield batch;
      progress.update({ label: "evaluating", done: ++done });
    }
  }
  return await evaluate(model, followed(), { metrics, signal: interrupt?.signal });
}
