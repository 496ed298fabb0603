// Samples that nobody learns from, all of them as one batch.

import type { ImageInputs, ModelInputs, OnlineSample, TextInputs } from "loko";

/** One batch of samples that have one label each. */
export function joined(samples: readonly OnlineSample[]): OnlineSample {
  const first = samples[0]!.inputs;
  const shape = [samples.length, ...first.shape.slice(1)];
  const labels = joinedNumbers(samples.map((sample) => sample.labels as Int32Array));
  return { inputs: { ...joinedInputs(samples.map(({ inputs }) => inputs)), shape }, labels };
}

function joinedInputs(
  inputs: readonly ModelInputs[],
): Omit<ImageInputs, "shape"> | Omit<TextInputs, "shape"> {
  if ("pixelValues" in inputs[0]!) {
    return { pixelValues: joinedNumbers((inputs as ImageInputs[]).map((x) => x.pixelValues)) };
  }
  const texts = inputs as TextInputs[];
  return {
    inputIds: joinedNumbers(texts.map((x) => x.inputIds)),
    attentionMask: joinedNumbers(texts.map((x) => x.attentionMask!)),
  };
}

function joinedNumbers<T extends Float32Array | Int32Array>(parts: readonly T[]): T {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const result = new (parts[0]!.constructor as new (length: number) => T)(length);
  let offset = 0;
  for (const part of parts) {
    result.set(part, offset);
    offset += part.length;
  }
  return result;
}
