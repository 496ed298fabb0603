// Model.save: the whole model as a folder that transformers opens.

import { copyFile, readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { LokoError } from "../errors.js";
import { isTimm } from "../io/config.js";
import { toFileError } from "../io/files.js";
import { bfloat16ToFloat32, float16ToFloat32 } from "../io/half.js";
import { type JsonObject, spellingOf } from "../io/json.js";
import { formatJson } from "../io/json-text.js";
import { writeFolder } from "../io/output-folder.js";
import { type TensorSource, writeSafetensors } from "../io/safetensors-writer.js";
import type { NativeWeight } from "../native/addon.js";
import type { Architecture } from "./architecture.js";
import { labelCount, labelKeys } from "./labels.js";
import type { ModelRuntime } from "./runtime.js";
import { type FloatDtype, readWeight } from "./weight-reader.js";

/** Options of {@link Model.save}. */
export interface SaveOptions {
  /**
   * Whether the model in a folder that exists may be replaced, with its tokenizer; other files in it stay.
   * Default false.
   */
  overwrite?: boolean;
  /** Ends the saving: it rejects with `signal.reason`, and the folder is as it was. */
  signal?: AbortSignal;
}

/** What {@link Model.save} did to the numbers. */
export interface SaveSummary {
  /**
   * Largest absolute difference between a weight in memory, float32, and as it was written; 0 where the
   * checkpoint is float32, and where nothing was merged.
   */
  readonly largestRounding: number;
  /** The weight that holds it; empty where it is 0. */
  readonly weight: string;
}

/** What a model was loaded from. */
export interface ModelSource {
  readonly architecture: Architecture;
  /** `config.json` of the checkpoint. */
  readonly config: JsonObject;
  /** Every weight, with its type in the checkpoint. */
  readonly weights: readonly NativeWeight[];
  /** Tensors to copy from the checkpoint; they stand for the weight of the same name. */
  readonly carried: readonly TensorSource[];
}

/** What a model is written from. */
export interface ModelHost extends ModelSource {
  readonly runtime: ModelRuntime;
  readonly directory: string;
  /** Names of the labels. */
  readonly id2label: readonly string[];
}

/** Files beside a model that prepare its inputs. */
const COMPANIONS: readonly string[] = [
  "added_tokens.json",
  "merges.txt",
  "preprocessor_config.json",
  "processor_config.json",
  "sentencepiece.bpe.model",
  "special_tokens_map.json",
  "spiece.model",
  "tokenizer.json",
  "tokenizer_config.json",
  "vocab.json",
  "vocab.txt",
];

/** What another model may have left in the folder: its tokenizer would be taken for this one's. */
function isReplaced(name: string): boolean {
  return (
    COMPANIONS.includes(name) ||
    /^(?:model|pytorch_model)\b.*\.(?:safetensors|bin|json)$/.test(name)
  );
}

/** @throws LokoError as {@link Model.save}. */
export async function saveModel(
  host: ModelHost,
  dir: string,
  { overwrite = false, signal }: SaveOptions,
): Promise<SaveSummary> {
  if (host.runtime.layout !== undefined) {
    throw new LokoError(
      "ERR_LORA_CONFIG",
      "save writes a whole model, and this one has an adapter beside it: call mergeAdapter first to make " +
        "it part of the weights, or saveAdapter to write the adapter alone.",
    );
  }
  let summary: SaveSummary = { largestRounding: 0, weight: "" };
  const { carried } = host;
  const own = host.weights.filter(({ name }) => !carried.some((tensor) => tensor.name === name));
  const tensors = own.map(
    ({ name, shape, dtype = "F32" }): TensorSource => ({
      name,
      shape,
      dtype,
      async read() {
        const bytes = await readWeight(host.runtime, name, shape, dtype);
        const rounding = await roundingOf(host.runtime, name, shape, dtype, bytes);
        if (rounding > summary.largestRounding)
          summary = { largestRounding: rounding, weight: name };
        return bytes;
      },
    }),
  );
  const fill = async (folder: string) => {
    const path = join(folder, "model.safetensors");
    await writeSafetensors(path, [...tensors, ...carried], {}, signal);
    await writeFile(join(folder, "config.json"), configText(host));
    const present = await readdir(host.directory).catch((error: unknown) => {
      throw toFileError(host.directory, error);
    });
    for (const name of COMPANIONS.filter((companion) => present.includes(companion))) {
      await copyFile(join(host.directory, name), join(folder, name));
    }
  };
  const mustNotHold = ["adapter_config.json"];
  await writeFolder(dir, fill, { overwrite, mustNotHold, isReplaced, signal });
  return summary;
}

async function roundingOf(
  runtime: ModelRuntime,
  name: string,
  shape: readonly number[],
  dtype: FloatDtype,
  bytes: Uint8Array,
): Promise<number> {
  if (dtype === "F32" || dtype === "F64") return 0;
  const halves = new Uint16Array(bytes.buffer);
  const written = dtype === "F16" ? float16ToFloat32(halves) : bfloat16ToFloat32(halves);
  const exact = new Float32Array((await readWeight(runtime, name, shape, "F32")).buffer);
  return exact.reduce((worst, value, i) => Math.max(worst, Math.abs(value - written[i]!)), 0);
}

/** The configuration of the checkpoint, with the task that the model now does. */
function configText({ config, architecture, id2label }: ModelHost): string {
  const result: JsonObject = {
    ...config,
    ...(isTimm(config) ? {} : { architectures: [architecture.taskClass] }),
    ...(labelCount(config) === id2label.length ? {} : labelKeys(config, id2label)),
  };
  return formatJson(result, spellingOf(config));
}
