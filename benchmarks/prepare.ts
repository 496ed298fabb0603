// Writes what both sides of a trial read: model, adapter, batches. Files are complete or not there.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Model } from "loko";
import { classMeansHead } from "./class-means.js";
import { configOf, MODELS, weightsOf } from "./models.js";
import { writeRandomModel } from "./random-weights.js";
import { drawSamples } from "./samples.js";
import { writeTensors } from "./tensors-file.js";
import type { Trial } from "./trials.js";

/** A trial and its files, as the children read it. */
export interface PreparedTrial extends Trial {
  readonly modelDir: string;
  readonly adapterDir: string;
  readonly samplesFile: string;
  readonly learningRate: number;
}

// Low, since a head on drawn features of order 1 learns fast: losses must not vanish before they are compared.
const LEARNING_RATE = 1e-4;

/**
 * Writes the files of a trial under `folder`; a model that is there already is kept.
 *
 * @returns the path of the file that describes the trial to both sides.
 */
export async function prepareTrial(trial: Trial, folder: string): Promise<string> {
  const dir = join(folder, "trials", trial.name);
  const prepared: PreparedTrial = {
    ...trial,
    modelDir: prepareModel(trial, join(folder, "models")),
    adapterDir: join(dir, "adapter"),
    samplesFile: join(dir, "samples.safetensors"),
    learningRate: LEARNING_RATE,
  };
  const samples = drawSamples(trial);
  writeTensors(prepared.samplesFile, [samples.inputs, samples.labels]);

  using model = await Model.fromPretrained(prepared.modelDir, { seed: 1, device: "cpu" });
  const { rank, targetModules } = trial;
  await model.addAdapter({ r: rank, loraAlpha: 2 * rank, targetModules });
  if (trial.begun) {
    const parameters = await model.readParameters();
    const head = await classMeansHead(prepared);
    for (const { group, name, offset } of model.parameters()) {
      if (group === "head") parameters.set(name.endsWith("bias") ? head.bias : head.weight, offset);
    }
    await model.writeParameters(parameters);
  }
  await model.saveAdapter(prepared.adapterDir, { overwrite: true });

  const file = join(dir, "trial.json");
  writeFileSync(file, JSON.stringify(prepared, null, 2));
  return file;
}

function prepareModel({ model, classes }: Trial, folder: string): string {
  const shape = MODELS.get(model)!;
  const config = configOf(shape, classes);
  const weights = weightsOf(shape, classes);
  const version = createHash("sha256")
    .update(JSON.stringify([config, weights]))
    .digest("hex");
  const dir = join(folder, `${model}-${classes}-${version.slice(0, 8)}`);
  if (existsSync(dir)) return dir;
  const partial = `${dir}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeRandomModel(partial, config, weights);
  renameSync(partial, dir);
  return dir;
}
