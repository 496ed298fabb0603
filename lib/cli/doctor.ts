import { availableParallelism, freemem, totalmem } from "node:os";
import type { Command } from "commander";
import { type CublasLtInfo, type CudaInfo, cublasLtInfo, deviceInfo } from "../device.js";
import { LokoError } from "../errors.js";
import { loadSharp } from "../images/sharp.js";
import { addonPath, loadAddon } from "../native/loader.js";
import { packageVersion } from "../version.js";
import { addCommonOptions, type CommonOptions, SharedOptions } from "./options.js";
import { byteSize, printFacts, printJson } from "./output.js";

const EXAMPLE = `
Example:
  loko doctor --json

Exit code 1 when the native addon cannot be loaded, or has no kernels for this machine.`;

export function define(command: Command): void {
  command.addHelpText("after", EXAMPLE);
  const options = addCommonOptions(new SharedOptions(command));
  command.action(() => examine(options.resolve<CommonOptions>([])));
}

async function examine({ json }: CommonOptions): Promise<void> {
  const { version, arch, platform } = process;
  const { cpu, cuda } = deviceInfo();
  const addon = findAddon();
  // Without CUDA in the addon nothing would ever look for it.
  const cublasLt = cuda.runtime === undefined ? undefined : cublasLtInfo();
  const memory = { totalBytes: totalmem(), freeBytes: freemem() };
  const cores = availableParallelism();
  const sharp = await findSharp();
  const facts = {
    loko: packageVersion(),
    node: version,
    platform,
    arch,
    addon,
    cpu,
    cuda,
    cublasLt,
    memory,
    cores,
    sharp,
  };
  if (json) {
    await printJson(facts);
  } else {
    await printFacts([
      ["loko", facts.loko],
      ["Node.js", `${version}, ${platform}-${arch}`],
      ["addon", addon ?? "not loaded, see below"],
      ["CPU kernels", cpu.available ? describeKernels(cpu) : `none: ${firstLine(cpu.reason)}`],
      ["CPU threads", cpu.available ? `${cpu.threads} by default (${cores} visible)` : undefined],
      ...describeCuda(cuda),
      ...describeCublasLt(cublasLt, cuda.available),
      ["images", sharp === null ? "not decoded: npm install sharp" : `decoded by sharp ${sharp}`],
      ["memory", `${byteSize(memory.freeBytes)} free of ${byteSize(memory.totalBytes)}`],
    ]);
  }
  loadAddon();
  if (!cpu.available) {
    throw new LokoError("ERR_DEVICE_UNAVAILABLE", `no CPU kernels: ${cpu.reason}`);
  }
}

/** Its version, or null where it is not installed or cannot be loaded. */
async function findSharp(): Promise<string | null> {
  try {
    return (await loadSharp()).versions.sharp ?? null;
  } catch {
    return null;
  }
}

function findAddon(): string | null {
  try {
    loadAddon();
    return addonPath();
  } catch {
    return null;
  }
}

function describeKernels(cpu: ReturnType<typeof deviceInfo>["cpu"]): string {
  const forced = process.env.LOKO_CPU_ISA ? ", as LOKO_CPU_ISA says" : "";
  return `${cpu.instructionSet}${forced} (usable here: ${cpu.instructionSets.join(", ")})`;
}

function describeCuda(cuda: CudaInfo): [string, string][] {
  const { available, reason, driver, runtime, architectures, devices } = cuda;
  const built = `CUDA ${runtime}, for ${architectures.join(", ")}`;
  return [
    [
      "CUDA",
      available ? `available, driver for CUDA ${driver}` : `not available: ${firstLine(reason)}`,
    ],
    ...(runtime === undefined ? [] : [["CUDA build", built] as [string, string]]),
    ...devices.map(
      ({ name, computeCapability, memoryBytes, multiprocessors }, i): [string, string] => [
        `GPU ${i}`,
        `${name}, compute capability ${computeCapability}, ${byteSize(memoryBytes)}, ${multiprocessors} multiprocessors`,
      ],
    ),
  ];
}

/** What is used; else every place that was tried, for this is what one asks when it is not found. */
function describeCublasLt(info: CublasLtInfo | undefined, isNeeded: boolean): [string, string][] {
  if (info === undefined) return [];
  const { path, version, tried } = info;
  if (path !== undefined) {
    return [["cuBLASLt", `${version}, ${path}${isNeeded ? "" : ", not tested without a GPU"}`]];
  }
  if (!isNeeded) return [["cuBLASLt", `not found in ${tried.length} places; --json lists them`]];
  return [
    ["cuBLASLt", "not found; products are our own, slower ones. Tried:"],
    ...tried.map(({ place, problem }): [string, string] => ["", `${place}: ${problem}`]),
  ];
}

function firstLine(reason = "unknown"): string {
  return reason.split("\n", 1)[0]!;
}
