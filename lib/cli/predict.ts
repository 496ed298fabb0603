import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import type { Command } from "commander";
import { batches } from "../data/dataset.js";
import type { TextExample } from "../data/text.js";
import { checkTextChunks } from "../data/text-chunks.js";
import { LokoError } from "../errors.js";
import { predict } from "../metrics/accumulator.js";
import { toTextOrPair } from "../train/encode.js";
import {
  addCommonOptions,
  addDataOptions,
  addModelOptions,
  anyText,
  type DataOptions,
  integer,
  type ModelCommandOptions,
  refuseTogether,
  SharedOptions,
  text,
} from "./options.js";
import { printLine } from "./output.js";
import { openData, openTextSession, type TextSession } from "./session.js";

interface PredictOptions extends ModelCommandOptions, DataOptions {
  readonly text?: string;
  readonly pair?: string;
  readonly data?: string;
  readonly batchSize?: number;
}

const EXAMPLES = `
Examples:
  loko predict --model ./bert --adapter adapter --text "a fine film"
  loko predict --model ./bert --data test.tsv --json
  cat reviews.txt | loko predict --model ./bert --adapter adapter

Without --text and --data each line of stdin is a text. Printed are the label and its probability, for
regression the numbers; with --json one JSON document a line.`;

export function define(command: Command): void {
  command.addHelpText("after", EXAMPLES);
  const options = new SharedOptions(command);
  addModelOptions(options)
    .group("Data:")
    .value("--text <text>", "one text", anyText)
    .value("--pair <text>", "the second text of --text", anyText)
    .value("--data <file>", "examples; their labels are not needed", text);
  addDataOptions(options).value(
    "--batch-size <n>",
    "examples predicted at once (default: 8 of a file, 1 of stdin)",
    integer(1, 2 ** 16),
  );
  addCommonOptions(options);
  command.action(() => predictTexts(options.resolve<PredictOptions>(["model"])));
}

async function predictTexts(options: PredictOptions): Promise<void> {
  refuseTogether(options, "text", ["data"], "choose one of them.");
  if (options.pair !== undefined && options.text === undefined) {
    throw new LokoError("ERR_OPTION", "--pair needs --text; for files there is --pair-column.");
  }
  using session = await openTextSession(options);
  const { model, tokenizer, maxLength } = session;
  const { batchSize = options.data === undefined ? 1 : 8 } = options;
  for await (const batch of batches(textsOf(options, session), batchSize)) {
    const inputs = tokenizer.batch(batch.map(toTextOrPair), { maxLength });
    using logits = await model.forward(inputs);
    const values = logits.dataSync();
    for (const [i, example] of batch.entries()) {
      const row = values.subarray(i * model.numLabels, (i + 1) * model.numLabels);
      const line = options.json ? toJson(example, row, session) : toText(row, session);
      if (!(await printLine(line))) return; // nobody reads on
    }
  }
}

function textsOf(options: PredictOptions, session: TextSession): AsyncIterable<TextExample> {
  const { text, pair, data } = options;
  if (data !== undefined) return openData(data, { ...options, labelColumn: false }, session);
  return text === undefined ? linesOfStdin() : one({ text, pair, row: 1 });
}

async function* one(example: TextExample): AsyncGenerator<TextExample> {
  yield example;
}

async function* linesOfStdin(): AsyncGenerator<TextExample> {
  if (process.stdin.isTTY) process.stderr.write("One text a line; Ctrl-D ends.\n");
  let row = 0;
  // The same bytes are the same text as in a file.
  const input = Readable.from(checkTextChunks(process.stdin, "standard input"));
  const lines = createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
  let failure: unknown;
  input.on("error", (error) => {
    failure = error;
    lines.close();
  });
  for await (const text of lines) yield { text, row: ++row };
  if (failure !== undefined) throw failure;
}

/** `positive  0.9876`, or the numbers of a regression. */
function toText(logits: Float32Array, { model, task }: TextSession): string {
  if (task === "regression") return [...logits].map((value) => value.toFixed(4)).join("\t");
  const best = predict(logits);
  if (best < 0) return "none\tNaN";
  return `${model.id2label[best]}\t${softmax(logits)[best]!.toFixed(4)}`;
}

function toJson(example: TextExample, logits: Float32Array, { model, task }: TextSession): string {
  const { row, text, pair } = example;
  if (task === "regression") return JSON.stringify({ row, text, pair, values: [...logits] });
  const best = predict(logits);
  const probabilities = softmax(logits);
  return JSON.stringify({
    row,
    text,
    pair,
    label: model.id2label[best] ?? null,
    index: best,
    probability: probabilities[best] ?? null,
    probabilities: Object.fromEntries(probabilities.map((p, c) => [model.id2label[c], p])),
  });
}

function softmax(logits: Float32Array): number[] {
  const largest = Math.max(...logits);
  const exponentials = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = exponentials.reduce((total, value) => total + value, 0);
  return exponentials.map((value) => value / sum);
}
