import { spawnSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { BINARY, manifest, ownPackage, PLATFORM, ROOT, temporaryFolder } from "./tarball.js";

const MODEL = join(ROOT, "examples/quickstart/assets/vit-fashion-mnist");

// In a process of its own, which must live on: a fault in the dynamic linker would end the tests' process.
const PROGRAM = `
  import("loko")
    .then(({ Model }) => Model.fromPretrained(${JSON.stringify(MODEL)}))
    .then(() => ({ code: "none", message: "" }), ({ code, message }) => ({ code, message }))
    .then((result) => console.log(JSON.stringify(result)));`;

describe.runIf(process.platform === "linux")("an installed package whose addon", () => {
  const consumer = temporaryFolder();
  const root = join(consumer, "node_modules", "loko");
  const prebuilds = join(root, "prebuilds", PLATFORM);

  beforeAll(() => {
    cpSync(join(ROOT, "dist"), join(root, "dist"), { recursive: true });
    cpSync(join(ROOT, "package.json"), join(root, "package.json"));
    symlinkSync(ownPackage("node-gyp-build"), join(consumer, "node_modules", "node-gyp-build"));
  });
  afterEach(() => rmSync(join(root, "prebuilds"), { recursive: true, force: true }));
  afterAll(() => rmSync(consumer, { recursive: true }));

  function load(
    env: NodeJS.ProcessEnv = {},
    nodeArgs: readonly string[] = [],
  ): { code: string; message: string } {
    const args = [...nodeArgs, "-e", PROGRAM];
    const { stdout, stderr, status, signal } = spawnSync(process.execPath, args, {
      cwd: consumer,
      encoding: "utf8",
      env: { PATH: process.env.PATH, ...env },
    });
    expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: "" });
    return JSON.parse(stdout);
  }

  /** Puts the built addon, or any bytes, where a prebuilt one is. */
  function place(name = BINARY, content = readFileSync(builtAddon())): string {
    const path = join(prebuilds, name);
    mkdirSync(prebuilds, { recursive: true });
    writeFileSync(path, content);
    return path;
  }

  test("is there loads it", () => {
    place();

    expect(load()).toEqual({ code: "none", message: "" });
  });

  test("is missing says where it was looked for, on what, and how to build it", () => {
    const { code, message } = load();

    expect(code).toBe("ERR_NATIVE_LOAD");
    expect(message).toContain("no binary was found for this platform");
    for (const place of ["build/Release", "build/Debug", `prebuilds/${PLATFORM}`]) {
      expect(message).toContain(`  - ${join(root, place)}: no such folder\n`);
    }
    expect(message).toContain("Prebuilt binaries of this package: none");
    expect(message).toContain(`Node.js ${process.versions.node}, ${PLATFORM}`);
    expect(message).toContain("npm explore loko -- npm run build:native");
    // The majors that the message names are those that the build is tested with.
    for (const [, name, major] of message.matchAll(/(cmake-js|node-addon-api)@(\d+)/g)) {
      expect(manifest.devDependencies[name!]).toMatch(new RegExp(`^${major}\\.`));
    }
  });

  // Node.js 20 knows the permission model by its older name.
  const permission = process.allowedNodeEnvironmentFlags.has("--permission")
    ? "--permission"
    : "--experimental-permission";

  test.each([
    [["--no-addons"], "Start Node.js without --no-addons"],
    [[permission, "--allow-fs-read=*", "--no-warnings"], "Start Node.js with --allow-addons"],
  ])("is refused by Node.js itself (%s) names the flag, and no other way", (args, words) => {
    place();
    const { code, message } = load({}, args);

    expect(code).toBe("ERR_NATIVE_LOAD");
    expect(message.split("Possible solutions:\n")[1]).toMatch(new RegExp(`^  - ${words}[^\n]+$`));
  });

  test("is for another C library names what there is, and for which one it is", () => {
    const other = BINARY.includes("musl") ? "glibc" : "musl";
    place(`loko.${other}.node`);
    const { code, message } = load();

    expect(code).toBe("ERR_NATIVE_LOAD");
    expect(message).toContain(`  - ${prebuilds}: loko.${other}.node (for ${other})`);
    expect(message).toMatch(/This process: .*, (?:glibc \d|no glibc)/);
  });

  test("is for another platform names that platform", () => {
    mkdirSync(join(root, "prebuilds", "plan9-mips"), { recursive: true });
    writeFileSync(join(root, "prebuilds", "plan9-mips", "loko.node"), "");
    const { code, message } = load();

    expect(code).toBe("ERR_NATIVE_LOAD");
    expect(message).toContain("Prebuilt binaries of this package: plan9-mips/loko.node\n");
    expect(message).toContain("Install the package anew");
  });

  // The dynamic linker maps such a file without complaint, and SIGBUS ends the process.
  test.each([0, 40, 0.001, 0.5, 0.99])("is cut short, to %d of it, is refused", (part) => {
    const path = place();
    const { length } = readFileSync(path);
    const left = part < 1 ? Math.floor(part * length) : part;
    truncateSync(path, left);
    const { code, message } = load();

    expect(code).toBe("ERR_NATIVE_LOAD");
    expect(message).toContain(`${path} was found and could not be loaded`);
    expect(message).toContain(`the file is cut short: it has ${left} bytes`);
  });

  test("is no binary at all gives the linker's reason", () => {
    const path = place(BINARY, Buffer.from("<!doctype html> ".repeat(100)));
    const { code, message } = load();

    expect(code).toBe("ERR_NATIVE_LOAD");
    expect(message).toMatch(new RegExp(`Reason: ${path}: .*(?:ELF|format)`));
  });

  test("is of another version of the package is refused", () => {
    place();
    const path = join(root, "package.json");
    writeFileSync(path, JSON.stringify({ ...manifest, version: "99.0.0" }));
    try {
      const { code, message } = load();

      expect(code).toBe("ERR_NATIVE_LOAD");
      expect(message).toContain(
        `${join(prebuilds, BINARY)} is the addon of loko ${manifest.version}, and this is loko 99.0.0`,
      );
    } finally {
      cpSync(join(ROOT, "package.json"), path);
    }
  });

  test("is looked for where environment variables say names them", () => {
    place();
    const { message } = load({ LOKO_PREBUILD: "/nowhere", PREBUILDS_ONLY: "1" });

    expect(message).toContain(`  - /nowhere/prebuilds/${PLATFORM}: no such folder`);
    expect(message).not.toContain("build/Release");
    expect(message).toContain("Unset the environment variable LOKO_PREBUILD, which is /nowhere.");
    expect(message).toContain("Unset the environment variable PREBUILDS_ONLY");
  });
});

function builtAddon(): string {
  return process.env.PREBUILDS_ONLY
    ? join(ROOT, "prebuilds", PLATFORM, BINARY)
    : join(ROOT, "build", "Release", "loko.node");
}
