import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** A file that test/fixtures/make_images.py wrote. */
export function imageFile(name: string): string {
  return fileURLToPath(new URL(`../../fixtures/images/${name}`, import.meta.url));
}

export function readImageFile(name: string): Uint8Array {
  return readFileSync(imageFile(name));
}
