import type { Resample } from "./filters.js";
import type { ImageSize } from "./pixels.js";

/** How the size after resizing follows from the size before. */
export type SizeRule =
  | { readonly kind: "exact"; readonly height: number; readonly width: number }
  /** The shorter edge has this length; the longer one at most `longest`, where that is given. */
  | { readonly kind: "shortest"; readonly edge: number; readonly longest?: number }
  /** As large as fits into height x width. */
  | { readonly kind: "within"; readonly height: number; readonly width: number };

/** All that a processor does to the pixels of an image, in this order; plain data, for other threads. */
export interface ProcessorSettings {
  readonly channels: 1 | 3;
  readonly resize?: { readonly size: SizeRule; readonly resample: Resample };
  /** Cut from the middle, and filled with 0 where the image is smaller. */
  readonly crop?: ImageSize;
  /** uint8 values are multiplied by this. */
  readonly rescaleFactor?: number;
  /** (x − mean) / std for each channel. */
  readonly normalize?: { readonly mean: readonly number[]; readonly std: readonly number[] };
}

/** The size after resizing, computed as transformers does, roundings included. */
export function resizedSize({ height, width }: ImageSize, rule: SizeRule): ImageSize {
  if (rule.kind === "exact") return { height: rule.height, width: rule.width };
  if (rule.kind === "within") {
    const scale = Math.min(rule.height / height, rule.width / width);
    return { height: Math.trunc(height * scale), width: Math.trunc(width * scale) };
  }
  const { edge, longest } = rule;
  if (longest !== undefined) return boundedSize({ height, width }, edge, longest);
  const other = Math.trunc((edge * Math.max(height, width)) / Math.min(height, width));
  return width <= height ? { height: other, width: edge } : { height: edge, width: other };
}

/** `get_size_with_aspect_ratio` of transformers, which DETR brought. */
function boundedSize({ height, width }: ImageSize, shortest: number, longest: number): ImageSize {
  const [short, long] = [Math.min(height, width), Math.max(height, width)];
  const isBound = (long / short) * shortest > longest;
  const exact = isBound ? (longest * short) / long : shortest;
  const edge = isBound ? roundHalfEven(exact) : shortest;
  if (short === edge) return { height, width };
  return width < height
    ? { height: Math.trunc((exact * height) / width), width: edge }
    : { height: edge, width: Math.trunc((exact * width) / height) };
}

/** Python's `round`. */
function roundHalfEven(value: number): number {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}

/** The size of every result, or undefined where it depends on the image. */
export function outputSize({ resize, crop }: ProcessorSettings): ImageSize | undefined {
  if (crop !== undefined) return crop;
  if (resize?.size.kind !== "exact") return undefined;
  return { height: resize.size.height, width: resize.size.width };
}
