// A contender in a process of its own, so that its memory is its own too.
import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Failure, Greeting, Reply, Request } from "./protocol.js";

/** Why a contender takes no part, in one line. */
export class ContenderFailure extends Error {}

/** End of what a child printed to stderr, for the message when it ends unexpectedly. */
const LAST_WORDS = 2000;

export class Child {
  readonly #process: ChildProcessWithoutNullStreams;
  readonly #lines: AsyncIterator<string>;
  #stderr = "";

  private constructor(command: readonly string[], env: NodeJS.ProcessEnv) {
    const [file, ...args] = command;
    this.#process = spawn(file!, args, { env });
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
    this.#process.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-LAST_WORDS);
    });
    // Both show as the end of its stdout.
    this.#process.on("error", (error) => {
      this.#stderr += error.message;
    });
    this.#process.stdin.on("error", () => {});
  }

  /** Starts the process and waits until it is ready; `facts` is what it says about itself. */
  static async start(
    command: readonly string[],
    env: NodeJS.ProcessEnv,
    seconds: number,
  ): Promise<{ child: Child; facts: Readonly<Record<string, unknown>> }> {
    const child = new Child(command, env);
    try {
      const greeting = (await child.#answer(seconds)) as Exclude<Greeting, Failure>;
      return { child, facts: greeting.ready };
    } catch (error) {
      child.stop();
      throw error;
    }
  }

  /** @throws ContenderFailure when it fails, ends, or does not answer within so many seconds. */
  async ask(request: Request, seconds: number): Promise<Reply> {
    this.#process.stdin.write(`${JSON.stringify(request)}\n`);
    return (await this.#answer(seconds)) as Reply;
  }

  /** Ends the process; one that works at a step is not waited for. */
  stop(): void {
    this.#process.kill("SIGKILL");
  }

  async #answer(seconds: number): Promise<unknown> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const onTimeout = () => reject(new ContenderFailure(`no answer within ${seconds} s`));
      timer = setTimeout(onTimeout, 1000 * seconds);
    });
    try {
      const { value, done } = await Promise.race([this.#lines.next(), late]);
      if (done) {
        const words = this.#stderr.trim().split("\n").at(-1)!;
        throw new ContenderFailure(`the process ended: ${words || "it said nothing"}`);
      }
      const answer = JSON.parse(value) as object;
      if ("failed" in answer) throw new ContenderFailure(String(answer.failed));
      return answer;
    } finally {
      clearTimeout(timer);
    }
  }
}
