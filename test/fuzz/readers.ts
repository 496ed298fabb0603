import type { Reader } from "./reader.js";
import { trainConfig } from "./readers-cli.js";
import { dataReaders } from "./readers-data.js";
import { modelReaders } from "./readers-models.js";

/** Every reader of files that the package has. */
export async function openReaders(): Promise<Reader[]> {
  return [...(await modelReaders()), ...(await dataReaders()), trainConfig];
}
