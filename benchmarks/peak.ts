import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { ROOT } from "./paths.js";

/**
 * Multiply-add peak of so many threads in GFLOP/s at this moment, from the same program that measures the
 * matrix product; `undefined` where it was not built.
 */
export async function measurePeak(threads: number): Promise<number | undefined> {
  const args = ["--threads", String(threads), "--rounds", "1"];
  try {
    const { stdout } = await promisify(execFile)(join(ROOT, "build/loko_bench_gemm"), args, {
      timeout: 30_000,
    });
    return parsePeak(stdout, threads);
  } catch {
    return undefined;
  }
}

/** The peak in the program's output, which has a part for one thread and one for all. */
export function parsePeak(output: string, threads: number): number | undefined {
  const match = new RegExp(`, ${threads} threads?: FMA peak ([\\d.]+) GFLOP/s`).exec(output);
  return match === null ? undefined : Number(match[1]);
}
