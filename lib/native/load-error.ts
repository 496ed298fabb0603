import { readdirSync } from "node:fs";
import { dirname, join, sep } from "node:path";
import { LokoError } from "../errors.js";

export interface LoadFailure {
  /** The folder of the package. */
  readonly root: string;
  readonly cause?: unknown;
}

/** Why the addon could not be loaded, where it was looked for, on what, and what helps. */
export function loadError(what: string, { root, cause }: LoadFailure): LokoError {
  const reason = cause instanceof Error ? cause.message.trim() : String(cause);
  return new LokoError(
    "ERR_NATIVE_LOAD",
    [
      `The native addon of loko could not be loaded: ${what}.`,
      ...(cause === undefined ? [] : [`Reason: ${reason}`]),
      "Tried:",
      ...placesOf(root).map((place) => `  - ${place}: ${contentOf(place)}`),
      `Prebuilt binaries of this package: ${prebuildsOf(root).join(", ") || "none"}`,
      `This process: Node.js ${process.versions.node}, ${PLATFORM}${describeLibc()}`,
      "Possible solutions:",
      ...(refusedByNode(cause) ?? solutions(root, reason)).map((solution) => `  - ${solution}`),
    ].join("\n"),
    { cause },
  );
}

const PLATFORM = `${process.platform}-${process.arch}`;

/** The folders of node-gyp-build, in its order. */
function placesOf(root: string): string[] {
  const { LOKO_PREBUILD, PREBUILDS_ONLY } = process.env;
  const start = LOKO_PREBUILD || root;
  return [
    ...(PREBUILDS_ONLY ? [] : [join(start, "build", "Release"), join(start, "build", "Debug")]),
    join(start, "prebuilds", PLATFORM),
    join(dirname(process.execPath), "prebuilds", PLATFORM),
  ];
}

function contentOf(place: string): string {
  const names = list(place);
  if (names === undefined) return "no such folder";
  const binaries = names.filter(isBinary).map((name) => {
    const libc = /\.(glibc|musl)\./.exec(name)?.[1];
    return libc === undefined ? name : `${name} (for ${libc})`;
  });
  return binaries.join(", ") || "no .node file in it";
}

function prebuildsOf(root: string): string[] {
  const folder = join(root, "prebuilds");
  return (list(folder) ?? []).flatMap((platform) =>
    (list(join(folder, platform)) ?? []).filter(isBinary).map((name) => `${platform}/${name}`),
  );
}

function isBinary(name: string): boolean {
  return name.endsWith(".node");
}

function list(folder: string): string[] | undefined {
  try {
    return readdirSync(folder).sort();
  } catch {
    return undefined;
  }
}

/** What helps where Node.js itself loads no addon at all, and no other binary would change that. */
function refusedByNode(cause: unknown): string[] | undefined {
  if ((cause as NodeJS.ErrnoException | undefined)?.code !== "ERR_DLOPEN_DISABLED")
    return undefined;
  return [
    process.permission === undefined
      ? "Start Node.js without --no-addons (on the command line, or in NODE_OPTIONS)."
      : "Start Node.js with --allow-addons: its permission model is on, and allows none without it.",
  ];
}

function solutions(root: string, reason: string): string[] {
  const { LOKO_PREBUILD, PREBUILDS_ONLY } = process.env;
  const neededGlibc = /version `GLIBC_([\d.]+)' not found/.exec(reason)?.[1];
  const isInstalled = root.split(sep).includes("node_modules");
  const build = isInstalled
    ? "npm install --no-save cmake-js@8 node-addon-api@8 && npm explore loko -- npm run build:native"
    : "npm ci && npm run build";
  return [
    ...(LOKO_PREBUILD
      ? [`Unset the environment variable LOKO_PREBUILD, which is ${LOKO_PREBUILD}.`]
      : []),
    ...(PREBUILDS_ONLY
      ? ["Unset the environment variable PREBUILDS_ONLY, with which build/ is not looked at."]
      : []),
    ...(neededGlibc === undefined
      ? []
      : [`Use a system with glibc ${neededGlibc} or newer, which this binary needs.`]),
    ...(isInstalled
      ? [
          "Install the package anew, on this machine: a node_modules folder that was copied from another " +
            "platform or C library, or was not copied to the end, holds the wrong binary.",
        ]
      : []),
    `Build it here (needs g++ or clang++, CMake 3.25 and make): ${build}`,
  ];
}

/** The C library, which is the usual reason why a Linux binary does not load elsewhere. */
function describeLibc(): string {
  if (process.platform !== "linux") return "";
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  const version = header.glibcVersionRuntime;
  return version ? `, glibc ${version}` : ", no glibc (musl)";
}
