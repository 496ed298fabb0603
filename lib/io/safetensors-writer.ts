import { open } from "node:fs/promises";
import { LokoError } from "../errors.js";
import { writeAll } from "./output-folder.js";
import { LENGTH_BYTES } from "./safetensors-header.js";

/** Bytes per element of what can be written. */
const DTYPE_BYTES = { F64: 8, I64: 8, F32: 4, F16: 2, BF16: 2 } as const;

export type WritableDtype = keyof typeof DTYPE_BYTES;

export function isWritable(dtype: string): dtype is WritableDtype {
  return Object.hasOwn(DTYPE_BYTES, dtype);
}

/** A tensor to write; its data is asked for when its turn comes, and may be dropped afterwards. */
export interface TensorSource {
  readonly name: string;
  readonly dtype: WritableDtype;
  readonly shape: readonly number[];
  /** Row-major and little-endian. */
  read(): Uint8Array | Promise<Uint8Array>;
}

export function byteLengthOf({ dtype, shape }: Pick<TensorSource, "dtype" | "shape">): number {
  return shape.reduce((product, extent) => product * extent, DTYPE_BYTES[dtype]);
}

/**
 * Writes a safetensors file with the metadata `{"format": "pt"}`, which transformers asks for. The
 * layout is that of the reference implementation: widest types first, then by name, and a header padded
 * with blanks to a multiple of 8 bytes, so that every tensor is aligned.
 *
 * One tensor is in memory at a time; an abort is noticed between two. Call it inside `writeFolder`, which makes the file appear whole.
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorSource[],
  metadata: Readonly<Record<string, string>> = {},
  signal?: AbortSignal,
): Promise<void> {
  const sorted = [...tensors].sort(
    (a, b) => DTYPE_BYTES[b.dtype] - DTYPE_BYTES[a.dtype] || (a.name < b.name ? -1 : 1),
  );
  await using handle = await open(path, "w");
  await writeAll(handle, encodeHeader(sorted, metadata));
  for (const tensor of sorted) {
    signal?.throwIfAborted();
    const bytes = await tensor.read();
    if (bytes.byteLength !== byteLengthOf(tensor)) {
      throw new LokoError(
        "ERR_INTERNAL",
        `${tensor.name} of shape [${tensor.shape}] has ${bytes.byteLength} bytes.`,
      );
    }
    await writeAll(handle, bytes);
  }
}

function encodeHeader(
  tensors: readonly TensorSource[],
  metadata: Readonly<Record<string, string>>,
): Uint8Array {
  const entries: [string, unknown][] = [["__metadata__", { format: "pt", ...metadata }]];
  let offset = 0;
  for (const tensor of tensors) {
    const { name, dtype, shape } = tensor;
    const end = offset + byteLengthOf(tensor);
    entries.push([name, { dtype, shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const padded = Math.ceil(json.byteLength / LENGTH_BYTES) * LENGTH_BYTES;
  const header = Buffer.alloc(LENGTH_BYTES + padded, " ");
  header.writeBigUInt64LE(BigInt(padded));
  json.copy(header, LENGTH_BYTES);
  return header;
}

/** The bytes of an array of floats, which are little-endian on every platform the addon is built for. */
export function bytesOf(values: Float32Array | Float64Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
