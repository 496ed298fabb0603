import { describe, expect, test } from "vitest";
import { ahead } from "../../../lib/data/ahead.js";

const tick = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Items that note how far they were read, and whether they were closed. */
function items(count: number) {
  const state = { read: 0, closed: false };
  async function* source() {
    try {
      for (let i = 0; i < count; i++) {
        state.read++;
        yield i;
      }
    } finally {
      state.closed = true;
    }
  }
  return { source: source(), state };
}

async function all<T>(results: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const result of results) list.push(result);
  return list;
}

describe("ahead", () => {
  test("gives results in the order of the items, whichever is ready first", async () => {
    const work = async (item: number) => {
      for (let i = 0; i < (item * 7) % 5; i++) await tick();
      return item * item;
    };
    const expected = Array.from({ length: 40 }, (_, i) => i * i);
    for (const limit of [1, 3, 100]) {
      expect(await all(ahead(items(40).source, work, limit))).toEqual(expected);
      expect(await all(ahead([...expected.keys()], work, limit))).toEqual(expected);
    }
    expect(await all(ahead([], work, 2))).toEqual([]);
  });

  test("begins as much as the limit says and no more, while the caller is busy", async () => {
    const { source, state } = items(100);
    let begun = 0;
    const results = ahead(source, async () => ++begun, 5);
    await results.next();
    for (let i = 0; i < 50; i++) await tick();
    // The first was taken, and five are ahead of it.
    expect({ begun, read: state.read }).toEqual({ begun: 6, read: 6 });
    await results.return();
  });

  test("works on as many at once as the limit says", async () => {
    let running = 0;
    let most = 0;
    const work = async () => {
      most = Math.max(most, ++running);
      for (let i = 0; i < 20; i++) await tick();
      running--;
    };
    await all(ahead(items(20).source, work, 4));
    expect(most).toBe(4);
  });

  test("gives an error in its place, and closes the source", async () => {
    const { source, state } = items(100);
    const work = async (item: number) => {
      if (item === 3) throw new Error("three");
      return item;
    };
    const seen: number[] = [];
    const run = async () => {
      for await (const result of ahead(source, work, 10)) seen.push(result);
    };
    await expect(run()).rejects.toThrow("three");
    expect(seen).toEqual([0, 1, 2]);
    for (let i = 0; i < 10; i++) await tick();
    expect(state.closed).toBe(true);
  });

  test("gives an error of the source after what came before it", async () => {
    async function* source() {
      yield 1;
      yield 2;
      throw new Error("source");
    }
    const seen: number[] = [];
    const run = async () => {
      for await (const result of ahead(source(), async (item) => item, 10)) seen.push(result);
    };
    await expect(run()).rejects.toThrow("source");
    expect(seen).toEqual([1, 2]);
  });

  test("closes the source when the loop ends early", async () => {
    const { source, state } = items(100);
    for await (const result of ahead(source, async (item) => item, 4)) if (result === 2) break;
    expect(state.closed).toBe(true);
    expect(state.read).toBeLessThanOrEqual(7);
  });
});
