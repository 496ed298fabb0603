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
import { checkData, metricsFor, openData, openTextSession } from "./session.js";

interface EvalOptions extends ModelCommandOptions, DataOptions, LabelOptions {
  readonly data: string;
  readonly batchSize: number;
}

const EXAMPLE = `
Example:
  loko eval --model ./bert --adapter adapter --data dev.tsv --metrics accuracy,f1`;

export function define(command: Command): void {
  command.addHelpText("after", EXAMPLE);
  const options = new SharedOptions(command);
  addModelOptions(options).group("Data:").value("--data <file>", "labelled examples", text);
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
  using session = await openTextSession(options);
  const metrics = metricsFor(options.metrics, session);
  const examples = openData(options.data, options, session);
  const rows = await checkData(options.data, examples);
  const { batchSize, json } = options;
  const data = { path: options.data, examples, rows };
  const evaluation = await measure(session, data, { metrics, batchSize });
  if (json) await printJson(evaluation);
  else await printEvaluations([["held-out", evaluation]]);
}
