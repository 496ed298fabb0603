// The accuracy on samples that nobody learns from, all of them as one batch.

import type { ImageInputs, Model, ModelInputs, OnlineSample, TextInputs } from "loko";

export class HeldOut {
  readonly #inputs: ModelInputs;
  readonly #labels: readonly number[];

  constructor(samples: readonly OnlineSample[]) {
    this.#labels = samples.map(({ labels }) => (labels as Int32Array)[0]!);
    const shape = [samples.length, ...samples[0]!.inputs.shape.slice(1)];
    if ("pixelValues" in samples[0]!.inputs) {
      const all = samples.map(({ inputs }) => (inputs as ImageInputs).pixelValues);
      this.#inputs = { pixelValues: joined(new Float32Array(length(all)), all), shape };
    } else {
      const texts = samples.map(({ inputs }) => inputs as TextInputs);
      const ids = texts.map(({ inputIds }) => inputIds);
      const masks = texts.map(({ attentionMask }) => attentionMask!);
      this.#inputs = {
        inputIds: joined(new Int32Array(length(ids)), ids),
        attentionMask: joined(new Int32Array(length(masks)), masks),
        shape,
      };
    }
  }

  /** How many are predicted correctly. */
  async hits(model: Model): Promise<number> {
    const logits = await (await model.forward(this.#inputs)).data();
    const classes = logits.length / this.#labels.length;
    return this.#labels.filter((label, i) => {
      const row = logits.subarray(i * classes, (i + 1) * classes);
      return row.every((logit) => logit <= row[label]!);
    }).length;
  }
}

const length = (arrays: readonly { length: number }[]) =>
  arrays.reduce((sum, array) => sum + array.length, 0);

function joined<T extends Float32Array | Int32Array>(target: T, parts: readonly T[]): T {
  let offset = 0;
  for (const part of parts) {
    target.set(part, offset);
    offset += part.length;
  }
  return target;
}
