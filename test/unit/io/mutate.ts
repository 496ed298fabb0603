/** Seeded random choices (mulberry32): the same seed makes the same case on every machine. */
/** For fast-check, as the environment says. */
export const FUZZ_RUNS = {
  numRuns: Number(process.env.LOKO_FUZZ_ITERATIONS ?? 200),
  seed: Number(process.env.LOKO_FUZZ_SEED ?? 1),
};

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** Uniform in [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** Uniform in [0, n). */
  below(n: number): number {
    return Math.floor(this.next() * n);
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!;
  }
}

/** Values that a reader of JSON may not expect, as text so that duplicates and huge numbers survive. */
const HOSTILE = [
  "null",
  "true",
  "-1",
  "-0",
  "0",
  "0.5",
  "1e400",
  "1e308",
  "9007199254740991",
  "9007199254740993",
  "18446744073709551615",
  "4294967296",
  '"1"',
  '""',
  '"__proto__"',
  '"F32"',
  '"F128"',
  '"\\ud800"',
  '"\u{1f600}"',
  "[]",
  "[0]",
  "[[0]]",
  "[0,1,2]",
  "{}",
  '{"a":{"a":{"a":0}}}',
  `${"[".repeat(200)}${"]".repeat(200)}`,
  "NaN",
];

const KEYS = [
  "__proto__",
  "constructor",
  "__metadata__",
  "toString",
  "dtype",
  "",
  "\u{1f600}",
  "a\u0000",
];

/** One JSON value inside a text: where it begins and ends. */
interface Span {
  start: number;
  end: number;
}

/** A structure-aware change of valid JSON: replaces, swaps, repeats, renames or removes a part. */
export function mutateJson(json: string, random: Random): string {
  const cut = (span: Span, text: string) => json.slice(0, span.start) + text + json.slice(span.end);
  const textOf = ({ start, end }: Span) => json.slice(start, end);
  const values = spans(
    json,
    /"(?:[^"\\]|\\.)*"(?!\s*:)|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?|true|false|null/gi,
  );
  const arrays = spans(json, /\[[^[\]{}]*\]/g);
  const members = spans(json, /"(?:[^"\\]|\\.)*":(?:\{[^{}]*\}|\[[^[\]{}]*\]|[^,{}[\]]+)/g);
  const keys = spans(json, /"(?:[^"\\]|\\.)*"(?=:)/g);
  switch (random.below(8)) {
    case 0:
      return values.length === 0 ? json : cut(random.pick(values), random.pick(HOSTILE));
    case 1:
      return arrays.length === 0 ? json : cut(random.pick(arrays), random.pick(HOSTILE));
    case 2: {
      if (arrays.length === 0) return json;
      // Two offsets, or two dimensions, the other way round.
      const array = random.pick(arrays);
      return cut(array, `[${textOf(array).slice(1, -1).split(",").reverse().join(",")}]`);
    }
    case 3: {
      if (values.length < 2) return json;
      const [a, b] = [random.pick(values), random.pick(values)].sort((x, y) => x.start - y.start);
      if (a === b) return json;
      return (
        json.slice(0, a!.start) +
        textOf(b!) +
        json.slice(a!.end, b!.start) +
        textOf(a!) +
        json.slice(b!.end)
      );
    }
    case 4: {
      if (members.length === 0) return json;
      const member = random.pick(members);
      return cut(member, `${textOf(member)},${textOf(member)}`);
    }
    case 5:
      return keys.length === 0 ? json : cut(random.pick(keys), JSON.stringify(random.pick(KEYS)));
    case 6:
      return members.length === 0 ? json : cut(random.pick(members), "");
    default: {
      // A number a little beside itself: off by one, doubled, negated.
      const numbers = values.filter((span) => /^\d/.test(textOf(span)));
      if (numbers.length === 0) return json;
      const number = random.pick(numbers);
      const value = Number(textOf(number));
      return cut(number, String(random.pick([value + 1, value - 1, value * 2, -value])));
    }
  }
}

function spans(json: string, pattern: RegExp): Span[] {
  return [...json.matchAll(pattern)].map((match) => ({
    start: match.index,
    end: match.index + match[0].length,
  }));
}

/** A change that knows nothing of the format: flips bits, removes, repeats or inserts bytes. */
export function mutateBytes(bytes: Uint8Array, random: Random): Uint8Array {
  if (bytes.length === 0) return bytes;
  const at = random.below(bytes.length);
  const end = Math.min(bytes.length, at + 1 + random.below(16));
  switch (random.below(5)) {
    case 0:
      return bytes.slice(0, at);
    case 1:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(end)]);
    case 2:
      return Buffer.concat([bytes.subarray(0, end), bytes.subarray(at)]);
    case 3: {
      const inserted = Uint8Array.from({ length: 1 + random.below(4) }, () => random.below(256));
      return Buffer.concat([bytes.subarray(0, at), inserted, bytes.subarray(at)]);
    }
    default: {
      const changed = bytes.slice();
      for (let flips = 1 + random.below(3); flips > 0; flips--) {
        changed[random.below(changed.length)]! ^= 1 << random.below(8);
      }
      return changed;
    }
  }
}
