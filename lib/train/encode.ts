import { batches, type Items } from "../data/dataset.js";
import type { TextExample } from "../data/text.js";
import { checkOptions, integerIn, trueOrFalse } from "../options.js";
import type { TextOrPair, Tokenizer } from "../text/tokenizer.js";
import { exampleLabel } from "./example-label.js";
import type { OnlineSample } from "./stream.js";

/** Options of {@link encodeExamples}. */
export interface EncodeExamplesOptions {
  /** Longer texts are cut to this many tokens. Default: the tokenizer's own limit. */
  maxLength?: number;
  /** Examples of one batch; the last may have fewer. Default 1, as LoKO needs. */
  batchSize?: number;
  /** Labels are floats (a `Float32Array`) and not class indices. Default false. */
  regression?: boolean;
}

/**
 * Turns labelled texts into batches for `trainOnline` and `evaluate`, each padded to its own longest
 * text. The result can be iterated as often as the examples can.
 *
 * @throws LokoError ERR_OPTION at once; while iterating, ERR_DATA_COLUMN for an example without a
 * label, ERR_LABEL_UNKNOWN, ERR_LABEL_RANGE, ERR_INPUT_NOT_FINITE for one that is no class index (with
 * `regression` no finite number), and what reading and tokenizing throw.
 *
 * @example
 * ```ts
 * const train = textDataset("train.tsv", { label2id: model.label2id }).shuffle({ seed: 0 });
 * for await (const event of trainOnline(model, optimizer, encodeExamples(tokenizer, train))) …
 * ```
 */
export function encodeExamples(
  tokenizer: Tokenizer,
  examples: Items<TextExample>,
  options: EncodeExamplesOptions = {},
): AsyncIterable<OnlineSample> {
  checkOptions("encodeExamples", options, {
    maxLength: integerIn(1),
    batchSize: integerIn(1),
    regression: trueOrFalse,
  });
  const { maxLength, batchSize = 1, regression = false } = options;
  return {
    async *[Symbol.asyncIterator]() {
      const kind = regression ? "number" : "index";
      let read = 0;
      for await (const batch of batches(examples, batchSize)) {
        const labels = batch.map(({ label, row }) => {
          const where = row === undefined ? `Example ${read}` : `Row ${row}`;
          read++;
          return exampleLabel(label, kind, where);
        });
        yield {
          inputs: tokenizer.batch(batch.map(toTextOrPair), { maxLength }),
          labels: regression ? Float32Array.from(labels) : Int32Array.from(labels),
        };
      }
    },
  };
}

/** What a tokenizer takes. */
export function toTextOrPair({ text, pair }: TextExample): TextOrPair {
  return pair === undefined ? text : [text, pair];
}
