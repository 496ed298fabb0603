import { describe, LokoError } from "../errors.js";
import { readInto, withFile } from "./files.js";
import { bfloat16ToFloat32, float16ToFloat32 } from "./half.js";
import {
  LENGTH_BYTES,
  parseHeaderLength,
  parseSafetensorsHeader,
  type SafetensorsHeader,
  type TensorInfo,
} from "./safetensors-header.js";

/** A safetensors file: its checked header and where it came from. */
export interface SafetensorsFile extends SafetensorsHeader {
  readonly path: string;
}

/** The data of a tensor: half floats widened to float32, everything else in its own type. */
export type TensorData =
  | Float32Array
  | Float64Array
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | BigUint64Array
  | BigInt64Array;

/**
 * Opens a safetensors file and checks its header. Tensor data stays on disk: native code reads the
 * weights of a model itself, from the path, offset and length in each {@link TensorInfo}.
 *
 * @throws LokoError ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_SAFETENSORS_TRUNCATED,
 * ERR_SAFETENSORS_HEADER, ERR_SAFETENSORS_OFFSETS, ERR_UNKNOWN_DTYPE.
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  return withFile(path, async ({ handle, size }) => {
    const prefix = new Uint8Array(LENGTH_BYTES);
    const prefixBytes = await readInto(handle, prefix, 0);
    const length = parseHeaderLength(prefix.subarray(0, prefixBytes), size, path);
    const bytes = new Uint8Array(LENGTH_BYTES + length);
    const got = await readInto(handle, bytes, 0);
    return { path, ...parseSafetensorsHeader(bytes.subarray(0, got), size, path) };
  });
}

/**
 * Reads one tensor into memory, row-major. F16 and BF16 are widened to float32, which is exact; BOOL
 * comes as bytes 0 and 1.
 *
 * @throws LokoError ERR_UNSUPPORTED for 8-bit and smaller floats and C64; ERR_FILE_NOT_FOUND,
 * ERR_FILE_READ; ERR_SAFETENSORS_TRUNCATED when the file has shrunk since it was opened.
 */
export async function readTensor(info: TensorInfo): Promise<TensorData> {
  const decode = DECODERS[info.dtype];
  if (decode === undefined) {
    throw new LokoError(
      "ERR_UNSUPPORTED",
      `${info.path}: tensor ${describe(info.name)} has dtype ${info.dtype}, which cannot be read; ` +
        `convert it to one of ${Object.keys(DECODERS).join(", ")}.`,
    );
  }
  return withFile(info.path, async ({ handle }) => {
    const bytes = new Uint8Array(info.byteLength);
    const got = await readInto(handle, bytes, info.byteOffset);
    if (got < info.byteLength) {
      throw new LokoError(
        "ERR_SAFETENSORS_TRUNCATED",
        `${info.path}: expected ${info.byteLength} bytes of tensor ${describe(info.name)} at ` +
          `${info.byteOffset}, got ${got}. The file has changed since it was opened.`,
      );
    }
    return decode(bytes.buffer);
  });
}

// Typed arrays take the byte order of the machine. Every platform the addon is built for is
// little-endian, as the format is.
const DECODERS: Partial<Record<TensorInfo["dtype"], (data: ArrayBuffer) => TensorData>> = {
  F64: (data) => new Float64Array(data),
  F32: (data) => new Float32Array(data),
  F16: (data) => float16ToFloat32(new Uint16Array(data)),
  BF16: (data) => bfloat16ToFloat32(new Uint16Array(data)),
  I64: (data) => new BigInt64Array(data),
  U64: (data) => new BigUint64Array(data),
  I32: (data) => new Int32Array(data),
  U32: (data) => new Uint32Array(data),
  I16: (data) => new Int16Array(data),
  U16: (data) => new Uint16Array(data),
  I8: (data) => new Int8Array(data),
  U8: (data) => new Uint8Array(data),
  BOOL: (data) => new Uint8Array(data),
};
