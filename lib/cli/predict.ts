import type { Command } from "commander";
import { LokoError } from "../errors.js";
import { predict } from "../metrics/accumulator.js";
import { refuseTogether } from "./checks.js";
import { extentOf } from "./extent.js";
import type { PredictSource } from "./feed.js";
import {
  addCommonOptions,
  addDataOptions,
  addModelOptions,
  anyText,
  integer,
  type ModelCommandOptions,
  SharedOptions,
  text,
} from "./options.js";
import { printLine } from "./output.js";
import { openSession, type Session } from "./session.js";

interface PredictOptions extends ModelCommandOptions, PredictSource {
  readonly batchSize?: number;
}

const EXAMPLES = `
Examples:
  loko predict --model ./bert --adapter adapter --text "a fine film"
  loko predict --model ./bert --data test.tsv --json
  cat reviews.txt | loko predict --model ./bert --adapter adapter
  loko predict --model ./vit --image cat.jpg

Without --text, --image and --data each line of stdin is a text, or the path of an image. Printed are the label and its probability, for
regression the numbers; with --json one JSON document a line.`;

export function define(command: Command): void {
  command.addHelpText("after", EXAMPLES);
  const options = new SharedOptions(command);
  addModelOptions(options)
    .group("Data:")
    .value("--text <text>", "one text", anyText)
    .value("--pair <text>", "the second text of --text", anyText)
    .value("--image <file>", "one image", text)
    .value("--data <path>", "a file of examples or a folder of images, labelled or not", text);
  addDataOptions(options).value(
    "--batch-size <n>",
    "examples predicted at once (default: 8 of a file, 1 of stdin)",
    integer(1, 2 ** 16),
  );
  addCommonOptions(options);
  command.action(() => predictAll(options.resolve<PredictOptions>(["model"])));
}

async function predictAll(options: PredictOptions): Promise<void> {
  refuseTogether(options, "text", ["data", "image"], "choose one of them.");
  refuseTogether(options, "image", ["data"], "choose one of them.");
  if (options.pair !== undefined && options.text === undefined) {
    throw new LokoError("ERR_OPTION", "--pair needs --text; for files there is --pair-column.");
  }
  using session = await openSession(options);
  const { model, feed } = session;
  const { batchSize = options.data === undefined ? 1 : 8 } = options;
  for await (const { inputs, facts } of feed.predict(options, batchSize)) {
    using logits = await model.forward(inputs);
    const values = logits.dataSync();
    for (const [i, fact] of facts.entries()) {
      const row = values.subarray(i * model.numLabels, (i + 1) * model.numLabels);
      const line = options.json ? toJson(fact, row, session) : toText(row, session);
      if (!(await printLine(line))) return; // nobody reads on
    }
  }
}

/** `positive  0.9876`, or the numbers of a regression. */
function toText(logits: Float32Array, session: Session): string {
  if (session.task === "regression") return [...logits].map((value) => value.toFixed(4)).join("\t");
  const best = predict(logits);
  if (best < 0) return "none\tNaN";
  return `${labelOf(best, session)}\t${softmax(logits)[best]!.toFixed(4)}`;
}

function toJson(fact: object, logits: Float32Array, session: Session): string {
  if (session.task === "regression") return JSON.stringify({ ...fact, values: [...logits] });
  const best = predict(logits);
  const probabilities = softmax(logits);
  return JSON.stringify({
    ...fact,
    label: best < 0 ? null : labelOf(best, session),
    index: best,
    probability: probabilities[best] ?? null,
    probabilities: Object.fromEntries(probabilities.map((p, c) => [labelOf(c, session), p])),
  });
}

/** The name of `--classes`, or else of the model. */
function labelOf(index: number, { model, feed }: Session): string {
  return feed.classes?.[index] ?? model.id2label[index]!;
}

function softmax(logits: Float32Array): number[] {
  const largest = extentOf(logits)[1];
  const exponentials = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = exponentials.reduce((total, value) => total + value, 0);
  return exponentials.map((value) => value / sum);
}
