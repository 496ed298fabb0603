import { setTimeout } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Model } from "../../../lib/model.js";
import { LoKO } from "../../../lib/optim/loko.js";
import { type OnlineSample, type StepEvent, trainOnline } from "../../../lib/train/online.js";
import { loadAdapted, readVit } from "../../parity/fixtures.js";
import { expectError } from "../model/checkpoints.js";
import { images } from "../optim/samples.js";

function sample(i: number): OnlineSample {
  return { inputs: images(1, i), labels: Int32Array.of(i % 7) };
}

describe("trainOnline", () => {
  let model: Model;
  let optimizer: LoKO;
  beforeEach(async () => {
    model = await loadAdapted("odd", await readVit("odd"));
    optimizer = new LoKO(model);
  });
  afterEach(() => model.dispose());

  async function collect(stream: Iterable<OnlineSample> | AsyncIterable<OnlineSample>) {
    const events: StepEvent[] = [];
    for await (const event of trainOnline(model, optimizer, stream)) events.push(event);
    return events;
  }

  /** A stream that says how far it was read and whether it was closed. */
  function watched(length: number) {
    const state = { read: 0, closed: false };
    function* samples() {
      try {
        for (let i = 0; i < length; i++) {
          state.read++;
          yield sample(i);
        }
      } finally {
        state.closed = true;
      }
    }
    return { state, stream: samples() };
  }

  test("does the same steps as calls of step, and counts the prequential accuracy", async () => {
    const stream = Array.from({ length: 12 }, (_, i) => sample(i % 3));
    const events = await collect(stream);
    const theta = await model.readParameters();

    using other = await loadAdapted("odd", await readVit("odd"));
    const byHand = new LoKO(other);
    let correct = 0;
    for (const [index, { inputs, labels }] of stream.entries()) {
      const result = await byHand.step(inputs, labels);
      correct += result.correct;
      expect(events[index]).toEqual({
        ...result,
        labels,
        index,
        samples: index + 1,
        onlineAccuracy: correct / (index + 1),
      });
    }
    expect(events.length).toBe(12);
    expect(theta).toEqual(await other.readParameters());
    expect(correct).toBeGreaterThan(0);
  });

  test("takes async streams", async () => {
    async function* stream() {
      for (let i = 0; i < 3; i++) {
        await setTimeout(1);
        yield sample(i);
      }
    }
    expect((await collect(stream())).map(({ index }) => index)).toEqual([0, 1, 2]);
  });

  test("reads no further than it is asked to, and closes the stream when the loop ends early", async () => {
    const { state, stream } = watched(100);
    for await (const { index } of trainOnline(model, optimizer, stream)) {
      expect(state.read).toBe(index + 1);
      if (index === 4) break;
    }
    expect(state).toEqual({ read: 5, closed: true });
  });

  test("lets the event loop turn between steps", async () => {
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    await collect(Array.from({ length: 50 }, (_, i) => sample(i)));
    clearInterval(timer);
    expect(turns).toBeGreaterThan(10);
  });

  test("rejects with the signal's reason before the first step", async () => {
    const { state, stream } = watched(3);
    const reason = new Error("stop");
    const signal = AbortSignal.abort(reason);
    const run = trainOnline(model, optimizer, stream, { signal });
    await expect(run.next()).rejects.toBe(reason);
    expect(state.read).toBe(0);
  });

  test("rejects with the signal's reason between steps", async () => {
    const { state, stream } = watched(100);
    const controller = new AbortController();
    const reason = new Error("stop");
    const seen: number[] = [];
    const run = async () => {
      const { signal } = controller;
      for await (const { index } of trainOnline(model, optimizer, stream, { signal })) {
        seen.push(index);
        if (index === 2) controller.abort(reason);
      }
    };
    await expect(run()).rejects.toBe(reason);
    expect(seen).toEqual([0, 1, 2]);
    expect(state.closed).toBe(true);
    await optimizer.step(sample(0).inputs, sample(0).labels); // the model is free again
  });

  test("does not wait for a stream that never answers once it is aborted", async () => {
    const controller = new AbortController();
    const silent: AsyncIterable<OnlineSample> = {
      [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }),
    };
    const run = trainOnline(model, optimizer, silent, { signal: controller.signal });
    const next = run.next();
    controller.abort();
    await expect(next).rejects.toMatchObject({ name: "AbortError" });
  });

  test("does not wait for a stream that cannot be closed once it is aborted", async () => {
    async function* stuck() {
      await new Promise(() => {});
      yield sample(0);
    }
    const controller = new AbortController();
    const waiting = trainOnline(model, optimizer, stuck(), { signal: controller.signal }).next();
    controller.abort();
    await expect(waiting).rejects.toMatchObject({ name: "AbortError" });

    const late = new AbortController();
    const item = {
      ...sample(0),
      // Read after the stream has answered and before the step: the abort comes while the step runs.
      get labels() {
        late.abort();
        return Int32Array.of(0);
      },
    };
    const unending: Iterable<OnlineSample> = {
      [Symbol.iterator]: () => ({
        next: () => ({ done: false, value: item }),
        return: () => new Promise<never>(() => {}) as never,
      }),
    };
    const run = trainOnline(model, optimizer, unending, { signal: late.signal });
    await expect(run.next()).rejects.toMatchObject({ name: "AbortError" });
  });

  test("passes on the error of a step and closes the stream", async () => {
    const { state, stream } = watched(3);
    const bad = { inputs: images(1), labels: Int32Array.of(7) };
    function* withBad() {
      yield* stream;
      yield bad;
    }
    await expectError(() => collect(withBad()), "ERR_LABEL_RANGE", "labels[0]");
    expect(state.closed).toBe(true);
  });

  test("counts samples whose logits were not finite, as not predicted", async () => {
    const theta = await model.readParameters();
    await model.writeParameters(theta.fill(3e38));
    const events = await collect([sample(0), sample(1)]);
    expect(events.map(({ skipped }) => skipped)).toEqual([
      "non-finite-logits",
      "non-finite-logits",
    ]);
    expect(events.map(({ predictions }) => [...predictions])).toEqual([[-1], [-1]]);
    expect(events.map(({ samples }) => samples)).toEqual([1, 2]);
    expect(events.map(({ onlineAccuracy }) => onlineAccuracy)).toEqual([0, 0]);
  });

  test.each<[string, unknown, string, string]>([
    ["options of null", null, "ERR_OPTION", "null"],
    ["an unknown option", { sginal: 1 }, "ERR_OPTION", '"signal"'],
    ["a signal that is none", { signal: {} }, "ERR_OPTION", "AbortSignal"],
  ])("refuses %s", async (_, options, code, words) => {
    const run = () => trainOnline(model, optimizer, [], options as object).next();
    await expectError(run, code, "trainOnline", words);
  });

  test.each([undefined, null, {}])("refuses %j as model and as optimizer", async (bad) => {
    const none = bad as never;
    await expectError(() => trainOnline(none, optimizer, []).next(), "ERR_INPUT_TYPE", "model");
    await expectError(() => trainOnline(model, none, []).next(), "ERR_INPUT_TYPE", "optimizer");
  });

  test.each<[string, unknown]>([
    ["has no iterator", { [Symbol.iterator]: 5 }],
    ["returns no iterator", { [Symbol.iterator]: () => 5 }],
    ["returns an iterator without next", { [Symbol.asyncIterator]: () => ({}) }],
    ["answers next with no result", { [Symbol.iterator]: () => ({ next: () => 5 }) }],
  ])("refuses a stream that %s", async (_, stream) => {
    const bad = stream as OnlineSample[];
    await expectError(() => collect(bad), "ERR_INPUT_TYPE", "trainOnline", "stream");
  });

  test.each<[string, unknown]>([
    ["undefined", undefined],
    ["a number", 5],
    ["without inputs", { labels: Int32Array.of(1) }],
    ["without labels", { inputs: images(1) }],
  ])("says which item of the stream is %s, and closes the stream", async (_, item) => {
    let closed = false;
    function* stream() {
      try {
        yield sample(0);
        yield item as OnlineSample;
      } finally {
        closed = true;
      }
    }
    await expectError(() => collect(stream()), "ERR_INPUT_TYPE", "item 1 of the stream");
    expect(closed).toBe(true);
  });

  test("waits until the stream is closed, and reports a failure of that on break", async () => {
    let closed = false;
    const failure = new Error("closing");
    async function* stream(fails: boolean) {
      try {
        for (let i = 0; ; i++) yield sample(i);
      } finally {
        await setTimeout(5);
        closed = true;
        // biome-ignore lint/correctness/noUnsafeFinally: a stream whose clean-up fails
        if (fails) throw failure;
      }
    }
    for await (const _ of trainOnline(model, optimizer, stream(false))) break;
    expect(closed).toBe(true);
    const broken = async () => {
      for await (const _ of trainOnline(model, optimizer, stream(true))) break;
    };
    await expect(broken()).rejects.toBe(failure);
  });

  test("waits for the stream to close after an error, which its failure does not replace", async () => {
    let closed = false;
    const bad = { inputs: images(1), labels: Int32Array.of(7) };
    const stream: AsyncIterable<OnlineSample> = {
      [Symbol.asyncIterator]: () => ({
        next: async () => ({ done: false, value: bad }),
        return: async () => {
          await setTimeout(5);
          closed = true;
          throw new Error("closing");
        },
      }),
    };
    await expectError(() => collect(stream), "ERR_LABEL_RANGE");
    expect(closed).toBe(true);
    const failure = new Error("reading");
    let returns = 0;
    const unreadable: Iterable<OnlineSample> = {
      [Symbol.iterator]: () => ({
        next: () => {
          throw failure;
        },
        return: () => {
          returns++;
          return { done: true, value: undefined };
        },
      }),
    };
    await expect(collect(unreadable)).rejects.toBe(failure);
    expect(returns).toBe(0); // as for await: a stream that failed is over
  });

  test("refuses an optimizer of another model and a stream that is none", async () => {
    using other = await loadAdapted("odd", await readVit("odd"));
    await expectError(
      () => trainOnline(other, optimizer, []).next(),
      "ERR_OPTION",
      "another model",
    );
    const stream = 5 as unknown as OnlineSample[];
    await expectError(
      () => trainOnline(model, optimizer, stream).next(),
      "ERR_INPUT_TYPE",
      "iterable",
      "5",
    );
  });
});
