// The package as npm would publish it, and what an installation of it needs.
import { execFileSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));

export const PLATFORM = `${process.platform}-${process.arch}`;

/** As prebuildify names it here. */
export const BINARY = `loko.${existsSync("/etc/alpine-release") ? "musl" : "glibc"}.node`;

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly dependencies: Readonly<Record<string, string>>;
  readonly devDependencies: Readonly<Record<string, string>>;
  readonly scripts: Readonly<Record<string, string>>;
  readonly bin: Readonly<Record<string, string>>;
}

export const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as Manifest;

export function temporaryFolder(): string {
  // Real, because a path that Node prints is.
  return realpathSync(mkdtempSync(join(tmpdir(), "loko-package-")));
}

export interface Tarball {
  readonly path: string;
  readonly bytes: number;
  readonly files: readonly string[];
}

/**
 * Packs the package into `folder`. Its binary is that of the last build, stripped, as prebuildify would have moved
 * it; with PREBUILDS_ONLY it is what `npm run prebuilds` left.
 */
export function pack(folder: string): Tarball {
  const stage = join(folder, "stage");
  for (const name of [
    "package.json",
    "README.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "docs",
    "dist",
    "native",
    "scripts",
    "CMakeLists.txt",
  ]) {
    cpSync(join(ROOT, name), join(stage, name), { recursive: true });
  }
  if (process.env.PREBUILDS_ONLY) {
    cpSync(join(ROOT, "prebuilds"), join(stage, "prebuilds"), { recursive: true });
  } else {
    const prebuilds = join(stage, "prebuilds", PLATFORM);
    mkdirSync(prebuilds, { recursive: true });
    cpSync(join(ROOT, "build", "Release", "loko.node"), join(prebuilds, BINARY));
    execFileSync("strip", [join(prebuilds, BINARY)]);
  }
  const output = execFileSync("npm", ["pack", "--json", "--loglevel=error"], {
    cwd: stage,
    encoding: "utf8",
    env: { ...process.env, npm_config_pack_destination: folder },
  });
  const [{ filename, size, files }] = JSON.parse(output) as [
    { filename: string; size: number; files: { path: string }[] },
  ];
  rmSync(stage, { recursive: true });
  return { path: join(folder, filename), bytes: size, files: files.map(({ path }) => path) };
}

/** A folder for PATH with what npm itself needs: no compiler, no CMake, no Python. */
export function barePath(folder: string): string {
  const bin = join(folder, "bin");
  mkdirSync(bin);
  for (const tool of ["npm", "sh", "env"]) {
    const path = execFileSync("which", [tool], { encoding: "utf8" }).trim();
    symlinkSync(realpathSync(path), join(bin, tool));
  }
  symlinkSync(process.execPath, join(bin, "node"));
  return bin;
}

/** Seconds of the clock, and of the processor in npm's own process. */
export interface Duration {
  readonly wall: number;
  readonly cpu: number;
}

/**
 * Installs the tarball in an empty folder. The lock file holds the dependencies as ours does, so that npm takes
 * them from its cache, where `npm ci` put them, and needs no network.
 */
export function install(
  tarball: string,
  folder: string,
  bin: string,
  ...flags: string[]
): Duration {
  mkdirSync(folder);
  writeConsumer(folder, tarball);
  const timer = join(folder, "timer.cjs");
  writeFileSync(
    timer,
    `process.on("exit", () => {
      const { user, system } = process.cpuUsage();
      require("node:fs").writeFileSync(${JSON.stringify(`${timer}.json`)}, String((user + system) / 1e6));
    });`,
  );
  const start = performance.now();
  execFileSync(
    join(bin, "node"),
    [
      "--require",
      timer,
      join(bin, "npm"),
      "ci",
      "--prefer-offline",
      "--no-audit",
      "--no-fund",
      ...flags,
    ],
    {
      cwd: folder,
      stdio: "pipe",
      env: { HOME: process.env.HOME, PATH: bin, npm_config_cache: npmCache() },
    },
  );
  const wall = (performance.now() - start) / 1000;
  return { wall, cpu: Number(readFileSync(`${timer}.json`, "utf8")) };
}

function npmCache(): string {
  return execFileSync("npm", ["config", "get", "cache"], { cwd: ROOT, encoding: "utf8" }).trim();
}

interface LockedPackage {
  readonly dev?: boolean;
  readonly optional?: boolean;
  readonly devOptional?: boolean;
}

function writeConsumer(folder: string, tarball: string): void {
  const consumer = { name: "consumer", version: "1.0.0", private: true };
  const dependencies = { [manifest.name]: `file:${tarball}` };
  const { packages } = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")) as {
    packages: Record<string, LockedPackage>;
  };
  const shipped = Object.entries(packages).filter(
    ([path, { dev, optional, devOptional }]) => path !== "" && !dev && !optional && !devOptional,
  );
  const { version, bin, dependencies: own } = manifest;
  const lock = {
    ...consumer,
    lockfileVersion: 3,
    packages: {
      "": { ...consumer, dependencies },
      [`node_modules/${manifest.name}`]: {
        version,
        resolved: `file:${tarball}`,
        bin,
        dependencies: own,
      },
      ...Object.fromEntries(shipped),
    },
  };
  writeFileSync(join(folder, "package.json"), JSON.stringify({ ...consumer, dependencies }));
  writeFileSync(join(folder, "package-lock.json"), JSON.stringify(lock));
}

/** The folder of a package that the repository depends on. */
export function ownPackage(name: string): string {
  return dirname(realpathSync(join(ROOT, "node_modules", name, "package.json")));
}
