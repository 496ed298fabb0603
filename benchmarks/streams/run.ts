// One optimizer on one stream with one seed.

import { join } from "node:path";
import { Model, type OnlineSample, trainOnline } from "loko";
import type { Contender } from "./contenders.js";
import { makeStream, type StreamDefinition } from "./streams.js";

/** Samples per entry of {@link RunRecord.hits}. */
export const BLOCK = 25;

/** A line of the results file. */
export interface RunRecord {
  readonly stream: string;
  readonly contender: string;
  readonly family: string;
  readonly seed: number;
  readonly samples: number;
  /** Correct predictions in each block of {@link BLOCK} samples, each made before it was learned from. */
  readonly hits: readonly number[];
  /** Mean number of cotangent rows of a step. */
  readonly rows: number;
  readonly skipped: number;
  readonly milliseconds: number;
}

const streams = new Map<string, Promise<readonly OnlineSample[]>>();

function streamOf(assets: string, definition: StreamDefinition, seed: number, length: number) {
  const key = `${definition.name} ${seed} ${length}`;
  let samples = streams.get(key);
  if (samples === undefined) {
    streams.clear(); // the tasks of a stream and seed follow each other; only one is kept
    samples = makeStream(assets, definition, seed, length);
    streams.set(key, samples);
  }
  return samples;
}

export async function runOnce(
  assets: string,
  definition: StreamDefinition,
  { name, family, make }: Contender,
  seed: number,
  length: number,
): Promise<RunRecord> {
  const samples = await streamOf(assets, definition, seed, length);
  using model = await Model.fromPretrained(join(assets, definition.model), { threads: 1, seed });
  const targets = definition.model === "lenet" ? {} : { targetModules: ["query", "value"] };
  await model.addAdapter({ r: 8, loraAlpha: 16, ...targets });
  const hits = new Array<number>(Math.ceil(samples.length / BLOCK)).fill(0);
  let [rows, skipped] = [0, 0];
  const started = performance.now();
  for await (const event of trainOnline(model, make(model), samples)) {
    hits[Math.floor(event.index / BLOCK)]! += event.correct;
    rows += event.rows / samples.length;
    if (event.skipped !== null) skipped++;
  }
  const milliseconds = Math.round(performance.now() - started);
  return {
    stream: definition.name,
    contender: name,
    family,
    seed,
    samples: samples.length,
    hits,
    rows: Number(rows.toFixed(2)),
    skipped,
    milliseconds,
  };
}
