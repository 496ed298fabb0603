import { createRequire } from "node:module";

/** The version of the package. */
export function packageVersion(): string {
  // The same level up from lib (tests) and from dist (the package).
  const manifest = createRequire(import.meta.url)("../package.json") as { version: string };
  return manifest.version;
}
