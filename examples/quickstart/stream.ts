import { join } from "node:path";
import { invert, LokoError, normalizeImages, type OnlineSample, readIdx, rotate90 } from "loko";

/** What happens to every image of the stream; the checkpoint has seen only upright ones. */
export const SHIFTS = ["none", "rotate90", "invert", "rotate90+invert"] as const;
export type Shift = (typeof SHIFTS)[number];

export interface ImageSet {
  readonly images: Uint8Array;
  readonly labels: Uint8Array;
  readonly count: number;
  readonly height: number;
  readonly width: number;
}

/** The slice of Fashion-MNIST beside this file. */
export async function loadImages(assets: string): Promise<ImageSet> {
  const images = await readIdx(join(assets, "fashion-mnist-images-idx3-ubyte.gz"));
  const labels = await readIdx(join(assets, "fashion-mnist-labels-idx1-ubyte.gz"));
  const [count, height, width] = images.shape;
  if (images.dtype !== "uint8" || labels.dtype !== "uint8" || images.shape.length !== 3) {
    throw new LokoError("ERR_IDX_FORMAT", `expected byte images [n, h, w], got [${images.shape}].`);
  }
  return {
    images: images.data,
    labels: labels.data,
    count: count!,
    height: height!,
    width: width!,
  };
}

/** One sample after the other, shifted and normalised as the checkpoint was trained (mean, std 0.5). */
export function* shiftedStream(
  set: ImageSet,
  shift: Shift,
  samples: number,
): Iterable<OnlineSample> {
  const { height, width } = set;
  for (let i = 0; i < samples; i++) {
    let image = set.images.subarray(i * height * width, (i + 1) * height * width);
    if (shift.includes("rotate90")) image = rotate90(image, { height, width });
    if (shift.includes("invert")) image = invert(image);
    yield {
      inputs: normalizeImages(image, { height, width, mean: [0.5], std: [0.5] }),
      labels: Int32Array.of(set.labels[i]!),
    };
  }
}
