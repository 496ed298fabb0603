import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { ChildResult } from "./child.js";

/** The script of the built command line. */
export const LOKO = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

export interface RunOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** What comes on stdin. */
  input?: string | Uint8Array;
  /** Called with everything on stderr so far, whenever there is more. */
  onProgress?: (stderr: string, child: ChildProcess) => void;
  /** The same of stdout. */
  onOutput?: (stdout: string, child: ChildProcess) => void;
}

/** Runs the built command line as a user's shell would; a child that hangs shows as SIGKILL. */
export function runLoko(args: readonly string[], options: RunOptions = {}): Promise<ChildResult> {
  const { cwd, input = "", env, onProgress, onOutput } = options;
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [LOKO, ...args], {
      cwd,
      env: { ...process.env, ...env },
      timeout: 50_000,
      killSignal: "SIGKILL",
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      onOutput?.(stdout, child);
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
      onProgress?.(stderr, child);
    });
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
    child.stdin.on("error", () => {}); // a child that ends early does not read it
    child.stdin.end(input);
  });
}
