// Mutated and shortened files of images: each gives examples or a LokoError, never another exception.
// LOKO_FUZZ_ITERATIONS and LOKO_FUZZ_SEED run it longer and elsewhere; a failure prints the case.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { type ImageDatasetOptions, imageDataset } from "../../../lib/data/image-dataset.js";
import { LokoError } from "../../../lib/errors.js";
import { decodeImage } from "../../../lib/images/decode.js";
import { readImageFile } from "../images/helpers.js";
import { temporaryFolder } from "../io/helpers.js";
import { mutateBytes, Random, FUZZ_RUNS as RUNS } from "../io/mutate.js";

/** The codes that bytes alone can cause. */
const CODES = [
  "ERR_DATA_FORMAT",
  "ERR_DATA_COLUMN",
  "ERR_IDX_FORMAT",
  "ERR_IMAGE_FORMAT",
  "ERR_LABEL_UNKNOWN",
  "ERR_LABEL_RANGE",
  "ERR_UNSUPPORTED",
];

/** Whether it came to an end without an error; another than ours is thrown on. */
async function succeeds(run: () => Promise<void>): Promise<boolean> {
  try {
    await run();
    return true;
  } catch (error) {
    if (!(error instanceof LokoError)) throw error;
    expect(CODES).toContain(error.code);
    return false;
  }
}

async function readAll(path: string, options: ImageDatasetOptions): Promise<void> {
  const dataset = await imageDataset(path, { ...options });
  let rows = 0;
  for await (const { image, label } of dataset) {
    rows++;
    if (label !== undefined) expect(label).toBeGreaterThanOrEqual(0);
    expect(image instanceof Uint8Array || typeof image === "object").toBe(true);
  }
  expect(rows).toBe(dataset.size);
}

/** Runs `read` on changed and on shortened bytes; some must be good and some bad. */
async function fuzz(original: Uint8Array, read: (bytes: Uint8Array) => Promise<boolean>) {
  const cases = fc.tuple(fc.integer(), fc.integer({ min: 0, max: 3 }), fc.nat(original.length));
  let good = 0;
  await fc.assert(
    fc.asyncProperty(cases, async ([seed, changes, length]) => {
      const random = new Random(seed);
      let bytes: Uint8Array = changes === 0 ? original.slice(0, length) : original;
      for (let i = 0; i < changes; i++) bytes = mutateBytes(bytes, random);
      if (await read(bytes)) good++;
    }),
    RUNS,
  );
  expect(good).toBeGreaterThan(0);
  expect(good).toBeLessThan(RUNS.numRuns);
}

test.each(["images", "images-v2", "images-pages", "images-required", "binary"])(
  "%s.parquet with changed bytes gives examples or a coded error",
  async (name) => {
    const path = join(await temporaryFolder(), "a.parquet");
    await fuzz(new Uint8Array(readImageFile(`${name}.parquet`)), async (bytes) => {
      await writeFile(path, bytes);
      return succeeds(() => readAll(path, {}));
    });
  },
);

test("IDX files with changed bytes give examples or a coded error", async () => {
  const dir = await temporaryFolder();
  const images = new Uint8Array(16 + 24).fill(7);
  images.set([0, 0, 8, 3, 0, 0, 0, 6, 0, 0, 0, 2, 0, 0, 0, 2]);
  const labels = Uint8Array.of(0, 0, 8, 1, 0, 0, 0, 6, 0, 1, 2, 3, 4, 5);
  for (const changed of ["images-idx3", "labels-idx1"]) {
    await writeFile(join(dir, "train-images-idx3-ubyte"), images);
    await writeFile(join(dir, "train-labels-idx1-ubyte"), labels);
    await fuzz(changed === "images-idx3" ? images : labels, async (bytes) => {
      await writeFile(join(dir, `train-${changed}-ubyte`), bytes);
      return succeeds(() => readAll(dir, { numLabels: 6 }));
    });
  }
});

test.each([
  ["cifar10", 1],
  ["cifar100", 2],
] as const)("%s with changed bytes gives examples or a coded error", async (format, labels) => {
  const path = join(await temporaryFolder(), "a.bin");
  const original = new Uint8Array(2 * (3072 + labels)).fill(5);
  await fuzz(original, async (bytes) => {
    await writeFile(path, bytes);
    return succeeds(() => readAll(path, { format }));
  });
});

test.each([
  "photo-420.jpg",
  "photo-444.jpg",
  "cmyk.jpg",
  "rgb.png",
  "palette.png",
  "rgb16.png",
  "animated.gif",
  "animated.webp",
  "rgb.tif",
])("%s with changed bytes is decoded or a coded error", async (name) => {
  await fuzz(new Uint8Array(readImageFile(name)), (bytes) =>
    succeeds(async () => {
      const { data, height, width, channels } = await decodeImage(bytes, { maxPixels: 2 ** 20 });
      expect(data.length).toBe(height * width * channels);
    }),
  );
});

test.each(["photo-420.jpg", "rgb.png"])("%s that is cut short is a coded error", async (name) => {
  const bytes = readImageFile(name);
  for (let length = 0; length < bytes.length - 16; length += 61) {
    expect(await succeeds(async () => void (await decodeImage(bytes.subarray(0, length))))).toBe(
      false,
    );
  }
});

test("folders with any names give their classes in one order", async () => {
  const piece = fc.string({ unit: "binary", minLength: 1, maxLength: 8 });
  const usable = (name: string) => !/[/\0]/.test(name) && !name.startsWith(".");
  const names = fc.uniqueArray(piece.filter(usable), { minLength: 1, maxLength: 6 });
  await fc.assert(
    fc.asyncProperty(names, async (classes) => {
      const dir = await temporaryFolder();
      for (const name of classes) {
        await mkdir(join(dir, name), { recursive: true });
        await writeFile(join(dir, name, "a.jpg"), "");
      }
      const expected = [...classes].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      expect((await imageDataset(dir)).classes).toEqual(expected);
    }),
    { ...RUNS, numRuns: Math.ceil(RUNS.numRuns / 4) },
  );
});
