import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { checkTextChunks } from "../data/text-chunks.js";

/**
 * The lines of stdin, as they come.
 *
 * @param request - what to say to somebody at a terminal.
 * @throws LokoError ERR_DATA_FORMAT for what is not UTF-8.
 */
export async function* linesOfStdin(request: string): AsyncGenerator<string> {
  if (process.stdin.isTTY) process.stderr.write(`${request}; Ctrl-D ends.\n`);
  // The same bytes are the same text as in a file.
  const input = Readable.from(checkTextChunks(process.stdin, "standard input"));
  const lines = createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY });
  let failure: unknown;
  input.on("error", (error) => {
    failure = error;
    lines.close();
  });
  try {
    yield* lines;
  } finally {
    // Where nobody wants more lines, an open stdin would keep the process waiting. A file has no unref.
    (process.stdin as Partial<typeof process.stdin>).unref?.();
  }
  if (failure !== undefined) throw failure;
}
