import { createRequire } from "node:module";

/** The version of the package. */
export function packageVersion(): string {
  // The same two levels up from lib/cli (tests) and from dist/cli (the package).
  const manifest = createRequire(import.meta.url)("../../package.json") as { version: string };
  return manifest.version;
}
