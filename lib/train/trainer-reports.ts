// What a Trainer shows and writes while it runs: TensorBoard, JSON lines, report.html and the bar.

import { writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { requireRegular, writeOutputFile } from "../io/output-file.js";
import { EventLog } from "../report/event-log.js";
import { renderReport } from "../report/html.js";
import type { Progress } from "../report/progress.js";
import { TensorBoardWriter, tagOf } from "../report/tensorboard.js";
import type { LogEntry, TrainerEvent } from "./trainer-events.js";
import type { ResolvedOptions } from "./trainer-options.js";

export interface ReportsContext {
  readonly options: ResolvedOptions;
  readonly facts: readonly (readonly [string, string])[];
  /** Entries of the whole training, also of the part before a checkpoint. */
  readonly log: readonly LogEntry[];
  readonly startStep: number;
  readonly maxSteps: number;
}

/** How much of the shown loss is that of earlier steps. */
const SMOOTHING = 0.98;

/** Milliseconds between steps that have room for a print of their own; below, it is printed behind the bar. */
const ROOM_INTERVAL = 10;

export class Reports {
  readonly #context: ReportsContext;
  readonly #tensorBoard: TensorBoardWriter | undefined;
  readonly #lines: EventLog | undefined;
  readonly #html: string | undefined;
  readonly #progress: Progress | undefined;
  #loss = 0;
  #losses = 0;
  #madeRoom = 0;

  private constructor(
    context: ReportsContext,
    tensorBoard: TensorBoardWriter | undefined,
    progress: Progress | undefined,
  ) {
    const { jsonl, html } = filesOf(context.options);
    this.#context = context;
    this.#tensorBoard = tensorBoard;
    this.#lines = jsonl === undefined ? undefined : new EventLog(jsonl);
    this.#html = html;
    this.#progress = progress;
  }

  /** @throws LokoError ERR_FILE_WRITE. */
  static async open(context: ReportsContext): Promise<Reports> {
    const { options, startStep, maxSteps } = context;
    for (const path of Object.values(filesOf(options))) {
      if (path !== undefined) await requireRegular(path);
    }
    const folder = options.reportTo.includes("tensorboard") ? eventFolder(options) : undefined;
    // TensorBoard drops what an earlier run of the folder has told of the steps that are done again.
    const superseded = startStep === 0 ? undefined : startStep + 1;
    const writer =
      folder === undefined ? undefined : await TensorBoardWriter.open(folder, superseded);
    if (!options.progressBar || !process.stderr.isTTY)
      return new Reports(context, writer, undefined);
    // Only here, because the bar would take a part of the time of every `import "loko"`.
    const { startProgress } = await import("../report/progress.js");
    const progress = startProgress(maxSteps, { quiet: true, begunAt: startStep });
    return new Reports(context, writer, progress);
  }

  /** @throws LokoError ERR_FILE_WRITE. */
  async handle(event: TrainerEvent): Promise<void> {
    await this.#report(event);
    this.#makeRoom(event);
  }

  async writeReport(): Promise<void> {
    const path = this.#html;
    if (path === undefined) return;
    const { facts, log } = this.#context;
    const page = renderReport({ title: "Training with loko", facts, log });
    await writeOutputFile(path, (temporary) => writeFile(temporary, page));
  }

  async close(): Promise<void> {
    this.#progress?.[Symbol.dispose]();
    await this.#tensorBoard?.close();
  }

  /** For what whoever reads the events may print of this one; the bar is drawn again each time. */
  #makeRoom({ type }: TrainerEvent): void {
    const time = performance.now();
    if (type === "step" && time - this.#madeRoom < ROOM_INTERVAL) return;
    this.#madeRoom = time;
    this.#progress?.makeRoom();
  }

  async #report(event: TrainerEvent): Promise<void> {
    switch (event.type) {
      case "step":
        this.#show(event);
        return;
      case "log":
      case "evaluate":
        await this.#record(event.type, event.logs);
        return;
      case "trainBegin":
      case "save": {
        const { type, globalStep: step, epoch, ...rest } = event;
        await this.#lines?.append({ event: type, time: now(), step, epoch, ...rest });
        if (type === "save") await this.writeReport();
        return;
      }
      default:
        return;
    }
  }

  async #record(event: string, logs: LogEntry): Promise<void> {
    const { step = 0, ...values } = logs;
    await this.#lines?.append({ event, time: now(), step, ...values });
    const tagged = Object.entries(values).map(([key, value]) => [tagOf(key), value] as const);
    await this.#tensorBoard?.scalars(Object.fromEntries(tagged), step);
  }

  #show({ results, globalStep, epoch, onlineAccuracy }: TrainerEvent & { type: "step" }): void {
    if (this.#progress === undefined) return;
    const { loss, labels } = results.at(-1)!;
    if (Number.isFinite(loss)) {
      this.#loss += (1 - SMOOTHING) * (loss - this.#loss);
      this.#losses++;
    }
    this.#progress.update({
      label: `epoch ${epoch.toFixed(2)}`,
      done: globalStep,
      // Undoes the pull of the zero that it began with; 0 / 0 before there is one.
      loss: this.#loss / (1 - SMOOTHING ** this.#losses),
      ...(labels instanceof Int32Array && { accuracy: onlineAccuracy }),
    });
  }
}

function filesOf({ outputDir, reportTo }: ResolvedOptions): {
  readonly jsonl: string | undefined;
  readonly html: string | undefined;
} {
  const pathOf = (target: "jsonl" | "html", name: string) =>
    outputDir !== undefined && reportTo.includes(target) ? join(outputDir, name) : undefined;
  return { jsonl: pathOf("jsonl", "log.jsonl"), html: pathOf("html", "report.html") };
}

const now = () => new Date().toISOString();

function eventFolder({ loggingDir, outputDir }: ResolvedOptions): string {
  if (loggingDir !== undefined) return loggingDir;
  const time = now().slice(0, 19).replaceAll(":", "-");
  return join(outputDir!, "runs", `${time}_${hostname()}`);
}
