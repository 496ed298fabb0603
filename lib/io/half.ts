// IEEE binary16 has 1 sign, 5 exponent and 10 fraction bits; bfloat16 is the upper half of a binary32.
// Both widen to float32 exactly.

/** Widens IEEE half-precision bit patterns to float32. */
export function float16ToFloat32(bits: Uint16Array): Float32Array {
  const result = new Float32Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const half = bits[i]!;
    const sign = half & 0x8000 ? -1 : 1;
    const exponent = (half >> 10) & 0x1f;
    const fraction = half & 0x3ff;
    if (exponent === 0) {
      result[i] = sign * fraction * 2 ** -24;
    } else if (exponent === 0x1f) {
      result[i] = fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
    } else {
      result[i] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
    }
  }
  return result;
}

/** Widens bfloat16 bit patterns to float32. */
export function bfloat16ToFloat32(bits: Uint16Array): Float32Array {
  const result = new Uint32Array(bits.length);
  for (let i = 0; i < bits.length; i++) result[i] = bits[i]! << 16;
  return new Float32Array(result.buffer);
}
