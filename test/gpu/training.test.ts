import { beforeAll, expect, test, vi } from "vitest";
import { maxAbsError, relativeError } from "../parity/fixtures.js";
import { describeOnGpu } from "./gpu.js";
import { type Trained, trainTinyVit } from "./training.js";

const MINUTES = 60_000;

describeOnGpu.each(["LoKO", "AdamW"] as const)("1,000 steps of %s on the GPU", (optimizer) => {
  const steps = 1000;
  let exact: Trained;
  let cpu: Trained;
  let cuda: Trained;
  beforeAll(async () => {
    exact = await trainTinyVit(optimizer, { steps, device: "ref" });
    cpu = await trainTinyVit(optimizer, { steps, device: "cpu" });
    cuda = await trainTinyVit(optimizer, { steps, device: "cuda" });
  }, 10 * MINUTES);

  // Float64 is the yardstick, because two float32 trajectories may differ by the sum of their own errors. On
  // the CPU 8.0e-7 to 8.2e-7 (LoKO) and 1.14e-5 (AdamW) were measured for the parameters with three
  // instruction sets, which sum in different orders, and 1.1e-5 to 1.5e-5 and 8.5e-5 for the logits.
  // A GPU sums in yet another order: 4 times the error of the CPU in the same run.
  test("are as near to the trajectory in float64 as the CPU's", () => {
    expect([exact.skipped, cpu.skipped, cuda.skipped]).toEqual([0, 0, 0]);
    const errorOf = ({ parameters }: Trained) => relativeError(parameters, exact.parameters);
    expect(errorOf(cuda)).toBeLessThan(4 * errorOf(cpu));
    const deviationOf = ({ logits }: Trained) => maxAbsError(logits, exact.logits);
    expect(deviationOf(cuda)).toBeLessThan(4 * deviationOf(cpu));
  });

  test("are the same bits when they are taken again", async () => {
    const again = await trainTinyVit(optimizer, { steps, device: "cuda" });
    expect(again.parameters).toEqual(cuda.parameters);
    expect(again.logits).toEqual(cuda.logits);
  });
});

describeOnGpu("kernels that start before the one ahead of them has ended", () => {
  test.each(["LoKO", "AdamW"] as const)("leave %s the bits that it has without", async (name) => {
    const options = { steps: 300, device: "cuda", precision: "bfloat16" } as const;
    const overlapping = await trainTinyVit(name, options);
    vi.stubEnv("LOKO_CUDA_OVERLAP", "0");
    try {
      const apart = await trainTinyVit(name, options);
      expect(overlapping.parameters).toEqual(apart.parameters);
      expect(overlapping.logits).toEqual(apart.logits);
    } finally {
      vi.unstubAllEnvs();
    }
  });
});

describeOnGpu.each(["tf32", "bfloat16"] as const)("training in %s", (precision) => {
  // 14 products lie between a pixel and a logit of two blocks. Each rounds both operands to a relative 2^-11
  // (TF32 cuts off) or 2^-9 (bfloat16), so the first logits differ norm-wise by at most about 14 * 2 of these.
  const bar = 28 * (precision === "tf32" ? 2 ** -11 : 2 ** -9);

  test.each(["LoKO", "AdamW"] as const)(
    "%s begins as in float32, repeats its bits, learns",
    async (name) => {
      const steps = 200;
      const full = await trainTinyVit(name, { steps, device: "cuda" });
      const [first, second] = [
        await trainTinyVit(name, { steps, device: "cuda", precision }),
        await trainTinyVit(name, { steps, device: "cuda", precision }),
      ];
      const begin = (trained: Trained) => trained.logits.subarray(0, 7);
      expect(begin(first)).not.toEqual(begin(full));
      expect(relativeError(begin(first), begin(full))).toBeLessThan(bar);
      expect(first.parameters).toEqual(second.parameters);
      expect(first.skipped).toBe(0);
      expect(first.parameters.every(Number.isFinite)).toBe(true);
    },
    5 * MINUTES,
  );
});
