import { expect, test } from "vitest";
import {
  largestRelativeDifference,
  mean,
  median,
  quantile,
} from "../../../benchmarks/statistics.js";

test("quantiles interpolate as numpy's do, and leave the values in place", () => {
  const values = [30, 1, 2, 10];
  expect(median(values)).toBe(6);
  expect(quantile(values, 0.95)).toBeCloseTo(27, 12);
  expect(quantile(values, 0)).toBe(1);
  expect(quantile(values, 1)).toBe(30);
  expect(values).toEqual([30, 1, 2, 10]);
});

test("of one value every quantile is that value, and of none there is none", () => {
  expect(quantile([7], 0.95)).toBe(7);
  expect(median([])).toBeNaN();
});

test("the mean is the arithmetic one", () => {
  expect(mean([1, 2, 6])).toBe(3);
});

test("losses are compared over the steps that both have, relative to the second", () => {
  expect(largestRelativeDifference([1, 2.02, 9], [1, 2])).toBeCloseTo(0.01, 12);
  expect(largestRelativeDifference([], [1])).toBeNaN();
});
