import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { cublasLtInfo, deviceInfo, resolveDevice } from "../../../lib/device.js";
import type { NativeCublasLt, NativeDeviceInfo } from "../../../lib/native/addon.js";
import { loadAddon } from "../../../lib/native/loader.js";

vi.mock("../../../lib/native/loader.js", () => ({ loadAddon: vi.fn() }));

const H200 = {
  name: "NVIDIA H200",
  computeCapability: 90,
  memoryBytes: 150_754_820_096,
  multiprocessors: 132,
};
const READY: NativeDeviceInfo["cuda"] = {
  available: true,
  cause: "",
  reason: "",
  driver: 13010,
  runtime: 13000,
  architectures: "80-real,86-real,90",
  devices: [H200],
};
const NO_DRIVER: NativeDeviceInfo["cuda"] = {
  ...READY,
  available: false,
  cause: "noDriver",
  reason: "no NVIDIA driver is installed",
  driver: 0,
  devices: [],
};
const NO_CUBLAS: NativeCublasLt = { path: "", version: 0, disabled: false, tried: [] };

/** An addon on a machine with this CUDA. */
function pretend(cuda: NativeDeviceInfo["cuda"], cublasLt = NO_CUBLAS): void {
  const cpu = { isa: "generic", available: ["generic"], threads: 2 };
  vi.mocked(loadAddon).mockReturnValue({
    deviceInfo: () => ({ cpu, cuda }),
    cublasLtInfo: () => cublasLt,
    createSession: vi.fn(),
    crossings: () => 0,
    version: "0.0.0",
  });
}

beforeEach(() => vi.stubEnv("LOKO_DEVICE", undefined));
afterEach(() => vi.unstubAllEnvs());

describe("deviceInfo", () => {
  test("has versions, GPU generations and devices in the usual spellings", () => {
    pretend(READY);
    expect(deviceInfo().cuda).toEqual({
      available: true,
      driver: "13.1",
      runtime: "13.0",
      architectures: ["sm_80", "sm_86", "sm_90", "compute_90"],
      devices: [{ ...H200, computeCapability: "9.0" }],
    });
  });

  test("says why there is none, for a person and for a program", () => {
    pretend(NO_DRIVER);
    const { cuda } = deviceInfo();
    expect(cuda).toMatchObject({ available: false, cause: "noDriver", runtime: "13.0" });
    expect(cuda.reason).toBe("no NVIDIA driver is installed");
    expect(cuda).not.toHaveProperty("driver");
  });

  test("does not throw where the addon cannot be loaded", () => {
    vi.mocked(loadAddon).mockImplementation(() => {
      throw new Error("no binary");
    });
    expect(deviceInfo()).toMatchObject({
      cpu: { available: false, reason: "no binary" },
      cuda: { available: false, reason: "no binary" },
    });
    expect(cublasLtInfo()).toEqual({ tried: [{ place: "the addon", problem: "no binary" }] });
  });
});

describe("cublasLtInfo", () => {
  test("has the version in its usual spelling, and what was tried before", () => {
    const tried = [
      { place: "libcublasLt.so.13 (loaded already)", problem: "not loaded" },
      { place: "/a/libcublasLt.so.13", problem: "" },
    ];
    pretend(READY, { path: "/a/libcublasLt.so.13", version: 130101, disabled: false, tried });
    expect(cublasLtInfo()).toEqual({
      path: "/a/libcublasLt.so.13",
      version: "13.1.1",
      tried: [tried[0], { place: "/a/libcublasLt.so.13" }],
    });
    pretend(READY, { ...NO_CUBLAS, tried: tried.slice(0, 1) });
    expect(cublasLtInfo()).toEqual({ tried: tried.slice(0, 1) });
    pretend(READY, { ...NO_CUBLAS, disabled: true });
    expect(cublasLtInfo()).toEqual({ tried: [{ place: "LOKO_CUBLASLT", problem: "says off" }] });
  });
});

describe("resolveDevice", () => {
  test("auto is the GPU where there is one, in the precision that was asked for", () => {
    pretend(READY);
    expect(resolveDevice()).toEqual({ name: "cuda", precision: "float32" });
    expect(resolveDevice("auto", "bfloat16")).toEqual({ name: "cuda", precision: "bfloat16" });
  });

  test("auto is the CPU elsewhere, and notes why", () => {
    pretend(NO_DRIVER);
    const note = "no NVIDIA driver is installed";
    expect(resolveDevice("auto")).toEqual({ name: "cpu", precision: "float32", note });
  });

  test("a device that is named is taken, and never another one", () => {
    pretend(READY);
    expect(resolveDevice("cpu")).toEqual({ name: "cpu", precision: "float32" });
    expect(resolveDevice("ref")).toEqual({ name: "ref", precision: "float64" });
    pretend(NO_DRIVER);
    expect(() => resolveDevice("cuda")).toThrow(
      expect.objectContaining({
        code: "ERR_DEVICE_UNAVAILABLE",
        message:
          'device "cuda" is not available: no NVIDIA driver is installed. Use device "cpu", or "auto".',
      }),
    );
  });

  test("LOKO_DEVICE decides for auto, and for nothing else", () => {
    pretend(READY);
    vi.stubEnv("LOKO_DEVICE", "cpu");
    expect(resolveDevice()).toEqual({ name: "cpu", precision: "float32" });
    expect(resolveDevice("cuda")).toEqual({ name: "cuda", precision: "float32" });
    vi.stubEnv("LOKO_DEVICE", "auto");
    expect(resolveDevice().name).toBe("cuda");
    vi.stubEnv("LOKO_DEVICE", "gpu");
    expect(() => resolveDevice()).toThrow(
      expect.objectContaining({
        code: "ERR_OPTION",
        message:
          'The environment variable LOKO_DEVICE must be one of auto, cpu, cuda, ref, got "gpu".',
      }),
    );
    pretend(NO_DRIVER);
    vi.stubEnv("LOKO_DEVICE", "cuda");
    expect(() => resolveDevice()).toThrow(/^LOKO_DEVICE=cuda is not available: no NVIDIA driver/);
  });

  test.each(["tf32", "bfloat16"] as const)("%s is refused where there is no GPU", (precision) => {
    pretend(NO_DRIVER);
    for (const device of ["cpu", "ref", "auto"] as const) {
      expect(() => resolveDevice(device, precision)).toThrow(
        expect.objectContaining({
          code: "ERR_UNSUPPORTED",
          message: expect.stringContaining(`precision "${precision}" needs device "cuda"`),
        }),
      );
    }
    expect(() => resolveDevice("auto", precision)).toThrow(/because no NVIDIA driver/);
  });
});
