// Runs on a thread of its own: decodes, resizes and normalises one image for each message.

import { parentPort, workerData } from "node:worker_threads";
import { LokoError, type LokoErrorCode } from "../errors.js";
import type { ImageSource } from "./image.js";
import type { ProcessedImage } from "./process.js";
import { type ImageWork, prepareImage } from "./processor.js";

/** What a thread is asked to do. `close` lets it end after what it has begun. */
export type WorkerRequest =
  | {
      readonly kind: "image";
      readonly id: number;
      readonly source: ImageSource;
      readonly name: string;
    }
  | { readonly kind: "close" };

/** What it answers. */
export type WorkerReply = { readonly id: number } & (
  | { readonly image: ProcessedImage }
  | { readonly code: LokoErrorCode; readonly message: string }
);

const port = parentPort!;
port.on("message", (request: WorkerRequest) => {
  if (request.kind === "close") port.close();
  else void answer(request);
});

async function answer({ id, source, name }: WorkerRequest & { kind: "image" }): Promise<void> {
  let reply: WorkerReply;
  try {
    reply = { id, image: await prepareImage(source, name, workerData as ImageWork) };
  } catch (error) {
    const { code, message } = toLokoError(error, name);
    reply = { id, code, message };
  }
  port.postMessage(reply, "image" in reply ? [reply.image.pixelValues.buffer] : []);
}

function toLokoError(error: unknown, name: string): LokoError {
  if (error instanceof LokoError) return error;
  const code = error instanceof RangeError ? "ERR_OUT_OF_MEMORY" : "ERR_INTERNAL";
  return new LokoError(code, `${name}: ${error instanceof Error ? error.stack : error}`);
}
