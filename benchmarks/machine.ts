import { execFileSync } from "node:child_process";
import { createRequire } from "node:module";
import os from "node:os";
import { deviceInfo } from "loko";
import { ROOT } from "./paths.js";

/** Where and with what a result was measured. */
export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly isa: string | null;
  readonly memoryGB: number;
  readonly system: string;
  readonly node: string;
  readonly loko: string;
  /** Of this package; with "+" where files were changed since. */
  readonly commit: string;
  /** One-minute average, at the beginning. */
  readonly load: number;
}

export function describeMachine(): Machine {
  const require = createRequire(import.meta.url);
  const cpus = os.cpus();
  return {
    cpu: cpus[0]?.model.trim() ?? "unknown",
    cores: cpus.length,
    isa: deviceInfo().cpu.instructionSet ?? null,
    memoryGB: Math.round(os.totalmem() / 2 ** 30),
    system: `${os.type()} ${os.release()} ${os.arch()}`,
    node: process.version,
    loko: (require("loko/package.json") as { version: string }).version,
    commit: describeCommit(),
    load: Math.round(100 * os.loadavg()[0]!) / 100,
  };
}

/** Other work takes a noticeable share of the cores. */
export function isBusy({ load, cores }: Pick<Machine, "load" | "cores">): boolean {
  return load > 0.5 * cores;
}

/** A name for files: the CPU without the vendor's marks, and the cores. */
export function machineSlug({ cpu, cores }: Pick<Machine, "cpu" | "cores">): string {
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
    return "unknown";
  }
}
