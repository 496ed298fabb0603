import type { Dataset } from "../data/dataset.js";
import { batches } from "../data/dataset.js";
import { type DataFormat, type TextExample, textDataset } from "../data/text.js";
import { LokoError } from "../errors.js";
import type { Task } from "../metrics/accumulator.js";
import type { Model, ModelInput } from "../model.js";
import { Tokenizer } from "../text/tokenizer.js";
import { encodeExamples, toTextOrPair } from "../train/encode.js";
import { type CheckedData, type Feed, type PredictSource, refuseOptions } from "./feed.js";
import {
  type DataOptions,
  IMAGE_OPTIONS,
  type ModelCommandOptions,
  TEXT_FORMATS,
} from "./options.js";
import { linesOfStdin } from "./stdin.js";

/** The feed of a model of texts: its tokenizer, and files of texts. */
export async function openTextFeed(
  { model: dir, ...options }: ModelCommandOptions,
  model: Model,
  input: ModelInput & { kind: "text" },
  task: Task,
): Promise<Feed> {
  refuseOptions(options, IMAGE_OPTIONS, { dir, takes: "texts" });
  const tokenizer = await Tokenizer.fromPretrained(dir, { maxLength: input.maxLength });
  if (tokenizer.vocabularySize > input.vocabSize) {
    throw new LokoError(
      "ERR_TOKENIZER",
      `${dir}: the tokenizer has ${tokenizer.vocabularySize} tokens and the model ${input.vocabSize}; ` +
        "the tokenizer is of another model. Copy its own files into the folder.",
    );
  }
  const maxLength = Math.min(options.maxLength, tokenizer.maxLength ?? input.maxLength);
  const regression = task === "regression";
  return {
    noun: "row",
    maxLength,
    async open(path, options) {
      const data = openTexts(path, options, model, regression);
      const rows = await countLabelled(path, data);
      return {
        path,
        rows,
        encode({ batchSize, order, skip = 0 }) {
          const ordered = order === undefined ? data : data.shuffle(order);
          const rest = ordered.skip(skip * batchSize);
          return encodeExamples(tokenizer, rest, { maxLength, batchSize, regression });
        },
      } satisfies CheckedData;
    },
    async *predict(source, batchSize) {
      for await (const batch of batches(textsOf(source, model, regression), batchSize)) {
        const inputs = tokenizer.batch(batch.map(toTextOrPair), { maxLength });
        yield { inputs, facts: batch.map(({ row, text, pair }) => ({ row, text, pair })) };
      }
    },
  };
}

function openTexts(
  path: string,
  { format, textColumn, pairColumn, labelColumn }: DataOptions & { labelColumn?: string | false },
  { label2id, numLabels, directory }: Model,
  regression: boolean,
): Dataset<TextExample> {
  if (format !== "auto" && !TEXT_FORMATS.includes(format)) {
    throw new LokoError(
      "ERR_UNSUPPORTED",
      `${directory}: the model takes texts, and ${format} is a format of images.`,
    );
  }
  return textDataset(path, {
    format: format as DataFormat,
    textColumn,
    pairColumn,
    labelColumn,
    label2id,
    numLabels,
    regression,
  });
}

/** @throws LokoError ERR_DATA_COLUMN for an example without a label, and those of reading. */
async function countLabelled(path: string, data: Dataset<TextExample>): Promise<number> {
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

async function* textsOf(
  { text, pair, data, ...options }: PredictSource,
  model: Model,
  regression: boolean,
): AsyncGenerator<TextExample> {
  if (data !== undefined) {
    yield* openTexts(data, { ...options, labelColumn: false }, model, regression);
  } else if (text !== undefined) {
    yield { text, pair, row: 1 };
  } else {
    let row = 0;
    for await (const line of linesOfStdin("One text a line")) yield { text: line, row: ++row };
  }
}
