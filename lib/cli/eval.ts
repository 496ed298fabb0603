import type { Command } from "commander";
import { measure } from "./measure.js";
import {
  addCommonOptions,
  addDataOptions,
  addLabelOptions,
  addModelOptions,
  type DataOptions,
  integer,
  type LabelOptions,
  type ModelCommandOptions,
  SharedOptions,
  text,
} from "./options.js";
import { printJson } from "./output.js";
import { printEvaluations } from "./report.js";
import { metricsFor, openSession } from "./session.js";

interface EvalOptions extends ModelCommandOptions, DataOptions, LabelOptions {
  readonly data: string;
  readonly batchSize: number;
}

const EXAMPLES = `
Examples:
  loko eval --model ./bert --adapter adapter --data dev.tsv --metrics accuracy,f1
  loko eval --model ./vit --adapter adapter --data pets/val --classes adapter/results.json`;

export function define(command: Command): void {
  command.addHelpText("after", EXAMPLES);
  const options = new SharedOptions(command);
  addModelOptions(options)
    .group("Data:")
    .value("--data <path>", "labelled examples: a file, or a folder of images", text);
  addLabelOptions(addDataOptions(options)).value(
    "--batch-size <n>",
    "examples predicted at once",
    integer(1, 2 ** 16),
    8,
  );
  addCommonOptions(options);
  command.action(() => evaluateFile(options.resolve<EvalOptions>(["model", "data"])));
}

async function evaluateFile(options: EvalOptions): Promise<void> {
  using session = await openSession(options);
  const metrics = metricsFor(options.metrics, session);
  const { batchSize, json } = options;
  const data = await session.feed.open(options.data, options, "test");
  const evaluation = await measure(session.model, data, { metrics, batchSize });
  if (json) await printJson(evaluation);
  else await printEvaluations([["held-out", evaluation]]);
}
