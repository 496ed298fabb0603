type Words2 = readonly [number, number];
type Words4 = readonly [number, number, number, number];

/**
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), the generator of
 * the native engine as well: a counter in, four words out, all of them unsigned 32-bit.
 */
export function philox(counter: Words4, key: Words2): Words4 {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const [a, b] = [0xd2511f53, 0xcd9e8d57];
    [c0, c1, c2, c3] = [
      (multiplyHigh(b, c2) ^ c1 ^ k0) >>> 0,
      Math.imul(b, c2) >>> 0,
      (multiplyHigh(a, c0) ^ c3 ^ k1) >>> 0,
      Math.imul(a, c0) >>> 0,
    ];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** The upper 32 bits of the product of two unsigned 32-bit words. */
function multiplyHigh(a: number, b: number): number {
  const [aLow, aHigh, bLow, bHigh] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = (aLow * bHigh + (middle & 0xffff)) >>> 16;
  return (aHigh * bHigh + (middle >>> 16) + carry) >>> 0;
}

/** A stream of random numbers; streams of other seeds, or of the same seed and other numbers, differ. */
export class Random {
  readonly #key: Words2;
  readonly #stream: Words2;
  #block = 0;
  #words: number[] = [];

  /**
   * @param seed - an integer in [0, 2^53).
   * @param stream - an integer in [0, 2^53).
   */
  constructor(seed: number, stream = 0) {
    this.#key = split(seed);
    this.#stream = split(stream);
  }

  /** A uniform integer in [0, 2^32). */
  next(): number {
    if (this.#words.length === 0) {
      this.#words = [...philox([...split(this.#block++), ...this.#stream], this.#key)].reverse();
    }
    return this.#words.pop()!;
  }

  /** A uniform integer in [0, bound); `bound` is an integer in [1, 2^32]. */
  below(bound: number): number {
    // Without the first 2^32 mod bound words every remainder is equally frequent.
    const smallest = 2 ** 32 % bound;
    let word = this.next();
    while (word < smallest) word = this.next();
    return word % bound;
  }

  /** Brings the items into a uniformly random order, in place (Fisher and Yates). */
  shuffle(items: unknown[]): void {
    for (let last = items.length - 1; last > 0; last--) {
      const chosen = this.below(last + 1);
      [items[last], items[chosen]] = [items[chosen], items[last]];
    }
  }
}

/** The lower and the upper word of an integer. */
function split(value: number): Words2 {
  return [value >>> 0, Math.floor(value / 2 ** 32)];
}
