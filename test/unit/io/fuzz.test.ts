// Mutated headers and configurations: each must give a valid result or a LokoError, never another
// exception. LOKO_FUZZ_ITERATIONS runs it longer, LOKO_FUZZ_SEED elsewhere; a failure prints the case.

import { expect, test } from "vitest";

import { LokoError, type LokoErrorCode } from "../../../lib/errors.js";
import { shardsOf } from "../../../lib/io/checkpoint.js";
import { readBoolean, readNumber, readString } from "../../../lib/io/config.js";
import { parseJsonObject } from "../../../lib/io/json.js";
import { parseSafetensorsHeader } from "../../../lib/io/safetensors-header.js";
import { safetensorsBytes } from "./helpers.js";
import { mutateBytes, mutateJson, Random } from "./mutate.js";

const ITERATIONS = Number(process.env.LOKO_FUZZ_ITERATIONS ?? 100_000);
const SEED = Number(process.env.LOKO_FUZZ_SEED ?? 20241);
const TIMEOUT_MS = 60_000 + ITERATIONS;

/** Runs `attempt` on one case after the other and counts its outcomes: "ok", or the error's code. */
function fuzz<Case>(
  iterations: number,
  makeCase: (random: Random) => Case,
  attempt: (input: Case) => void,
  allowed: readonly LokoErrorCode[],
): Map<string, number> {
  console.log(`fuzz: ${iterations} cases, LOKO_FUZZ_SEED=${SEED}`);
  const outcomes = new Map<string, number>();
  for (let i = 0; i < iterations; i++) {
    const input = makeCase(new Random(SEED + Math.imul(i, 0x9e3779b9)));
    let outcome = "ok";
    try {
      attempt(input);
    } catch (error) {
      if (!(error instanceof LokoError && allowed.includes(error.code))) {
        const shown = JSON.stringify(input, (_, value) =>
          value instanceof Uint8Array || value?.type === "Buffer"
            ? Buffer.from(value.data ?? value).toString("latin1")
            : value,
        );
        throw new Error(`LOKO_FUZZ_SEED=${SEED}, case ${i}: ${shown}`, { cause: error });
      }
      outcome = error.code;
    }
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  return outcomes;
}

/** Bits per element, from the format's description (https://github.com/huggingface/safetensors). */
const BITS: Record<string, number> = {
  ...{ BOOL: 8, U8: 8, I8: 8, U16: 16, I16: 16, U32: 32, I32: 32, U64: 64, I64: 64 },
  ...{ F16: 16, BF16: 16, F32: 32, F64: 64, C64: 64, F4: 4, F6_E2M3: 6, F6_E3M2: 6 },
  ...{ F8_E4M3: 8, F8_E5M2: 8, F8_E8M0: 8, F8_E4M3FNUZ: 8, F8_E5M2FNUZ: 8 },
};

/** A valid header with a few tensors, and the size of the data it describes. */
function validHeader(random: Random): { header: Record<string, unknown>; dataBytes: number } {
  const header: Record<string, unknown> = {};
  if (random.next() < 0.5) header.__metadata__ = { format: "pt", 'q"uote': "\u00e9:{" };
  let dataBytes = 0;
  for (let count = random.below(5); count > 0; count--) {
    const shape = Array.from({ length: random.below(4) }, () => random.below(5));
    const dtype = random.pick(
      shape.includes(4) ? Object.keys(BITS) : ["F32", "F16", "BF16", "F64", "I64", "U8"],
    );
    const bytes = (shape.reduce((product, n) => product * n, 1) * BITS[dtype]!) / 8;
    const name = random.pick(["vit.layer.weight", "a", "\u{1f600}", "x:y", "toString"]) + count;
    header[name] = { dtype, shape, data_offsets: [dataBytes, dataBytes + bytes] };
    dataBytes += bytes;
  }
  return { header, dataBytes };
}

interface HeaderCase {
  bytes: Uint8Array;
  fileSize: number;
}

function headerCase(random: Random): HeaderCase {
  const { header, dataBytes } = validHeader(random);
  let text = JSON.stringify(header);
  // Up to two changes of structure, and in a third of the cases bytes, length field or size as well.
  for (let changes = random.below(3); changes > 0; changes--) text = mutateJson(text, random);
  let bytes: Uint8Array = safetensorsBytes(text);
  let fileSize = bytes.length + dataBytes;
  switch (random.below(9)) {
    case 0:
      bytes = mutateBytes(bytes, random);
      break;
    case 1: {
      const length = random.pick([
        0n,
        1n,
        7n,
        100_000_000n,
        100_000_001n,
        2n ** 63n,
        2n ** 64n - 1n,
      ]);
      bytes = safetensorsBytes(text, undefined, random.next() < 0.5 ? length : BigInt(text.length));
      break;
    }
    case 2:
      fileSize = random.pick([0, 7, 8, fileSize - 1, fileSize + 1, bytes.length, 2 ** 53 - 1]);
      break;
  }
  return { bytes, fileSize };
}

/** Parses and checks from outside what a result promises: in range, in order, no gap, right sizes. */
function attemptHeader({ bytes, fileSize }: HeaderCase): void {
  const { tensors, metadata } = parseSafetensorsHeader(bytes, fileSize, "fuzz.safetensors");
  let position = 8 + Number(Buffer.from(bytes).readBigUInt64LE());
  for (const [name, { name: same, dtype, shape, byteOffset, byteLength }] of tensors) {
    const bits = BITS[dtype] ?? Number.NaN;
    const size = shape.reduce((product, n) => product * n, 1) * (bits / 8);
    const good = name === same && byteOffset === position && byteLength === size;
    if (!good || !shape.every((n) => Number.isSafeInteger(n) && n >= 0)) {
      throw new Error(`${name}: ${dtype} ${shape} at ${byteOffset}, ${byteLength} bytes`);
    }
    position += byteLength;
  }
  if (position !== fileSize) throw new Error(`tensors end at ${position} of ${fileSize}`);
  for (const value of metadata.values()) {
    if (typeof value !== "string") throw new Error(`metadata ${value}`);
  }
}

test(
  "any mutated safetensors header gives tensors that fill the file, or a coded error",
  () => {
    const codes = [
      "ERR_SAFETENSORS_TRUNCATED",
      "ERR_SAFETENSORS_HEADER",
      "ERR_SAFETENSORS_OFFSETS",
      "ERR_UNKNOWN_DTYPE",
    ] as const;
    const outcomes = fuzz(ITERATIONS, headerCase, attemptHeader, codes);
    // The mutations must reach every check, and leave enough valid files to test those.
    for (const outcome of ["ok", ...codes]) {
      expect(outcomes.get(outcome) ?? 0, outcome).toBeGreaterThan(ITERATIONS / 1000);
    }
  },
  TIMEOUT_MS,
);

const CONFIG = JSON.stringify({
  model_type: "vit",
  hidden_size: 48,
  layer_norm_eps: 1e-5,
  qkv_bias: true,
  id2label: { 0: "a", 1: "b" },
  weight_map: { "a.weight": "model-1.safetensors", "b.weight": "model-2.safetensors" },
});

function configCase(random: Random): Uint8Array {
  let text = CONFIG;
  for (let changes = 1 + random.below(3); changes > 0; changes--) text = mutateJson(text, random);
  const bytes = Buffer.from(text);
  return random.next() < 0.3 ? mutateBytes(bytes, random) : bytes;
}

function attemptConfig(bytes: Uint8Array): void {
  const config = parseJsonObject(bytes, "fuzz.json");
  const size = readNumber(config, "hidden_size", { integer: true, min: 1 });
  const eps = readNumber(config, "layer_norm_eps", { min: 0 });
  const bias: unknown = readBoolean(config, "qkv_bias");
  const type: unknown = readString(config, "model_type");
  if (!(Number.isSafeInteger(size) && size >= 1 && Number.isFinite(eps) && eps >= 0)) {
    throw new Error(`size ${size}, eps ${eps}`);
  }
  if (typeof bias !== "boolean" || typeof type !== "string") throw new Error(`${bias}, ${type}`);
  for (const [shard, names] of shardsOf(config, "fuzz.json")) {
    if (/[/\\]/.test(shard) || names.length === 0) throw new Error(`shard ${shard}`);
  }
}

test(
  "any mutated configuration gives values of the asked types, or ERR_CONFIG",
  () => {
    const outcomes = fuzz(ITERATIONS / 2, configCase, attemptConfig, ["ERR_CONFIG"]);
    expect(outcomes.get("ok") ?? 0).toBeGreaterThan(ITERATIONS / 100);
    expect(outcomes.get("ERR_CONFIG") ?? 0).toBeGreaterThan(ITERATIONS / 100);
  },
  TIMEOUT_MS,
);
