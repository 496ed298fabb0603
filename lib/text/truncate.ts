import { LokoError } from "../errors.js";

/**
 * Which text gives way when a pair is too long: the longer one until both are equal, then both; or
 * always the first or the second. `false` leaves everything in. One text alone is simply cut, but by
 * `"only_second"`, which is an error.
 */
export type Truncation = "longest_first" | "only_first" | "only_second" | false;

/**
 * How many tokens to keep of each text, by the rules of Python's `tokenizers`.
 *
 * @param lengths - tokens of one text or two.
 * @param room - tokens that fit beside the special ones.
 * @throws LokoError ERR_SEQUENCE_LENGTH when the text that should give way is too short for that.
 */
export function keptLengths(
  lengths: readonly number[],
  room: number,
  truncation: Truncation,
): readonly number[] {
  const excess = lengths.reduce((sum, length) => sum + length, 0) - room;
  if (truncation === false || excess <= 0) return lengths;
  if (room === 0) return lengths.map(() => 0);
  if (truncation === "longest_first") return longestFirst(lengths, room);
  const which = truncation === "only_first" ? 0 : 1;
  const length = lengths[which];
  // Python asks for at least one token to be left.
  if (length === undefined || length <= excess) {
    const reason =
      length === undefined
        ? "there is no second text"
        : `the other text leaves too little of ${room}`;
    throw new LokoError(
      "ERR_SEQUENCE_LENGTH",
      `truncation "${truncation}" cannot make the tokens fit into the ${room} beside the special ones: ` +
        `${reason}. Use "longest_first" or a larger maxLength.`,
    );
  }
  return lengths.map((all, i) => (i === which ? all - excess : all));
}

function longestFirst([first = 0, second]: readonly number[], room: number): number[] {
  if (second === undefined) return [room];
  const shorter = Math.min(first, second, Math.floor(room / 2));
  // The odd token goes to the longer text, and to the second of two of equal length.
  return first > second ? [room - shorter, shorter] : [shorter, room - shorter];
}
