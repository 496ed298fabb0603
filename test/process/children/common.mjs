import { LoKO, Model } from "../../../dist/index.js";

/** A model with an adapter and LoKO, and a sample for it. */
export async function prepare(dir, options = {}) {
  const model = await Model.fromPretrained(dir, options);
  await model.addAdapter({ r: 8, loraAlpha: 16 });
  const shape = [1, ...model.input.shape];
  const pixelValues = new Float32Array(shape.reduce((a, b) => a * b));
  for (let i = 0; i < pixelValues.length; i++) pixelValues[i] = Math.sin(i);
  const sample = { inputs: { pixelValues, shape }, labels: Int32Array.of(1) };
  return { model, optimizer: new LoKO(model), sample };
}
