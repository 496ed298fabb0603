import { createRequire } from "node:module";
import { dirname } from "node:path";
import { packageVersion } from "../version.js";
import type { NativeAddon } from "./addon.js";
import { requireWholeFile } from "./binary-file.js";
import { loadError } from "./load-error.js";

const require = createRequire(import.meta.url);

interface NodeGypBuild {
  /** The path of the binary for this process; throws when there is none. */
  resolve(packageRoot: string): string;
}

let addon: NativeAddon | undefined;

/**
 * The native addon of this process, loaded at the first call: importing the package stays cheap, and
 * works where the binary is missing, so that a program can catch the error.
 *
 * @throws LokoError `ERR_NATIVE_LOAD`: no binary for this platform, one that cannot be loaded, or one
 * of another version of the package
 */
export function loadAddon(): NativeAddon {
  addon ??= loadAddonFrom(packageRoot());
  return addon;
}

/**
 * The file that {@link loadAddon} loads.
 *
 * @throws LokoError `ERR_NATIVE_LOAD`: no binary for this platform
 */
export function addonPath(root = packageRoot()): string {
  try {
    return (require("node-gyp-build") as NodeGypBuild).resolve(root);
  } catch (cause) {
    throw loadError("no binary was found for this platform", { root, cause });
  }
}

/** @internal Loads the addon of the package in `root`; `loadAddon` is for everyone else. */
export function loadAddonFrom(root: string): NativeAddon {
  const path = addonPath(root);
  const loaded = requireBinary(path, root);
  if (loaded.version !== packageVersion()) {
    const found =
      loaded.version === undefined
        ? "is not an addon of loko, or one of an older version"
        : `is the addon of loko ${loaded.version}`;
    throw loadError(`${path} ${found}, and this is loko ${packageVersion()}`, { root });
  }
  return loaded;
}

function requireBinary(path: string, root: string): NativeAddon {
  try {
    requireWholeFile(path);
    return require(path) as NativeAddon;
  } catch (cause) {
    throw loadError(`${path} was found and could not be loaded`, { root, cause });
  }
}

function packageRoot(): string {
  // By name: the file that this is bundled into may lie anywhere in the package.
  return dirname(require.resolve("loko/package.json"));
}
