import { execFileSync } from "node:child_process";
import { chmod, mkdir, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";

import { bfloat16ToFloat32, float16ToFloat32 } from "../../../lib/io/half.js";
import { openSafetensors, readTensor } from "../../../lib/io/safetensors.js";
import { parseSafetensorsHeader } from "../../../lib/io/safetensors-header.js";
import { errorOf, safetensorsBytes, temporaryFolder } from "./helpers.js";

const entry = (dtype: string, shape: unknown, begin: unknown, end: unknown) => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

/** Parses a header in front of `dataBytes` bytes of data. */
function parse(header: object | string, dataBytes: number) {
  const bytes = safetensorsBytes(header);
  return parseSafetensorsHeader(bytes, bytes.length + dataBytes, "w.safetensors");
}

describe("parseSafetensorsHeader", () => {
  test("gives absolute offsets in the order of the data, and the metadata", () => {
    const header = {
      b: entry("F16", [3], 8, 14),
      a: entry("F32", [2, 1], 0, 8),
      empty: entry("I64", [4, 0], 8, 8),
      scalar: entry("F64", [], 14, 22),
      __metadata__: { format: "pt" },
    };
    const start = safetensorsBytes(header).length;
    const { tensors, metadata } = parse(header, 22);
    expect([...tensors.keys()]).toEqual(["a", "empty", "b", "scalar"]);
    expect(tensors.get("b")).toEqual({
      name: "b",
      dtype: "F16",
      shape: [3],
      path: "w.safetensors",
      byteOffset: start + 8,
      byteLength: 6,
    });
    expect(tensors.get("empty")).toMatchObject({ byteOffset: start + 8, byteLength: 0 });
    expect(tensors.get("scalar")).toMatchObject({ shape: [], byteLength: 8 });
    expect([...metadata]).toEqual([["format", "pt"]]);
  });

  test("accepts a file without tensors, padding after the header, and every known dtype", () => {
    expect(parse("{}", 0).tensors.size).toBe(0);
    expect(parse('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}   ', 1).tensors.size).toBe(
      1,
    );
    for (const [dtype, bytes] of [
      ["F8_E4M3", 8],
      ["F6_E2M3", 6],
      ["F4", 4],
      ["C64", 64],
      ["BOOL", 8],
    ] as const) {
      expect(parse({ x: entry(dtype, [8], 0, bytes) }, bytes).tensors.size).toBe(1);
    }
  });

  test("treats names of Object.prototype as names", () => {
    const header = `{"__proto__":${JSON.stringify(entry("U8", [1], 0, 1))},"constructor":${JSON.stringify(entry("U8", [1], 1, 2))}}`;
    const { tensors } = parse(header, 2);
    expect([...tensors.keys()]).toEqual(["__proto__", "constructor"]);
    expect(({} as Record<string, unknown>).dtype).toBeUndefined();
  });

  test("takes quotes, colons and braces inside names as text", () => {
    const { tensors } = parse({ 'a":{[\\': entry("U8", [1], 0, 1) }, 1);
    expect([...tensors.keys()]).toEqual(['a":{[\\']);
  });

  test.each([
    ["three bytes", new Uint8Array(3)],
    ["an empty file", new Uint8Array(0)],
  ])("refuses %s as truncated", async (_, bytes) => {
    const error = await errorOf("ERR_SAFETENSORS_TRUNCATED", () =>
      parseSafetensorsHeader(bytes, bytes.length, "short.safetensors"),
    );
    expect(error.message).toContain(`short.safetensors`);
    expect(error.message).toContain(`got ${bytes.length}`);
  });

  test.each([
    ["longer than the file", 3n, "follow"],
    ["longer than the limit", 100_000_001n, "at most 100000000"],
    ["of 2^64 - 1 bytes", 2n ** 64n - 1n, "18446744073709551615"],
  ])("refuses a header said to be %s", async (_, length, part) => {
    const bytes = safetensorsBytes("{}", undefined, length);
    const error = await errorOf("ERR_SAFETENSORS_HEADER", () =>
      parseSafetensorsHeader(bytes, bytes.length, "w"),
    );
    expect(error.message).toContain(part);
  });

  test("refuses bytes that end inside the header", async () => {
    const bytes = safetensorsBytes({ a: entry("U8", [1], 0, 1) });
    await errorOf("ERR_SAFETENSORS_TRUNCATED", () =>
      parseSafetensorsHeader(bytes.subarray(0, 20), bytes.length + 1, "w"),
    );
  });

  const entryText = JSON.stringify(entry("U8", [1], 0, 1));
  test.each([
    ["not JSON", '{"a":'],
    ["an array", "[]"],
    ["space before the brace", " {}"],
    ["a byte order mark", "\u{feff}{}"],
    ["an entry that is no object", '{"a":1}'],
    ["an entry that is null", '{"a":null}'],
    ["an entry that is an array", '{"a":[]}'],
    ["a missing key", '{"a":{"dtype":"U8","shape":[1]}}'],
    ["a dtype that is a number", { a: { dtype: 3, shape: [1], data_offsets: [0, 1] } }],
    ["a shape that is no array", { a: entry("U8", "1", 0, 1) }],
    ["a negative dimension", { a: entry("U8", [-1], 0, 1) }],
    ["a fractional dimension", { a: entry("U8", [0.5], 0, 1) }],
    [
      "an inexact dimension",
      `{"a":{"dtype":"U8","shape":[9007199254740993],"data_offsets":[0,1]}}`,
    ],
    ["an infinite dimension", `{"a":{"dtype":"U8","shape":[1e999],"data_offsets":[0,1]}}`],
    ["a string for an offset", { a: entry("U8", [1], "0", 1) }],
    ["a negative offset", { a: entry("U8", [1], -1, 0) }],
    ["a negative zero", '{"a":{"dtype":"U8","shape":[0],"data_offsets":[-0,0]}}'],
    ["three offsets", { a: { dtype: "U8", shape: [1], data_offsets: [0, 1, 2] } }],
    ["metadata that is no object", '{"__metadata__":[]}'],
    ["metadata that is no string", '{"__metadata__":{"a":1}}'],
    ["a tensor named twice", `{"a":${entryText},"a":${entryText}}`],
    [
      "a repeated key in an entry",
      `{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}`,
    ],
    ["repeated metadata", '{"__metadata__":{"a":"1","a":"2"}}'],
  ])("refuses a malformed header: %s", async (_, header) => {
    const error = await errorOf("ERR_SAFETENSORS_HEADER", () => parse(header, 1));
    expect(error.message).toContain("w.safetensors: malformed safetensors header");
    expect(error.message.length).toBeLessThan(600);
  });

  test.each([
    ["too deep", `{"a":${"[".repeat(1e6)}${"]".repeat(1e6)}}`, "nested deeper"],
    ["too many", `{"a":[${"[],".repeat(1e6)}[]]}`, "1000003 objects and arrays"],
    ["too full of numbers", `{"a":[${"1,".repeat(1e6)}1]}`, "1000000 commas"],
    ["too full of keys", `{${'"a":1,'.repeat(1e6)}"b":1}`, "1000000 commas"],
  ])("refuses containers that are %s before it parses them", async (_, header, part) => {
    const error = await errorOf("ERR_SAFETENSORS_HEADER", () => parse(header, 1));
    expect(error.message).toContain(part);
  });

  test("refuses an entry with an unknown key, and lists its keys", async () => {
    const header = { a: { ...entry("U8", [1], 0, 1), x: 1 } };
    const error = await errorOf("ERR_SAFETENSORS_HEADER", () => parse(header, 1));
    expect(error.message).toContain('must have exactly dtype, shape, data_offsets, got "dtype, ');
  });

  test("refuses a header that is not UTF-8", async () => {
    const bytes = safetensorsBytes(`{"a":${entryText}}`, new Uint8Array(1));
    bytes[10] = 0xff;
    const error = await errorOf("ERR_SAFETENSORS_HEADER", () =>
      parseSafetensorsHeader(bytes, bytes.length, "w"),
    );
    expect(error.message).toContain("UTF-8");
  });

  test("refuses a dtype the format does not define, also a name of Object.prototype", async () => {
    for (const dtype of ["F128", "f32", "", "toString", "__proto__"]) {
      const error = await errorOf("ERR_UNKNOWN_DTYPE", () =>
        parse({ a: entry(dtype, [1], 0, 1) }, 1),
      );
      expect(error.message).toContain(`"a" has the unknown dtype ${JSON.stringify(dtype)}`);
    }
  });

  test.each([
    ["begin after end", { a: entry("U8", [1], 1, 0) }, 1, "before it begins"],
    ["too few bytes for the shape", { a: entry("F32", [2], 0, 4) }, 4, "needs 8 bytes"],
    ["too many bytes for the shape", { a: entry("F32", [2], 0, 12) }, 12, "needs 8 bytes"],
    [
      "a shape whose size overflows",
      { a: entry("F32", [2 ** 50, 2 ** 50], 0, 4) },
      4,
      "needs an impossible number of bytes",
    ],
    [
      "a shape whose size overflows before a zero, as the reference refuses it",
      { a: entry("F32", [2 ** 50, 2 ** 50, 0], 0, 0) },
      0,
      "needs an impossible number of bytes",
    ],
    ["half a byte", { a: entry("F4", [1], 0, 1) }, 1, "needs an impossible number of bytes"],
    [
      "overlap",
      { a: entry("U8", [4], 0, 4), b: entry("U8", [4], 2, 6) },
      6,
      '"b" at data_offsets [2, 6] overlaps',
    ],
    [
      "the same range twice",
      { a: entry("U8", [4], 0, 4), b: entry("U8", [4], 0, 4) },
      4,
      "overlaps",
    ],
    ["a hole", { a: entry("U8", [2], 0, 2), b: entry("U8", [2], 3, 5) }, 5, "a hole of 1 bytes"],
    ["a hole at the start", { a: entry("U8", [2], 1, 3) }, 3, "a hole of 1 bytes"],
    ["an offset out of range", { a: entry("U8", [2], 100, 102) }, 2, "out of range"],
    ["bytes after the last tensor", { a: entry("U8", [2], 0, 2) }, 3, "1 bytes follow"],
    ["bytes after no tensor", {}, 1, "1 bytes follow"],
  ])("refuses offsets with %s", async (_, header, dataBytes, part) => {
    const error = await errorOf("ERR_SAFETENSORS_OFFSETS", () => parse(header, dataBytes));
    expect(error.message).toContain(part);
  });

  test("reports data that ends too early as truncated, with both sizes", async () => {
    const header = { a: entry("F32", [25], 0, 100) };
    const start = safetensorsBytes(header).length;
    const error = await errorOf("ERR_SAFETENSORS_TRUNCATED", () => parse(header, 99));
    expect(error.message).toContain(`expected ${start + 100} bytes`);
    expect(error.message).toContain(`got ${start + 99}`);
  });
});

describe("openSafetensors", () => {
  test("reports a missing file, a folder, a pipe and a file without permission", async () => {
    const dir = await temporaryFolder();
    await errorOf("ERR_FILE_NOT_FOUND", () => openSafetensors(join(dir, "no.safetensors")));
    await errorOf("ERR_FILE_NOT_FOUND", () => openSafetensors(join(dir, "no", "such.safetensors")));
    await mkdir(join(dir, "folder"));
    await errorOf("ERR_FILE_READ", () => openSafetensors(join(dir, "folder")));
    await errorOf("ERR_FILE_READ", () => openSafetensors("nul\0byte"));
    if (process.platform !== "win32") {
      execFileSync("mkfifo", [join(dir, "pipe")]);
      const pipe = await errorOf("ERR_FILE_READ", () => openSafetensors(join(dir, "pipe")));
      expect(pipe.message).toBe(`${join(dir, "pipe")}: expected a regular file.`);
      await writeFile(join(dir, "secret"), "x");
      await chmod(join(dir, "secret"), 0);
      // Root reads everything; the file is then merely too short.
      const code = process.getuid?.() === 0 ? "ERR_SAFETENSORS_TRUNCATED" : "ERR_FILE_READ";
      await errorOf(code, () => openSafetensors(join(dir, "secret")));
    }
  });

  test("reports a file cut anywhere, and never returns a partial result", async () => {
    const path = join(await temporaryFolder(), "w.safetensors");
    const bytes = safetensorsBytes({ a: entry("F32", [2], 0, 8) }, new Uint8Array(8));
    for (let size = 0; size < bytes.length; size++) {
      await writeFile(path, bytes.subarray(0, size));
      const inHeader = size >= 8 && size < bytes.length - 8;
      await errorOf(inHeader ? "ERR_SAFETENSORS_HEADER" : "ERR_SAFETENSORS_TRUNCATED", () =>
        openSafetensors(path),
      );
    }
  });
});

describe("readTensor", () => {
  test("reads every numeric dtype from its place in the file", async () => {
    const path = join(await temporaryFolder(), "w.safetensors");
    const parts = {
      F32: new Float32Array([1.5, -2]),
      F64: new Float64Array([0.1]),
      F16: new Uint16Array([0x3c00, 0xc000]),
      BF16: new Uint16Array([0x3f80, 0xc000]),
      I64: new BigInt64Array([-5n]),
      U64: new BigUint64Array([2n ** 63n]),
      I32: new Int32Array([-7]),
      U32: new Uint32Array([2 ** 31]),
      I16: new Int16Array([-300]),
      U16: new Uint16Array([60000]),
      I8: new Int8Array([-3]),
      U8: new Uint8Array([200]),
      BOOL: new Uint8Array([1, 0]),
    };
    const header: Record<string, object> = {};
    const data: Uint8Array[] = [];
    let position = 0;
    for (const [dtype, array] of Object.entries(parts)) {
      const end = position + array.byteLength;
      header[dtype] = entry(dtype, [array.length], position, end);
      data.push(new Uint8Array(array.buffer));
      position = end;
    }
    await writeFile(path, safetensorsBytes(header, Buffer.concat(data)));
    const { tensors } = await openSafetensors(path);
    for (const [dtype, array] of Object.entries(parts)) {
      const expected = dtype.endsWith("F16") ? new Float32Array([1, -2]) : array;
      expect(await readTensor(tensors.get(dtype)!)).toEqual(expected);
    }
  });

  test("refuses a dtype without a JavaScript type, and a file that shrank since", async () => {
    const path = join(await temporaryFolder(), "w.safetensors");
    const header = { f8: entry("F8_E4M3", [4], 0, 4), u8: entry("U8", [4], 4, 8) };
    await writeFile(path, safetensorsBytes(header, new Uint8Array(8)));
    const { tensors } = await openSafetensors(path);
    const error = await errorOf("ERR_UNSUPPORTED", () => readTensor(tensors.get("f8")!));
    expect(error.message).toContain("F8_E4M3");
    const u8 = tensors.get("u8")!;
    await truncate(path, u8.byteOffset + 2);
    await errorOf("ERR_SAFETENSORS_TRUNCATED", () => readTensor(u8));
  });
});

describe("half floats", () => {
  // Bit patterns and values from the tables of IEEE 754-2008 binary16 (also on Wikipedia).
  test("binary16 widens exactly", () => {
    const patterns: [number, number][] = [
      [0x0000, 0],
      [0x8000, -0],
      [0x0001, 2 ** -24],
      [0x03ff, 1023 * 2 ** -24],
      [0x0400, 2 ** -14],
      [0x3555, 0.333251953125],
      [0x3bff, 0.99951171875],
      [0x3c00, 1],
      [0x3c01, 1.0009765625],
      [0x7bff, 65504],
      [0xfbff, -65504],
      [0x7c00, Infinity],
      [0xfc00, -Infinity],
      [0x7e00, NaN],
    ];
    const widened = float16ToFloat32(new Uint16Array(patterns.map(([bits]) => bits)));
    expect([...widened]).toEqual(patterns.map(([, value]) => value));
  });

  test("bfloat16 is the upper half of a float32, for all 65,536 patterns", () => {
    const bits = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const widened = new Uint32Array(bfloat16ToFloat32(bits).buffer);
    expect(widened.every((value, i) => value === i * 65536)).toBe(true);
    expect([...bfloat16ToFloat32(new Uint16Array([0x3fc0, 0xc2f7]))]).toEqual([1.5, -123.5]);
  });
});
