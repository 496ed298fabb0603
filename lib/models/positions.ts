// Position embeddings for images of another size than the checkpoint's, as transformers computes them
// (`interpolate_pos_encoding` of ViT and DINOv2): torch.nn.functional.interpolate in float32, mode
// "bicubic", align_corners false, no antialias.

import { describe, LokoError } from "../errors.js";
import { type JsonObject, originOf } from "../io/json.js";
import type { DerivedWeight } from "./carried.js";
import type { ImageExtent } from "./image-size.js";

/** What decides the position embeddings of a model of patches. */
export interface PatchGrid {
  /** Height and width of the images of the checkpoint. */
  readonly image: number;
  readonly patch: number;
  readonly hidden: number;
}

/**
 * The rule for position embeddings of images of this size; undefined where the checkpoint's serve as they
 * are.
 *
 * @param name - of the weight [1, 1 + patches, hidden], whose first row belongs to the class token.
 * @throws LokoError ERR_SHAPE_MISMATCH for a size that is no multiple of the patch.
 */
export function derivedPositions(
  name: string,
  { image, patch, hidden }: PatchGrid,
  { height, width }: ImageExtent,
): DerivedWeight | undefined {
  if (height % patch !== 0 || width % patch !== 0) {
    throw new LokoError(
      "ERR_SHAPE_MISMATCH",
      `imageSize must be a multiple of the patch size ${patch}, got ${height}x${width}.`,
    );
  }
  const side = image / patch;
  if (height === image && width === image) return undefined;
  const to = { height: height / patch, width: width / patch };
  return {
    name,
    sourceShape: [1, 1 + side * side, hidden],
    compute: (values) => interpolatePositions(values, side, to, hidden),
  };
}

/** `image_size` or `patch_size` of a configuration: one number, as transformers writes it. */
export function requireSquare(config: JsonObject, key: string): void {
  if (!Array.isArray(config[key])) return;
  throw new LokoError(
    "ERR_UNSUPPORTED",
    `${originOf(config)}: "${key}" ${describe(config[key])} is not supported; one number is.`,
  );
}

function interpolatePositions(
  values: Float32Array,
  side: number,
  to: ImageExtent,
  hidden: number,
): Float32Array {
  const result = new Float32Array((1 + to.height * to.width) * hidden);
  result.set(values.subarray(0, hidden));
  const rows = taps(side, to.height);
  const columns = taps(side, to.width);
  for (let y = 0; y < to.height; y++) {
    for (let x = 0; x < to.width; x++) {
      const target = result.subarray((1 + y * to.width + x) * hidden).subarray(0, hidden);
      const sums = new Float64Array(hidden);
      for (const row of rows[y]!) {
        for (const column of columns[x]!) {
          const weight = row.weight * column.weight;
          const source = (1 + row.index * side + column.index) * hidden;
          for (let i = 0; i < hidden; i++) sums[i]! += weight * values[source + i]!;
        }
      }
      target.set(sums);
    }
  }
  return result;
}

interface Tap {
  readonly index: number;
  readonly weight: number;
}

/** The four neighbours of each target position; those outside count as the nearest one inside. */
function taps(from: number, to: number): Tap[][] {
  // In float32, as torch does: its rounding of the scale moves the positions.
  const scale = Math.fround(from / to);
  return Array.from({ length: to }, (_, target) => {
    const position = Math.fround(Math.fround(scale * (target + 0.5)) - 0.5);
    const first = Math.floor(position);
    return [-1, 0, 1, 2].map((offset) => ({
      index: Math.min(Math.max(first + offset, 0), from - 1),
      weight: cubic(Math.abs(position - first - offset)),
    }));
  });
}

/** Keys' cubic convolution kernel with a = -0.75 (torch's, other than Pillow's -0.5). */
function cubic(distance: number): number {
  const a = -0.75;
  return distance <= 1
    ? ((a + 2) * distance - (a + 3)) * distance * distance + 1
    : (((distance - 5) * distance + 8) * distance - 4) * a;
}
