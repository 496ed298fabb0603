// What the parity tests of all models ask of a model.
import { expect } from "vitest";
import type { Model } from "../../lib/model.js";
import type { ModelInputs } from "../../lib/models/inputs.js";
import { relativeError, type TensorFile } from "./fixtures.js";

// The project's bar for a Jacobian block, norm-wise; float32 leaves about 1e-6.
const JACOBIAN_TOLERANCE = 1e-4;

export async function logitsOf(
  model: Model,
  { inputs }: { inputs: ModelInputs },
): Promise<Float32Array> {
  using logits = await model.forward(inputs);
  return logits.data();
}

/** Compares every block of the Jacobian with PyTorch's. */
export async function expectJacobian(
  model: Model,
  { inputs, expected }: { inputs: ModelInputs; expected: TensorFile },
  observation: "logits" | "softmax",
  prefix: "jacobian" | "jacobian_b0",
): Promise<void> {
  using jacobian = await model.jacobian(inputs, { observation });
  const [batch, m, n] = jacobian.shape as [number, number, number];
  const values = jacobian.dataSync();
  for (const { name, offset, size, group } of model.parameters()) {
    const block = new Float32Array(batch * m * size);
    for (let row = 0; row < batch * m; row++) {
      block.set(values.subarray(row * n + offset, row * n + offset + size), row * size);
    }
    const reference = expected.get(`${prefix}.${observation}/${name}`);
    // dz/dA = Bᵀ(...) where B is zero, and the softmax of a single output, are constant.
    const isZero =
      (prefix === "jacobian_b0" && group === "loraA") || (observation === "softmax" && m === 1);
    if (isZero) {
      expect(reference, name).toBeUndefined();
      expect(block.every((value) => value === 0)).toBe(true);
    } else {
      expect(relativeError(block, reference!.values), name).toBeLessThan(JACOBIAN_TOLERANCE);
    }
  }
}
