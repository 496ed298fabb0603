import { join, resolve } from "node:path";

/** The package: the compiled files are in build/benchmarks. */
export const ROOT = resolve(import.meta.dirname, "../..");

/** What is written once and may be deleted at any time. */
export const WORK_DIR = join(ROOT, "build/bench");

export const TRIALS_DIR = join(ROOT, "benchmarks/trials");
