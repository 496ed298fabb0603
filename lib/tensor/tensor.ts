import { LokoError } from "../errors.js";
import { elementsOf } from "./shape.js";

/**
 * Numbers with a shape, row-major, float32. A tensor owns its memory until {@link Tensor.dispose}, or
 * the end of a `using` block; the garbage collector also finds forgotten ones.
 *
 * @example
 * ```ts
 * using logits = await model.forward(inputs);
 * const values = await logits.data(); // Float32Array of B * m
 * ```
 */
export class Tensor implements Disposable {
  /** Extent of each axis. */
  readonly shape: readonly number[];
  /** Type of the elements, always float32. */
  readonly dtype = "float32";
  #values: Float32Array | undefined;

  /** @internal */
  constructor(values: Float32Array, shape: readonly number[]) {
    this.#values = values;
    this.shape = Object.freeze([...shape]);
  }

  /** Number of elements. */
  get size(): number {
    return elementsOf(this.shape);
  }

  /**
   * The elements. The array is the tensor's own memory where that lies on the host: writing to it
   * changes the tensor. It stays valid after `dispose()`.
   *
   * @throws LokoError ERR_DISPOSED.
   */
  async data(): Promise<Float32Array> {
    return this.dataSync();
  }

  /**
   * As {@link Tensor.data}, at once.
   *
   * @throws LokoError ERR_DISPOSED.
   */
  dataSync(): Float32Array {
    if (this.#values === undefined) {
      throw new LokoError(
        "ERR_DISPOSED",
        `A tensor of shape [${this.shape}] was used after dispose().`,
      );
    }
    return this.#values;
  }

  /** Gives up the memory. Idempotent. */
  dispose(): void {
    this.#values = undefined;
  }

  /** {@link Tensor.dispose}, at the end of the block of a `using` declaration. */
  [Symbol.dispose](): void {
    this.dispose();
  }
}
