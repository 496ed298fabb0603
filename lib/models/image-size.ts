import { LokoError } from "../errors.js";
import type { OptionRule } from "../options.js";

/** Height and width in pixels; a number stands for both. */
export type ImageSizeOption = number | readonly [height: number, width: number];

export interface ImageExtent {
  readonly height: number;
  readonly width: number;
}

const MAX_SIDE = 2 ** 14;

export const imageSizeRule: OptionRule = {
  expected: `an integer in [1, ${MAX_SIDE}], or [height, width] of such`,
  accepts: (value) =>
    isSide(value) || (Array.isArray(value) && value.length === 2 && value.every(isSide)),
};

function isSide(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 1 && (value as number) <= MAX_SIDE;
}

export function imageExtent(size: ImageSizeOption): ImageExtent {
  return typeof size === "number"
    ? { height: size, width: size }
    : { height: size[0], width: size[1] };
}

/**
 * Builds a net whose layers halve the image again and again.
 *
 * @throws LokoError ERR_SHAPE_MISMATCH saying that the image is too small, where a layer says so.
 */
export function buildFor<T>(what: string, { height, width }: ImageExtent, build: () => T): T {
  try {
    return build();
  } catch (error) {
    if (!(error instanceof LokoError) || error.code !== "ERR_SHAPE_MISMATCH") throw error;
    throw new LokoError(
      "ERR_SHAPE_MISMATCH",
      `imageSize ${height}x${width} is too small for ${what}: ${error.message} Use larger images.`,
      { cause: error },
    );
  }
}
