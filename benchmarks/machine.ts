import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import { join } from "node:path";
import { cublasLtInfo, deviceInfo } from "loko";
import { ROOT } from "./paths.js";

/** Where and with what a result was measured. */
export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly isa: string | null;
  /** The one that models use; absent where there is none. */
  readonly gpu?: Gpu | undefined;
  readonly memoryGB: number;
  readonly system: string;
  readonly node: string;
  readonly loko: string;
  /** Of this package; with "+" where files were changed since. */
  readonly commit: string;
  /** One-minute average, at the beginning. */
  readonly load: number;
}

/** A GPU and what its speed depends on. */
export interface Gpu {
  readonly name: string;
  readonly computeCapability: string;
  readonly memoryGB: number;
  readonly multiprocessors: number;
  /** Of CUDA that the addon was built with. */
  readonly runtime: string | null;
  readonly cublasLt: string | null;
  /** Of the driver, as nvidia-smi has it; null without that program. */
  readonly driver: string | null;
  /** As read at the beginning: nothing is set. */
  readonly clocks: {
    readonly smMHz: number;
    readonly memoryMHz: number;
    readonly powerLimitW: number;
    readonly temperatureC: number;
  } | null;
}

export function describeMachine(): Machine {
  const require = createRequire(import.meta.url);
  const cpus = os.cpus();
  return {
    cpu: cpus[0]?.model.trim() ?? "unknown",
    cores: cpus.length,
    isa: deviceInfo().cpu.instructionSet ?? null,
    gpu: describeGpu(),
    memoryGB: Math.round(os.totalmem() / 2 ** 30),
    system: `${os.type()} ${os.release()} ${os.arch()}`,
    node: process.version,
    loko: (require("loko/package.json") as { version: string }).version,
    commit: describeCommit(),
    load: Math.round(100 * os.loadavg()[0]!) / 100,
  };
}

function describeGpu(): Gpu | undefined {
  const { available, devices, runtime } = deviceInfo().cuda;
  const device = devices[0];
  if (!available || device === undefined) return undefined;
  const { name, computeCapability, memoryBytes, multiprocessors } = device;
  return {
    name,
    computeCapability,
    memoryGB: Math.round(memoryBytes / 2 ** 30),
    multiprocessors,
    runtime: runtime ?? null,
    cublasLt: cublasLtInfo().version ?? null,
    ...askNvidiaSmi(),
  };
}

const ASKED = "driver_version,clocks.sm,clocks.mem,power.limit,temperature.gpu";

function askNvidiaSmi(): Pick<Gpu, "driver" | "clocks"> {
  // By the same order and choice of devices as CUDA has, the first is the one that models use.
  const [device = "0"] = (process.env.CUDA_VISIBLE_DEVICES ?? "0").split(",");
  const args = [`--query-gpu=${ASKED}`, "--format=csv,noheader,nounits", `--id=${device}`];
  try {
    return parseNvidiaSmi(execFileSync("nvidia-smi", args, { encoding: "utf8", stdio: "pipe" }));
  } catch {
    return { driver: null, clocks: null };
  }
}

/** A line of nvidia-smi; what it does not know it calls "[N/A]". */
export function parseNvidiaSmi(line: string): Pick<Gpu, "driver" | "clocks"> {
  const [driver = "", ...figures] = line.trim().split(/,\s*/);
  const [smMHz, memoryMHz, powerLimitW, temperatureC] = figures.map(Number);
  const clocks = { smMHz, memoryMHz, powerLimitW, temperatureC } as NonNullable<Gpu["clocks"]>;
  const isKnown = figures.length === 4 && Object.values(clocks).every(Number.isFinite);
  return { driver: driver || null, clocks: isKnown ? clocks : null };
}

/** Other work takes a noticeable share of the cores. */
export function isBusy({ load, cores }: Pick<Machine, "load" | "cores">): boolean {
  return load > 0.5 * cores;
}

/** A name for files: the CPU without the vendor's marks, and the cores; the GPU where that is measured. */
export function machineSlug(
  { cpu, cores, gpu }: Pick<Machine, "cpu" | "cores" | "gpu">,
  device: "cpu" | "cuda" = "cpu",
): string {
  if (device === "cuda" && gpu)
    return gpu.name
      .toLowerCase()
      .match(/[a-z0-9]+/g)!
      .join("-");
  const words = cpu
    .replace(/\((?:R|TM)\)|@.*$|\b(?:CPU|Processor)\b/gi, " ")
    .toLowerCase()
    .match(/[a-z0-9]+/g);
  return `${(words ?? ["cpu"]).join("-")}-${cores}-cores`;
}

function describeCommit(): string {
  const git = (...args: string[]) =>
    execFileSync("git", args, { cwd: ROOT, encoding: "utf8", stdio: "pipe" }).trim();
  try {
    const changed = git("status", "--porcelain", "--untracked-files=no") !== "";
    return git("rev-parse", "HEAD") + (changed ? "+" : "");
  } catch {
    return readBundledCommit();
  }
}

/** That of scripts/gpu-bundle.sh, which packs no repository. */
function readBundledCommit(): string {
  try {
    return readFileSync(join(ROOT, "COMMIT"), "utf8").trim();
  } catch {
    return "unknown";
  }
}
