import { describe, LokoError } from "./errors.js";
import type { NativeDeviceInfo } from "./native/addon.js";
import { loadAddon } from "./native/loader.js";

/**
 * Where a model computes. `"auto"` takes `"cuda"` where it is available and `"cpu"` elsewhere, or what the
 * environment variable `LOKO_DEVICE` names; `"ref"` is the float64 reference on one CPU thread, one to two
 * orders of magnitude slower than `"cpu"`, for checking numbers.
 */
export type Device = "auto" | "cpu" | "cuda" | "ref";

/**
 * How products with frozen weights and attention are multiplied: `"float32"` with 24 significant bits,
 * `"tf32"` with 11, `"bfloat16"` with 8, and its frozen weights take half the memory. Sums, activations,
 * the trained parameters, their variances and the Jacobian are float32 in each.
 */
export type Precision = "float32" | "tf32" | "bfloat16";

/** Why there is no CUDA: the build has none, there is no driver, it is too old, it finds no device. */
export type CudaCause = "notCompiled" | "noDriver" | "driverTooOld" | "noDevice";

/** What CUDA has to offer here. */
export interface CudaInfo {
  /** Whether device `"cuda"` can be used. */
  readonly available: boolean;
  /** Why not, in a sentence; only where `available` is false. */
  readonly reason?: string;
  /** Why not, for a program; absent where the addon itself could not be loaded. */
  readonly cause?: CudaCause;
  /** Newest CUDA version that the driver serves, as `"13.0"`; absent without a driver. */
  readonly driver?: string;
  /** CUDA version that the addon was built with; absent where it was built without. */
  readonly runtime?: string;
  /** GPU generations in the addon: `"sm_90"` is machine code, `"compute_90"` runs on all later ones too. */
  readonly architectures: readonly string[];
  /** Models use the first; `CUDA_VISIBLE_DEVICES` says which that is. */
  readonly devices: readonly {
    /** As `"NVIDIA H200"`. */
    readonly name: string;
    /** As `"9.0"`. */
    readonly computeCapability: string;
    /** All of the GPU's memory. */
    readonly memoryBytes: number;
    /** Streaming multiprocessors. */
    readonly multiprocessors: number;
  }[];
}

/** What this build and this machine offer. */
export interface DeviceInfo {
  /** The devices `"cpu"` and `"ref"`. */
  readonly cpu: {
    /** Whether the native addon could be loaded and has kernels for this processor. */
    readonly available: boolean;
    /** Why not; only where `available` is false. */
    readonly reason?: string;
    /** The instruction set whose kernels are used: `"amx"` (AVX-512 and tiles), `"avx512"`, `"avx2"` or
     * `"generic"`. */
    readonly instructionSet?: string;
    /** Those that this machine could use; the environment variable `LOKO_CPU_ISA` forces one. */
    readonly instructionSets: readonly string[];
    /** Threads used by default: physical cores within the affinity mask and the cgroup quota. */
    readonly threads: number;
  };
  /** The device `"cuda"`; `reason` says why it is not available. */
  readonly cuda: CudaInfo;
}

/** The library that multiplies matrices on the GPU, where it was found. */
export interface CublasLtInfo {
  /** The file; absent where there is none, and our own, slower products are used. */
  readonly path?: string;
  /** As `"13.1.1"`. */
  readonly version?: string;
  /** Every place that was tried, in order, and why it was not taken (absent: it was). */
  readonly tried: readonly {
    /** A file, or a name for the system's loader. */
    readonly place: string;
    /** Why it was not taken; absent: it was. */
    readonly problem?: string;
  }[];
}

/** The devices of this machine. Never throws: what is wrong is said in `reason`. */
export function deviceInfo(): DeviceInfo {
  try {
    const { cpu, cuda } = loadAddon().deviceInfo();
    return { cpu: cpuInfo(cpu), cuda: cudaInfo(cuda) };
  } catch (error) {
    const reason = messageOf(error);
    return {
      cpu: { available: false, reason, instructionSets: [], threads: 0 },
      cuda: { available: false, reason, architectures: [], devices: [] },
    };
  }
}

/**
 * Looks for cuBLASLt as a model on the GPU would, and tests it where there is a GPU. Opening the library
 * takes some 50 ms and 200 MB, hence not a part of {@link deviceInfo}. Never throws.
 */
export function cublasLtInfo(): CublasLtInfo {
  try {
    const { path, version, disabled, tried } = loadAddon().cublasLtInfo();
    if (disabled) return { tried: [{ place: "LOKO_CUBLASLT", problem: "says off" }] };
    const attempts = tried.map(({ place, problem }) => ({ place, ...(problem && { problem }) }));
    if (version === 0) return { tried: attempts };
    const parts = [version / 10000, (version / 100) % 100, version % 100].map(Math.floor);
    return { path, version: parts.join("."), tried: attempts };
  } catch (error) {
    return { tried: [{ place: "the addon", problem: messageOf(error) }] };
  }
}

function cpuInfo({ isa, problem, available, threads }: NativeDeviceInfo["cpu"]): DeviceInfo["cpu"] {
  const common = { instructionSets: available, threads };
  if (isa === null) return { available: false, reason: problem ?? "unknown", ...common };
  return { available: true, instructionSet: isa, ...common };
}

function cudaInfo(native: NativeDeviceInfo["cuda"]): CudaInfo {
  const { available, cause, reason, driver, runtime, architectures, devices } = native;
  return {
    available,
    ...(cause && { cause, reason }),
    ...(driver > 0 && { driver: cudaVersion(driver) }),
    ...(runtime > 0 && { runtime: cudaVersion(runtime) }),
    architectures: architectures.split(",").filter(Boolean).flatMap(binaryNames),
    devices: devices.map(({ computeCapability, ...device }) => ({
      ...device,
      computeCapability: (computeCapability / 10).toFixed(1),
    })),
  };
}

/** 13000 → "13.0" */
function cudaVersion(version: number): string {
  return `${Math.floor(version / 1000)}.${Math.floor((version % 1000) / 10)}`;
}

/** CMake's name of an architecture → what is in the binary: "80-real" → sm_80; "90" → both kinds. */
function binaryNames(architecture: string): string[] {
  const [number, kind] = architecture.split("-");
  if (kind === "real") return [`sm_${number}`];
  if (kind === "virtual") return [`compute_${number}`];
  return [`sm_${number}`, `compute_${number}`];
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Where a model computes, and in what. */
export interface ModelDevice {
  /** Where the model computes. */
  readonly name: "cpu" | "cuda" | "ref";
  /** What its products are multiplied in; `"ref"` computes in float64. */
  readonly precision: Precision | "float64";
  /** Why `"auto"` did not take `"cuda"`; absent where it did, and where a device was named. */
  readonly note?: string;
}

const DEVICES: readonly string[] = ["auto", "cpu", "cuda", "ref"] satisfies Device[];

/**
 * The device for what a user asked for.
 *
 * @throws LokoError `ERR_DEVICE_UNAVAILABLE` with the reason; `ERR_UNSUPPORTED` for a precision that the
 * device does not have; `ERR_OPTION` where `LOKO_DEVICE` names none.
 */
export function resolveDevice(
  device: Device = "auto",
  precision: Precision = "float32",
): ModelDevice {
  const chosen: { name: ModelDevice["name"]; note?: string } =
    device === "auto" ? automaticDevice() : { name: device };
  const ownPrecision = chosen.name === "ref" ? "float64" : "float32";
  if (chosen.name === "cuda") {
    requireCuda(device === "auto" ? "LOKO_DEVICE=cuda" : 'device "cuda"');
  } else if (precision !== "float32") {
    throw new LokoError(
      "ERR_UNSUPPORTED",
      `precision ${describe(precision)} needs device "cuda", and this model is for ` +
        `${describe(chosen.name)}, which computes in ${ownPrecision}` +
        `${chosen.note ? ` ("auto" took it because ${chosen.note})` : ""}. Leave the option out.`,
    );
  }
  return { ...chosen, precision: chosen.name === "cuda" ? precision : ownPrecision };
}

function automaticDevice(): { name: ModelDevice["name"]; note?: string } {
  const named = process.env.LOKO_DEVICE;
  if (named !== undefined && named !== "" && named !== "auto") {
    if (DEVICES.includes(named)) return { name: named as ModelDevice["name"] };
    throw new LokoError(
      "ERR_OPTION",
      `The environment variable LOKO_DEVICE must be one of ${DEVICES.join(", ")}, got ${describe(named)}.`,
    );
  }
  const { available, reason } = deviceInfo().cuda;
  return available ? { name: "cuda" } : { name: "cpu", note: reason ?? "unknown" };
}

function requireCuda(who: string): void {
  const { available, reason } = deviceInfo().cuda;
  if (available) return;
  throw new LokoError(
    "ERR_DEVICE_UNAVAILABLE",
    `${who} is not available: ${reason}. Use device "cpu", or "auto".`,
  );
}
