import { isUtf8 } from "node:buffer";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";

import { openFile, readInto, toFileError } from "../io/files.js";
import { formatError } from "./records.js";

const CHUNK_BYTES = 128 * 1024;
const BYTE_ORDER_MARK = Buffer.from("\ufeff");
const LINE_FEED = 10;

/**
 * The bytes of a text file, plain or compressed with gzip, without a byte order mark. Each chunk is
 * valid UTF-8 by itself and holds no NUL.
 *
 * @throws LokoError ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_DATA_FORMAT.
 */
export function readTextChunks(path: string): AsyncGenerator<Buffer, void, undefined> {
  return checkTextChunks(readChunks(path), path);
}

/**
 * As {@link readTextChunks}, of bytes from elsewhere.
 *
 * @param path - names their origin in messages.
 */
export async function* checkTextChunks(
  chunks: AsyncIterable<Buffer>,
  path: string,
): AsyncGenerator<Buffer, void, undefined> {
  let rest: Buffer = Buffer.alloc(0);
  let line = 1;
  let isStart = true;
  for await (const chunk of chunks) {
    const bytes = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    const end = bytes.length - incompleteBytes(bytes);
    rest = bytes.subarray(end);
    let whole = bytes.subarray(0, end);
    if (!isUtf8(whole) || whole.includes(0)) throw badLine(path, line, whole);
    line += countLineFeeds(whole);
    if (isStart && end > 0) {
      isStart = false;
      if (whole.indexOf(BYTE_ORDER_MARK) === 0) whole = whole.subarray(BYTE_ORDER_MARK.length);
    }
    if (whole.length > 0) yield whole;
  }
  if (rest.length > 0) throw badLine(path, line, rest);
}

/** The bytes of a file as they come; gzip is known by its content and not by the name. */
async function* readChunks(path: string): AsyncGenerator<Buffer, void, undefined> {
  const { handle } = await openFile(path);
  try {
    const magic = new Uint8Array(2);
    await readInto(handle, magic, 0);
    const source = handle.createReadStream({
      start: 0,
      autoClose: false,
      highWaterMark: CHUNK_BYTES,
    });
    const isGzip = magic[0] === 0x1f && magic[1] === 0x8b;
    // Its errors come out of the iteration as well, so there is nothing to do at its end.
    yield* isGzip ? pipeline(source, createGunzip(), () => {}) : source;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code?.startsWith("Z_")) throw formatError(path, `damaged gzip data: ${message}`, error);
    throw toFileError(path, error);
  } finally {
    await handle.close();
  }
}

/** How many bytes at the end, 0 to 3, begin a character that goes on in the next chunk. */
function incompleteBytes(bytes: Buffer): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back]!;
    if (byte < 0x80) return 0;
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
    if (byte >= 0xc0) return back < length ? back : 0;
  }
  return 0;
}

function countLineFeeds(bytes: Buffer): number {
  let count = 0;
  for (let at = bytes.indexOf(LINE_FEED); at !== -1; at = bytes.indexOf(LINE_FEED, at + 1)) count++;
  return count;
}

/** The error for the first bad line; a line feed is never part of another character. */
function badLine(path: string, firstLine: number, bytes: Buffer) {
  let line = firstLine;
  let start = 0;
  for (;;) {
    const feed = bytes.indexOf(LINE_FEED, start);
    const text = bytes.subarray(start, feed === -1 ? bytes.length : feed);
    const where = `${path}: line ${line}`;
    if (text.includes(0)) {
      return formatError(
        where,
        "holds a NUL byte. Is it text? If it is UTF-16, convert it to UTF-8",
      );
    }
    if (feed === -1 || !isUtf8(text)) {
      return formatError(where, "is not valid UTF-8. Convert the file to UTF-8");
    }
    start = feed + 1;
    line++;
  }
}
