import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { RawImage } from "../../../lib/images/image.js";
import { ImageProcessor } from "../../../lib/images/processor.js";
import { resizedSize } from "../../../lib/images/processor-settings.js";
import { errorOf, temporaryFolder } from "../io/helpers.js";
import { imageFile } from "./helpers.js";

const VIT = { image_processor_type: "ViTImageProcessor" };
const from = (config: object) => ImageProcessor.fromConfig({ ...VIT, ...config });

function flat(height: number, width: number, channels: 1 | 3 = 3): RawImage {
  return { data: new Uint8Array(height * width * channels).fill(51), height, width, channels };
}

describe("ImageProcessor.fromPretrained", () => {
  test("reads preprocessor_config.json, and names the file that is not there or wrong", async () => {
    const dir = await temporaryFolder();
    const path = join(dir, "preprocessor_config.json");
    const missing = await errorOf("ERR_FILE_NOT_FOUND", () => ImageProcessor.fromPretrained(dir));
    expect(missing.message).toContain("preprocessor_config.json");
    await errorOf("ERR_FILE_NOT_FOUND", () => ImageProcessor.fromPretrained(join(dir, "none")));
    await errorOf("ERR_INPUT_TYPE", () => ImageProcessor.fromPretrained(7 as never));
    await writeFile(path, JSON.stringify({ ...VIT, size: 32 }));
    const processor = await ImageProcessor.fromPretrained(dir);
    expect(processor.outputSize).toEqual({ height: 32, width: 32 });
    expect(processor.channels).toBe(3);
    await writeFile(path, JSON.stringify({ ...VIT, size: -1 }));
    const bad = await errorOf("ERR_CONFIG", () => ImageProcessor.fromPretrained(dir));
    expect(bad.message).toContain(`${path}: "size" must be`);
    await errorOf("ERR_OPTION", () => ImageProcessor.fromPretrained(dir, { maxPixels: -1 }));
  });
});

describe("the type of a processor", () => {
  test.each([
    "ViTImageProcessor",
    "ViTImageProcessorFast",
    "ViTImageProcessorPil",
    "ViTFeatureExtractor",
    "BitImageProcessor",
    "BitImageProcessorFast",
    "ConvNextImageProcessor",
    "ConvNextFeatureExtractor",
  ])("%s is known in both keys", (type) => {
    const size = 384;
    for (const key of ["image_processor_type", "feature_extractor_type"]) {
      expect(ImageProcessor.fromConfig({ [key]: type, size }).channels).toBe(3);
    }
  });

  test.each([["CLIPImageProcessor"], ["ImageProcessor"], ["constructor"], [7]])(
    "%s is refused by its name",
    async (type) => {
      const run = () => ImageProcessor.fromConfig({ image_processor_type: type });
      const { message } = await errorOf("ERR_UNSUPPORTED", run);
      expect(message).toContain(JSON.stringify(type).slice(0, 20));
      expect(message).toContain('"ViTImageProcessor"');
    },
  );

  test("must be there", async () => {
    await errorOf("ERR_CONFIG", () => ImageProcessor.fromConfig({}));
    await errorOf("ERR_INPUT_TYPE", () => ImageProcessor.fromConfig([] as never));
  });
});

describe("a key", () => {
  test.each<[object]>([
    [{ size: "224" }],
    [{ size: 0 }],
    [{ size: 1.5 }],
    [{ size: [224] }],
    [{ size: [224, "224"] }],
    [{ size: {} }],
    [{ size: { height: 224 } }],
    [{ size: { height: 224, width: 224, shortest_edge: 224 } }],
    [{ size: { longest_edge: 224 } }],
    [{ size: { height: 1e6, width: 1 } }],
    [{ resample: 6 }],
    [{ resample: "bicubic" }],
    [{ do_resize: 1 }],
    [{ do_center_crop: true }],
    [{ do_center_crop: true, crop_size: { shortest_edge: 3 } }],
    [{ rescale_factor: "1/255" }],
    [{ image_mean: [0.5, 0.5] }],
    [{ image_mean: [0.5, 0.5, "0.5"] }],
    [{ image_std: [0.5, 0, 0.5] }],
    [{ image_std: 0 }],
    [{ image_std: [0.5, 1e-300, 0.5] }],
    [{ rescale_factor: 1e308 }],
    [{ image_mean: [0.5], image_std: [0.5, 0.5, 0.5] }],
    [{ do_convert_rgb: "yes" }],
  ])("of a wrong type or range is ERR_CONFIG: %o", async (config) => {
    await errorOf("ERR_CONFIG", () => from(config));
  });

  test("that is null counts as absent, as in transformers", () => {
    const nulls = { size: null, image_mean: null, do_resize: null, do_convert_rgb: null };
    expect(from(nulls).work).toEqual(from({}).work);
  });

  test("of a step that is not known here is refused when it is set", async () => {
    const { message } = await errorOf("ERR_UNSUPPORTED", () => from({ do_pad: true }));
    expect(message).toContain('"do_pad" is true');
    from({ do_pad: false, do_flip_channel_order: null });
  });

  test("beside ConvNext's own crop is refused", async () => {
    const convnext = { image_processor_type: "ConvNextImageProcessor" };
    for (const config of [
      { size: { height: 9, width: 9 } },
      { size: 224, do_center_crop: true, crop_size: 200 },
      { size: 224, crop_pct: 0 },
      { size: 224, crop_pct: "0.875" },
    ]) {
      await errorOf("ERR_CONFIG", () => ImageProcessor.fromConfig({ ...convnext, ...config }));
    }
  });
});

describe("the size after resizing", () => {
  // get_size_with_aspect_ratio and get_resize_output_image_size of transformers 5.18, by hand.
  test.each([
    [{ height: 90, width: 120 }, { kind: "shortest", edge: 20 }, [20, 26]],
    [{ height: 120, width: 90 }, { kind: "shortest", edge: 20 }, [26, 20]],
    [{ height: 90, width: 120 }, { kind: "shortest", edge: 90, longest: 500 }, [90, 120]],
    // 120 / 90 * 20 > 25, so the shorter edge is round(25 * 90 / 120) = round(18.75).
    [{ height: 90, width: 120 }, { kind: "shortest", edge: 20, longest: 25 }, [19, 25]],
    // round(2.5) is 2 in Python.
    [{ height: 50, width: 100 }, { kind: "shortest", edge: 4, longest: 5 }, [2, 5]],
    [{ height: 100, width: 200 }, { kind: "within", height: 50, width: 50 }, [25, 50]],
    [{ height: 100, width: 200 }, { kind: "within", height: 200, width: 500 }, [200, 400]],
  ] as const)("of %o by %o is %o", (size, rule, [height, width]) => {
    expect(resizedSize(size, rule)).toEqual({ height, width });
  });

  test("is limited, so that a strip of an image cannot fill the memory", async () => {
    const processor = from({ size: { shortest_edge: 224 } });
    const { message } = await errorOf("ERR_IMAGE_FORMAT", () =>
      processor.batch([flat(1, 100_000)]),
    );
    expect(message).toContain("images[0]: 1x100000 would be resized to 224x22400000");
    // Rounded down to nothing.
    const within = from({ size: { max_height: 10, max_width: 10 } });
    await errorOf("ERR_IMAGE_FORMAT", () => within.batch([flat(1, 100)]));
  });
});

describe("a batch", () => {
  test("has (x / 255 - mean) / std of each image in its place", async () => {
    const { pixelValues, shape } = await from({ size: 2 }).batch([
      flat(2, 2),
      imageFile("rgb.png"),
      flat(5, 3, 1),
    ]);
    expect(shape).toEqual([3, 3, 2, 2]);
    // 51 / 255 = 0.2 and (0.2 - 0.5) / 0.5 = -0.6, to float32.
    for (const value of [...pixelValues.subarray(0, 12), ...pixelValues.subarray(24)]) {
      expect(value).toBeCloseTo(-0.6, 6);
    }
    expect(new Set(pixelValues.subarray(12, 24)).size).toBeGreaterThan(4);
  });

  test("of a model with one channel is grey", async () => {
    const processor = from({ size: 2, image_mean: [0.5], image_std: [0.5] });
    expect(processor.channels).toBe(1);
    const { pixelValues, shape } = await processor.batch([imageFile("grey.png"), flat(2, 2)]);
    expect(shape).toEqual([2, 1, 2, 2]);
    expect(pixelValues[4]).toBeCloseTo(-0.6, 6);
  });

  test("needs images of one size, and at least one", async () => {
    const processor = from({ do_resize: false });
    expect(processor.outputSize).toBeUndefined();
    const run = () => processor.batch([flat(2, 3), flat(3, 2)]);
    expect((await errorOf("ERR_SHAPE_MISMATCH", run)).message).toContain("2x3 and 3x2");
    for (const images of [[], undefined, "cat.jpg"]) {
      await errorOf("ERR_INPUT_TYPE", () => processor.batch(images as never));
    }
  });

  test("names the image that cannot be decoded", async () => {
    const run = () => from({}).batch([flat(1, 1), Uint8Array.of(1, 2)]);
    expect((await errorOf("ERR_IMAGE_FORMAT", run)).message).toContain("images[1]: not an image");
  });
});
