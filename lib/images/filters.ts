/** Filters of Pillow's `resize`. */
export type Resample = "nearest" | "lanczos" | "bilinear" | "bicubic" | "box" | "hamming";

/** In the order of Pillow's numbers, which `preprocessor_config.json` has as `resample`. */
export const RESAMPLES: readonly Resample[] = [
  "nearest",
  "lanczos",
  "bilinear",
  "bicubic",
  "box",
  "hamming",
];

interface Filter {
  /** The weight is 0 from this distance on, in pixels. */
  readonly support: number;
  weight(x: number): number;
}

function sinc(x: number): number {
  if (x === 0) return 1;
  return Math.sin(x * Math.PI) / (x * Math.PI);
}

const FILTERS: Readonly<Record<Exclude<Resample, "nearest">, Filter>> = {
  box: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  hamming: {
    support: 1,
    weight: (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(x * Math.PI))),
  },
  // Keys' cubic with a = -0.5.
  bicubic: {
    support: 2,
    weight: (signed) => {
      const x = Math.abs(signed);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
    },
  },
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};

/** Fraction bits of a weight: 8 of the 32 are the pixel's, and 2 are left for the overshoot of the sum. */
export const PRECISION_BITS = 32 - 8 - 2;

/** How each pixel of an axis of the result is made from those of the source. */
export interface AxisWeights {
  /** For each pixel of the result the first of the source, and how many there are. */
  readonly first: Int32Array;
  readonly count: Int32Array;
  /** `taps` for each pixel of the result; those after `count` are 0. */
  readonly weights: Int32Array;
  readonly taps: number;
}

/** Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc` (src/libImaging/Resample.c). */
function computeWeights(from: number, to: number, { support, weight }: Filter): AxisWeights {
  const scale = from / to;
  // A filter is stretched where the image shrinks, and never squeezed where it grows.
  const stretch = Math.max(1, scale);
  const reach = support * stretch;
  const taps = Math.ceil(reach) * 2 + 1;
  const first = new Int32Array(to);
  const count = new Int32Array(to);
  const weights = new Int32Array(to * taps);
  const exact = new Float64Array(taps);
  for (let pixel = 0; pixel < to; pixel++) {
    const center = (pixel + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - reach + 0.5));
    const length = Math.min(from, Math.trunc(center + reach + 0.5)) - start;
    let sum = 0;
    for (let tap = 0; tap < length; tap++) {
      exact[tap] = weight((tap + start - center + 0.5) * (1 / stretch));
      sum += exact[tap]!;
    }
    for (let tap = 0; tap < length; tap++) {
      const share = (sum === 0 ? exact[tap]! : exact[tap]! / sum) * 2 ** PRECISION_BITS;
      weights[pixel * taps + tap] = Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    }
    first[pixel] = start;
    count[pixel] = length;
  }
  return { first, count, weights, taps };
}

/** A table has some 10 kB, and takes less than 1 % of the time of the image it is for. */
const MAX_TABLES = 64;
const tables = new Map<string, AxisWeights>();

/** The weights of one axis, kept for the next image of the same size. */
export function axisWeights(
  from: number,
  to: number,
  resample: Exclude<Resample, "nearest">,
): AxisWeights {
  const key = `${resample} ${from} ${to}`;
  let table = tables.get(key);
  if (table === undefined) {
    table = computeWeights(from, to, FILTERS[resample]);
    const [oldest] = tables.keys();
    if (tables.size >= MAX_TABLES) tables.delete(oldest!);
    tables.set(key, table);
  }
  return table;
}

/** The pixel of the source for each pixel of the result, as Pillow's nearest neighbour walks. */
export function nearestPixels(from: number, to: number): Int32Array {
  const step = from / to;
  const pixels = new Int32Array(to);
  // Pillow adds up the steps, and rounds as it adds.
  let position = step * 0.5;
  for (let i = 0; i < to; i++, position += step) pixels[i] = Math.min(from - 1, position);
  return pixels;
}
