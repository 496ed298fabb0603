import { checkNotEmpty, checkSameLength } from "./checks.js";

/** Mean of a stream of numbers, with Neumaier's compensated sum: the error does not grow with the count. */
export class RunningMean {
  #sum = 0;
  #compensation = 0;
  #count = 0;

  /** How many numbers were added. */
  get count(): number {
    return this.#count;
  }

  /** Adds a number. */
  add(value: number): void {
    const sum = this.#sum + value;
    // What the addition lost: the low part of whichever was smaller.
    this.#compensation +=
      Math.abs(this.#sum) >= Math.abs(value) ? this.#sum - sum + value : value - sum + this.#sum;
    this.#sum = sum;
    this.#count++;
  }

  /**
   * The mean; NaN when one of the numbers was not finite.
   *
   * @throws LokoError ERR_SHAPE_MISMATCH when nothing was added.
   */
  mean(): number {
    checkNotEmpty(this.#count);
    return (this.#sum + this.#compensation) / this.#count;
  }
}

/**
 * Mean squared error over all elements, as scikit-learn's `mean_squared_error`.
 *
 * @param targets - the true values, [samples] or row-major [samples, outputs].
 * @param predictions - as many.
 * @throws LokoError ERR_INPUT_TYPE for what is no array of numbers, ERR_SHAPE_MISMATCH for different
 * lengths or no element.
 */
export function meanSquaredError(
  targets: ArrayLike<number>,
  predictions: ArrayLike<number>,
): number {
  checkSameLength({ targets, predictions });
  const error = new RunningMean();
  for (let i = 0; i < targets.length; i++) error.add((targets[i]! - predictions[i]!) ** 2);
  return error.mean();
}
