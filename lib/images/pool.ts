import { types } from "node:util";
import { Worker } from "node:worker_threads";
import { LokoError } from "../errors.js";
import { checkRawImage, type ImageSource } from "./image.js";
import type { ProcessedImage } from "./process.js";
import { type ImageWork, prepareImage } from "./processor.js";
import type { WorkerReply, WorkerRequest } from "./worker.js";

/** Prepares images, several at once. */
export interface ImagePool {
  run(source: ImageSource, name: string): Promise<ProcessedImage>;
  /** Ends the threads after what they have begun; what has not begun is never answered. */
  close(): Promise<void>;
}

/** @param workers - number of threads; 0: images are decoded on other threads, and resized on this one. */
export function openImagePool(work: ImageWork, workers: number): ImagePool {
  if (workers > 0) return new WorkerPool(work, workers);
  return { run: (source, name) => prepareImage(source, name, work), close: async () => {} };
}

/** Images that a thread has at once: one is decoded by libvips while another is resized. */
const IMAGES_AT_ONCE = 2;

interface Job {
  readonly source: ImageSource;
  readonly name: string;
  resolve(image: ProcessedImage): void;
  reject(error: unknown): void;
}

class WorkerPool implements ImagePool {
  readonly #threads: ImageThread[];
  readonly #waiting: Job[] = [];

  constructor(work: ImageWork, workers: number) {
    const assign = () => this.#assign();
    this.#threads = Array.from({ length: workers }, () => new ImageThread(work, assign));
  }

  async run(image: ImageSource, name: string): Promise<ProcessedImage> {
    const source = ownSource(image, name);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ source, name, resolve, reject });
      this.#assign();
    });
  }

  async close(): Promise<void> {
    this.#waiting.length = 0;
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }

  #assign(): void {
    while (this.#waiting.length > 0) {
      const [thread] = [...this.#threads].sort((a, b) => a.load - b.load);
      if (thread === undefined || thread.load >= IMAGES_AT_ONCE) return;
      thread.start(this.#waiting.shift()!);
    }
  }
}

class ImageThread {
  readonly #worker: Worker;
  readonly #jobs = new Map<number, Job>();
  readonly #onFree: () => void;
  readonly #exit: Promise<void>;
  #next = 0;
  #isClosing = false;
  #failure: LokoError | undefined;

  constructor(work: ImageWork, onFree: () => void) {
    this.#onFree = onFree;
    this.#worker = new Worker(new URL("./worker.js", import.meta.url), { workerData: work });
    // An iteration that somebody leaves without closing it must not keep the process alive.
    this.#worker.unref();
    this.#worker.on("message", (reply: WorkerReply) => this.#settle(reply));
    this.#worker.on("error", (error: NodeJS.ErrnoException) => this.#fail(error));
    this.#exit = new Promise((resolve) => {
      this.#worker.on("exit", (code) => {
        this.#fail(new Error(`it ended with exit code ${code}`));
        resolve();
      });
    });
  }

  /** Images that it works on. */
  get load(): number {
    return this.#jobs.size;
  }

  start(job: Job): void {
    if (this.#failure !== undefined) {
      job.reject(this.#failure);
      return;
    }
    const id = this.#next++;
    this.#jobs.set(id, job);
    this.#worker.ref();
    const { source, name } = job;
    const request: WorkerRequest = { kind: "image", id, source, name };
    this.#worker.postMessage(request);
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    if (this.#failure === undefined) {
      this.#worker.ref();
      this.#worker.postMessage({ kind: "close" } satisfies WorkerRequest);
    }
    await this.#exit;
  }

  #settle(reply: WorkerReply): void {
    const job = this.#jobs.get(reply.id)!;
    this.#jobs.delete(reply.id);
    // Whoever closes waits for its end.
    if (this.#jobs.size === 0 && !this.#isClosing) this.#worker.unref();
    if ("image" in reply) job.resolve(reply.image);
    else job.reject(new LokoError(reply.code, reply.message));
    this.#onFree();
  }

  #fail(cause: NodeJS.ErrnoException): void {
    const code =
      cause.code === "ERR_WORKER_OUT_OF_MEMORY" ? "ERR_OUT_OF_MEMORY" : ("ERR_INTERNAL" as const);
    const message = `A thread that decodes images failed: ${cause.message}. Try workers: 0.`;
    this.#failure ??= new LokoError(code, message, { cause });
    const jobs = [...this.#jobs.values()];
    this.#jobs.clear();
    for (const job of jobs) job.reject(this.#failure);
    if (jobs.length > 0) this.#onFree();
  }
}

/**
 * What can be posted to a thread: checked, without properties of the caller's own, and without the memory
 * that lies behind a view, all of which would be copied.
 */
function ownSource(source: ImageSource, name: string): ImageSource {
  if (typeof source === "string") return source;
  if (types.isUint8Array(source)) return ownBytes(source);
  checkRawImage(source, name);
  const { data, height, width, channels } = source;
  return { data: ownBytes(data), height, width, channels };
}

function ownBytes(bytes: Uint8Array): Uint8Array {
  return bytes.byteLength === bytes.buffer.byteLength ? bytes : new Uint8Array(bytes);
}
