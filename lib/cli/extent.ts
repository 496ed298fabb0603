/**
 * The least and the most of numbers. Spread into the arguments of `Math.max()`, the tensors of a large file or the
 * outputs of a large head would overflow the stack, which has room for about a hundred thousand.
 *
 * @returns `[Infinity, -Infinity]` for none.
 */
export function extentOf(values: Iterable<number>): readonly [number, number] {
  let [least, most] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const value of values) {
    least = Math.min(least, value);
    most = Math.max(most, value);
  }
  return [least, most];
}
