import { expect, test } from "vitest";
import { extentOf } from "../../../lib/cli/extent.js";

test("the extent of numbers is the least and the most, of a million as well", () => {
  expect(extentOf([3, -1, 2])).toEqual([-1, 3]);
  expect(extentOf(Float32Array.from({ length: 1e6 }, (_, i) => (i * 7) % 1000))).toEqual([0, 999]);
  expect(extentOf([Number.NaN, 1])).toEqual([Number.NaN, Number.NaN]);
  expect(extentOf([])).toEqual([Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]);
});
