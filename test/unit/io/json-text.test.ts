import { describe, expect, test } from "vitest";
import { formatJson, spelledMembers } from "../../../lib/io/json-text.js";

describe("spelledMembers", () => {
  test("gives every member of the top level as it is spelled", () => {
    const text = ` { "a": 1.0, "b" :[1, {"c": 2.50}] ,"d":"x, \\"}: y" , "e": { "a": 1e-6 }, "f": null}\n`;
    expect([...spelledMembers(text)]).toEqual([
      ["a", "1.0"],
      ["b", '[1, {"c": 2.50}]'],
      ["d", '"x, \\"}: y"'],
      ["e", '{ "a": 1e-6 }'],
      ["f", "null"],
    ]);
  });

  test("unescapes keys, takes the last of equal ones, and finds none in an empty object", () => {
    expect([...spelledMembers('{"a":1,"\\u0061":2.0}')]).toEqual([["a", "2.0"]]);
    expect([...spelledMembers("{}")]).toEqual([]);
    expect([...spelledMembers('{"":{}}')]).toEqual([["", "{}"]]);
  });
});

describe("formatJson", () => {
  test("spells what has not changed as before, and writes the rest", () => {
    const text = '{"scale":1.0,"size":2.0,"labels":{"a": 1.0},"gone":3}';
    const changed = { scale: 1, size: 3, labels: { a: 1 }, gone: undefined, more: { b: [1] } };
    expect(formatJson(changed, spelledMembers(text))).toBe(
      '{\n  "scale": 1.0,\n  "size": 3,\n  "labels": {"a": 1.0},\n' +
        '  "more": {\n    "b": [\n      1\n    ]\n  }\n}\n',
    );
  });
});

test("a string of 15 MB is no problem", () => {
  const long = JSON.stringify('\\"a'.repeat(3e6));
  expect(spelledMembers(`{"a":${long},"b":1.0}`).get("b")).toBe("1.0");
});
