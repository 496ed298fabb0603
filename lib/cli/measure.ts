import type { Evaluation, MetricName } from "../metrics/accumulator.js";
import type { Model } from "../model.js";
import { startProgress } from "../report/progress.js";
import { evaluate } from "../train/evaluate.js";
import type { OnlineSample } from "../train/stream.js";
import type { CheckedData } from "./feed.js";
import type { Interrupt } from "./interrupt.js";

export interface MeasureOptions {
  readonly metrics: readonly MetricName[] | undefined;
  readonly batchSize: number;
}

/** Evaluates on held-out data and shows how far it is. */
export async function measure(
  model: Model,
  data: CheckedData,
  { metrics, batchSize }: MeasureOptions,
  interrupt?: Interrupt,
): Promise<Evaluation> {
  const total = Math.ceil(data.rows / batchSize);
  using progress = startProgress(total, { quiet: true });
  if (interrupt !== undefined) {
    interrupt.onAsk = () => progress.note("Stopping; the adapter has been saved.");
  }
  async function* followed(): AsyncGenerator<OnlineSample> {
    let done = 0;
    for await (const batch of data.encode({ batchSize })) {
      yield batch;
      progress.update({ label: "evaluating", done: ++done });
    }
  }
  return await evaluate(model, followed(), { metrics, signal: interrupt?.signal });
}
