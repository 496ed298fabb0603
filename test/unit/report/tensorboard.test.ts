import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { crc32c, maskedCrc32c } from "../../../lib/report/crc32c.js";
import { encodeScalars, TensorBoardWriter, tagOf } from "../../../lib/report/tensorboard.js";
import { expectError } from "../model/checkpoints.js";
import { temporaryFolder } from "../train/trainer-fixtures.js";
import { readEvents } from "./event-reader.js";

describe("crc32c", () => {
  // RFC 3720, appendix B.4, and the check value of the CRC catalogue.
  test.each([
    ["32 zeros", new Uint8Array(32), 0x8a9136aa],
    ["32 bytes of ones", new Uint8Array(32).fill(0xff), 0x62a8ab43],
    ["ascending bytes", Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
    ["descending bytes", Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
    ["123456789", Buffer.from("123456789"), 0xe3069283],
    ["nothing", new Uint8Array(), 0],
  ])("of %s", (_, bytes, expected) => expect(crc32c(bytes)).toBe(expected));

  test("is masked as TensorFlow does: rotated by 15 bits, plus a constant", () => {
    // The first bytes of every event file that TensorFlow or PyTorch writes: 24, and a3 7f 4b 22.
    const length = Buffer.from("1800000000000000", "hex");
    expect(maskedCrc32c(length)).toBe(0x224b7fa3);
  });
});

describe("the event file", () => {
  test("is byte by byte what the protocol says", () => {
    // Event { wall_time: 1.5 (field 1, fixed64), step: 300 (field 2, varint ac 02), summary (field 5) {
    //   value (field 1) { tag: "a" (field 1), simple_value: 0.5 (field 2, fixed32) } } }
    const event = "09000000000000f83f" + "10ac02" + "2a0a" + "0a08" + "0a0161" + "150000003f";
    const bytes = encodeScalars({ a: 0.5 }, 300, 1.5);
    expect(bytes.subarray(12, -4).toString("hex")).toBe(event);
    expect(bytes.readBigUInt64LE(0)).toBe(BigInt(event.length / 2));
    expect(bytes.readUInt32LE(8)).toBe(maskedCrc32c(bytes.subarray(0, 8)));
    expect(bytes.readUInt32LE(bytes.length - 4)).toBe(maskedCrc32c(bytes.subarray(12, -4)));
  });

  test("begins with its version, and holds every number in float32", async () => {
    using folder = temporaryFolder();
    const writer = await TensorBoardWriter.open(folder.path);
    await writer.scalars({ "train/loss": 0.1, "eval/accuracy": 1e-30 }, 1);
    await writer.scalars({ "train/loss": -3 }, 2 ** 40);
    await writer.close();
    const [name] = readdirSync(folder.path);
    expect(name).toMatch(/^events\.out\.tfevents\.\d{10}\./);
    const events = readEvents(readFileSync(join(folder.path, name!)));
    expect(events[0]).toMatchObject({ version: "brain.Event:2" });
    expect(events.slice(1).map(({ step, scalars }) => [step, scalars])).toEqual([
      [1, { "train/loss": Math.fround(0.1), "eval/accuracy": Math.fround(1e-30) }],
      [2 ** 40, { "train/loss": -3 }],
    ]);
    for (const { wallTime } of events)
      expect(Math.abs(wallTime - Date.now() / 1000)).toBeLessThan(60);
  });

  test("of a resumed run says from which step on it supersedes others", async () => {
    using folder = temporaryFolder();
    const writer = await TensorBoardWriter.open(join(folder.path, "a/b"), 12);
    await writer.close();
    const events = readEvents(readFileSync(writer.path));
    expect(events[1]).toMatchObject({ step: 12, sessionStatus: 1 });
    await expectError(() => TensorBoardWriter.open(writer.path), "ERR_FILE_WRITE");
    await expectError(() => writer.scalars({ a: 1 }, 1), "ERR_FILE_WRITE");
  });

  test("has the tags of the Hugging Face Trainer", () => {
    const keys = ["loss", "learning_rate", "eval_loss", "eval_accuracy", "train_runtime"];
    expect(keys.map(tagOf)).toEqual([
      "train/loss",
      "train/learning_rate",
      "eval/loss",
      "eval/accuracy",
      "train/train_runtime",
    ]);
  });
});
