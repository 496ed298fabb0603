import type { Model } from "../../../lib/model.js";
import type { ImageInputs } from "../../../lib/models/inputs.js";

/** A batch of smooth, deterministic images for vit/odd; `seed` varies them. */
export function images(batch: number, seed = 0): ImageInputs {
  const pixelValues = new Float32Array(batch * 3 * 16 * 16);
  for (let i = 0; i < pixelValues.length; i++) pixelValues[i] = Math.sin(0.7 * i + 3 * seed + 1);
  return { pixelValues, shape: [batch, 3, 16, 16] };
}

/** d(mean cross entropy)/dθ from the exact Jacobian: mean over samples of Jᵀ(softmax(z) − onehot). */
export async function lossGradient(
  model: Model,
  inputs: ImageInputs,
  labels: Int32Array,
): Promise<Float64Array> {
  using logits = await model.forward(inputs);
  using jacobian = await model.jacobian(inputs);
  const [batch, m, n] = jacobian.shape as [number, number, number];
  const [z, values] = [logits.dataSync(), jacobian.dataSync()];
  const gradient = new Float64Array(n);
  for (let b = 0; b < batch; b++) {
    const exponentials = Array.from(z.subarray(b * m, (b + 1) * m), Math.exp);
    const sum = exponentials.reduce((total, value) => total + value, 0);
    for (let c = 0; c < m; c++) {
      const cotangent = (exponentials[c]! / sum - (c === labels[b] ? 1 : 0)) / batch;
      const row = (b * m + c) * n;
      for (let i = 0; i < n; i++) gradient[i]! += cotangent * values[row + i]!;
    }
  }
  return gradient;
}
