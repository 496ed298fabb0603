// Without threads of its own, which need the built package: test/process/images.test.ts has those.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Dataset } from "../../../lib/data/dataset.js";
import { imageDataset } from "../../../lib/data/image-dataset.js";
import type { RawImage } from "../../../lib/images/image.js";
import { ImageProcessor } from "../../../lib/images/processor.js";
import type { ImageInputs } from "../../../lib/models/inputs.js";
import { type EncodeImagesOptions, encodeImages } from "../../../lib/train/encode-images.js";
import type { OnlineSample } from "../../../lib/train/stream.js";
import { readImageFile } from "../images/helpers.js";
import { errorOf, temporaryFolder } from "../io/helpers.js";

// Values as they are: the first byte of an image is its first value.
const processor = ImageProcessor.fromConfig({
  image_processor_type: "ViTImageProcessor",
  size: 2,
  do_rescale: false,
  do_normalize: false,
});

function pixels(value: number): RawImage {
  return { data: new Uint8Array(12).fill(value), height: 2, width: 2, channels: 3 };
}

const examples = Dataset.from(
  Array.from({ length: 7 }, (_, i) => ({
    image: pixels(i),
    label: 6 - i,
    row: i + 1,
    name: `image ${i}`,
  })),
);

async function batchesOf(
  items: Parameters<typeof encodeImages>[1],
  options?: EncodeImagesOptions,
): Promise<OnlineSample[]> {
  const samples: OnlineSample[] = [];
  for await (const sample of encodeImages(processor, items, { workers: 0, ...options })) {
    samples.push(sample);
  }
  return samples;
}

const firstValues = (samples: OnlineSample[]) =>
  samples.flatMap(({ inputs }) => {
    const { pixelValues } = inputs as ImageInputs;
    return [...pixelValues.filter((_, i) => i % 12 === 0)];
  });

describe("encodeImages", () => {
  test("makes batches of images and labels, in their order", async () => {
    const samples = await batchesOf(examples, { batchSize: 3 });
    const shapes = samples.map(({ inputs }) => inputs.shape);
    expect(shapes).toEqual([
      [3, 3, 2, 2],
      [3, 3, 2, 2],
      [1, 3, 2, 2],
    ]);
    expect(firstValues(samples)).toEqual([0, 1, 2, 3, 4, 5, 6]);
    const labels = samples.flatMap((sample) => [...(sample.labels as Int32Array)]);
    expect(labels).toEqual([6, 5, 4, 3, 2, 1, 0]);
    expect(await batchesOf(examples)).toHaveLength(7);
  });

  test("can be iterated again, and follows the order of a shuffled dataset", async () => {
    const stream = encodeImages(processor, examples.shuffle({ seed: 3 }), { workers: 0 });
    const order: number[] = [];
    for await (const { row } of examples.shuffle({ seed: 3 })) order.push(row - 1);
    expect(order).not.toEqual([0, 1, 2, 3, 4, 5, 6]);
    for (let pass = 0; pass < 2; pass++) {
      const samples: OnlineSample[] = [];
      for await (const sample of stream) samples.push(sample);
      expect(firstValues(samples)).toEqual(order);
    }
  });

  test("stops at an image that cannot be decoded, or leaves it out with a warning", async () => {
    const dir = await temporaryFolder();
    await mkdir(join(dir, "a"));
    for (const name of ["1.jpg", "3.jpg"]) {
      await writeFile(join(dir, "a", name), readImageFile("photo-420.jpg"));
    }
    await writeFile(join(dir, "a/2.jpg"), readImageFile("photo-420.jpg").subarray(0, 1000));
    await mkdir(join(dir, "a/folder.jpg"));
    await writeFile(join(dir, "a/4.jpg"), "");
    const dataset = await imageDataset(dir);
    const { message } = await errorOf("ERR_IMAGE_FORMAT", () => batchesOf(dataset));
    expect(message).toContain(join(dir, "a/2.jpg"));

    const warnings: NodeJS.ErrnoException[] = [];
    const listen = (warning: Error) => warnings.push(warning);
    process.on("warning", listen);
    const samples = await batchesOf(dataset, { onError: "skip", batchSize: 2 });
    await new Promise((resolve) => setImmediate(resolve));
    process.off("warning", listen);
    // Batches stay full.
    expect(samples.map(({ inputs }) => inputs.shape[0])).toEqual([2]);
    expect(warnings.map(({ code }) => code)).toEqual(Array(2).fill("LOKO_IMAGE_SKIPPED"));
    expect(warnings[0]!.message).toContain(join(dir, "a/2.jpg"));
  });

  test("throws what is not the fault of an image, also when images are left out", async () => {
    const bad = [{ image: 7 as never, label: 0, row: 1, name: "seven" }];
    await errorOf("ERR_INPUT_TYPE", () => batchesOf(bad, { onError: "skip" }));
    const unlabelled = [{ image: pixels(1), row: 1, name: "one" }];
    const { message } = await errorOf("ERR_DATA_COLUMN", () => batchesOf(unlabelled));
    expect(message).toContain("one has no label");
  });

  test("rejects with the reason of its signal, also while it waits", async () => {
    const before = AbortSignal.abort(new Error("before"));
    await expect(batchesOf(examples, { signal: before })).rejects.toThrow("before");
    const controller = new AbortController();
    async function* never() {
      yield { image: pixels(1), label: 0, row: 1, name: "one" };
      setImmediate(() => controller.abort(new Error("while")));
      await new Promise(() => {});
    }
    await expect(batchesOf(never(), { signal: controller.signal })).rejects.toThrow("while");
  });

  test("refuses wrong arguments at once", async () => {
    await errorOf("ERR_INPUT_TYPE", () => encodeImages({} as never, examples));
    for (const options of [
      { batchSize: 0 },
      { workers: -1 },
      { workers: 65 },
      { prefetch: 0 },
      { onError: "ignore" },
      { signal: true },
      { batchsize: 1 },
    ]) {
      await errorOf("ERR_OPTION", () => encodeImages(processor, examples, options as never));
    }
  });
});
