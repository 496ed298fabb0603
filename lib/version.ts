import { createRequire } from "node:module";

/** The version of the package. */
export function packageVersion(): string {
  // By name: the file that this is bundled into may lie anywhere in the package.
  const manifest = createRequire(import.meta.url)("loko/package.json") as { version: string };
  return manifest.version;
}
