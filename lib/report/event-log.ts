import { appendFile, mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { toWriteError } from "../io/output-folder.js";

/** A file with one JSON document a line that is only ever appended to. */
export class EventLog {
  readonly path: string;

  /** @param path - made, with its folder, by the first event. */
  constructor(path: string) {
    this.path = path;
  }

  /**
   * Appends one line with a single write; numbers that are not finite become null.
   *
   * @throws LokoError ERR_FILE_WRITE.
   */
  async append(event: Readonly<Record<string, unknown>>): Promise<void> {
    try {
      await mkdir(dirname(this.path), { recursive: true });
      await appendFile(this.path, `${JSON.stringify(event)}\n`);
    } catch (error) {
      throw toWriteError(this.path, error);
    }
  }
}
