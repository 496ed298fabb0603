// What a terminal shows of a process: both of its streams, with stderr taken for one of 80 columns.
import { spawn } from "node:child_process";

export const COLUMNS = 80;

/** A pipe that says it is a terminal: so the tests need no pseudo-terminal, which not every machine has. */
const AS_TERMINAL = `process.stderr.isTTY = true; process.stderr.columns = ${COLUMNS};`;

/** What a bar may need: to go to the first column, to clear the line, and what is left of it. */
const ESCAPE = "\u001b";
const MOVES = `${ESCAPE}\\[(?:1G|2K|0K)`;

/** The characters that change a terminal in another way, and would have to be undone by a process that is killed. */
export function otherEscapes(output: string): string[] {
  return output.replace(new RegExp(MOVES, "g"), "").match(new RegExp(`${ESCAPE}.{0,4}`, "g")) ?? [];
}

const PARTS = new RegExp(`${MOVES}|[\\r\\n]|[^${ESCAPE}\\r\\n]+|${ESCAPE}`, "g");

/** The lines on the screen and above it, as long as they were written: a line that wraps is one. */
export function screenOf(output: string): string[] {
  const lines = [""];
  let column = 0;
  for (const [part] of output.matchAll(PARTS)) {
    const line = lines.at(-1)!;
    if (part === "\n") lines.push("");
    if (part === "\n" || part === "\r" || part === `${ESCAPE}[1G`) column = 0;
    else if (part === `${ESCAPE}[2K`) lines[lines.length - 1] = "";
    else if (part === `${ESCAPE}[0K`) lines[lines.length - 1] = line.slice(0, column);
    else {
      const before = line.slice(0, column).padEnd(column);
      lines[lines.length - 1] = before + part + line.slice(column + part.length);
      column += part.length;
    }
  }
  return lines.map((line) => line.trimEnd());
}

export interface TerminalRun {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly output: string;
}

/**
 * Runs a script with both streams in one, as a terminal gets them.
 *
 * @param onOutput - called with everything so far; what it returns is sent to the process.
 */
export function runInTerminal(
  args: readonly string[],
  cwd: string,
  onOutput: (output: string) => NodeJS.Signals | undefined = () => undefined,
): Promise<TerminalRun> {
  return new Promise((resolve, reject) => {
    const node = [process.execPath, `--import=data:text/javascript,${encodeURI(AS_TERMINAL)}`];
    // The shell joins the streams, and is replaced by the process.
    const child = spawn("sh", ["-c", 'exec "$@" 2>&1', "sh", ...node, ...args], {
      cwd,
      timeout: 50_000,
      killSignal: "SIGKILL",
    });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      const signal = onOutput(output);
      if (signal !== undefined) child.kill(signal);
    });
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, output }));
  });
}
