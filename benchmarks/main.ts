/**
 * Races this package with PyTorch and PEFT over the trials of a set, and writes what came out.
 *
 *     npm run bench -- --set bars
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import os from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { deviceInfo, LokoError } from "loko";
import { describeMachine, machineSlug } from "./machine.js";
import { ROOT, TRIALS_DIR, WORK_DIR } from "./paths.js";
import { drawPlots } from "./plots.js";
import { prepareTrial } from "./prepare.js";
import {
  findPython,
  lokoEnvironment,
  type Python,
  torchCommand,
  torchEnvironment,
} from "./python.js";
import { race } from "./race.js";
import { isMet, type Results, runnable, summarise } from "./results.js";
import { summaryToMarkdown } from "./summary.js";
import { describeRun, insertResults, printTrial, resultsToMarkdown } from "./table.js";
import { readTrials, type Trial } from "./trials.js";

const USAGE = `Usage: npm run bench -- [options]

  --set NAME      trials of benchmarks/trials/NAME.json: bars, extra, quick, gate, gpu (default bars)
  --trial NAME    only this trial of the set
  --rounds N      turns of each contender, each as long as in the trial file
  --output DIR    where the results go (default benchmarks/results)
  --document      also put the tables into docs/benchmarks.md and, of the set bars, README.md
  --no-python     our side alone
  --require       exit code 1 unless every bar was measured and is met

LOKO_PYTHON names the Python that has torch, transformers and peft (default python3).`;

interface Config {
  set: string;
  /** Tells the files of a part of the benchmarks from those of the whole set "bars". */
  suffix: string[];
  trials: Trial[];
  output: string;
  document: boolean;
  python: boolean;
  require: boolean;
}

function readConfig(): Config {
  const { values } = parseArgs({
    options: {
      set: { type: "string", default: "bars" },
      trial: { type: "string" },
      rounds: { type: "string" },
      output: { type: "string", default: join(ROOT, "benchmarks/results") },
      document: { type: "boolean", default: false },
      "no-python": { type: "boolean", default: false },
      require: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  if (!/^[a-z0-9-]+$/.test(values.set)) {
    throw new LokoError(
      "ERR_OPTION",
      `--set must be the name of a trial file, got "${values.set}".`,
    );
  }
  const all = readTrials(join(TRIALS_DIR, `${values.set}.json`));
  const trials = all.filter(({ name }) => values.trial === undefined || name === values.trial);
  if (trials.length === 0) {
    const names = all.map(({ name }) => name).join(", ");
    throw new LokoError("ERR_OPTION", `--trial must be one of ${names}; got "${values.trial}".`);
  }
  return {
    set: values.set,
    suffix: [
      ...(values.set === "bars" ? [] : [values.set]),
      ...(values.trial ? [values.trial] : []),
      ...(process.env.LOKO_CPU_ISA ? [process.env.LOKO_CPU_ISA] : []),
    ],
    trials: trials.map((trial) => withRounds(trial, values.rounds)),
    output: values.output,
    document: values.document,
    python: !values["no-python"],
    require: values.require,
  };
}

/** Fewer rounds are a shorter measurement, not longer turns. */
function withRounds(trial: Trial, text: string | undefined): Trial {
  if (text === undefined) return trial;
  const rounds = Number(text);
  if (!Number.isSafeInteger(rounds) || rounds < 1 || rounds > 1000) {
    throw new LokoError("ERR_OPTION", `--rounds must be an integer in [1, 1000], got ${text}.`);
  }
  return { ...trial, rounds, seconds: (trial.seconds / trial.rounds) * rounds };
}

function choosePython(isWanted: boolean): Python | undefined {
  if (!isWanted) return undefined;
  const python = findPython();
  if ("path" in python) return python;
  console.log(
    `PyTorch's side is left out, ${python.missing}; LOKO_PYTHON may name a Python with torch, ` +
      "transformers and peft.\n",
  );
  return undefined;
}

/** The trials for which there is a device; what is left out is said. */
function measurable(trials: readonly Trial[]): Trial[] {
  const { available, reason } = deviceInfo().cuda;
  if (available) return [...trials];
  const left = trials.filter(({ device }) => device === "cuda").map(({ name }) => name);
  if (left.length > 0) console.log(`Skipped, they need a GPU: ${left.join(", ")}; ${reason}.`);
  return trials.filter(({ device }) => device !== "cuda");
}

async function runTrial(trial: Trial, python: Python | undefined) {
  const file = await prepareTrial(trial, WORK_DIR);
  const runner = join(import.meta.dirname, "runner.js");
  return race(trial, runnable(trial, python !== undefined), {
    command: (name) =>
      name.startsWith("loko")
        ? { command: [process.execPath, runner, file, name], env: lokoEnvironment(python) }
        : {
            command: torchCommand(python!.path, file, name),
            env: torchEnvironment(trial.threads, WORK_DIR),
          },
    starters: os.availableParallelism(),
    report: (line) => console.log(line),
  });
}

async function insertInto(document: string, markdown: string): Promise<void> {
  const path = join(ROOT, document);
  await writeFile(path, insertResults(await readFile(path, "utf8"), markdown));
}

async function main(): Promise<void> {
  const config = readConfig();
  const trials = measurable(config.trials);
  if (trials.length === 0) {
    if (config.require) process.exitCode = 1;
    return;
  }
  const python = choosePython(config.python);
  const date = new Date().toISOString().slice(0, 10);
  const machine = describeMachine();
  let results: Results = { date, set: config.set, machine, python: null, trials: [] };
  const slug = machineSlug(machine, trials[0]!.device);
  const base = join(config.output, [date, slug, ...config.suffix].join("-"));
  for (const trial of trials) {
    const outcome = await runTrial(trial, python);
    const facts = outcome.recordings.find(({ kind }) => kind.side === "torch")?.facts;
    results = {
      ...results,
      python: results.python ?? facts ?? null,
      trials: [...results.trials, summarise(outcome)],
    };
    console.log(`${printTrial(results.trials.at(-1)!)}\n`);
    // After each trial, so that what was measured survives whatever comes.
    await mkdir(config.output, { recursive: true });
    await writeFile(`${base}.json`, `${JSON.stringify(results, null, 2)}\n`);
  }
  for (const [name, svg] of drawPlots(results)) await writeFile(`${base}-${name}`, svg);
  if (config.document) {
    await insertInto("docs/benchmarks.md", resultsToMarkdown(results));
    if (config.set === "bars") await insertInto("README.md", summaryToMarkdown(results));
  }
  console.log(`${describeRun(results).join("\n")}\nWritten: ${base}.json and its plots`);
  const bars = results.trials.flatMap((trial) => trial.bars);
  const isComplete = trials.length === config.trials.length;
  if (config.require && !(isComplete && bars.every((bar) => isMet(bar) === true))) {
    process.exitCode = 1;
  }
}

try {
  await main();
} catch (error) {
  const { code, message } = error as { code?: unknown; message: string };
  const wrongUse = typeof code === "string" && code.startsWith("ERR_PARSE_ARGS");
  if (!wrongUse && !(error instanceof LokoError)) throw error;
  console.error(`${code}: ${message}\n\n${USAGE}`);
  process.exitCode = wrongUse || code === "ERR_OPTION" ? 2 : 1;
}
