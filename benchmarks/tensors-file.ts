// The few tensors that our side and PyTorch's exchange, as safetensors files.
import { closeSync, mkdirSync, openSync, readFileSync, writeSync } from "node:fs";
import { dirname } from "node:path";

/** Elements of the exchanged types. */
export type Values = Float32Array | Int32Array;

/** A tensor to write; its values are asked for one tensor at a time, so that a model need not fit twice. */
export interface TensorSource {
  readonly name: string;
  readonly dtype: "F32" | "I32";
  /** Row-major. */
  readonly shape: readonly number[];
  values(): Values;
}

/** A tensor that was read. */
export interface StoredTensor {
  readonly shape: readonly number[];
  readonly values: Values;
}

/** Number of elements of a shape. */
export const sizeOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Writes a safetensors file and returns the bytes of its tensors. */
export function writeTensors(path: string, tensors: readonly TensorSource[]): number {
  const header: Record<string, unknown> = {};
  let bytes = 0;
  for (const { name, dtype, shape } of tensors) {
    const end = bytes + 4 * sizeOf(shape);
    header[name] = { dtype, shape, data_offsets: [bytes, end] };
    bytes = end;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  mkdirSync(dirname(path), { recursive: true });
  const file = openSync(path, "w");
  try {
    writeSync(file, Buffer.concat([length, text]));
    for (const tensor of tensors) {
      const { buffer, byteOffset, byteLength } = tensor.values();
      writeSync(file, new Uint8Array(buffer, byteOffset, byteLength));
    }
  } finally {
    closeSync(file);
  }
  return bytes;
}

/** Reads what {@link writeTensors} has written. */
export function readTensors(path: string): ReadonlyMap<string, StoredTensor> {
  const file = readFileSync(path);
  const start = 8 + Number(file.readBigUInt64LE());
  const header = JSON.parse(file.toString("utf8", 8, start)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  return new Map(
    Object.entries(header).map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [from, to],
        },
      ]) => {
        const data = new Uint8Array(file.subarray(start + from, start + to)).buffer;
        const values = dtype === "F32" ? new Float32Array(data) : new Int32Array(data);
        return [name, { shape, values }];
      },
    ),
  );
}
