import { writeFile } from "node:fs/promises";
import { join } from "node:path";

import { type TextDatasetOptions, type TextExample, textDataset } from "../../../lib/data/text.js";
import { temporaryFolder } from "../io/helpers.js";

export const fixture = (name: string) =>
  new URL(`../../fixtures/data/${name}`, import.meta.url).pathname;

/** A file of the given bytes or text, removed when the test ends. */
export async function dataFile(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(await temporaryFolder(), name);
  await writeFile(path, content);
  return path;
}

export async function examplesOf(
  path: string,
  options?: TextDatasetOptions,
): Promise<TextExample[]> {
  const examples: TextExample[] = [];
  for await (const example of textDataset(path, options)) examples.push(example);
  return examples;
}

/** Sum of (observed - expected)² / expected over cells that should be equally full. */
export function chiSquare(counts: readonly number[]): number {
  const expected = counts.reduce((sum, count) => sum + count, 0) / counts.length;
  return counts.reduce((sum, count) => sum + (count - expected) ** 2 / expected, 0);
}
