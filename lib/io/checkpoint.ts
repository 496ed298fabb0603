import { join } from "node:path";

import { describe, LokoError } from "../errors.js";
import { exists } from "./files.js";
import { type JsonObject, readJsonObject } from "./json.js";
import { openSafetensors } from "./safetensors.js";
import type { TensorInfo } from "./safetensors-header.js";

/** A model folder in Hugging Face format, opened and checked; no weight has been read yet. */
export interface Checkpoint {
  readonly dir: string;
  /** `config.json`; read it with the functions of `config.ts`, which name the file in their errors. */
  readonly config: JsonObject;
  /** All weights by name, over all shards. */
  readonly weights: ReadonlyMap<string, TensorInfo>;
}

const CONFIG = "config.json";
const WEIGHTS = "model.safetensors";
const ADAPTER_CONFIG = "adapter_config.json";
const INDEX = "model.safetensors.index.json";
const PICKLES = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/**
 * Opens a folder that holds `config.json` and `model.safetensors`, or several shards and
 * `model.safetensors.index.json`. With an index, exactly the weights it names exist.
 *
 * @throws LokoError ERR_FILE_NOT_FOUND, ERR_UNSUPPORTED when there are only pickled weights,
 * ERR_CONFIG, ERR_WEIGHT_MISSING when a shard lacks a weight, and those of `openSafetensors`.
 */
export async function openCheckpoint(dir: string): Promise<Checkpoint> {
  await refuseAdapter(dir);
  const config = await readJsonObject(join(dir, CONFIG), { keepSpelling: true });
  if (await exists(join(dir, WEIGHTS))) {
    const { tensors } = await openSafetensors(join(dir, WEIGHTS));
    return { dir, config, weights: tensors };
  }
  if (await exists(join(dir, INDEX))) {
    return { dir, config, weights: await openShards(dir) };
  }
  for (const pickle of PICKLES) {
    if (await exists(join(dir, pickle))) {
      throw new LokoError(
        "ERR_UNSUPPORTED",
        `${dir}: found only ${pickle}, a Python pickle, which can run code when it is read. Convert ` +
          `it in Python: ${conversion(config)}.`,
      );
    }
  }
  throw new LokoError(
    "ERR_FILE_NOT_FOUND",
    `${dir}: expected ${WEIGHTS} or ${INDEX} beside ${CONFIG}, found neither.`,
  );
}

/** With the class that the checkpoint was saved from: AutoModel would leave out the head. */
function conversion({ architectures, architecture }: JsonObject): string {
  if (typeof architecture === "string") {
    return (
      'safetensors.torch.save_file(timm.create_model("local-dir:" + dir, pretrained=True).state_dict(), ' +
      `dir + "/${WEIGHTS}")`
    );
  }
  const [name] = Array.isArray(architectures) ? architectures : [];
  return `${typeof name === "string" ? name : "AutoModel"}.from_pretrained(dir).save_pretrained(dir)`;
}

/** The folder of an adapter is the likeliest wrong one. */
async function refuseAdapter(dir: string): Promise<void> {
  if ((await exists(join(dir, CONFIG))) || !(await exists(join(dir, ADAPTER_CONFIG)))) return;
  throw new LokoError(
    "ERR_FILE_NOT_FOUND",
    `${join(dir, CONFIG)}: no such file, but ${ADAPTER_CONFIG} is there: this is the folder of an ` +
      "adapter. Load its base model, then the adapter with model.loadAdapter(dir).",
  );
}

async function openShards(dir: string): Promise<ReadonlyMap<string, TensorInfo>> {
  const indexPath = join(dir, INDEX);
  const weights = new Map<string, TensorInfo>();
  for (const [shard, names] of shardsOf(await readJsonObject(indexPath), indexPath)) {
    const { path, tensors } = await openSafetensors(join(dir, shard));
    for (const name of names) {
      const info = tensors.get(name);
      if (info === undefined) {
        throw new LokoError(
          "ERR_WEIGHT_MISSING",
          `${path}: expected the weight ${describe(name)} here, as ${INDEX} says, and it is not. ` +
            "Copy or download both files again.",
        );
      }
      weights.set(name, info);
    }
  }
  return weights;
}

/**
 * The `weight_map` of an index, turned round: shard file to the weights in it.
 *
 * @internal
 */
export function shardsOf(index: JsonObject, indexPath: string): Map<string, string[]> {
  const map = Object.hasOwn(index, "weight_map") ? index.weight_map : undefined;
  if (typeof map !== "object" || map === null || Array.isArray(map)) {
    throw new LokoError(
      "ERR_CONFIG",
      `${indexPath}: "weight_map" must map weights to files, got ${describe(map)}.`,
    );
  }
  const shards = new Map<string, string[]>();
  for (const [name, shard] of Object.entries(map)) {
    // A plain name with the right ending cannot leave the folder: an index comes from elsewhere and
    // must not be able to make us read other files.
    if (typeof shard !== "string" || !/^[^/\\:\0]+\.safetensors$/.test(shard)) {
      throw new LokoError(
        "ERR_CONFIG",
        `${indexPath}: "weight_map" must give ${describe(name)} the plain name of a .safetensors ` +
          `file in the same folder, got ${describe(shard)}.`,
      );
    }
    const names = shards.get(shard);
    if (names) names.push(name);
    else shards.set(shard, [name]);
  }
  return shards;
}
