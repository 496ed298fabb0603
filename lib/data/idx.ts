import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";

import { LokoError } from "../errors.js";
import { readInto, withFile } from "../io/files.js";

/**
 * An array read from an IDX file: its extents, element type and elements, row-major and in the byte order of
 * the machine.
 */
export type IdxArray = {
  /** Extent of each dimension. */
  readonly shape: readonly number[];
} & (
  | { readonly dtype: "uint8"; readonly data: Uint8Array }
  | { readonly dtype: "int8"; readonly data: Int8Array }
  | { readonly dtype: "int16"; readonly data: Int16Array }
  | { readonly dtype: "int32"; readonly data: Int32Array }
  | { readonly dtype: "float32"; readonly data: Float32Array }
  | { readonly dtype: "float64"; readonly data: Float64Array }
);

/** Options of {@link readIdx}. */
export interface ReadIdxOptions {
  /** Largest size of the data accepted, in bytes after decompression. Default 1 GiB. */
  maxBytes?: number;
}

/** By the third byte of a file: the element type, and its size in bytes. */
const TYPES: Readonly<Record<number, { dtype: IdxArray["dtype"]; size: 1 | 2 | 4 | 8 }>> = {
  8: { dtype: "uint8", size: 1 },
  9: { dtype: "int8", size: 1 },
  11: { dtype: "int16", size: 2 },
  12: { dtype: "int32", size: 4 },
  13: { dtype: "float32", size: 4 },
  14: { dtype: "float64", size: 8 },
};

/**
 * Reads an IDX file, the format of MNIST and Fashion-MNIST (http://yann.lecun.com/exdb/mnist), plain or
 * compressed with gzip, whatever its name.
 *
 * @param path - of the file.
 * @param options - `maxBytes`, default 1 GiB.
 * @throws LokoError ERR_FILE_NOT_FOUND, ERR_FILE_READ; ERR_IDX_FORMAT when the magic number, the type or
 * the dimensions are wrong, when data is missing or left over, or above `maxBytes`.
 */
export async function readIdx(
  path: string,
  { maxBytes = 2 ** 30 }: ReadIdxOptions = {},
): Promise<IdxArray> {
  return withFile(path, async ({ handle }) => {
    const start = new Uint8Array(2);
    await readInto(handle, start, 0);
    const isGzip = start[0] === 0x1f && start[1] === 0x8b;
    const source = handle.createReadStream({ start: 0, autoClose: false });
    // Its errors come out of the iteration as well, so there is nothing to do at its end.
    const chunks = isGzip ? pipeline(source, createGunzip(), () => {}) : source;
    try {
      return await collect(chunks, path, maxBytes);
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException;
      if (code?.startsWith("Z_")) {
        throw new LokoError("ERR_IDX_FORMAT", `${path}: damaged gzip data: ${message}.`, {
          cause: error,
        });
      }
      throw error;
    }
  });
}

function formatError(path: string, problem: string): LokoError {
  return new LokoError("ERR_IDX_FORMAT", `${path}: not a valid IDX file: ${problem}.`);
}

interface IdxHeader {
  readonly dtype: IdxArray["dtype"];
  readonly elementSize: 1 | 2 | 4 | 8;
  readonly shape: readonly number[];
  readonly headerBytes: number;
  readonly dataBytes: number;
}

/** Gathers the chunks, and stops as soon as they are more than the header promises. */
async function collect(
  chunks: AsyncIterable<Buffer>,
  path: string,
  maxBytes: number,
): Promise<IdxArray> {
  const parts: Buffer[] = [];
  let total = 0;
  let header: IdxHeader | undefined;
  for await (const chunk of chunks) {
    parts.push(chunk);
    total += chunk.length;
    header ??= parseHeader(Buffer.concat(parts), path, maxBytes);
    if (header && total > header.headerBytes + header.dataBytes) {
      throw formatError(path, `data follows the ${header.dataBytes} bytes of ${format(header)}`);
    }
  }
  if (header === undefined) throw formatError(path, `the header ends after ${total} bytes`);
  const { headerBytes, dataBytes } = header;
  if (total < headerBytes + dataBytes) {
    throw formatError(
      path,
      `expected ${dataBytes} bytes of data for ${format(header)}, got ${total - headerBytes}`,
    );
  }
  // A buffer of its own, since Buffer.concat may share and misalign one.
  const data = Buffer.from(new ArrayBuffer(dataBytes));
  Buffer.concat(parts).copy(data, 0, headerBytes);
  return decode(header, data);
}

function format({ dtype, shape }: IdxHeader): string {
  return `${dtype}[${shape.join(", ")}]`;
}

/** Two zero bytes, the type, the number of dimensions, and each dimension as a big-endian u32. */
function parseHeader(bytes: Buffer, path: string, maxBytes: number): IdxHeader | undefined {
  if (bytes.length < 4) return undefined;
  const [zero, alsoZero, code, dimensions] = bytes as unknown as [number, number, number, number];
  const type = TYPES[code];
  if (zero !== 0 || alsoZero !== 0 || type === undefined) {
    const magic = bytes.subarray(0, 4).toString("hex");
    throw formatError(
      path,
      `expected a magic number 0000TTDD with type TT one of 08, 09, 0b, 0c, 0d, 0e, got ${magic}`,
    );
  }
  const headerBytes = 4 + 4 * dimensions;
  if (bytes.length < headerBytes) return undefined;
  const shape = Array.from({ length: dimensions }, (_, i) => bytes.readUInt32BE(4 + 4 * i));
  // Overflow to an inexact number or to Infinity is above any limit as well; Infinity times 0 is not.
  const dataBytes = shape.includes(0) ? 0 : shape.reduce((product, n) => product * n, type.size);
  if (dataBytes > maxBytes) {
    throw formatError(
      path,
      `${type.dtype}[${shape.join(", ")}] needs ${dataBytes} bytes, the limit is ${maxBytes}`,
    );
  }
  return { dtype: type.dtype, elementSize: type.size, shape, headerBytes, dataBytes };
}

/** Turns the big-endian elements round in place and views them; the machine is little-endian. */
function decode({ dtype, elementSize, shape }: IdxHeader, bytes: Buffer): IdxArray {
  if (elementSize === 2) bytes.swap16();
  else if (elementSize === 4) bytes.swap32();
  else if (elementSize === 8) bytes.swap64();
  const buffer = bytes.buffer as ArrayBuffer;
  switch (dtype) {
    case "uint8":
      return { dtype, shape, data: new Uint8Array(buffer) };
    case "int8":
      return { dtype, shape, data: new Int8Array(buffer) };
    case "int16":
      return { dtype, shape, data: new Int16Array(buffer) };
    case "int32":
      return { dtype, shape, data: new Int32Array(buffer) };
    case "float32":
      return { dtype, shape, data: new Float32Array(buffer) };
    case "float64":
      return { dtype, shape, data: new Float64Array(buffer) };
  }
}
