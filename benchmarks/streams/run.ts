// One optimizer on one stream with one seed.

import { join } from "node:path";
import { evaluate, Model, trainOnline } from "loko";
import type { Contender } from "./contenders.js";
import { joined } from "./held-out.js";
import { makeStream, type Stream, type StreamDefinition } from "./streams.js";

/** Samples per entry of {@link RunRecord.hits}. */
export const BLOCK = 25;

/** Samples that the model is tested on while it learns. */
export const HELD_OUT = 1000;

/** A line of the results file. */
export interface RunRecord {
  readonly stream: string;
  readonly contender: string;
  readonly family: string;
  readonly seed: number;
  readonly samples: number;
  /** Correct predictions in each block of {@link BLOCK} samples, each made before it was learned from. */
  readonly hits: readonly number[];
  /** Of {@link HELD_OUT} samples: correct before the first block and after each; only where it was asked for. */
  readonly heldOut?: readonly number[];
  /** Mean number of cotangent rows of a step. */
  readonly rows: number;
  readonly skipped: number;
  /** With the tests on held-out samples, where there were any. */
  readonly milliseconds: number;
}

const streams = new Map<string, Promise<Stream>>();

function streamOf(
  assets: string,
  definition: StreamDefinition,
  seed: number,
  length: number,
  heldOut: number,
) {
  const key = `${definition.name} ${seed} ${length} ${heldOut}`;
  let stream = streams.get(key);
  if (stream === undefined) {
    streams.clear(); // the tasks of a stream and seed follow each other; only one is kept
    stream = makeStream(assets, definition, seed, length, heldOut);
    streams.set(key, stream);
  }
  return stream;
}

export async function runOnce(
  assets: string,
  definition: StreamDefinition,
  { name, family, make }: Contender,
  seed: number,
  length: number,
  isTested: boolean,
): Promise<RunRecord> {
  const tested = isTested ? HELD_OUT : 0;
  const { samples, heldOut } = await streamOf(assets, definition, seed, length, tested);
  using model = await Model.fromPretrained(join(assets, definition.model), { threads: 1, seed });
  const targets = definition.model === "lenet" ? {} : { targetModules: ["query", "value"] };
  await model.addAdapter({ r: 8, loraAlpha: 16, ...targets });
  const hits = new Array<number>(Math.ceil(samples.length / BLOCK)).fill(0);
  const curve: number[] = [];
  const batch = isTested ? [joined(heldOut)] : [];
  const test = async () => {
    const { accuracy } = await evaluate(model, batch);
    curve.push(Math.round(accuracy! * HELD_OUT));
  };
  if (isTested) await test();
  let [rows, skipped] = [0, 0];
  const started = performance.now();
  for await (const event of trainOnline(model, make(model), samples)) {
    hits[Math.floor(event.index / BLOCK)]! += event.correct;
    rows += event.rows / samples.length;
    if (event.skipped !== null) skipped++;
    const isEnd = event.samples % BLOCK === 0 || event.samples === samples.length;
    if (isTested && isEnd) await test();
  }
  const milliseconds = Math.round(performance.now() - started);
  return {
    stream: definition.name,
    contender: name,
    family,
    seed,
    samples: samples.length,
    hits,
    ...(isTested && { heldOut: curve }),
    rows: Number(rows.toFixed(2)),
    skipped,
    milliseconds,
  };
}
