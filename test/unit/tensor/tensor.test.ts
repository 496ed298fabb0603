import { describe, expect, test } from "vitest";
import { Tensor } from "../../../lib/tensor/tensor.js";
import { expectError } from "../model/checkpoints.js";

describe("Tensor", () => {
  test("has a shape and gives its elements", async () => {
    const tensor = new Tensor(Float32Array.of(1, 2, 3, 4, 5, 6), [2, 3]);
    expect(tensor).toMatchObject({ shape: [2, 3], size: 6, dtype: "float32" });
    expect(await tensor.data()).toEqual(Float32Array.of(1, 2, 3, 4, 5, 6));
    expect(tensor.dataSync()).toBe(await tensor.data());
  });

  test("keeps its shape", () => {
    const shape = [2, 3];
    const tensor = new Tensor(new Float32Array(6), shape);
    shape.pop();
    expect(tensor.size).toBe(6);
    expect(() => (tensor.shape as number[]).pop()).toThrow(TypeError);
  });

  test("gives nothing after dispose, which may be repeated", async () => {
    const tensor = new Tensor(new Float32Array(6), [2, 3]);
    const kept = tensor.dataSync();
    tensor.dispose();
    tensor.dispose();
    await expectError(() => tensor.data(), "ERR_DISPOSED", "[2,3]", "after dispose()");
    await expectError(() => tensor.dataSync(), "ERR_DISPOSED");
    expect(kept.length).toBe(6);
  });

  test("is disposed at the end of a using block", async () => {
    let outside: Tensor;
    {
      using tensor = new Tensor(new Float32Array(1), [1]);
      outside = tensor;
      expect(tensor.dataSync().length).toBe(1);
    }
    await expectError(() => outside.dataSync(), "ERR_DISPOSED");
  });
});
