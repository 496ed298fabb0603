import { brotliDecompressSync, gunzipSync } from "node:zlib";
import type {
  ColumnMetaData,
  Compressors,
  DataPageHeader,
  DataReader,
  PageHeader,
} from "hyparquet";
import { parquetHeader } from "hyparquet/src/column.js";
import { compressors, decompressZstd } from "hyparquet-compressors";

// hyparquet believes what a file says of itself. One changed byte can make a run of 2^31 values or a
// page of negative length, and V8 ends the process where an array grows without end, so everything that
// becomes an allocation or moves a position is looked over before it is decoded.

/** Far above what writers make: 1 Mi rows at most, and some 100 MB. */
export const MAX_GROUP_ROWS = 2 ** 24;
export const MAX_CHUNK_BYTES = 2 ** 30;

/** Those of hyparquet-compressors; what unpacks to more than the promised length is an error. */
export const COMPRESSORS: Compressors = {
  ...compressors,
  GZIP: (input, length) => gunzipSync(input, { maxOutputLength: Math.max(1, length) }),
  BROTLI: (input, length) => brotliDecompressSync(input, { maxOutputLength: Math.max(1, length) }),
  ZSTD: (input, length) => decompressZstd(input, new Uint8Array(length)),
};

/** One column without lists of one row group. */
export interface ColumnChunk {
  readonly bytes: ArrayBuffer;
  readonly meta: ColumnMetaData;
  /**
   * How many of the column itself and the groups around it may be null; above 0 its pages begin with
   * definition levels, of which this one says that there is a value.
   */
  readonly maxDefinition: number;
  readonly rows: number;
}

/** What {@link checkPages} found. */
export interface CheckedPages {
  /** Unpacks them for hyparquet, which asks for one page after the other: each is unpacked already. */
  readonly compressors: Compressors;
  /** Bytes of the chunk that were looked over; hyparquet must not see any behind them. */
  readonly length: number;
}

/**
 * Looks over the pages of a column chunk.
 *
 * @throws Error whose message begins with "parquet", as those of hyparquet.
 */
export function checkPages({ bytes, meta, maxDefinition, rows }: ColumnChunk): CheckedPages {
  const reader = { view: new DataView(bytes), offset: 0 };
  const pages: Uint8Array[] = [];
  let left = MAX_CHUNK_BYTES;
  const unpack = (packed: Uint8Array, length: number) => {
    left -= requireSize(length, left);
    if (meta.codec === "UNCOMPRESSED") return packed;
    const page = COMPRESSORS[meta.codec]!(packed, length);
    pages.push(page);
    return page;
  };
  let rowsLeft = rows;
  while (rowsLeft > 0) {
    const header = parquetHeader(reader);
    const packed = take(reader, header.compressed_page_size);
    if (header.type === "DICTIONARY_PAGE") {
      unpack(packed, header.uncompressed_page_size);
      requireSize(header.dictionary_page_header?.num_values, MAX_GROUP_ROWS);
      continue;
    }
    const { data_page_header: v1, data_page_header_v2: v2 } = header;
    rowsLeft -= requireSize((v1 ?? v2)?.num_values, rowsLeft);
    if (header.type === "DATA_PAGE" && v1 !== undefined) {
      checkPage(unpack(packed, header.uncompressed_page_size), v1, meta, maxDefinition);
    } else if (header.type === "DATA_PAGE_V2" && v2 !== undefined) {
      checkPageV2(packed, header, meta, maxDefinition, unpack);
    } else {
      throw new Error(`parquet page of type ${header.type} among the data`);
    }
  }
  let next = 0;
  return { compressors: { [meta.codec]: () => pages[next++]! }, length: reader.offset };
}

function take(reader: DataReader, length: number): Uint8Array {
  const { buffer, byteLength } = reader.view;
  requireSize(length, byteLength - reader.offset);
  const bytes = new Uint8Array(buffer as ArrayBuffer, reader.offset, length);
  reader.offset += length;
  return bytes;
}

function checkPage(
  page: Uint8Array,
  { num_values, encoding }: DataPageHeader,
  meta: ColumnMetaData,
  maxDefinition: number,
): void {
  if (maxDefinition > 0) {
    const levels = prefixed(page);
    const present = checkRuns(levels, num_values, levelBits(maxDefinition), maxDefinition);
    checkIndices(page.subarray(PREFIX_BYTES + levels.length), present, encoding, meta);
  } else {
    checkIndices(page, num_values, encoding, meta);
  }
}

function checkPageV2(
  packed: Uint8Array,
  { data_page_header_v2: v2, uncompressed_page_size }: PageHeader,
  meta: ColumnMetaData,
  maxDefinition: number,
  unpack: (packed: Uint8Array, length: number) => Uint8Array,
): void {
  const { num_values, num_nulls, encoding, is_compressed } = v2!;
  const start = requireSize(v2!.repetition_levels_byte_length, packed.length);
  const length = requireSize(v2!.definition_levels_byte_length, packed.length - start);
  const present = num_values - requireSize(num_nulls, num_values);
  if (maxDefinition > 0) {
    checkRuns(packed.subarray(start, start + length), num_values, levelBits(maxDefinition));
  }
  const values = packed.subarray(start + length);
  const page =
    is_compressed === false ? values : unpack(values, uncompressed_page_size - start - length);
  checkIndices(page, present, encoding, meta);
}

/** Looks over the values where they are run-length encoded: dictionary indices and booleans. */
function checkIndices(
  page: Uint8Array,
  count: number,
  encoding: DataPageHeader["encoding"],
  { type }: ColumnMetaData,
): void {
  if (encoding !== "RLE" && !encoding?.endsWith("_DICTIONARY")) return;
  if (type === "BOOLEAN") checkRuns(prefixed(page), count, 1);
  // Indices of no bits need no runs.
  else if (page.length > 1) checkRuns(page.subarray(1), count, page[0]!);
}

const PREFIX_BYTES = 4;

/** The bytes behind a little-endian u32 that says how many they are. */
function prefixed(page: Uint8Array): Uint8Array {
  const view = new DataView(page.buffer, page.byteOffset, page.byteLength);
  const length = requireSize(view.getUint32(0, true), page.length - PREFIX_BYTES);
  return page.subarray(PREFIX_BYTES, PREFIX_BYTES + length);
}

function levelBits(maxLevel: number): number {
  return Math.ceil(Math.log2(maxLevel + 1));
}

/**
 * Walks over the runs that make up `count` values of `width` bits.
 *
 * @param wanted - a value of at most 8 bits.
 * @returns how many of them are `wanted`, where there is such.
 */
function checkRuns(bytes: Uint8Array, count: number, width: number, wanted?: number): number {
  if (width > 32) throw new Error(`parquet values of ${width} bits`);
  let offset = 0;
  let left = count;
  let found = 0;
  while (left > 0) {
    let header = 0;
    for (let shift = 0, byte = 0x80; byte >= 0x80; shift += 7) {
      byte = bytes[offset++] ?? Number.NaN;
      if (Number.isNaN(byte) || shift > 28) throw new Error("parquet run without a length");
      header += (byte & 0x7f) * 2 ** shift;
    }
    const isPacked = header % 2 === 1;
    // Packed values come in groups of eight, of which the last may be filled up.
    const length = isPacked ? 8 * ((header - 1) / 2) : header / 2;
    if (length > (isPacked ? Math.ceil(left / 8) * 8 : left)) {
      throw new Error(`parquet run of ${length} values where ${left} are left`);
    }
    const used = Math.min(length, left);
    if (wanted !== undefined && isPacked) {
      found += countPacked(bytes.subarray(offset), used, width, wanted);
    } else if (bytes[offset] === wanted) {
      found += used;
    }
    offset += isPacked ? (length / 8) * width : Math.ceil(width / 8);
    left -= used;
  }
  return found;
}

/** Values of at most 8 bits, packed from the lowest bit on. */
function countPacked(bytes: Uint8Array, count: number, width: number, wanted: number): number {
  let found = 0;
  for (let i = 0; i < count; i++) {
    const bit = i * width;
    const [low = 0, high = 0] = bytes.subarray(bit >> 3, (bit >> 3) + 2);
    const value = ((low | (high << 8)) >> (bit & 7)) & ((1 << width) - 1);
    if (value === wanted) found++;
  }
  return found;
}

/** Whether a number from a file can be a size. */
export function isSize(value: unknown, limit: number): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= limit;
}

function requireSize(value: unknown, limit: number): number {
  if (isSize(value, limit)) return value;
  throw new Error(`parquet size of ${value} where at most ${limit} fits`);
}
