import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { Checkpoint } from "../../lib/io/checkpoint.js";
import type { TensorInfo } from "../../lib/io/safetensors-header.js";
import { type AdapterOptions, resolveAdapterOptions } from "../../lib/lora/config.js";
import { architectureOf } from "../../lib/models/architecture.js";
import { countWeights, layOutParameters, planAdapter } from "../../lib/models/parameters.js";
import { FIXTURES } from "./fixtures.js";

interface Setup {
  readonly config: Readonly<Record<string, unknown>> & { readonly num_hidden_layers?: number };
  readonly adapter: AdapterOptions;
  readonly trainable: number;
  readonly all: number;
}

const SETUPS = JSON.parse(readFileSync(join(FIXTURES, "counts/counts.json"), "utf8")) as Record<
  string,
  Setup
>;

/** A checkpoint as far as a definition looks: a weight of each layer must be there. */
function layersOf({ config }: Setup): Checkpoint {
  const info = {} as TensorInfo;
  const names = Array.from(
    { length: config.num_hidden_layers ?? 0 },
    (_, i) => `encoder.layer.${i}.w`,
  );
  return { dir: "", config, weights: new Map(names.map((name) => [name, info])) };
}

// PEFT's get_nb_trainable_parameters on transformers' models of the published sizes.
test.each(Object.entries(SETUPS))("counts the parameters of %s as PEFT does", (_, setup) => {
  const architecture = architectureOf(layersOf(setup));
  const definition = architecture.define(layersOf(setup));
  const { graph, head } = definition;
  const config = resolveAdapterOptions(setup.adapter, architecture.modelType);
  const { size } = layOutParameters(graph, planAdapter(graph, head, config));
  expect({ trainable: size, all: countWeights(definition) + size }).toEqual({
    trainable: setup.trainable,
    all: setup.all,
  });
});
