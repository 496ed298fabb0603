import { describe, expect, test } from "vitest";

import { invert, normalizeImages, rotate90 } from "../../../lib/images/pixels.js";
import { errorOf } from "../io/helpers.js";

describe("normalizeImages", () => {
  test("scales by 255, subtracts the mean and divides by the deviation of each channel", () => {
    const { pixelValues, shape } = normalizeImages(new Uint8Array([0, 255, 51, 102]), {
      height: 1,
      width: 2,
      mean: [0.5, 0.2],
      std: [0.5, 0.1],
    });
    expect(shape).toEqual([1, 2, 1, 2]);
    // (0, 1) with mean 0.5, std 0.5; (0.2, 0.4) with mean 0.2, std 0.1; then one rounding to float32.
    expect([...pixelValues].map((x) => Math.round(x * 1e6) / 1e6)).toEqual([-1, 1, 0, 2]);
  });

  test("repeats a grey image over the channels, for each image of a batch", () => {
    const grey = new Uint8Array([0, 255, 255, 0]);
    const options = { height: 1, width: 2, batch: 2, mean: [0, 0, 0], std: [1, 1, 1] };
    expect(normalizeImages(grey, options)).toEqual({
      pixelValues: new Float32Array([0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 1, 0]),
      shape: [2, 3, 1, 2],
    });
  });

  test("keeps planar images in a batch apart", () => {
    const images = new Uint8Array([0, 0, 255, 0, 255, 255, 0, 255]);
    const options = { height: 1, width: 2, batch: 2, mean: [0, 0], std: [1, 1] };
    expect([...normalizeImages(images, options).pixelValues]).toEqual([0, 0, 1, 0, 1, 1, 0, 1]);
  });

  test("refuses sizes, statistics and data that do not fit", async () => {
    const good = { height: 2, width: 2, mean: [0], std: [1] };
    const image = new Uint8Array(4);
    for (const bad of [
      { height: 0 },
      { width: 1.5 },
      { batch: 0 },
      { mean: [] },
      { std: [1, 1] },
      { std: [0] },
      { mean: [Number.NaN] },
      { mean: 0.5 },
      { std: undefined },
      { std: [1e-60] }, // what is divided by it is infinite
      { means: [0] },
    ]) {
      await errorOf("ERR_OPTION", () => normalizeImages(image, { ...good, ...bad } as typeof good));
    }
    await errorOf("ERR_OPTION", () => normalizeImages(image, undefined as never));
    await errorOf("ERR_INPUT_TYPE", () => normalizeImages(new Float32Array(4) as never, good));
    await errorOf("ERR_INPUT_TYPE", () => normalizeImages([0, 0, 0, 0] as never, good));
    await errorOf("ERR_SHAPE_MISMATCH", () => normalizeImages(new Uint8Array(5), good));
    await errorOf("ERR_SHAPE_MISMATCH", () => normalizeImages(image, { ...good, batch: 2 }));
    const { message } = await errorOf("ERR_SHAPE_MISMATCH", () =>
      normalizeImages(new Uint8Array(8), { ...good, mean: [0, 0, 0], std: [1, 1, 1] }),
    );
    expect(message).toBe(
      "expected one image of 2x2 with 1 or 3 channels, 4 or 12 bytes, got 8; batch says how many images there are.",
    );
  });
});

describe("rotate90", () => {
  const image = new Uint8Array([1, 2, 3, 4, 5, 6]);
  const size = { height: 2, width: 3 };

  // numpy.rot90([[1, 2, 3], [4, 5, 6]], turns).ravel()
  test.each([
    [0, [1, 2, 3, 4, 5, 6]],
    [1, [3, 6, 2, 5, 1, 4]],
    [2, [6, 5, 4, 3, 2, 1]],
    [3, [4, 1, 5, 2, 6, 3]],
    [-1, [4, 1, 5, 2, 6, 3]],
    [5, [3, 6, 2, 5, 1, 4]],
  ])("turns counter-clockwise by %i quarters as numpy.rot90", (turns, expected) => {
    expect([...rotate90(image, size, turns)]).toEqual(expected);
    expect([...image]).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test("turns once by default and refuses what does not fit", async () => {
    expect(rotate90(image, size)).toEqual(rotate90(image, size, 1));
    await errorOf("ERR_OPTION", () => rotate90(image, size, 0.5));
    await errorOf("ERR_OPTION", () => rotate90(image, { height: -2, width: -3 }));
    await errorOf("ERR_OPTION", () => rotate90(image, undefined as never));
    await errorOf("ERR_INPUT_TYPE", () => rotate90(new Float32Array(6) as never, size));
    await errorOf("ERR_INPUT_TYPE", () => invert(undefined as never));
    await errorOf("ERR_SHAPE_MISMATCH", () => rotate90(image, { height: 3, width: 3 }));
  });
});

test("invert is 255 minus each byte, and leaves the image as it is", () => {
  const image = new Uint8Array([0, 1, 254, 255]);
  expect([...invert(image)]).toEqual([255, 254, 1, 0]);
  expect([...image]).toEqual([0, 1, 254, 255]);
});
