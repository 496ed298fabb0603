import type { OptionRule } from "./options.js";

export const abortSignal: OptionRule = {
  expected: "an AbortSignal",
  accepts: (value) => value instanceof AbortSignal,
};

/** Settles as `promise`, or rejects with the signal's reason as soon as it is aborted. */
export async function abortable<T>(
  promise: Promise<T>,
  signal: AbortSignal | undefined,
): Promise<T> {
  if (signal === undefined) return promise;
  let onAbort = () => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** Whether an error is the reason of an abort, which is passed on as it is, whatever code it has. */
export function isAbortOf(signal: AbortSignal | undefined, error: unknown): boolean {
  return signal?.aborted === true && error === signal.reason;
}
