/**
 * Fine-tunes a small pretrained ViT online on images it was never trained for: shifted Fashion-MNIST, one
 * sample at a time, predicted first and learned from once. LoKO and AdamW see the same stream, beside
 * the frozen model.
 *
 *     npm run quickstart -- --samples 2000 --output my-folder
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { AdamW, LoKO, LokoError, Model, type Optimizer, type StepEvent, trainOnline } from "loko";

import { accuracyPlot } from "./plot.js";
import { startProgress } from "./progress.js";
import { type ImageSet, loadImages, SHIFTS, type Shift, shiftedStream } from "./stream.js";

const USAGE = `Usage: npm run quickstart -- [options]

  --samples N    length of the stream (default 2000)
  --shift KIND   ${SHIFTS.join(" | ")} (default rotate90)
  --seed N       seed of the adapters (default 0)
  --threads N    CPU threads, 0: all physical cores (default 0)
  --output DIR   where summary.json and accuracy.svg go (default build/quickstart)`;

interface Config {
  samples: number;
  shift: Shift;
  seed: number;
  threads: number;
  output: string;
}

interface Run {
  onlineAccuracy: number;
  lastQuarterAccuracy: number;
  seconds: number;
  samplesPerSecond: number;
  /** Online accuracy after each sample. */
  curve: number[];
}

const ROOT = resolve(import.meta.dirname, "../../..");
const ASSETS = join(ROOT, "examples/quickstart/assets");
const ADAPTER = {
  r: 8,
  loraAlpha: 16,
  targetModules: ["query", "value"],
  modulesToSave: ["classifier"],
};
const ADAMW_LEARNING_RATE = 1e-3; // PyTorch's default

function readConfig(): Config {
  const { values } = parseArgs({
    options: {
      samples: { type: "string", default: "2000" },
      shift: { type: "string", default: "rotate90" },
      seed: { type: "string", default: "0" },
      threads: { type: "string", default: "0" },
      output: { type: "string", default: join(ROOT, "build/quickstart") },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  const integer = (name: "samples" | "seed" | "threads", min: number) => {
    const value = Number(values[name]);
    if (!Number.isSafeInteger(value) || value < min) {
      throw new LokoError(
        "ERR_OPTION",
        `--${name} must be an integer >= ${min}, got ${values[name]}.`,
      );
    }
    return value;
  };
  const shift = SHIFTS.find((known) => known === values.shift);
  if (shift === undefined) {
    throw new LokoError("ERR_OPTION", `--shift must be ${SHIFTS.join(", ")}; got ${values.shift}.`);
  }
  return {
    samples: integer("samples", 4),
    shift,
    seed: integer("seed", 0),
    threads: integer("threads", 0),
    output: values.output,
  };
}

async function loadModel({ threads, seed }: Config): Promise<Model> {
  return Model.fromPretrained(join(ASSETS, "vit-fashion-mnist"), { device: "cpu", threads, seed });
}

/** Collects what a run says about itself, sample by sample. */
class Recorder {
  readonly #curve: number[] = [];
  readonly #hits: boolean[] = [];
  readonly #progress;
  readonly #started = performance.now();
  #correct = 0;

  constructor(name: string, samples: number) {
    this.#progress = startProgress(name, samples);
  }

  add(correct: boolean): void {
    this.#hits.push(correct);
    if (correct) this.#correct++;
    this.#curve.push(this.#correct / this.#hits.length);
    this.#progress.update(this.#hits.length, this.#curve.at(-1)!);
  }

  finish(): Run {
    const seconds = (performance.now() - this.#started) / 1000;
    this.#progress.stop();
    const last = this.#hits.slice(Math.floor(0.75 * this.#hits.length));
    return {
      onlineAccuracy: this.#curve.at(-1)!,
      lastQuarterAccuracy: last.filter(Boolean).length / last.length,
      seconds,
      samplesPerSecond: this.#hits.length / seconds,
      curve: this.#curve,
    };
  }
}

async function runFrozen(config: Config, set: ImageSet): Promise<Run> {
  using model = await loadModel(config);
  const recorder = new Recorder("frozen", config.samples);
  for (const { inputs, labels } of shiftedStream(set, config.shift, config.samples)) {
    using logits = await model.forward(inputs);
    const values = await logits.data();
    recorder.add(values.indexOf(Math.max(...values)) === labels[0]);
  }
  return recorder.finish();
}

async function runOnline(
  name: string,
  config: Config,
  set: ImageSet,
  makeOptimizer: (model: Model) => Optimizer,
): Promise<{ run: Run; events: StepEvent[] }> {
  using model = await loadModel(config);
  await model.addAdapter(ADAPTER);
  const optimizer = makeOptimizer(model);
  const recorder = new Recorder(name, config.samples);
  const events: StepEvent[] = [];
  const stream = shiftedStream(set, config.shift, config.samples);
  for await (const event of trainOnline(model, optimizer, stream)) {
    recorder.add(event.correct === 1);
    events.push(event);
  }
  return { run: recorder.finish(), events };
}

function printTable(rows: readonly (readonly [string, Run])[]): void {
  const percent = (value: number) => `${(100 * value).toFixed(1)} %`;
  console.log(
    `\n${"".padEnd(18)}${"online accuracy".padStart(16)}${"last quarter".padStart(14)}${"samples/s".padStart(11)}`,
  );
  for (const [name, run] of rows) {
    console.log(
      name.padEnd(18) +
        percent(run.onlineAccuracy).padStart(16) +
        percent(run.lastQuarterAccuracy).padStart(14) +
        run.samplesPerSecond.toFixed(0).padStart(11),
    );
  }
}

async function main(): Promise<void> {
  const config = readConfig();
  const set = await loadImages(ASSETS);
  if (config.samples > set.count) {
    throw new LokoError("ERR_OPTION", `--samples: the slice holds ${set.count} images.`);
  }
  console.log(
    `A ViT trained on upright Fashion-MNIST meets ${config.samples} images (shift: ${config.shift}).\n` +
      "Every image is predicted first, then learned from once.\n",
  );
  const frozen = await runFrozen(config, set);
  const loko = await runOnline("LoKO", config, set, (model) => new LoKO(model));
  const adamw = await runOnline(
    "AdamW",
    config,
    set,
    (model) => new AdamW(model, { lr: ADAMW_LEARNING_RATE }),
  );
  printTable([
    ["frozen", frozen],
    ["LoKO", loko.run],
    [`AdamW lr ${ADAMW_LEARNING_RATE}`, adamw.run],
  ]);

  const meanRows = loko.events.reduce((sum, event) => sum + event.rows, 0) / loko.events.length;
  const { curve: _frozen, ...frozenFigures } = frozen;
  const { curve: _loko, ...lokoFigures } = loko.run;
  const { curve: _adamw, ...adamwFigures } = adamw.run;
  const skipped = (events: StepEvent[]) => events.filter((event) => event.skipped !== null).length;
  const summary = {
    frozen: frozenFigures,
    loko: {
      ...lokoFigures,
      meanRows,
      p0: loko.events.at(-1)?.kalman?.p0,
      skipped: skipped(loko.events),
    },
    adamw: { ...adamwFigures, learningRate: ADAMW_LEARNING_RATE, skipped: skipped(adamw.events) },
    config: { ...config, adapter: ADAPTER },
  };
  await mkdir(config.output, { recursive: true });
  await writeFile(join(config.output, "summary.json"), `${JSON.stringify(summary, null, 2)}\n`);
  const plot = accuracyPlot(
    [
      { name: "LoKO", colour: "#c2410c", accuracy: loko.run.curve },
      { name: "AdamW", colour: "#1d4ed8", accuracy: adamw.run.curve },
      { name: "frozen", colour: "#6b7280", accuracy: frozen.curve },
    ],
    `Fashion-MNIST, ${config.shift}: predict first, learn once`,
  );
  await writeFile(join(config.output, "accuracy.svg"), plot);
  const gain = 100 * (loko.run.onlineAccuracy - frozen.onlineAccuracy);
  console.log(
    `\nLoKO ends ${gain.toFixed(1)} points above the frozen model, without a learning rate to choose; ` +
      `it used ${meanRows.toFixed(1)} cotangent rows a step.`,
  );
  console.log(`Written: ${join(config.output, "summary.json")} and accuracy.svg`);
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
