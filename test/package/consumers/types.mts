// Compiled by install.test.ts against the installed package, never run.
import {
  LoKO,
  type LoKOOptions,
  LokoError,
  type LokoErrorCode,
  Model,
  type StepResult,
  Tokenizer,
  Trainer,
  trainOnline,
} from "loko";

const options: LoKOOptions = { observation: "softmax" };

export async function use(dir: string, signal: AbortSignal): Promise<LokoErrorCode | number> {
  using model: Model = await Model.fromPretrained(dir, { seed: 0 });
  try {
    const optimizer = new LoKO(model, options);
    const result: StepResult = await optimizer.step(
      { pixelValues: new Float32Array(12), shape: [1, 3, 2, 2] },
      Int32Array.of(0),
    );
    for await (const { loss } of trainOnline(model, optimizer, [], { signal })) {
      const number: number = loss;
      if (number > 1) return number;
    }
    const tokenizer = await Tokenizer.fromPretrained(dir);
    const trainer = new Trainer(model, optimizer, { epochs: 1 });
    void [tokenizer, trainer];
    // @ts-expect-error: a class index is a number
    await optimizer.step({ pixelValues: new Float32Array(12), shape: [1, 3, 2, 2] }, ["cat"]);
    return result.loss;
  } catch (error) {
    if (error instanceof LokoError) return error.code;
    throw error;
  }
}
