const lengthGetter = Object.getOwnPropertyDescriptor(
  Object.getPrototypeOf(Float32Array.prototype),
  "length",
)!.get as (this: ArrayBufferView) => number;

/** The true length of a typed array, which a property of its own could hide. */
export function lengthOf(values: Float32Array | Int32Array): number {
  return lengthGetter.call(values);
}
