import { isUtf8 } from "node:buffer";
import type { FileHandle } from "node:fs/promises";
import {
  type ColumnMetaData,
  type FileMetaData,
  parquetMetadata,
  parquetSchema,
  type RowGroup,
  type SchemaElement,
  type SchemaTree,
} from "hyparquet";
import { parquetReadColumn } from "hyparquet/src/read.js";

import { describe, LokoError } from "../errors.js";
import { type OpenFile, openFile, readInto, toFileError, withFile } from "../io/files.js";
import {
  COMPRESSORS,
  checkPages,
  isSize,
  MAX_CHUNK_BYTES,
  MAX_GROUP_ROWS,
} from "./parquet-pages.js";
import { type ChooseColumns, type DataRecord, formatError } from "./records.js";

/** Above any real file: metadata has some 100 bytes per column and row group. */
const MAX_FOOTER_BYTES = 64 * 2 ** 20;

const MAGIC = "PAR1";
/** At the end: the length of the metadata as a little-endian u32, and the magic again. */
const TAIL_BYTES = 8;

/** hyparquet replaces bytes that are not UTF-8 and drops a byte order mark; here both stay as they are. */
const PARSERS = {
  stringFromBytes: (bytes: Uint8Array | undefined) =>
    bytes !== undefined && isUtf8(bytes)
      ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString()
      : bytes,
};

/** Options of {@link readParquet}. */
export interface ParquetOptions {
  /**
   * A group among the chosen columns is read as its child of this name, and bytes come as bytes where the
   * file does not call them text.
   */
  readonly binaryChild?: string;
}

/**
 * Reads the chosen columns of a Parquet file, one row group after the other. Text comes as strings,
 * whole numbers as numbers, nulls as null.
 *
 * @throws LokoError ERR_FILE_NOT_FOUND, ERR_FILE_READ; ERR_DATA_FORMAT for a file that is damaged, cut
 * short or no Parquet; ERR_DATA_COLUMN for a nested column; ERR_UNSUPPORTED for a codec.
 */
export async function* readParquet(
  path: string,
  choose: ChooseColumns,
  options: ParquetOptions = {},
): AsyncGenerator<DataRecord, void, undefined> {
  const file = await openFile(path);
  try {
    const metadata = await readMetadata(path, file);
    const schema = await decoding(path, () => parquetSchema(metadata).children);
    const chosen = choose(schema.map(({ element }) => element.name)).map((name) =>
      findLeaf(path, schema.find(({ element }) => element.name === name)!, options),
    );
    let position = 0;
    for (const group of metadata.row_groups) {
      const columns = await decoding(path, () => readGroup(path, file, metadata, group, chosen));
      const rows = Number(group.num_rows);
      for (let row = 0; row < rows; row++) {
        yield { values: columns.map((column) => plain(column[row])), position: ++position };
      }
    }
  } catch (error) {
    throw toFileError(path, error);
  } finally {
    await file.handle.close();
  }
}

/** What a Parquet file says of itself. */
export interface ParquetInfo {
  readonly rows: number;
  readonly columns: readonly string[];
  /** Texts that writers leave there, by their keys. */
  readonly notes: ReadonlyMap<string, string>;
}

/** @throws LokoError ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_DATA_FORMAT. */
export async function readParquetInfo(path: string): Promise<ParquetInfo> {
  return withFile(path, async (file) => {
    const metadata = await readMetadata(path, file);
    return decoding(path, () => ({
      rows: metadata.row_groups.reduce((sum, { num_rows }) => sum + Number(num_rows), 0),
      columns: parquetSchema(metadata).children.map(({ element }) => element.name),
      notes: new Map(metadata.key_value_metadata?.map(({ key, value = "" }) => [key, value])),
    }));
  });
}

const TYPES = ["BYTE_ARRAY", "BOOLEAN", "INT32", "INT64", "FLOAT", "DOUBLE"];

/** A column that holds values, and how it is read. */
interface LeafColumn {
  /** The column, or the group around it and the column. */
  readonly elements: readonly SchemaElement[];
  readonly isBinary: boolean;
}

function findLeaf(
  path: string,
  { element, children }: SchemaTree,
  { binaryChild }: ParquetOptions,
): LeafColumn {
  const child = children.find(({ element: { name } }) => name === binaryChild);
  const elements = child === undefined ? [element] : [element, child.element];
  const isLeaf = (child?.children ?? children).length === 0;
  const { type = "a group" } = elements.at(-1)!;
  const isRepeated = elements.some(({ repetition_type }) => repetition_type === "REPEATED");
  if (isLeaf && !isRepeated && TYPES.includes(type)) {
    return { elements, isBinary: binaryChild !== undefined };
  }
  const wanted = binaryChild === undefined ? "text" : "images";
  throw new LokoError(
    "ERR_DATA_COLUMN",
    `${path}: column ${describe(element.name)} is nested or of a type (${type}) that holds neither ` +
      `${wanted} nor labels.`,
  );
}

function plain(value: unknown): unknown {
  return typeof value === "bigint" ? Number(value) : value;
}

/** hyparquet trusts its input, so that damaged files end in any exception, a RangeError most often. */
async function decoding<T>(path: string, decode: () => T | Promise<T>): Promise<T> {
  try {
    return await decode();
  } catch (error) {
    const { syscall, message } = error as NodeJS.ErrnoException;
    if (error instanceof LokoError || syscall !== undefined) throw error;
    // Others are of the engine: "Cannot read properties of undefined".
    const isOfParquet = /^(parquet|thrift) /.test(message);
    throw damaged(path, isOfParquet ? message : "its parts contradict each other", error);
  }
}

function damaged(path: string, problem: string, cause?: unknown): LokoError {
  return formatError(path, `damaged Parquet file: ${problem}`, cause);
}

async function readMetadata(path: string, { handle, size }: OpenFile): Promise<FileMetaData> {
  const head = Buffer.alloc(MAGIC.length);
  await readInto(handle, head, 0);
  if (head.toString("latin1") !== MAGIC) {
    throw formatError(
      path,
      size === 0
        ? "the file is empty"
        : `not a Parquet file: expected "${MAGIC}" at its start, got ${describe(head.toString("latin1"))}`,
    );
  }
  const tail = Buffer.alloc(TAIL_BYTES);
  await readInto(handle, tail, Math.max(0, size - TAIL_BYTES));
  if (tail.toString("latin1", 4) !== MAGIC || size < MAGIC.length + TAIL_BYTES) {
    throw formatError(
      path,
      `the Parquet file is cut short: expected "${MAGIC}" at its end. Copy or download it again`,
    );
  }
  const length = tail.readUInt32LE(0);
  if (length > Math.min(size - MAGIC.length - TAIL_BYTES, MAX_FOOTER_BYTES)) {
    throw damaged(path, `metadata of ${length} bytes in a file of ${size} bytes`);
  }
  const footer = await readRange(path, handle, size - length - TAIL_BYTES, size);
  return decoding(path, () => parquetMetadata(footer, { geoparquet: false }));
}

async function readRange(
  path: string,
  handle: FileHandle,
  start: number,
  end: number,
): Promise<ArrayBuffer> {
  const bytes = new Uint8Array(end - start);
  const got = await readInto(handle, bytes, start);
  if (got < bytes.length) {
    throw formatError(path, `expected ${bytes.length} bytes at ${start}, got ${got}`);
  }
  return bytes.buffer;
}

/** The values of each chosen column, all of them in memory. */
async function readGroup(
  path: string,
  file: OpenFile,
  metadata: FileMetaData,
  group: RowGroup,
  chosen: readonly LeafColumn[],
): Promise<ArrayLike<unknown>[]> {
  const rows = Number(group.num_rows);
  if (!isSize(rows, MAX_GROUP_ROWS)) {
    throw damaged(path, `a row group of ${rows} rows; the limit is ${MAX_GROUP_ROWS}`);
  }
  const columns: ArrayLike<unknown>[] = [];
  for (const column of chosen) {
    const values = await readColumn(path, file, metadata, group, column);
    if (values.length !== rows) {
      const name = column.elements[0]!.name;
      throw damaged(path, `${values.length} values of column ${describe(name)} for ${rows} rows`);
    }
    columns.push(values);
  }
  return columns;
}

async function readColumn(
  path: string,
  file: OpenFile,
  metadata: FileMetaData,
  group: RowGroup,
  { elements, isBinary }: LeafColumn,
): Promise<ArrayLike<unknown>> {
  const names = elements.map(({ name }) => name);
  const chunk = group.columns.find(({ meta_data }) =>
    names.every((name, i) => meta_data?.path_in_schema[i] === name),
  );
  const meta = chunk?.meta_data;
  if (meta === undefined || meta.type !== elements.at(-1)!.type) {
    throw damaged(path, `no data of column ${describe(names.join("."))}`);
  }
  const bytes = await readChunk(path, file, meta);
  const maxDefinition = elements.filter((e) => e.repetition_type !== "REQUIRED").length;
  const rows = Number(group.num_rows);
  const { compressors, length } = checkPages({ bytes, meta, rows, maxDefinition });
  const checked = length === bytes.byteLength ? bytes : bytes.slice(0, length);
  const values = await parquetReadColumn({
    // Asked for the bytes of the one column alone.
    file: { byteLength: file.size, slice: () => checked },
    // Of a group only the one child, so that nothing else of it is read.
    metadata: {
      ...metadata,
      schema: [
        { ...metadata.schema[0]!, num_children: 1 },
        ...elements.map((element, i) =>
          i === elements.length - 1 ? element : { ...element, num_children: 1 },
        ),
      ],
      row_groups: [{ ...group, columns: [chunk!] }],
    },
    columns: [names[0]!],
    compressors,
    parsers: PARSERS,
    utf8: !isBinary,
  });
  if (elements.length === 1) return values;
  const child = names[1]!;
  return Array.from(values as ArrayLike<Record<string, unknown> | null>, (row) => row?.[child]);
}

async function readChunk(
  path: string,
  { handle, size }: OpenFile,
  meta: ColumnMetaData,
): Promise<ArrayBuffer> {
  if (meta.codec !== "UNCOMPRESSED" && !Object.hasOwn(COMPRESSORS, meta.codec)) {
    throw new LokoError(
      "ERR_UNSUPPORTED",
      `${path}: column ${describe(meta.path_in_schema[0])} is compressed with ${meta.codec ?? "an unknown codec"}; ` +
        `expected none or one of ${Object.keys(COMPRESSORS).join(", ")}.`,
    );
  }
  const start = Number(meta.dictionary_page_offset || meta.data_page_offset);
  const length = Number(meta.total_compressed_size);
  if (!isSize(start, size) || !isSize(length, Math.min(size - start, MAX_CHUNK_BYTES))) {
    throw damaged(path, `a column chunk of ${length} bytes at ${start} in a file of ${size} bytes`);
  }
  return readRange(path, handle, start, start + length);
}
