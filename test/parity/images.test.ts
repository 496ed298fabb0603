// Images as Pillow and transformers' image processors see them (test/fixtures/make_images.py).

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { decodeImage } from "../../lib/images/decode.js";
import { RESAMPLES, type Resample } from "../../lib/images/filters.js";
import type { RawImage } from "../../lib/images/image.js";
import { ImageProcessor } from "../../lib/images/processor.js";
import { resizeImage } from "../../lib/images/resize.js";
import { FIXTURES, readTensors, type TensorFile } from "./fixtures.js";

const IMAGES = join(FIXTURES, "images");

/** Largest and mean absolute difference. */
function difference(actual: ArrayLike<number>, expected: ArrayLike<number>) {
  expect(actual.length).toBe(expected.length);
  let max = 0;
  let sum = 0;
  for (let i = 0; i < expected.length; i++) {
    const apart = Math.abs(actual[i]! - expected[i]!);
    max = Math.max(max, apart);
    sum += apart;
  }
  return { max, mean: sum / expected.length };
}

function toImage(tensors: TensorFile, name: string): RawImage {
  const { shape, values } = tensors.get(name)!;
  const [height, width, channels = 1] = shape as [number, number, (1 | 3)?];
  return { data: values as unknown as Uint8Array, height, width, channels };
}

describe("a decoded file", () => {
  let decoded: TensorFile;
  beforeAll(async () => {
    decoded = await readTensors(join(IMAGES, "decoded.safetensors"));
  });

  // sharp's libjpeg and libwebp are others than Pillow's, and may round another way: measured with
  // sharp 0.35.5 and Pillow 12.3 every one of these files has the same bytes.
  test.each([
    ["photo-420.jpg", "with chroma at half the resolution", 2],
    ["photo-444.jpg", "with chroma at full resolution, progressive", 2],
    ["grey.jpg", "grey", 2],
    ["cmyk.jpg", "CMYK with Adobe's marker", 2],
    ["exif.jpg", "which EXIF says to turn, and nobody turns", 2],
    ["profile.jpg", "with a colour profile, which is not applied", 2],
    ["lossy.webp", "lossy", 2],
    ["rgb.png", "RGB", 0],
    ["grey.png", "grey", 0],
    ["bilevel.png", "of one bit", 0],
    ["palette.png", "with a palette", 0],
    ["palette-alpha.png", "with a transparent colour, whose colour is kept", 0],
    ["rgba.png", "with transparency, which is dropped", 0],
    ["grey-alpha.png", "grey with transparency", 0],
    ["rgb16.png", "of 16 bits, of which the upper 8 are kept", 0],
    ["grey16.png", "grey of 16 bits", 0],
    ["animated.gif", "of which the first frame is taken", 0],
    ["animated.webp", "of which the first frame is taken", 0],
    ["rgb.tif", "RGB", 0],
    ["cmyk.tif", "CMYK", 0],
  ])("%s, %s, has Pillow's pixels", async (name, _, tolerance) => {
    const expected = toImage(decoded, name);
    const image = await decodeImage(join(IMAGES, name));
    expect({ ...image, data: undefined }).toEqual({ ...expected, data: undefined });
    expect(difference(image.data, expected.data).max).toBeLessThanOrEqual(tolerance);
    const bytes = await decodeImage(readFileSync(join(IMAGES, name)));
    expect(Buffer.compare(bytes.data, image.data)).toBe(0);
  });

  test("becomes grey by Pillow's weights", async () => {
    const expected = toImage(decoded, "photo-420.jpg/L");
    const image = await decodeImage(join(IMAGES, "photo-420.jpg"), { channels: 1 });
    expect(image.channels).toBe(1);
    expect(difference(image.data, expected.data).max).toBeLessThanOrEqual(2);
  });
});

describe("a resized image", () => {
  let resized: TensorFile;
  beforeAll(async () => {
    resized = await readTensors(join(IMAGES, "resized.safetensors"));
  });

  test.each(RESAMPLES)(
    "has Pillow's bytes: %s, up and down, grey and RGB",
    (resample: Resample) => {
      const cases = [...resized.keys()].filter((name) => name.split("/")[1] === resample);
      // Six sizes of two images, and two of the hard edges.
      expect(cases).toHaveLength(14);
      for (const name of cases) {
        const expected = toImage(resized, name);
        const source = toImage(resized, name.split("/")[0]!);
        const { data } = resizeImage(source, expected, resample);
        expect(difference(data, expected.data), name).toEqual({ max: 0, mean: 0 });
      }
    },
  );
});

interface Case {
  readonly config: Record<string, unknown>;
  readonly shapes: Readonly<Record<string, number[]>>;
}
const CASES = JSON.parse(readFileSync(join(IMAGES, "processors.json"), "utf8")) as Record<
  string,
  Case
>;

describe("a processor", () => {
  let processed: TensorFile;
  beforeAll(async () => {
    processed = await readTensors(join(IMAGES, "processed.safetensors"));
  });

  test.each(Object.keys(CASES))("gives what transformers gives: %s", async (name) => {
    const { config, shapes } = CASES[name]!;
    const processor = ImageProcessor.fromConfig(config);
    for (const [file, shape] of Object.entries(shapes)) {
      const { values: expected } = processed.get(`${name}/${file}`)!;
      const inputs = await processor.batch([join(IMAGES, file)]);
      expect(inputs.shape).toEqual([1, ...shape]);
      const size = shape.reduce((product, extent) => product * extent, 1);
      const stride = size <= 4096 ? 1 : 997;
      const values = expected.map((_, i) => inputs.pixelValues[i * stride]!);
      // Pixels of PNG files are equal and the same roundings to float32 follow, so not a bit differs.
      // A decoder of JPEG may round another way: the bar, below one level of 255 for any std here.
      const tolerance = file.endsWith(".jpg") ? (config.do_normalize === false ? 2 : 0.01) : 0;
      expect(difference(values, expected).max, file).toBeLessThanOrEqual(tolerance);
    }
  });
});
