import { types } from "node:util";
import { describe, LokoError } from "../errors.js";
import { checkOptions, integerIn, type OptionRule } from "../options.js";

/** Height and width of an image in pixels. */
export interface ImageSize {
  /** Rows H, >= 1. */
  readonly height: number;
  /** Columns W, >= 1. */
  readonly width: number;
}

/** Options of {@link normalizeImages}. */
export interface NormalizeOptions extends ImageSize {
  /** Mean of each output channel after scaling to [0, 1], as `image_mean` in Hugging Face's files. */
  readonly mean: readonly number[];
  /** Standard deviation of each output channel, as `image_std`. */
  readonly std: readonly number[];
  /** Number of images B. Default 1. */
  readonly batch?: number;
}

/** Images as a model takes them. */
export interface PixelInputs {
  /** Row-major [B, C, H, W]. */
  readonly pixelValues: Float32Array;
  /** [B, C, H, W]. */
  readonly shape: [batch: number, channels: number, height: number, width: number];
}

/**
 * Turns bytes into the input of an image model: (x / 255 − mean) / std in each channel, C being the
 * number of means.
 *
 * @param images - B images one after the other, each planar with C channels [B, C, H, W], or with one
 * channel [B, H, W], which is then repeated C times. Interleaved pixels (RGBRGB…, as `sharp().raw()` gives
 * them) have the same length and are not told apart: `ImageProcessor` takes those.
 * @param options - size, means and deviations.
 * @throws LokoError ERR_INPUT_TYPE for other than bytes; ERR_OPTION for bad sizes, means or deviations;
 * ERR_SHAPE_MISMATCH when the bytes are neither B·C·H·W nor B·H·W.
 */
export function normalizeImages(images: Uint8Array, options: NormalizeOptions): PixelInputs {
  checkBytes("normalizeImages", images);
  checkOptions("normalizeImages", options, { ...SIZE, mean: MEANS, std: DEVIATIONS, batch: COUNT });
  requireOptions("normalizeImages", options, { ...SIZE, mean: MEANS, std: DEVIATIONS });
  const { height, width, mean, std, batch = 1 } = options;
  const channels = mean.length;
  if (std.length !== channels) {
    throw new LokoError(
      "ERR_OPTION",
      `mean and std must have one entry per channel, got ${channels} and ${std.length}.`,
    );
  }
  const plane = height * width;
  const planar = images.length === batch * channels * plane;
  if (!planar && images.length !== batch * plane) {
    throw new LokoError(
      "ERR_SHAPE_MISMATCH",
      `expected ${batch === 1 ? "one image" : `${batch} images`} of ${height}x${width} with ` +
        `${channels === 1 ? "1 channel" : `1 or ${channels} channels`}, ` +
        `${[...new Set([1, channels])].map((c) => batch * c * plane).join(" or ")} bytes, got ` +
        `${images.length}; batch says how many images there are.`,
    );
  }
  const pixelValues = new Float32Array(batch * channels * plane);
  const table = new Float32Array(256);
  for (let c = 0; c < channels; c++) {
    for (let x = 0; x < 256; x++) table[x] = (x / 255 - mean[c]!) / std[c]!;
    for (let b = 0; b < batch; b++) {
      const source = (planar ? b * channels + c : b) * plane;
      const target = (b * channels + c) * plane;
      for (let i = 0; i < plane; i++) pixelValues[target + i] = table[images[source + i]!]!;
    }
  }
  return { pixelValues, shape: [batch, channels, height, width] };
}

/**
 * Turns a single-channel image [H, W] counter-clockwise by `turns` quarters (negative: clockwise), as
 * `numpy.rot90`. An odd number swaps height and width.
 *
 * @param image - H·W bytes, row-major.
 * @param size - H and W, before turning.
 * @param turns - an integer. Default 1.
 * @returns a new array.
 * @throws LokoError ERR_INPUT_TYPE for other than bytes, ERR_OPTION for bad sizes or turns,
 * ERR_SHAPE_MISMATCH for other than H·W bytes.
 */
export function rotate90(image: Uint8Array, size: ImageSize, turns = 1): Uint8Array {
  checkBytes("rotate90", image);
  requireOptions("rotate90", size, SIZE);
  const { height, width } = size;
  if (!Number.isInteger(turns)) {
    throw new LokoError("ERR_OPTION", `turns must be an integer, got ${turns}.`);
  }
  if (image.length !== height * width) {
    throw new LokoError(
      "ERR_SHAPE_MISMATCH",
      `expected one ${height}x${width} image, ${height * width} bytes, got ${image.length}.`,
    );
  }
  const quarters = ((turns % 4) + 4) % 4;
  const rotated = new Uint8Array(image.length);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const target = [
        y * width + x,
        (width - 1 - x) * height + y,
        (height - 1 - y) * width + (width - 1 - x),
        x * height + (height - 1 - y),
      ][quarters]!;
      rotated[target] = image[y * width + x]!;
    }
  }
  return rotated;
}

/**
 * The negative of an image, 255 − x for every byte, whatever its shape, as a new array.
 *
 * @throws LokoError ERR_INPUT_TYPE for other than bytes.
 */
export function invert(image: Uint8Array): Uint8Array {
  checkBytes("invert", image);
  return image.map((x) => 255 - x);
}

const COUNT = integerIn(1);
const SIZE = { height: COUNT, width: COUNT };
const MEANS = numbersThat("finite numbers", (value) => Number.isFinite(Math.fround(value)));
// What is divided by them has to be finite in float32, too.
const DEVIATIONS = numbersThat(
  "finite numbers other than 0",
  (value) => Number.isFinite(Math.fround(value)) && Number.isFinite(Math.fround(1 / value)),
);

function numbersThat(expected: string, test: (value: number) => boolean): OptionRule {
  return {
    expected: `an array of ${expected}, one for each channel`,
    accepts: (value) =>
      Array.isArray(value) &&
      value.length > 0 &&
      value.every((number) => typeof number === "number" && test(number)),
  };
}

function requireOptions(
  owner: string,
  options: object,
  rules: Readonly<Record<string, OptionRule>>,
): void {
  const given = Object(options) as Readonly<Record<string, unknown>>;
  for (const [name, { expected, accepts }] of Object.entries(rules)) {
    if (accepts(given[name])) continue;
    throw new LokoError(
      "ERR_OPTION",
      `${owner}: ${name} must be ${expected}, got ${describe(given[name])}.`,
    );
  }
}

function checkBytes(owner: string, image: unknown): void {
  if (types.isUint8Array(image) || types.isUint8ClampedArray(image)) return;
  throw new LokoError(
    "ERR_INPUT_TYPE",
    `${owner}: expected the bytes of an image, a Uint8Array, got ${describe(image)}.`,
  );
}
