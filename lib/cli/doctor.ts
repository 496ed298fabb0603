import { availableParallelism, freemem, totalmem } from "node:os";
import type { Command } from "commander";
import { deviceInfo } from "../device.js";
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
      ["CUDA", cuda.available ? "available" : `not available: ${firstLine(cuda.reason)}`],
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

function firstLine(reason = "unknown"): string {
  return reason.split("\n", 1)[0]!;
}
