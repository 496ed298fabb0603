import { LokoError } from "./errors.js";
import { loadAddon } from "./native/loader.js";

/**
 * Where a model computes. `"auto"` takes the fastest device that is available; `"ref"` is the float64
 * reference on one CPU thread, one to two orders of magnitude slower than `"cpu"`, for checking
 * numbers.
 */
export type Device = "auto" | "cpu" | "cuda" | "ref";

/** What this build and this machine offer. */
export interface DeviceInfo {
  /** The devices `"cpu"` and `"ref"`. */
  readonly cpu: {
    /** Whether the native addon could be loaded and has kernels for this processor. */
    readonly available: boolean;
    /** Why not; only where `available` is false. */
    readonly reason?: string;
    /** The instruction set whose kernels are used: `"avx512"`, `"avx2"` or `"generic"`. */
    readonly instructionSet?: string;
    /** Those that this machine could use; the environment variable `LOKO_CPU_ISA` forces one. */
    readonly instructionSets: readonly string[];
    /** Threads used by default: physical cores within the affinity mask and the cgroup quota. */
    readonly threads: number;
  };
  /** The device `"cuda"`; `reason` says why it is not available. */
  readonly cuda: { readonly available: boolean; readonly reason?: string };
}

const NO_CUDA = "this build has no CUDA backend";

/** The devices of this machine. Never throws: what is wrong is said in `reason`. */
export function deviceInfo(): DeviceInfo {
  const cuda = { available: false, reason: NO_CUDA };
  try {
    const { isa, problem, available, threads } = loadAddon().deviceInfo().cpu;
    const common = { instructionSets: available, threads };
    if (isa === null) {
      return { cpu: { available: false, reason: problem ?? "unknown", ...common }, cuda };
    }
    return { cpu: { available: true, instructionSet: isa, ...common }, cuda };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { cpu: { available: false, reason, instructionSets: [], threads: 0 }, cuda };
  }
}

/**
 * The native device for what a user asked for.
 *
 * @throws LokoError ERR_DEVICE_UNAVAILABLE with the reason.
 */
export function resolveDevice(device: Device): "cpu" | "ref" {
  if (device === "cuda") {
    throw new LokoError(
      "ERR_DEVICE_UNAVAILABLE",
      `device "cuda" is not available: ${NO_CUDA}. Use device "cpu", or "auto".`,
    );
  }
  return device === "ref" ? "ref" : "cpu";
}
