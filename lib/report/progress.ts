import { SingleBar } from "cli-progress";
import { count } from "./format.js";

/** Where a run stands. */
export interface ProgressState {
  /** What is going on: `epoch 1/3`. */
  readonly label: string;
  readonly done: number;
  readonly total: number;
  readonly seconds: number;
  readonly loss?: number;
  /** In [0, 1]. */
  readonly accuracy?: number;
  /** Steps that were done before the clock began. Default 0. */
  readonly begunAt?: number;
}

/** Widest bar; a longer one tells no more. */
const MAX_BAR = 30;
const MIN_BAR = 4;

/** One line of at most `columns` − 1 characters: the bar takes what the figures leave. */
export function renderProgress(state: ProgressState, columns: number): string {
  const { label, done, total } = state;
  const figures = `${done}/${total} ${figuresOf(state).join(" | ")}`;
  const room = columns - 1 - label.length - figures.length - 2;
  if (room < MIN_BAR) return `${label} ${figures}`.slice(0, columns - 1);
  const width = Math.min(room, MAX_BAR);
  const full = Math.min(width, Math.round((width * done) / Math.max(total, 1)));
  return `${label} ${"█".repeat(full)}${"░".repeat(width - full)} ${figures}`;
}

/** The same as a plain line for a log. */
export function logProgress(state: ProgressState): string {
  const { label, done, total } = state;
  return `${label}: ${count(done)} of ${count(total)}, ${figuresOf(state).join(", ")}`;
}

/** Fixed widths, so that nothing jumps. */
function figuresOf({ done, total, seconds, loss, accuracy, begunAt = 0 }: ProgressState): string[] {
  const rate = (done - begunAt) / Math.max(seconds, 1e-9);
  const figures: string[] = [];
  if (loss !== undefined) figures.push(`loss ${loss.toFixed(3)}`);
  if (accuracy !== undefined) figures.push(`acc ${(100 * accuracy).toFixed(1).padStart(5)} %`);
  figures.push(`${rate < 10 ? rate.toFixed(1) : rate.toFixed(0)} it/s`);
  figures.push(`ETA ${done === begunAt ? "?" : duration(Math.max(0, total - done) / rate)}`);
  return figures;
}

/** `1:05`, `2:00:07`. */
export function duration(seconds: number): string {
  const whole = Math.ceil(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const last = String(whole % 60).padStart(2, "0");
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, "0")}:${last}` : `${minutes}:${last}`;
}

/** Shows on stderr where a run stands: a bar in a terminal; else a line for each tenth, if at all. */
export interface Progress extends Disposable {
  update(state: Omit<ProgressState, "total" | "seconds">): void;
  /** Prints a last line below the bar, which moves no more. */
  note(line: string): void;
}

/**
 * @param quiet - print nothing where there is no terminal.
 * @param begunAt - steps that were done before.
 */
export function startProgress(
  total: number,
  { quiet, begunAt = 0 }: { quiet: boolean; begunAt?: number },
): Progress {
  const started = performance.now();
  const complete = (state: Omit<ProgressState, "total" | "seconds">): ProgressState => ({
    ...state,
    total,
    begunAt,
    seconds: (performance.now() - started) / 1000,
  });
  return process.stderr.isTTY ? barProgress(total, complete) : lineProgress(total, complete, quiet);
}

type Complete = (state: Omit<ProgressState, "total" | "seconds">) => ProgressState;

function barProgress(total: number, complete: Complete): Progress {
  let state = complete({ label: "starting", done: 0 });
  const bar = new SingleBar({
    format: () => renderProgress(state, process.stderr.columns ?? 80),
    stream: process.stderr,
    hideCursor: true,
    fps: 10,
    // Ctrl-C is not the end yet.
    gracefulExit: false,
  });
  bar.start(total, 0);
  const stop = () => bar.stop();
  // The second Ctrl-C ends the process, and the cursor must come back.
  process.once("exit", stop);
  return {
    update(next) {
      state = complete(next);
      bar.update(next.done);
    },
    note(line) {
      stop();
      process.stderr.write(`${line}\n`);
    },
    [Symbol.dispose]() {
      process.off("exit", stop);
      stop();
    },
  };
}

function lineProgress(total: number, complete: Complete, quiet: boolean): Progress {
  const every = Math.max(1, Math.floor(total / 10));
  return {
    update(next) {
      if (quiet || (next.done % every !== 0 && next.done !== total)) return;
      process.stderr.write(`${logProgress(complete(next))}\n`);
    },
    note(line) {
      process.stderr.write(`${line}\n`);
    },
    [Symbol.dispose]() {},
  };
}
