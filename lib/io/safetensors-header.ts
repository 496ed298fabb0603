import { describe, LokoError } from "../errors.js";

/**
 * Bits per element of every data type that the format defines. Only some can be read or computed with;
 * the rest are known so that a file which holds one among others still opens.
 */
const DTYPE_BITS = {
  BOOL: 8,
  U8: 8,
  I8: 8,
  U16: 16,
  I16: 16,
  U32: 32,
  I32: 32,
  U64: 64,
  I64: 64,
  F16: 16,
  BF16: 16,
  F32: 32,
  F64: 64,
  C64: 64,
  F8_E4M3: 8,
  F8_E5M2: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  F6_E2M3: 6,
  F6_E3M2: 6,
  F4: 4,
} as const;

/** A data type of the safetensors format, as its files spell it. */
export type SafetensorsDtype = keyof typeof DTYPE_BITS;

/** One tensor of a safetensors file: what is needed to read it, and nothing of its data. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  /** Row-major; `[]` is a scalar. */
  readonly shape: readonly number[];
  /** The file that holds the data, which is little-endian. */
  readonly path: string;
  /** Position of the first byte, counted from the start of the file. */
  readonly byteOffset: number;
  readonly byteLength: number;
}

/** The checked contents of a safetensors header. */
export interface SafetensorsHeader {
  /** By name, in the order of their data. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** The free-form `__metadata__` strings. */
  readonly metadata: ReadonlyMap<string, string>;
}

/** The format begins with the header's length as a little-endian u64. */
export const LENGTH_BYTES = 8;

/** The limit of the reference implementation; it bounds what a hostile file can make us allocate. */
const MAX_HEADER_BYTES = 100_000_000;

/**
 * Reads and checks the length of the header.
 *
 * @param bytes - the start of the file, at least its first 8 bytes where it has them.
 * @throws LokoError ERR_SAFETENSORS_TRUNCATED, ERR_SAFETENSORS_HEADER.
 */
export function parseHeaderLength(bytes: Uint8Array, fileSize: number, path: string): number {
  if (Math.min(bytes.byteLength, fileSize) < LENGTH_BYTES) {
    throw new LokoError(
      "ERR_SAFETENSORS_TRUNCATED",
      `${path}: expected a safetensors file, which has at least ${LENGTH_BYTES} bytes, got ` +
        `${Math.min(bytes.byteLength, fileSize)}. Copy or download the file again.`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = view.getBigUint64(0, true);
  if (length > MAX_HEADER_BYTES) {
    throw headerError(
      path,
      `expected a header of at most ${MAX_HEADER_BYTES} bytes, got ${length}`,
    );
  }
  if (Number(length) > fileSize - LENGTH_BYTES) {
    throw headerError(
      path,
      `the header is said to have ${length} bytes, but only ${fileSize - LENGTH_BYTES} follow`,
    );
  }
  return Number(length);
}

/**
 * Parses and checks a safetensors header without touching the file.
 *
 * As strict as the reference implementation: tensors must fill the data exactly, without overlaps,
 * holes or trailing bytes. Stricter in one point: a key that occurs twice is refused.
 *
 * @param bytes - the start of the file: the 8 length bytes and the whole header; more is ignored.
 * @param fileSize - size of the whole file in bytes, which the offsets are checked against.
 * @param path - names the file in messages and in the result.
 * @throws LokoError ERR_SAFETENSORS_TRUNCATED, ERR_SAFETENSORS_HEADER, ERR_SAFETENSORS_OFFSETS,
 * ERR_UNKNOWN_DTYPE.
 */
export function parseSafetensorsHeader(
  bytes: Uint8Array,
  fileSize: number,
  path: string,
): SafetensorsHeader {
  const headerEnd = LENGTH_BYTES + parseHeaderLength(bytes, fileSize, path);
  if (bytes.byteLength < headerEnd) {
    throw new LokoError(
      "ERR_SAFETENSORS_TRUNCATED",
      `${path}: expected ${headerEnd} bytes up to the end of the header, got ${bytes.byteLength}. ` +
        "Copy or download the file again.",
    );
  }
  const text = decodeHeader(bytes.subarray(LENGTH_BYTES, headerEnd), path);
  const keysInText = scanHeader(text, path);
  const root = parseRoot(text, path);

  const tensors: TensorInfo[] = [];
  let metadata: ReadonlyMap<string, string> = new Map();
  let keys = 0;
  for (const [name, entry] of Object.entries(root)) {
    keys += 1;
    if (name === "__metadata__") {
      metadata = parseMetadata(entry, path);
      keys += metadata.size;
    } else {
      tensors.push(parseEntry(name, entry, headerEnd, path));
      keys += ENTRY_KEYS.length;
    }
  }
  if (keys !== keysInText) {
    throw headerError(path, "a key occurs more than once, so its meaning is ambiguous");
  }

  tensors.sort((a, b) => a.byteOffset - b.byteOffset || a.byteLength - b.byteLength);
  checkLayout(tensors, headerEnd, fileSize, path);
  return { tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])), metadata };
}

function headerError(path: string, problem: string, options?: ErrorOptions): LokoError {
  return new LokoError(
    "ERR_SAFETENSORS_HEADER",
    `${path}: malformed safetensors header: ${problem}. Is it a safetensors file, and complete?`,
    options,
  );
}

function offsetsError(path: string, problem: string): LokoError {
  return new LokoError("ERR_SAFETENSORS_OFFSETS", `${path}: ${problem}. The file is damaged.`);
}

function decodeHeader(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw headerError(path, "expected UTF-8", { cause: error });
  }
}

function parseRoot(text: string, path: string): object {
  // The format asks for "{" as the first byte, which refuses most other files at once.
  if (!text.startsWith("{")) {
    throw headerError(path, `expected "{" as its first byte, got ${describe(text.slice(0, 1))}`);
  }
  try {
    return JSON.parse(text) as object;
  } catch (error) {
    throw headerError(path, `expected JSON: ${(error as Error).message}`, { cause: error });
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parseMetadata(entry: unknown, path: string): ReadonlyMap<string, string> {
  if (!isObject(entry)) {
    throw headerError(path, `"__metadata__" must be an object, got ${describe(entry)}`);
  }
  const metadata = new Map<string, string>();
  for (const [key, value] of Object.entries(entry)) {
    if (typeof value !== "string") {
      throw headerError(
        path,
        `"__metadata__" must hold strings, got ${describe(value)} for ${describe(key)}`,
      );
    }
    metadata.set(key, value);
  }
  return metadata;
}

const ENTRY_KEYS = ["dtype", "shape", "data_offsets"] as const;

/** A count or an offset: whole, not negative (nor -0), and exact in a double. */
function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && !Object.is(value, -0);
}

function parseEntry(name: string, entry: unknown, headerEnd: number, path: string): TensorInfo {
  const label = `tensor ${describe(name)}`;
  if (
    !isObject(entry) ||
    Object.keys(entry).length !== ENTRY_KEYS.length ||
    !ENTRY_KEYS.every((key) => Object.hasOwn(entry, key))
  ) {
    const got = isObject(entry) ? describe(Object.keys(entry).join(", ")) : describe(entry);
    throw headerError(path, `${label} must have exactly ${ENTRY_KEYS.join(", ")}, got ${got}`);
  }

  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== "string") {
    throw headerError(path, `the dtype of ${label} must be a string, got ${describe(dtype)}`);
  }
  if (!Object.hasOwn(DTYPE_BITS, dtype)) {
    throw new LokoError(
      "ERR_UNKNOWN_DTYPE",
      `${path}: ${label} has the unknown dtype ${describe(dtype)}; the format defines ` +
        `${Object.keys(DTYPE_BITS).join(", ")}.`,
    );
  }
  if (!Array.isArray(shape) || !shape.every(isCount)) {
    throw headerError(
      path,
      `the shape of ${label} must be an array of integers >= 0, got ${excerpt(shape)}`,
    );
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount)) {
    throw headerError(
      path,
      `the data_offsets of ${label} must be two integers >= 0, got ${excerpt(offsets)}`,
    );
  }
  const [begin, end] = offsets as [number, number];
  if (begin > end) {
    throw offsetsError(path, `${label} ends at ${end}, before it begins at ${begin}`);
  }
  const byteLength = byteLengthOf(dtype as SafetensorsDtype, shape);
  if (byteLength !== end - begin) {
    throw offsetsError(
      path,
      `${label} with dtype ${dtype} and shape ${excerpt(shape)} needs ` +
        `${byteLength ?? "an impossible number of"} bytes, its data_offsets hold ${end - begin}`,
    );
  }
  return {
    name,
    dtype: dtype as SafetensorsDtype,
    shape,
    path,
    byteOffset: headerEnd + begin,
    byteLength,
  };
}

function excerpt(value: unknown): string {
  return Array.isArray(value) && value.length <= 16
    ? `[${value.map(describe).join(", ")}]`
    : describe(value);
}

/** Bytes of a tensor, or undefined where that is not a whole number or not exact in a double. */
function byteLengthOf(dtype: SafetensorsDtype, shape: readonly number[]): number | undefined {
  let elements = 1;
  for (const dimension of shape) {
    elements *= dimension;
    if (!Number.isSafeInteger(elements)) return undefined;
  }
  const bits = elements * DTYPE_BITS[dtype];
  return Number.isSafeInteger(bits) && bits % 8 === 0 ? bits / 8 : undefined;
}

/** Checks that the tensors, sorted by offset, fill the data section exactly. */
function checkLayout(
  tensors: readonly TensorInfo[],
  dataStart: number,
  fileSize: number,
  path: string,
): void {
  let position = dataStart;
  for (const { name, byteOffset, byteLength } of tensors) {
    if (byteOffset !== position) {
      const problem =
        byteOffset < position
          ? "overlaps the tensor before it"
          : byteOffset > fileSize
            ? `is out of range: the data section has ${fileSize - dataStart} bytes`
            : `leaves a hole of ${byteOffset - position} bytes before it`;
      const begin = byteOffset - dataStart;
      throw offsetsError(
        path,
        `tensor ${describe(name)} at data_offsets [${begin}, ${begin + byteLength}] ${problem}`,
      );
    }
    position += byteLength;
  }
  if (position > fileSize) {
    throw new LokoError(
      "ERR_SAFETENSORS_TRUNCATED",
      `${path}: expected ${position} bytes as its header promises, got ${fileSize}. ` +
        "Copy or download the file again.",
    );
  }
  if (position < fileSize) {
    throw offsetsError(path, `${fileSize - position} bytes follow the last tensor`);
  }
}

/**
 * Looks over the header before it is parsed. JSON.parse takes memory by the container and by the member,
 * so 100 MB of "[" or of short keys would end the process; a real header nests three deep, holds a
 * container per 16 bytes or less, and a few members in each. JSON.parse also drops all but the last of
 * several equal keys without a word, which the number of keys shows.
 *
 * @returns the number of keys: the colons outside strings.
 */
function scanHeader(json: string, path: string): number {
  let keys = 0;
  let commas = 0;
  let depth = 0;
  let containers = 0;
  let inString = false;
  for (let i = 0; i < json.length; i++) {
    const char = json[i];
    if (inString) {
      if (char === "\\") i++;
      else if (char === '"') inString = false;
    } else if (char === '"') {
      inString = true;
    } else if (char === ":") {
      keys++;
    } else if (char === ",") {
      commas++;
    } else if (char === "{" || char === "[") {
      containers++;
      depth++;
      if (depth > 3) throw headerError(path, "nested deeper than the format allows");
    } else if (char === "}" || char === "]") {
      depth--;
    }
  }
  // The constants leave room for 50,000 entries of metadata, and for 80 dimensions in every shape.
  if (containers > 2 + json.length / 16 || keys + commas > 100_000 + 32 * containers) {
    const got = `${containers} objects and arrays with ${commas} commas`;
    throw headerError(path, `${got} in ${json.length} characters`);
  }
  return keys;
}
