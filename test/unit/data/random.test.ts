import { describe, expect, test } from "vitest";

import { philox, Random } from "../../../lib/data/random.js";
import { chiSquare } from "./helpers.js";

describe("philox", () => {
  // kat_vectors of the Random123 distribution, lines "philox4x32 10".
  const ones = 0xffffffff;
  test.each([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [ones, ones, ones, ones],
      [ones, ones],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ] as const)("gives the known answer of Random123 for %j", (counter, key, expected) => {
    expect(philox(counter, key)).toEqual(expected);
  });
});

describe("Random", () => {
  test("gives the words of one block after the other, and uses all bits of seed and stream", () => {
    const random = new Random(2 ** 33 + 5, 2 ** 34 + 7);
    const words = Array.from({ length: 8 }, () => random.next());
    expect(words.slice(0, 4)).toEqual(philox([0, 0, 7, 4], [5, 2]));
    expect(words.slice(4)).toEqual(philox([1, 0, 7, 4], [5, 2]));
  });

  test("draws each number below a bound equally often", () => {
    const random = new Random(1);
    const counts = new Array<number>(10).fill(0);
    for (let i = 0; i < 100_000; i++) counts[random.below(10)]!++;
    // 99.9 % quantile of chi-square with 9 degrees of freedom.
    expect(chiSquare(counts)).toBeLessThan(27.88);
  });

  test("favours no remainder where the bound is near 2^32", () => {
    const random = new Random(1);
    // Taking the remainder of a word would give numbers below 2^30 twice as often as others.
    const bound = 3 * 2 ** 30;
    let low = 0;
    for (let i = 0; i < 30_000; i++) if (random.below(bound) < 2 ** 30) low++;
    // One third, within four standard deviations of 82.
    expect(Math.abs(low - 10_000)).toBeLessThan(330);
  });
});
