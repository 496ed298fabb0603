// What happens to a sample of a shifted stream: bytes in, bytes out. `strength` is 1 for a shift that is
// there from the first sample, and grows from 0 to 1 along a stream that drifts.

import type { Random } from "./random.js";

export interface Sample {
  readonly data: Uint8Array;
  /** [H, W] of an image, [T] of a word: letters 1 to 26, then padding 0. */
  readonly shape: readonly number[];
}

export type Corruption = (sample: Sample, random: Random, strength: number) => Uint8Array;

const identity: Corruption = ({ data }) => data;

/** Rotation about the centre, bilinear; outside is 0, as the background is. */
function rotation(degrees: number): Corruption {
  return ({ data, shape }, _, strength) => {
    const [height, width] = shape as [number, number];
    const angle = (strength * degrees * Math.PI) / 180;
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const [cy, cx] = [(height - 1) / 2, (width - 1) / 2];
    const at = (y: number, x: number) =>
      y < 0 || x < 0 || y >= height || x >= width ? 0 : data[y * width + x]!;
    return Uint8Array.from(data, (_, i) => {
      const [dy, dx] = [Math.floor(i / width) - cy, (i % width) - cx];
      const [y, x] = [cy + cos * dy - sin * dx, cx + sin * dy + cos * dx];
      const [y0, x0] = [Math.floor(y), Math.floor(x)];
      const [fy, fx] = [y - y0, x - x0];
      const upper = (1 - fx) * at(y0, x0) + fx * at(y0, x0 + 1);
      const lower = (1 - fx) * at(y0 + 1, x0) + fx * at(y0 + 1, x0 + 1);
      return Math.round((1 - fy) * upper + fy * lower);
    });
  };
}

const inversion: Corruption = ({ data }) => data.map((value) => 255 - value);

function gaussianNoise(deviation: number): Corruption {
  return ({ data }, random, strength) =>
    data.map((value) =>
      Math.min(255, Math.max(0, Math.round(value + strength * deviation * random.normal()))),
    );
}

/** Mean over a window of 2 · radius + 1 pixels each way. */
function boxBlur(radius: number): Corruption {
  return ({ data, shape }) => {
    const [height, width] = shape as [number, number];
    return Uint8Array.from(data, (_, i) => {
      const [row, column] = [Math.floor(i / width), i % width];
      let sum = 0;
      for (let y = row - radius; y <= row + radius; y++) {
        for (let x = column - radius; x <= column + radius; x++) {
          if (y >= 0 && x >= 0 && y < height && x < width) sum += data[y * width + x]!;
        }
      }
      return Math.round(sum / (2 * radius + 1) ** 2);
    });
  };
}

const wordLength = (data: Uint8Array) => {
  const end = data.indexOf(0);
  return end < 0 ? data.length : end;
};

/** The word from its end: suffixes become prefixes. */
const reversal: Corruption = ({ data }) => {
  const reversed = data.slice();
  reversed.subarray(0, wordLength(data)).reverse();
  return reversed;
};

/** Each letter becomes a random one with this probability. */
function typos(probability: number): Corruption {
  return ({ data }, random, strength) =>
    data.map((letter) =>
      letter !== 0 && random.uniform() < strength * probability ? 1 + random.integer(26) : letter,
    );
}

export const CORRUPTIONS = {
  none: identity,
  rotate90: rotation(90),
  rotate180: rotation(180),
  invert: inversion,
  noise: gaussianNoise(80),
  heavyNoise: gaussianNoise(150),
  blur: boxBlur(2),
  reverse: reversal,
  typos: typos(0.25),
} as const satisfies Record<string, Corruption>;
