import { clearLine, cursorTo } from "node:readline";
import { MultiBar, type SingleBar } from "cli-progress";
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

/** Where a run stands, but for what does not change. */
type ProgressUpdate = Omit<ProgressState, "total" | "seconds">;

/** Shows on stderr where a run stands: a bar in a terminal; else a line for each tenth, if at all. */
export interface Progress extends Disposable {
  update(state: ProgressUpdate): void;
  /** Prints a line above the bar. */
  note(line: string): void;
  /** Leaves an empty line to whoever prints next, in the same turn of the event loop; the bar comes back below. */
  makeRoom(): void;
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
  const complete = (state: ProgressUpdate): ProgressState => ({
    begunAt,
    ...state,
    total,
    seconds: (performance.now() - started) / 1000,
  });
  return process.stderr.isTTY ? barProgress(total, complete) : lineProgress(total, complete, quiet);
}

type Complete = (state: ProgressUpdate) => ProgressState;

/** Between the bar and what is printed behind it by somebody who does not know of it. */
const GAP = "  ";
/** Such as the terminal, at Ctrl-C; in the next line it would not be cleared with the bar. */
const ECHO = "^C";

/** A terminal of unknown width has 0. */
const columnsOf = ({ columns }: NodeJS.WriteStream) => columns || 80;

/**
 * A bar that keeps to its line: no position is restored, and neither cursor nor wrapping is switched off. So
 * nothing that others print is overwritten, and a process that is killed leaves the terminal as it was.
 */
function barProgress(total: number, complete: Complete): Progress {
  let state: ProgressState;
  const room = GAP.length + ECHO.length;
  // Not SingleBar, which goes back to the line that it began on.
  const bars = new MultiBar({
    format: () => renderProgress(state, Math.max(1, columnsOf(process.stderr) - room)) + GAP,
    stream: process.stderr,
    hideCursor: false,
    linewrap: true,
    forceRedraw: true,
    fps: 10,
    // Ctrl-C is not the end yet.
    gracefulExit: false,
  });
  let bar: SingleBar | undefined;
  let redraw: NodeJS.Immediate | undefined;
  const makeRoom = () => {
    if (bar === undefined) return;
    cursorTo(process.stderr, 0);
    clearLine(process.stderr, 0);
    redraw ??= setImmediate(() => {
      redraw = undefined;
      bars.update();
    });
  };
  const stop = () => {
    process.off("exit", stop).off("warning", makeRoom);
    clearImmediate(redraw);
    if (bar !== undefined) bars.stop();
    bar = undefined;
  };
  // Before the listener of Node.js, which prints the warning.
  process.once("exit", stop).prependListener("warning", makeRoom);
  return {
    update(next) {
      state = complete(next);
      bar ??= bars.create(total, 0);
      bar.update(next.done);
    },
    note(line) {
      makeRoom();
      process.stderr.write(`${line}\n`);
    },
    makeRoom,
    [Symbol.dispose]: stop,
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
    makeRoom() {},
    [Symbol.dispose]() {},
  };
}
