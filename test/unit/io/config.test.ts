import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";

import { readBoolean, readNumber, readString } from "../../../lib/io/config.js";
import { parseJsonObject, readJsonObject } from "../../../lib/io/json.js";
import { errorOf, temporaryFolder } from "./helpers.js";

const config = parseJsonObject(
  Buffer.from('{"hidden":48,"eps":1e-5,"bias":true,"act":"gelu","none":null,"text":"48"}'),
  "some/config.json",
);

describe("readNumber", () => {
  test("reads numbers and integers within their bounds, inclusive", () => {
    expect(readNumber(config, "eps")).toBe(1e-5);
    expect(readNumber(config, "hidden", { integer: true, min: 48, max: 48 })).toBe(48);
  });

  test("uses the default only for an absent key", async () => {
    expect(readNumber(config, "absent", { default: 3 })).toBe(3);
    expect(readNumber(config, "hidden", { default: 3 })).toBe(48);
    await errorOf("ERR_CONFIG", () => readNumber(config, "none", { default: 3 }));
    await errorOf("ERR_CONFIG", () => readNumber(config, "text", { default: 3 }));
  });

  test("names the file, the key, the range and the value", async () => {
    const error = await errorOf("ERR_CONFIG", () =>
      readNumber(config, "eps", { integer: true, min: 1, max: 9 }),
    );
    expect(error.message).toBe(
      'some/config.json: "eps" must be an integer between 1 and 9, got 0.00001.',
    );
    const absent = await errorOf("ERR_CONFIG", () => readNumber(config, "absent"));
    expect(absent.message).toBe(
      'some/config.json: "absent" must be a number, got nothing (the key is absent).',
    );
  });

  test.each([
    ["below", { min: 49 }],
    ["above", { max: 47 }],
  ])("refuses a value %s the bound", async (_, options) => {
    await errorOf("ERR_CONFIG", () => readNumber(config, "hidden", options));
  });

  test.each([1.5, 2 ** 53, 1e-9])("does not take %d for an integer", async (value) => {
    expect(readNumber({ value }, "value")).toBe(value);
    await errorOf("ERR_CONFIG", () => readNumber({ value }, "value", { integer: true }));
  });

  test("does not find keys of Object.prototype or of a __proto__ in the file", async () => {
    const hostile = parseJsonObject(Buffer.from('{"__proto__":{"hidden":1}}'), "x");
    await errorOf("ERR_CONFIG", () => readNumber(hostile, "hidden"));
    await errorOf("ERR_CONFIG", () => readString(hostile, "constructor"));
  });
});

test("readBoolean takes true and false only", async () => {
  expect(readBoolean(config, "bias")).toBe(true);
  expect(readBoolean(config, "absent", { default: false })).toBe(false);
  const error = await errorOf("ERR_CONFIG", () => readBoolean(config, "hidden"));
  expect(error.message).toBe('some/config.json: "hidden" must be true or false, got 48.');
});

test("readString takes strings only, and only the ones allowed", async () => {
  expect(readString(config, "act")).toBe("gelu");
  expect(readString(config, "act", { oneOf: ["relu", "gelu"] })).toBe("gelu");
  expect(readString(config, "absent", { default: "relu" })).toBe("relu");
  await errorOf("ERR_CONFIG", () => readString(config, "hidden"));
  const error = await errorOf("ERR_CONFIG", () => readString(config, "act", { oneOf: ["relu"] }));
  expect(error.message).toBe('some/config.json: "act" must be one of "relu", got "gelu".');
});

test("an object made in memory is called a configuration in messages", async () => {
  const error = await errorOf("ERR_CONFIG", () => readNumber({ a: "x" }, "a"));
  expect(error.message).toBe('configuration: "a" must be a number, got "x".');
});

describe("parseJsonObject", () => {
  test.each([
    ["text that is not JSON", "{"],
    ["NaN, which Python writes and JSON does not have", '{"a":NaN}'],
    ["an array", "[]"],
    ["null", "null"],
    ["a number", "1"],
    ["nothing", ""],
    ["a byte order mark", "\u{feff}{}"],
  ])("refuses %s and names the file", async (_, text) => {
    const error = await errorOf("ERR_CONFIG", () => parseJsonObject(Buffer.from(text), "c.json"));
    expect(error.message).toContain("c.json: expected a JSON object");
  });

  test("refuses bytes that are not UTF-8", async () => {
    await errorOf("ERR_CONFIG", () =>
      parseJsonObject(Buffer.from('{"a":"\u00ff"}', "latin1"), "c.json"),
    );
  });
});

describe("readJsonObject", () => {
  test("reads a file, and refuses one above the limit or absent", async () => {
    const path = join(await temporaryFolder(), "c.json");
    await errorOf("ERR_FILE_NOT_FOUND", () => readJsonObject(path));
    await writeFile(path, '{"a":"é"}');
    expect(await readJsonObject(path)).toEqual({ a: "é" });
    expect(await readJsonObject(path, { maxBytes: 10 })).toEqual({ a: "é" });
    const error = await errorOf("ERR_FILE_READ", () => readJsonObject(path, { maxBytes: 9 }));
    expect(error.message).toBe(
      `${path}: expected at most 9 bytes of JSON, got 10. Is it the right file?`,
    );
  });
});
