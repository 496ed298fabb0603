import { join } from "node:path";
import { ahead } from "../data/ahead.js";
import { describe, LokoError } from "../errors.js";
import { exists } from "../io/files.js";
import { type JsonObject, readJsonObject } from "../io/json.js";
import { checkOptions } from "../options.js";
import { decodeSource, MAX_PIXELS, maxPixelsRule } from "./decode.js";
import type { ImageSource } from "./image.js";
import type { ImageSize, PixelInputs } from "./pixels.js";
import { type ProcessedImage, processImage } from "./process.js";
import { readProcessorConfig } from "./processor-config.js";
import { outputSize, type ProcessorSettings } from "./processor-settings.js";

export const PROCESSOR_FILE = "preprocessor_config.json";

/** As many as libuv has threads, on which sharp decodes. */
const DECODED_AT_ONCE = 4;

/** Options of {@link ImageProcessor.fromPretrained}. */
export interface ImageProcessorOptions {
  /** Most pixels of an image file. Default 178,956,970, as Pillow. */
  maxPixels?: number;
}

/** What turns one image into pixel values, as plain data that other threads can be given. */
export interface ImageWork {
  readonly settings: ProcessorSettings;
  readonly maxPixels: number;
}

/**
 * Turns images into what a model takes, as transformers' image processors (of the backend "pil") do with
 * the same `preprocessor_config.json`: resized with Pillow's filters, cropped, rescaled, normalised.
 *
 * Grey images are repeated to three channels for a model of three, RGB turned into grey for a model of
 * one. See {@link decodeImage} for what else becomes of a file.
 *
 * @example
 * ```ts
 * const processor = await ImageProcessor.fromPretrained("vit-base-patch16-224");
 * const logits = await model.forward(await processor.batch(["cat.jpg", "dog.png"]));
 * ```
 */
export class ImageProcessor {
  /** C of every result: 3 for RGB, 1 for grey. */
  readonly channels: 1 | 3;
  /** Height and width of every result, or undefined where they depend on the image. */
  readonly outputSize: ImageSize | undefined;
  /** @internal */
  readonly work: ImageWork;

  private constructor(work: ImageWork) {
    this.work = work;
    this.channels = work.settings.channels;
    this.outputSize = outputSize(work.settings);
  }

  /**
   * Reads `preprocessor_config.json` of a model folder: `ViTImageProcessor` (ViT, DINO), `BitImageProcessor`
   * (BiT, DINOv2) and `ConvNextImageProcessor` (ConvNeXT, ResNet), also with `Fast` or `Pil` at the end and as
   * `feature_extractor_type`.
   *
   * @param dir - a folder in Hugging Face format.
   * @throws LokoError ERR_INPUT_TYPE, ERR_OPTION, ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_CONFIG for a
   * malformed file, ERR_UNSUPPORTED for another processor.
   */
  static async fromPretrained(
    dir: string,
    options: ImageProcessorOptions = {},
  ): Promise<ImageProcessor> {
    if (typeof dir !== "string") {
      throw new LokoError("ERR_INPUT_TYPE", `dir must be a string, got ${describe(dir)}.`);
    }
    const path = join(dir, PROCESSOR_FILE);
    if ((await exists(dir)) && !(await exists(path))) {
      throw new LokoError(
        "ERR_FILE_NOT_FOUND",
        `${path}: no such file. Copy it from the model's page (docs/models.md has one for models of timm ` +
          "and torchvision), or use ImageProcessor.fromConfig.",
      );
    }
    return ImageProcessor.fromConfig(await readJsonObject(path), options);
  }

  /**
   * A processor of the same keys as in `preprocessor_config.json`; absent ones have transformers' defaults.
   *
   * @throws LokoError ERR_INPUT_TYPE, ERR_OPTION, ERR_CONFIG, ERR_UNSUPPORTED.
   *
   * @example
   * ```ts
   * ImageProcessor.fromConfig({ image_processor_type: "ConvNextImageProcessor", size: 224 });
   * ```
   */
  static fromConfig(
    config: Readonly<Record<string, unknown>>,
    options: ImageProcessorOptions = {},
  ): ImageProcessor {
    if (typeof config !== "object" || config === null || Array.isArray(config)) {
      throw new LokoError("ERR_INPUT_TYPE", `config must be an object, got ${describe(config)}.`);
    }
    checkOptions("ImageProcessor", options, { maxPixels: maxPixelsRule });
    const settings = readProcessorConfig(config as JsonObject);
    return new ImageProcessor({ settings, maxPixels: options.maxPixels ?? MAX_PIXELS });
  }

  /**
   * Decodes images and makes one batch of them, [B, C, H, W]. Files are decoded on other threads; the rest
   * is computed here, some milliseconds an image. `encodeImages` does all of it on other threads, ahead of
   * the training.
   *
   * @param images - paths, bytes of image files, or pixels.
   * @throws LokoError as {@link decodeImage}; ERR_SHAPE_MISMATCH when the results differ in size.
   */
  async batch(images: readonly ImageSource[]): Promise<PixelInputs> {
    if (!Array.isArray(images) || images.length === 0) {
      throw new LokoError(
        "ERR_INPUT_TYPE",
        `batch: expected an array of at least one image, got ${describe(images)}.`,
      );
    }
    const prepare = ([i, image]: [number, ImageSource]) =>
      prepareImage(image, typeof image === "string" ? image : `images[${i}]`, this.work);
    const processed: ProcessedImage[] = [];
    for await (const image of ahead(images.entries(), prepare, DECODED_AT_ONCE)) {
      processed.push(image);
    }
    return stackImages(processed);
  }
}

/** All steps of one image, on whatever thread this runs. */
export async function prepareImage(
  source: ImageSource,
  name: string,
  { settings, maxPixels }: ImageWork,
): Promise<ProcessedImage> {
  const { channels } = settings;
  const image = await decodeSource(source, name, { channels, maxPixels });
  return processImage(image, settings, name);
}

/** @throws LokoError ERR_SHAPE_MISMATCH. */
export function stackImages(images: readonly ProcessedImage[]): PixelInputs {
  const [{ channels, height, width, pixelValues: only }] = images as [ProcessedImage];
  const shape: PixelInputs["shape"] = [images.length, channels, height, width];
  if (images.length === 1) return { pixelValues: only, shape };
  const size = channels * height * width;
  const pixelValues = new Float32Array(images.length * size);
  for (const [i, image] of images.entries()) {
    if (image.height !== height || image.width !== width) {
      throw new LokoError(
        "ERR_SHAPE_MISMATCH",
        `The images of a batch must have one size, got ${height}x${width} and ` +
          `${image.height}x${image.width}; the processor neither crops nor resizes to one size.`,
      );
    }
    pixelValues.set(image.pixelValues, i * size);
  }
  return { pixelValues, shape };
}
