import { types } from "node:util";
import { describe, LokoError } from "../errors.js";
import type { ImageSize } from "./pixels.js";

/** Pixels of one image: uint8, row-major [H, W, C], grey (C = 1) or RGB (C = 3). */
export interface RawImage extends ImageSize {
  /** H·W·C bytes, row-major, the channels of a pixel side by side. */
  readonly data: Uint8Array;
  /** C: 1 for grey, 3 for RGB. */
  readonly channels: 1 | 3;
}

/** A part of an image, in pixels from its upper left corner. */
export interface Region extends ImageSize {
  readonly top: number;
  readonly left: number;
}

/** An image: the path of a file, the bytes of one, or pixels. */
export type ImageSource = string | Uint8Array | RawImage;

/** @throws LokoError ERR_INPUT_TYPE, ERR_SHAPE_MISMATCH. */
export function checkRawImage(image: RawImage, name: string): void {
  const { data, height, width, channels } = Object(image) as Partial<RawImage>;
  if (!types.isUint8Array(data)) {
    throw new LokoError(
      "ERR_INPUT_TYPE",
      `${name}: expected a path, the bytes of an image file (Uint8Array) or ` +
        `{ data: Uint8Array, height, width, channels }, got ${describe(image)}.`,
    );
  }
  const isSize = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 1;
  if (!isSize(height) || !isSize(width) || (channels !== 1 && channels !== 3)) {
    throw new LokoError(
      "ERR_SHAPE_MISMATCH",
      `${name}: height and width must be integers >= 1 and channels 1 or 3, got ` +
        `${describe(height)}, ${describe(width)}, ${describe(channels)}.`,
    );
  }
  const expected = height! * width! * channels;
  if (data.length !== expected) {
    throw new LokoError(
      "ERR_SHAPE_MISMATCH",
      `${name}: an image of ${height}x${width} with ${channels} channels has ${expected} bytes, ` +
        `got ${data.length}.`,
    );
  }
}

/**
 * The image with one channel or three, as Pillow converts between "L" and "RGB": grey is repeated, and
 * grey is made by ITU-R 601-2 luma in 16-bit fixed point.
 */
export function toChannels(image: RawImage, channels: 1 | 3): RawImage {
  if (image.channels === channels) return image;
  const { data, height, width } = image;
  const pixels = height * width;
  const result = new Uint8Array(pixels * channels);
  if (channels === 3) {
    for (let i = 0, at = 0; i < pixels; i++) {
      result[at++] = data[i]!;
      result[at++] = data[i]!;
      result[at++] = data[i]!;
    }
  } else {
    for (let i = 0, at = 0; i < pixels; i++, at += 3) {
      result[i] = (data[at]! * 19595 + data[at + 1]! * 38470 + data[at + 2]! * 7471 + 0x8000) >> 16;
    }
  }
  return { data: result, height, width, channels };
}

/**
 * RGB of CMYK pixels as Pillow converts them, so without a colour profile:
 * max(0, 255 − K − C·(255 − K) / 255) for red.
 */
export function cmykToRgb(cmyk: Uint8Array, { height, width }: ImageSize): RawImage {
  const data = new Uint8Array(height * width * 3);
  for (let from = 0, to = 0; to < data.length; from += 4) {
    const light = 255 - cmyk[from + 3]!;
    for (let ink = 0; ink < 3; ink++) {
      // c · light / 255, rounded.
      const product = cmyk[from + ink]! * light + 128;
      data[to++] = light - ((product + (product >> 8)) >> 8);
    }
  }
  return { data, height, width, channels: 3 };
}
