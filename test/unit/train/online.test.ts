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
    expect(state.read).toBeLessThanOrEqual(1);
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
