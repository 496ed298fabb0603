import { type FileHandle, mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";
import { toWriteError, writeAll } from "../io/output-folder.js";

const NEW_LINE = 0x0a;

/** A file with one JSON document a line that is only ever appended to. */
export class EventLog {
  readonly path: string;
  #isOpened = false;

  /** @param path - made, with its folder, by the first event. */
  constructor(path: string) {
    this.path = path;
  }

  /**
   * Appends one whole line or nothing; numbers that are not finite become null. The first one begins on a
   * line of its own, also after a process that was killed in the middle of one.
   *
   * @throws LokoError ERR_FILE_WRITE.
   */
  async append(event: Readonly<Record<string, unknown>>): Promise<void> {
    try {
      await mkdir(dirname(this.path), { recursive: true });
      await using file = await open(this.path, "a+");
      const { size } = await file.stat();
      const begin = !this.#isOpened && (await isTorn(file, size)) ? "\n" : "";
      this.#isOpened = true;
      const line = `${begin}${JSON.stringify(event)}\n`;
      await writeAll(file, Buffer.from(line)).catch(async (error: unknown) => {
        await file.truncate(size).catch(() => {});
        throw error;
      });
    } catch (error) {
      throw toWriteError(this.path, error);
    }
  }
}

/** Whether it ends in the middle of a line. */
async function isTorn(file: FileHandle, size: number): Promise<boolean> {
  if (size === 0) return false;
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, size - 1);
  return buffer[0] !== NEW_LINE;
}
