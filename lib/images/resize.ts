// Pillow's Image.resize on 8-bit images, bit for bit: first along the rows, then along the columns, each
// with fixed-point weights and each rounded to 8 bits (src/libImaging/Resample.c, Geometry.c).

import { LokoError } from "../errors.js";
import {
  type AxisWeights,
  axisWeights,
  nearestPixels,
  PRECISION_BITS,
  RESAMPLES,
  type Resample,
} from "./filters.js";
import { checkRawImage, type RawImage, type Region } from "./image.js";
import type { ImageSize } from "./pixels.js";

/** Added before the fraction bits are cut off. */
const HALF = 1 << (PRECISION_BITS - 1);

/**
 * Resizes an image as Pillow's `Image.resize` does, with the same bytes: where it shrinks, the filter
 * covers all of the source (anti-aliasing).
 *
 * @param size - height and width of the result, integers >= 1.
 * @returns the image itself when it has this size.
 * @throws LokoError ERR_OPTION, ERR_INPUT_TYPE, ERR_SHAPE_MISMATCH.
 */
export function resizeImage(image: RawImage, size: ImageSize, resample: Resample): RawImage {
  checkRawImage(image, "resizeImage");
  const { height, width } = size;
  if (
    !RESAMPLES.includes(resample) ||
    ![height, width].every((n) => Number.isInteger(n) && n > 0)
  ) {
    throw new LokoError(
      "ERR_OPTION",
      `resizeImage: expected a size of integers >= 1 and one of ${RESAMPLES.join(", ")}, got ` +
        `${height}x${width} and ${resample}.`,
    );
  }
  return resizeRegion(image, size, resample, { top: 0, left: 0, height, width });
}

/** As {@link resizeImage}, of which only a part is computed. */
export function resizeRegion(
  image: RawImage,
  size: ImageSize,
  resample: Resample,
  region: Region,
): RawImage {
  if (resample === "nearest") return resizeNearest(image, size, region);
  const { top, left, height, width } = region;
  const columns =
    image.width === size.width ? undefined : axisWeights(image.width, size.width, resample);
  const rows =
    image.height === size.height ? undefined : axisWeights(image.height, size.height, resample);
  // The rows of the source that the part needs.
  const firstRow = rows === undefined ? top : rows.first[top]!;
  const last = top + height - 1;
  const endRow = rows === undefined ? top + height : rows.first[last]! + rows.count[last]!;
  const strip = { top: firstRow, left, height: endRow - firstRow, width };
  const narrow =
    columns === undefined ? cropImage(image, strip) : resizeColumns(image, columns, strip);
  return rows === undefined ? narrow : resizeRows(narrow, rows, top, height, firstRow);
}

/** A part of an image; the image itself when that is all of it. */
export function cropImage(image: RawImage, { top, left, height, width }: Region): RawImage {
  if (height === image.height && width === image.width) return image;
  const { channels } = image;
  const data = new Uint8Array(height * width * channels);
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * image.width + left) * channels;
    data.set(image.data.subarray(start, start + width * channels), y * width * channels);
  }
  return { data, height, width, channels };
}

function resizeColumns(image: RawImage, axis: AxisWeights, strip: Region): RawImage {
  const { data: source, width: stride, channels } = image;
  const { top, left, height, width } = strip;
  const data = new Uint8ClampedArray(height * width * channels);
  const filterRow = channels === 3 ? filterRow3 : filterRow1;
  for (let y = 0; y < height; y++) {
    const row = (top + y) * stride * channels;
    filterRow(source, row, axis, left, width, data, y * width * channels);
  }
  return { data: new Uint8Array(data.buffer), height, width, channels };
}

function filterRow3(
  source: Uint8Array,
  row: number,
  { first, count, weights, taps }: AxisWeights,
  left: number,
  width: number,
  target: Uint8ClampedArray,
  start: number,
): void {
  let to = start;
  for (let x = left; x < left + width; x++) {
    let from = row + first[x]! * 3;
    const end = x * taps + count[x]!;
    let red = HALF;
    let green = HALF;
    let blue = HALF;
    for (let tap = x * taps; tap < end; tap++) {
      const weight = weights[tap]!;
      red = (red + Math.imul(source[from]!, weight)) | 0;
      green = (green + Math.imul(source[from + 1]!, weight)) | 0;
      blue = (blue + Math.imul(source[from + 2]!, weight)) | 0;
      from += 3;
    }
    target[to++] = red >> PRECISION_BITS;
    target[to++] = green >> PRECISION_BITS;
    target[to++] = blue >> PRECISION_BITS;
  }
}

function filterRow1(
  source: Uint8Array,
  row: number,
  { first, count, weights, taps }: AxisWeights,
  left: number,
  width: number,
  target: Uint8ClampedArray,
  start: number,
): void {
  for (let x = left; x < left + width; x++) {
    let from = row + first[x]!;
    const end = x * taps + count[x]!;
    let sum = HALF;
    for (let tap = x * taps; tap < end; tap++) {
      sum = (sum + Math.imul(source[from++]!, weights[tap]!)) | 0;
    }
    target[start + x - left] = sum >> PRECISION_BITS;
  }
}

/** @param firstRow - which row of the source is the first of `image`. */
function resizeRows(
  image: RawImage,
  { first, count, weights, taps }: AxisWeights,
  top: number,
  height: number,
  firstRow: number,
): RawImage {
  const { data: source, width, channels } = image;
  const stride = width * channels;
  const data = new Uint8ClampedArray(height * stride);
  const sums = new Int32Array(stride);
  for (let y = 0; y < height; y++) {
    sums.fill(HALF);
    const row = top + y;
    for (let tap = 0; tap < count[row]!; tap++) {
      const weight = weights[row * taps + tap]!;
      const from = (first[row]! - firstRow + tap) * stride;
      for (let i = 0; i < stride; i++) {
        sums[i] = (sums[i]! + Math.imul(source[from + i]!, weight)) | 0;
      }
    }
    const to = y * stride;
    for (let i = 0; i < stride; i++) data[to + i] = sums[i]! >> PRECISION_BITS;
  }
  return { data: new Uint8Array(data.buffer), height, width, channels };
}

function resizeNearest(image: RawImage, size: ImageSize, region: Region): RawImage {
  if (image.height === size.height && image.width === size.width) return cropImage(image, region);
  const { channels } = image;
  const { top, left, height, width } = region;
  const rows = nearestPixels(image.height, size.height);
  const columns = nearestPixels(image.width, size.width);
  const data = new Uint8Array(height * width * channels);
  let to = 0;
  for (let y = top; y < top + height; y++) {
    for (let x = left; x < left + width; x++) {
      const from = (rows[y]! * image.width + columns[x]!) * channels;
      for (let c = 0; c < channels; c++) data[to++] = image.data[from + c]!;
    }
  }
  return { data, height, width, channels };
}
