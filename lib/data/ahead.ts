import type { Items } from "./dataset.js";

/**
 * Works on items before their results are asked for, and gives the results in the order of the items.
 *
 * @param limit - results that are worked on or wait to be taken, at most. While the caller does
 * something else further ones are begun, so that nothing waits unless the work is slower than the caller.
 * @param wait - waits for a promise, or rejects because the caller does not want to wait any more.
 */
export async function* ahead<T, U>(
  items: Items<T>,
  work: (item: T) => Promise<U>,
  limit: number,
  wait: <R>(promise: Promise<R>) => Promise<R> = (promise) => promise,
): AsyncGenerator<U, void, undefined> {
  const source = new Filler(items, work, limit);
  let hasFailed = false;
  try {
    for (;;) {
      const result = await wait(source.next());
      if (result === undefined) break;
      yield result.value;
    }
  } catch (error) {
    hasFailed = true;
    throw error;
  } finally {
    const closing = source.close();
    // After an error nobody waits: a source whose reader was aborted may never answer.
    if (hasFailed) closing.catch(() => {});
    else await closing;
  }
}

/** Fills a queue in the background. */
class Filler<T, U> {
  readonly #iterator: Iterator<T> | AsyncIterator<T>;
  readonly #work: (item: T) => Promise<U>;
  readonly #limit: number;
  readonly #queue: Promise<U>[] = [];
  readonly #filling: Promise<void>;
  #isClosed = false;
  #isOver = false;
  #wakeFiller = () => {};
  #wakeReader = () => {};

  constructor(items: Items<T>, work: (item: T) => Promise<U>, limit: number) {
    this.#iterator =
      Symbol.asyncIterator in items ? items[Symbol.asyncIterator]() : items[Symbol.iterator]();
    this.#work = work;
    this.#limit = limit;
    this.#filling = this.#fill();
  }

  /** The next result, or undefined at the end. */
  async next(): Promise<{ value: U } | undefined> {
    while (this.#queue.length === 0) {
      if (this.#isOver) return undefined;
      await new Promise<void>((resolve) => {
        this.#wakeReader = resolve;
      });
    }
    const value = await this.#queue[0]!;
    this.#queue.shift();
    this.#wakeFiller();
    return { value };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#wakeFiller();
    if (!this.#isOver) await this.#iterator.return?.();
    await this.#filling;
  }

  async #fill(): Promise<void> {
    try {
      while (!this.#isClosed) {
        if (this.#queue.length >= this.#limit) {
          await new Promise<void>((resolve) => {
            this.#wakeFiller = resolve;
          });
          continue;
        }
        const next = await this.#iterator.next();
        if (next.done) break;
        this.#push(this.#work(next.value));
      }
    } catch (error) {
      this.#push(Promise.reject(error));
    }
    this.#isOver = true;
    this.#wakeReader();
  }

  #push(result: Promise<U>): void {
    result.catch(() => {}); // the reader gets it when its turn comes
    this.#queue.push(result);
    this.#wakeReader();
  }
}
