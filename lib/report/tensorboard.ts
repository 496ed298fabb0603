// TensorBoard's event files: TFRecords, each an Event of tensorflow/core/util/event.proto. Of the fields
// that exist only these are written; the numbers are those of the .proto files.

import { randomUUID } from "node:crypto";
import { type FileHandle, mkdir, open } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { toWriteError, writeAll } from "../io/output-folder.js";
import { maskedCrc32c } from "./crc32c.js";

const EVENT = { wallTime: 1, step: 2, fileVersion: 3, summary: 5, sessionLog: 7 } as const;
const SUMMARY_VALUE = 1;
const VALUE = { tag: 1, simpleValue: 2 } as const;
const SESSION_STATUS = 1;
const SESSION_START = 1;

/** How protocol buffers encode a value. */
const WIRE = { varint: 0, fixed64: 1, bytes: 2, fixed32: 5 } as const;

function varint(value: number): Buffer {
  const bytes: number[] = [];
  let left = BigInt(value);
  for (; left > 0x7fn; left >>= 7n) bytes.push(Number(left & 0x7fn) | 0x80);
  return Buffer.from([...bytes, Number(left)]);
}

const key = (field: number, wire: number) => varint(field * 8 + wire);

const integer = (field: number, value: number) =>
  Buffer.concat([key(field, WIRE.varint), varint(value)]);

function double(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeDoubleLE(value);
  return Buffer.concat([key(field, WIRE.fixed64), bytes]);
}

function float(field: number, value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return Buffer.concat([key(field, WIRE.fixed32), bytes]);
}

function message(field: number, content: Uint8Array | string): Buffer {
  const bytes = Buffer.from(content as Uint8Array);
  return Buffer.concat([key(field, WIRE.bytes), varint(bytes.byteLength), bytes]);
}

/** Length, its checksum, the data, their checksum. */
export function frameRecord(data: Uint8Array): Buffer {
  const frame = Buffer.alloc(8 + 4 + data.byteLength + 4);
  frame.writeBigUInt64LE(BigInt(data.byteLength));
  frame.writeUInt32LE(maskedCrc32c(frame.subarray(0, 8)), 8);
  frame.set(data, 12);
  frame.writeUInt32LE(maskedCrc32c(data), 12 + data.byteLength);
  return frame;
}

/** The numbers of one moment, by tag; float32, as TensorBoard keeps them. */
export function encodeScalars(
  scalars: Readonly<Record<string, number>>,
  step: number,
  wallTime: number,
): Buffer {
  const values = Object.entries(scalars).map(([tag, value]) =>
    message(
      SUMMARY_VALUE,
      Buffer.concat([message(VALUE.tag, tag), float(VALUE.simpleValue, value)]),
    ),
  );
  return frameRecord(
    Buffer.concat([
      double(EVENT.wallTime, wallTime),
      integer(EVENT.step, step),
      message(EVENT.summary, Buffer.concat(values)),
    ]),
  );
}

function encodeVersion(wallTime: number): Buffer {
  const version = message(EVENT.fileVersion, "brain.Event:2");
  return frameRecord(Buffer.concat([double(EVENT.wallTime, wallTime), version]));
}

/** TensorBoard drops what earlier files say from this step on. */
function encodeStart(step: number, wallTime: number): Buffer {
  const log = message(EVENT.sessionLog, integer(SESSION_STATUS, SESSION_START));
  const head = [double(EVENT.wallTime, wallTime), integer(EVENT.step, step)];
  return frameRecord(Buffer.concat([...head, log]));
}

/** The tag of a log key, as the Hugging Face Trainer rewrites it: `eval/loss`, `train/learning_rate`. */
export function tagOf(logKey: string): string {
  return logKey.startsWith("eval_") ? `eval/${logKey.slice(5)}` : `train/${logKey}`;
}

const now = () => Date.now() / 1000;

/** An event file that grows. */
export class TensorBoardWriter {
  readonly path: string;
  readonly #handle: FileHandle;

  private constructor(path: string, handle: FileHandle) {
    this.path = path;
    this.#handle = handle;
  }

  /**
   * Begins a file in a folder, which is made where it is missing.
   *
   * @param startStep - what earlier files of the folder say from this step on is superseded.
   * @throws LokoError ERR_FILE_WRITE.
   */
  static async open(folder: string, startStep?: number): Promise<TensorBoardWriter> {
    const name = `events.out.tfevents.${Math.floor(now())}.${hostname()}.${process.pid}`;
    const path = join(folder, `${name}.${randomUUID().slice(0, 8)}`);
    try {
      await mkdir(folder, { recursive: true });
      const writer = new TensorBoardWriter(path, await open(path, "ax"));
      await writer.#append(encodeVersion(now()));
      if (startStep !== undefined) await writer.#append(encodeStart(startStep, now()));
      return writer;
    } catch (error) {
      throw toWriteError(path, error);
    }
  }

  /** @throws LokoError ERR_FILE_WRITE. */
  async scalars(scalars: Readonly<Record<string, number>>, step: number): Promise<void> {
    await this.#append(encodeScalars(scalars, step, now()));
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }

  async #append(record: Uint8Array): Promise<void> {
    try {
      await writeAll(this.#handle, record);
    } catch (error) {
      throw toWriteError(this.path, error);
    }
  }
}
