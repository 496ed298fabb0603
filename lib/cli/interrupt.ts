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

type StopSignal = "SIGINT" | "SIGTERM";
const EXIT_CODES: Readonly<Record<StopSignal, number>> = { SIGINT: 130, SIGTERM: 143 };

/**
 * While it lives, the first Ctrl-C (or SIGTERM) only asks to stop, and the second ends the process at
 * once.
 */
export class Interrupt implements Disposable {
  /** Called when somebody asks to stop. */
  onAsk: () => void = () => {};
  readonly #controller = new AbortController();
  readonly #listener = (name: NodeJS.Signals) => {
    const reason = new Interrupted(name as StopSignal);
    if (this.signal.aborted) {
      discardUnfinished();
      process.exit(reason.exitCode);
    }
    this.#controller.abort(reason);
    this.onAsk();
  };

  constructor() {
    process.on("SIGINT", this.#listener).on("SIGTERM", this.#listener);
  }

  /** Aborted when somebody asks to stop, with an {@link Interrupted} as its reason. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  [Symbol.dispose](): void {
    process.off("SIGINT", this.#listener).off("SIGTERM", this.#listener);
  }
}
