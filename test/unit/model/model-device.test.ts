import { describe, expect, test, vi } from "vitest";
import { deviceInfo } from "../../../lib/device.js";
import { Model } from "../../../lib/model.js";
import { vitFolder } from "../../parity/fixtures.js";

const { cuda } = deviceInfo();

describe.skipIf(cuda.available)("a model on a machine without a GPU", () => {
  test("is on the CPU by default, and knows why", async () => {
    vi.stubEnv("LOKO_DEVICE", undefined);
    using model = await Model.fromPretrained(vitFolder("odd"));
    vi.unstubAllEnvs();
    expect(model.device).toEqual({ name: "cpu", precision: "float32", note: cuda.reason });
    expect(["notCompiled", "noDriver", "driverTooOld", "noDevice"]).toContain(cuda.cause);
  });

  test("cannot be on the GPU, nor have its precisions", async () => {
    await expect(Model.fromPretrained(vitFolder("odd"), { device: "cuda" })).rejects.toMatchObject({
      code: "ERR_DEVICE_UNAVAILABLE",
      message: `device "cuda" is not available: ${cuda.reason}. Use device "cpu", or "auto".`,
    });
    const half = { device: "cpu", precision: "bfloat16" } as const;
    await expect(Model.fromPretrained(vitFolder("odd"), half)).rejects.toMatchObject({
      code: "ERR_UNSUPPORTED",
    });
  });
});
