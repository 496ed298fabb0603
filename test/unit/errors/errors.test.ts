import { expect, describe as suite, test } from "vitest";

import { describe, fromNative, LokoError, nearestNames } from "../../../lib/errors.js";

suite("LokoError", () => {
  test("is an Error with a code, a cause and its own name", () => {
    const cause = new Error("disk");
    const error = new LokoError("ERR_FILE_READ", "weights: cannot be read", { cause });
    expect(error).toBeInstanceOf(Error);
    expect(error.code).toBe("ERR_FILE_READ");
    expect(error.cause).toBe(cause);
    expect(String(error)).toBe("LokoError: weights: cannot be read");
    expect(error.stack).toContain("LokoError");
  });
});

suite("fromNative", () => {
  test("keeps the code and the message of an error from the addon", () => {
    const native = Object.assign(new Error("label 7 of 5"), { code: "ERR_LABEL_RANGE" });
    const error = fromNative(native);
    expect(error).toMatchObject({ code: "ERR_LABEL_RANGE", message: "label 7 of 5" });
    expect(error.cause).toBe(native);
  });

  test("gives ERR_INTERNAL to what has none of our codes, Node's own codes included", () => {
    const nodeError = Object.assign(new TypeError("bad"), { code: "ERR_INVALID_ARG_TYPE" });
    expect(fromNative(nodeError).code).toBe("ERR_INTERNAL");
    expect(fromNative(new Error("std::bad_function_call")).code).toBe("ERR_INTERNAL");
    expect(fromNative(Object.assign(new Error("x"), { code: 5 })).code).toBe("ERR_INTERNAL");
    expect(fromNative("a string").message).toContain('"a string"');
    expect(fromNative(undefined).code).toBe("ERR_INTERNAL");
  });

  test("returns a LokoError unchanged", () => {
    const error = new LokoError("ERR_DISPOSED", "gone");
    expect(fromNative(error)).toBe(error);
  });
});

test("describe gives a short text for any value, and escapes control characters", () => {
  expect(describe("a\nb")).toBe('"a\\nb"');
  expect(describe("x".repeat(500))).toBe(`"${"x".repeat(120)}"... (500 characters)`);
  expect(describe(-0.5)).toBe("-0.5");
  expect(describe(7n)).toBe("7n");
  expect(describe(null)).toBe("null");
  expect(describe(undefined)).toBe("undefined");
  expect(describe([1, 2])).toBe("an array of 2");
  expect(describe(new Float64Array(1))).toBe("a Float64Array");
  expect(describe({})).toBe("an object");
  expect(describe(Object.create(null))).toBe("an object");
  expect(describe(() => 1)).toBe("a function");
  expect(describe(Symbol("s"))).toBe("Symbol(s)");
});

test("describe never throws", () => {
  const { proxy, revoke } = Proxy.revocable([], {});
  revoke();
  expect(describe(proxy)).toBe("an object that cannot be inspected");
  const nameless = Object.defineProperty(new Float32Array(1), "constructor", { value: undefined });
  expect(describe(nameless)).toBe("a Float32Array");
  expect(describe(Object.create(Float32Array.prototype))).toBe("an object");
  const hostile = Object.defineProperty(new DataView(new ArrayBuffer(1)), "constructor", {
    get() {
      throw new Error("hostile");
    },
  });
  expect(describe(hostile)).toBe("a DataView");
});

suite("nearestNames", () => {
  test("sorts by edit distance, without repeats", () => {
    const names = ["value", "query", "key", "query", "dense"];
    expect(nearestNames("qurey", names)).toEqual(["query", "key", "value"]);
    expect(nearestNames("kitten", ["sitting", "kitchen", "mitten"], 2)).toEqual([
      "mitten",
      "kitchen",
    ]);
    expect(nearestNames("", ["ab", "a"])).toEqual(["a", "ab"]);
    expect(nearestNames("x", [])).toEqual([]);
  });
});
