import { LokoError } from "../errors.js";
import type { Resample } from "./filters.js";
import { type RawImage, type Region, toChannels } from "./image.js";
import type { ImageSize } from "./pixels.js";
import { type ProcessorSettings, resizedSize } from "./processor-settings.js";
import { cropImage, resizeRegion } from "./resize.js";

/** One image as a model takes it, row-major [C, H, W]. */
export interface ProcessedImage extends ImageSize {
  readonly pixelValues: Float32Array<ArrayBuffer>;
  readonly channels: number;
}

/** A long strip of an image grows with its aspect ratio; far above what any model takes. */
const MAX_OUTPUT_PIXELS = 2 ** 26;

/**
 * Resizes, crops, rescales and normalises.
 *
 * @param name - where the image comes from, for messages.
 * @throws LokoError ERR_IMAGE_FORMAT when the result would have no pixels, or too many.
 */
export function processImage(
  image: RawImage,
  settings: ProcessorSettings,
  name: string,
): ProcessedImage {
  const ready = resizeAndCrop(toChannels(image, settings.channels), settings, name);
  const { data, height, width, channels } = ready;
  const plane = height * width;
  const pixelValues = new Float32Array(channels * plane);
  for (let channel = 0; channel < channels; channel++) {
    const table = valueTable(settings, channel);
    const start = channel * plane;
    for (let i = 0, from = channel; i < plane; i++, from += channels) {
      pixelValues[start + i] = table[data[from]!]!;
    }
  }
  return { pixelValues, height, width, channels };
}

function resizeAndCrop(image: RawImage, settings: ProcessorSettings, name: string): RawImage {
  const { resize, crop } = settings;
  const size = resize === undefined ? image : resizedSize(image, resize.size);
  const pixels = size.height * size.width;
  if (!(pixels >= 1 && pixels <= MAX_OUTPUT_PIXELS) && resize !== undefined) {
    throw new LokoError(
      "ERR_IMAGE_FORMAT",
      `${name}: ${image.height}x${image.width} would be resized to ${size.height}x${size.width}; ` +
        `the limit is ${MAX_OUTPUT_PIXELS} pixels.`,
    );
  }
  if (crop === undefined) return part(image, size, resize?.resample, whole(size));
  const fits = crop.height <= size.height && crop.width <= size.width;
  if (!fits) return padToCrop(part(image, size, resize?.resample, whole(size)), crop);
  return part(image, size, resize?.resample, {
    ...crop,
    top: Math.floor((size.height - crop.height) / 2),
    left: Math.floor((size.width - crop.width) / 2),
  });
}

function whole({ height, width }: ImageSize): Region {
  return { top: 0, left: 0, height, width };
}

/** A region of the resized image, of which nothing else is computed. */
function part(
  image: RawImage,
  size: ImageSize,
  resample: Resample | undefined,
  region: Region,
): RawImage {
  return resample === undefined
    ? cropImage(image, region)
    : resizeRegion(image, size, resample, region);
}

/** Centre crop of an image that is smaller in at least one direction, as transformers pads it. */
function padToCrop(image: RawImage, crop: ImageSize): RawImage {
  const rows = padAxis(image.height, crop.height);
  const columns = padAxis(image.width, crop.width);
  const { channels } = image;
  const data = new Uint8Array(crop.height * crop.width * channels);
  for (let y = 0; y < rows.length; y++) {
    const from = ((rows.from + y) * image.width + columns.from) * channels;
    const to = ((rows.to + y) * crop.width + columns.to) * channels;
    data.set(image.data.subarray(from, from + columns.length * channels), to);
  }
  return { data, height: crop.height, width: crop.width, channels };
}

/** Where the image and the crop of one axis overlap: `center_crop` of transformers' image_transforms. */
function padAxis(size: number, crop: number): { from: number; to: number; length: number } {
  if (crop <= size) return { from: Math.floor((size - crop) / 2), to: 0, length: crop };
  // The canvas is as large as the crop, the image lies in it from ceil((crop - size) / 2) on, and the
  // crop begins at floor((size - crop) / 2) + ceil((crop - size) / 2) = 0.
  return { from: 0, to: Math.ceil((crop - size) / 2), length: size };
}

/**
 * What becomes of each of the 256 values. transformers multiplies in float64 and rounds to float32, then
 * subtracts and divides in float32; the same roundings here give the same bits.
 */
function valueTable({ rescaleFactor, normalize }: ProcessorSettings, channel: number) {
  const table = new Float32Array(256);
  for (let value = 0; value < 256; value++) {
    table[value] = rescaleFactor === undefined ? value : value * rescaleFactor;
    if (normalize === undefined) continue;
    const mean = Math.fround(normalize.mean[channel]!);
    const std = Math.fround(normalize.std[channel]!);
    table[value] = Math.fround(table[value]! - mean) / std;
  }
  return table;
}
