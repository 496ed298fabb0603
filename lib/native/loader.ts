import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { LokoError } from "../errors.js";
import type { NativeAddon } from "./addon.js";

const require = createRequire(import.meta.url);

// The same two levels up from lib/native (tests) and from dist/native (the package).
const PACKAGE_ROOT = fileURLToPath(new URL("../../", import.meta.url));

interface NodeGypBuild {
  /** The path of the binary for this process; throws when there is none. */
  resolve(packageRoot: string): string;
}

let addon: NativeAddon | undefined;

/**
 * The native addon of this process, loaded at the first call: importing the package stays cheap, and
 * works where the binary is missing, so that a program can catch the error.
 *
 * @throws LokoError `ERR_NATIVE_LOAD`: no binary for this platform, or one that cannot be loaded
 */
export function loadAddon(): NativeAddon {
  addon ??= loadAddonFrom(PACKAGE_ROOT);
  return addon;
}

/**
 * The file that {@link loadAddon} loads.
 *
 * @throws LokoError `ERR_NATIVE_LOAD`: no binary for this platform
 */
export function addonPath(packageRoot = PACKAGE_ROOT): string {
  try {
    return (require("node-gyp-build") as NodeGypBuild).resolve(packageRoot);
  } catch (cause) {
    throw loadError("no binary was found for this platform", packageRoot, cause);
  }
}

/** @internal Loads the addon of the package in `packageRoot`; `loadAddon` is for everyone else. */
export function loadAddonFrom(packageRoot: string): NativeAddon {
  const path = addonPath(packageRoot);
  try {
    return require(path) as NativeAddon;
  } catch (cause) {
    throw loadError(`${path} was found and could not be loaded`, packageRoot, cause);
  }
}

function loadError(what: string, packageRoot: string, cause: unknown): LokoError {
  const platform = `${process.platform}-${process.arch}`;
  const reason = cause instanceof Error ? cause.message.trim() : String(cause);
  const override = process.env.LOKO_PREBUILD;
  const tried = [
    ...(override ? [`${override} (environment variable LOKO_PREBUILD)`] : []),
    ...(process.env.PREBUILDS_ONLY ? [] : [join(packageRoot, "build", "Release")]),
    join(packageRoot, "prebuilds", platform),
  ];
  return new LokoError(
    "ERR_NATIVE_LOAD",
    [
      `The native addon of loko could not be loaded: ${what}.`,
      `Reason: ${reason}`,
      "Tried:",
      ...tried.map((place) => `  - ${place}`),
      `This process: Node.js ${process.versions.node}, ${platform}${libcOfThisProcess()}`,
      "Possible solutions:",
      "  - Reinstall the package on this machine: a node_modules folder copied from another platform",
      "    or C library holds the wrong binary.",
      "  - Build it: clone the repository and run `npm ci && npm run build` (needs g++, cmake, make).",
    ].join("\n"),
    { cause },
  );
}

/** The C library, which is the usual reason why a Linux binary does not load elsewhere. */
function libcOfThisProcess(): string {
  if (process.platform !== "linux") return "";
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  const version = header.glibcVersionRuntime;
  return version ? `, glibc ${version}` : ", no glibc (musl)";
}
