import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { readIdx } from "../../../lib/data/idx.js";
import { LokoError } from "../../../lib/errors.js";
import { errorOf, temporaryFolder } from "../io/helpers.js";

/** Bytes from hexadecimal digits, with blanks for reading. */
const hex = (digits: string) => Buffer.from(digits.replaceAll(" ", ""), "hex");

async function file(bytes: Uint8Array, name = "data.idx"): Promise<string> {
  const path = join(await temporaryFolder(), name);
  await writeFile(path, bytes);
  return path;
}

const images = hex("00000803 00000002 00000001 00000003 01020304 05ff");

describe("readIdx", () => {
  test("reads bytes with their dimensions, as in MNIST's image files", async () => {
    expect(await readIdx(await file(images))).toEqual({
      dtype: "uint8",
      shape: [2, 1, 3],
      data: new Uint8Array([1, 2, 3, 4, 5, 255]),
    });
  });

  test.each([
    ["int8", "09", "ff", new Int8Array([-1])],
    ["int16", "0b", "fffe", new Int16Array([-2])],
    ["int32", "0c", "00010002", new Int32Array([65538])],
    ["float32", "0d", "3fc00000", new Float32Array([1.5])],
    ["float64", "0e", "c059000000000000", new Float64Array([-100])],
  ])("reads big-endian %s", async (dtype, code, value, data) => {
    const path = await file(hex(`0000${code}01 00000001 ${value}`));
    expect(await readIdx(path)).toEqual({ dtype, shape: [1], data });
  });

  test("knows gzip by its content and not by the name", async () => {
    const path = await file(gzipSync(images), "no-ending");
    expect((await readIdx(path)).data).toEqual(new Uint8Array([1, 2, 3, 4, 5, 255]));
  });

  test("reads gzip data of many chunks", async () => {
    const header = hex("00000802 00000400 00000800");
    const pixels = Buffer.from(Array.from({ length: 1024 * 2048 }, (_, i) => (i * i) >> 7));
    const { shape, data } = await readIdx(await file(gzipSync(Buffer.concat([header, pixels]))));
    expect(shape).toEqual([1024, 2048]);
    expect(Buffer.compare(Buffer.from(data.buffer as ArrayBuffer), pixels)).toBe(0);
  });

  test("accepts a dimension of zero and no dimension at all", async () => {
    expect(await readIdx(await file(hex("00000802 00000000 ffffffff")))).toMatchObject({
      shape: [0, 0xffffffff],
      data: new Uint8Array(0),
    });
    const overflowing = hex(`000008ff ${"ffffffff".repeat(254)} 00000000`);
    expect((await readIdx(await file(overflowing))).data).toEqual(new Uint8Array(0));
    expect((await readIdx(await file(hex("00000800 07")))).data).toEqual(new Uint8Array([7]));
  });

  test.each([
    ["an empty file", "", "ends after 0 bytes"],
    ["one byte", "00", "ends after 1 bytes"],
    ["a magic number that does not begin with zeros", "00010801 00000001 05", "got 00010801"],
    ["an unknown type", "00000a01 00000001 05", "got 00000a01"],
    ["a truncated header", "00000802 00000001 0000", "ends after 10 bytes"],
    ["truncated data", "00000801 00000003 0102", "expected 3 bytes of data for uint8[3], got 2"],
    ["data left over", "00000801 00000001 0102", "data follows the 1 bytes"],
    [
      "data left over from nothing",
      `000008ff ${"ffffffff".repeat(254)} 00000000 01`,
      "follows the 0 bytes",
    ],
    ["overflowing dimensions", `000008ff ${"ffffffff".repeat(255)}`, "the limit is 1073741824"],
  ])("refuses %s", async (_, digits, part) => {
    for (const bytes of [hex(digits), gzipSync(hex(digits))]) {
      const path = await file(bytes);
      const error = await errorOf("ERR_IDX_FORMAT", () => readIdx(path));
      expect(error.message).toContain(`${path}: not a valid IDX file: `);
      expect(error.message).toContain(part);
    }
  });

  test("refuses data above maxBytes from the header alone", async () => {
    const path = await file(images);
    expect((await readIdx(path, { maxBytes: 6 })).data.length).toBe(6);
    const error = await errorOf("ERR_IDX_FORMAT", () => readIdx(path, { maxBytes: 5 }));
    expect(error.message).toContain("uint8[2, 1, 3] needs 6 bytes, the limit is 5");
  });

  test("stops unpacking when more comes than the header promises", async () => {
    const bomb = gzipSync(Buffer.concat([hex("00000801 00000001"), Buffer.alloc(50_000_000)]));
    const path = await file(bomb);
    const before = process.memoryUsage().arrayBuffers;
    await errorOf("ERR_IDX_FORMAT", () => readIdx(path));
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(10_000_000);
  });

  test("reports damaged and truncated gzip data, and a missing file", async () => {
    const bytes = gzipSync(images);
    const truncated = await file(bytes.subarray(0, -6));
    expect((await errorOf("ERR_IDX_FORMAT", () => readIdx(truncated))).message).toContain("gzip");
    const flipped = Buffer.from(bytes);
    flipped[bytes.length - 5]! ^= 0x40;
    const damaged = await file(flipped);
    expect((await errorOf("ERR_IDX_FORMAT", () => readIdx(damaged))).message).toContain("gzip");
    await errorOf("ERR_FILE_NOT_FOUND", () => readIdx(`${damaged}.no`));
  });

  test("gives an array or a coded error for any bytes", async () => {
    const path = await file(images);
    // Half of the files begin with a valid type, so that many get past the magic number.
    const anyFile = fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc
        .tuple(fc.constantFrom(8, 9, 11, 12, 13, 14), fc.nat(3), fc.uint8Array({ maxLength: 40 }))
        .map(([type, dimensions, rest]) => Buffer.from([0, 0, type, dimensions, ...rest])),
    );
    await fc.assert(
      fc.asyncProperty(anyFile, fc.boolean(), async (bytes, compress) => {
        await writeFile(path, compress ? gzipSync(bytes) : bytes);
        try {
          const { shape, data } = await readIdx(path, { maxBytes: 1e6 });
          expect(data.length).toBe(shape.reduce((product, n) => product * n, 1));
        } catch (error) {
          expect(error).toBeInstanceOf(LokoError);
          expect((error as LokoError).code).toBe("ERR_IDX_FORMAT");
        }
      }),
      { numRuns: 500, seed: 1 },
    );
  });
});
