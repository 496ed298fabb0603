import { describe, expect, test } from "vitest";

import { batches, Dataset, type ShuffleOptions } from "../../../lib/data/dataset.js";
import { errorOf } from "../io/helpers.js";
import { chiSquare } from "./helpers.js";

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const result: T[] = [];
  for await (const item of items) result.push(item);
  return result;
}

const range = (length: number) => Array.from({ length }, (_, i) => i);

/** Items from a generator that notes when it is opened and closed. */
function watched(length: number) {
  const log: string[] = [];
  const dataset = Dataset.from(async function* () {
    log.push("open");
    try {
      yield* range(length);
    } finally {
      log.push("close");
    }
  });
  return { dataset, log };
}

describe("Dataset", () => {
  test("gives the items of an array, a generator function and an async one, time and again", async () => {
    for (const dataset of [
      Dataset.from([1, 2, 3]),
      Dataset.from(function* () {
        yield* [1, 2, 3];
      }),
      Dataset.from(async function* () {
        yield* [1, 2, 3];
      }),
    ]) {
      expect(await all(dataset)).toEqual([1, 2, 3]);
      expect(await all(dataset)).toEqual([1, 2, 3]);
    }
  });

  test("takes the first items and closes the source", async () => {
    const { dataset, log } = watched(5);
    expect(await all(dataset.take(2))).toEqual([0, 1]);
    expect(log).toEqual(["open", "close"]);
    expect(await all(dataset.take(9))).toEqual([0, 1, 2, 3, 4]);
    expect(await all(dataset.take(0))).toEqual([]);
  });

  test("maps items and waits for promises", async () => {
    const dataset = Dataset.from([1, 2]).map(async (n) => n * 10);
    expect(await all(dataset)).toEqual([10, 20]);
  });

  test("groups items into batches, with or without a last one that is not full", async () => {
    expect(await all(batches([1, 2, 3, 4, 5], 2))).toEqual([[1, 2], [3, 4], [5]]);
    expect(await all(batches([1, 2, 3, 4, 5], 2, { dropLast: true }))).toEqual([
      [1, 2],
      [3, 4],
    ]);
    expect(await all(batches(Dataset.from([1, 2]), 2))).toEqual([[1, 2]]);
  });

  test("closes the source when a loop over batches of shuffled items ends early", async () => {
    const { dataset, log } = watched(100);
    for await (const _ of batches(dataset.map(String).shuffle({ seed: 1, bufferSize: 9 }), 4))
      break;
    expect(log).toEqual(["open", "close"]);
  });

  test("rejects once with an error of the source, and can be iterated over again", async () => {
    let opened = 0;
    const dataset = Dataset.from(async function* () {
      yield ++opened;
      throw new Error("no more");
    }).map(String);
    const iterator = dataset[Symbol.asyncIterator]();
    expect(await iterator.next()).toEqual({ done: false, value: "1" });
    await expect(iterator.next()).rejects.toThrow("no more");
    expect(await iterator.next()).toEqual({ done: true, value: undefined });
    await expect(all(dataset)).rejects.toThrow("no more");
    expect(opened).toBe(2);
  });

  // biome-ignore format: one case, one line.
  test.each([
    ["Dataset.from: expected an array", "ERR_INPUT_TYPE", () => Dataset.from(5 as never)],
    ['got "abc"', "ERR_INPUT_TYPE", () => Dataset.from("abc" as never)],
    ["got null", "ERR_INPUT_TYPE", () => Dataset.from(null as never)],
    ["got an object", "ERR_INPUT_TYPE", () => all(Dataset.from(() => ({}) as never))],
    ["map: expected a function, got 1", "ERR_INPUT_TYPE", () => Dataset.from([]).map(1 as never)],
    ["batches: expected an array", "ERR_INPUT_TYPE", () => batches({} as never, 1)],
    ["count must be an integer >= 0, got -1", "ERR_OPTION", () => Dataset.from([]).take(-1)],
    ["size must be an integer >= 1, got 0", "ERR_OPTION", () => batches([], 0)],
    ["dropLast must be true or false", "ERR_OPTION", () => batches([], 1, { dropLast: 1 as never })],
    ["shuffle: seed must be given", "ERR_OPTION", () => Dataset.from([]).shuffle({} as never)],
    ["seed must be an integer", "ERR_OPTION", () => Dataset.from([]).shuffle({ seed: 0.5 })],
    ["bufferSize must be", "ERR_OPTION", () => Dataset.from([]).shuffle({ seed: 1, bufferSize: 0 })],
    ["epoch must be", "ERR_OPTION", () => Dataset.from([]).shuffle({ seed: 1, epoch: -1 })],
    ['"sede"', "ERR_OPTION", () => Dataset.from([]).shuffle({ seed: 1, sede: 2 } as never)],
  ] as const)("refuses what cannot be used: %s", async (part, code, run) => {
    expect((await errorOf(code, run)).message).toContain(part);
  });
});

describe("shuffle", () => {
  const shuffle = (items: number[], options: ShuffleOptions) =>
    all(Dataset.from(items).shuffle(options));

  test("keeps every item, and gives the same order for the same seed and epoch", async () => {
    for (const bufferSize of [1, 7, 100, 1000]) {
      const once = await shuffle(range(100), { seed: 3, bufferSize });
      expect(once.toSorted((a, b) => a - b)).toEqual(range(100));
      expect(await shuffle(range(100), { seed: 3, bufferSize, epoch: 0 })).toEqual(once);
    }
    const dataset = Dataset.from(range(100)).shuffle({ seed: 3 });
    expect(await all(dataset)).toEqual(await all(dataset));
  });

  test("gives other orders for other seeds and other epochs", async () => {
    const orders = [
      await shuffle(range(20), { seed: 1 }),
      await shuffle(range(20), { seed: 2 }),
      await shuffle(range(20), { seed: 1, epoch: 1 }),
      await shuffle(range(20), { seed: 1, epoch: 2 ** 32 }),
      await shuffle(range(20), { seed: 1 + 2 ** 32 }),
    ];
    expect(new Set(orders.map(String)).size).toBe(5);
  });

  // Quantiles of 99.9 %, for 23 degrees of freedom and, with equal row and column sums, for 9².
  test("gives each order of four items equally often", async () => {
    const counts = new Map<string, number>();
    for (let seed = 0; seed < 12_000; seed++) {
      const order = String(await shuffle([0, 1, 2, 3], { seed }));
      counts.set(order, (counts.get(order) ?? 0) + 1);
    }
    expect(counts.size).toBe(24);
    expect(chiSquare([...counts.values()])).toBeLessThan(49.73);
  });

  test("moves each item to each place equally often, from one epoch to the next as well", async () => {
    const places = new Array<number>(100).fill(0);
    const moves = new Array<number>(100).fill(0);
    let previous = range(10);
    for (let epoch = 0; epoch < 5000; epoch++) {
      const order = await shuffle(range(10), { seed: 7, epoch });
      order.forEach((item, place) => {
        places[10 * item + place]!++;
        moves[10 * previous.indexOf(item) + place]!++;
      });
      previous = order;
    }
    expect(chiSquare(places)).toBeLessThan(126.08);
    expect(chiSquare(moves)).toBeLessThan(126.08);
  });

  test("draws the first item evenly from a full buffer, and lets none come earlier than it may", async () => {
    const firsts = new Array<number>(10).fill(0);
    let earliest = 0;
    for (let seed = 0; seed < 5000; seed++) {
      const order = await shuffle(range(30), { seed, bufferSize: 10 });
      firsts[order[0]!]!++;
      order.forEach((item, place) => {
        earliest = Math.max(earliest, item - place);
      });
    }
    expect(earliest).toBe(9);
    expect(chiSquare(firsts)).toBeLessThan(27.88);
  });

  test("reads no further ahead than its buffer", async () => {
    let read = 0;
    const source = Dataset.from(function* () {
      for (;;) yield read++;
    });
    for await (const _ of source.shuffle({ seed: 1, bufferSize: 50 })) break;
    expect(read).toBe(51);
  });
});
