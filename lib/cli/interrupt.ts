import { discardUnfinished } from "../io/output-folder.js";

/** Why a command ended that was stopped and has saved what there was. */
export class Interrupted extends Error {
  override readonly name = "Interrupted";
  /** As of a process that the signal ended: 128 and its number. */
  readonly exitCode: number;

  constructor(signal: StopSignal) {
    super(`stopped by ${signal}`);
    this.exitCode = EXIT_CODES[signal];
  }
}

// SIGHUP: the terminal was closed, or the connection to it lost. Node.js dies of it under nohup, too.
const EXIT_CODES = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;
type StopSignal = keyof typeof EXIT_CODES;
const STOP_SIGNALS = Object.keys(EXIT_CODES) as StopSignal[];

/**
 * While it lives, the first Ctrl-C (or SIGTERM, or SIGHUP) only asks to stop, and the second ends the process
 * at once.
 */
export class Interrupt implements Disposable {
  /** Called when somebody asks to stop. */
  onAsk: () => void = () => {};
  readonly #controller = new AbortController();
  readonly #listener = (name: NodeJS.Signals) => {
    const reason = new Interrupted(name as StopSignal);
    if (name === "SIGHUP") forgetTerminal();
    if (this.signal.aborted) {
      discardUnfinished();
      process.exit(reason.exitCode);
    }
    this.#controller.abort(reason);
    this.onAsk();
  };

  constructor() {
    for (const name of STOP_SIGNALS) process.on(name, this.#listener);
  }

  /** Aborted when somebody asks to stop, with an {@link Interrupted} as its reason. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    for (const name of STOP_SIGNALS) process.off(name, this.#listener);
  }
}

/** What is still written goes nowhere, and must not end the process before it has saved. */
function forgetTerminal(): void {
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});
}
