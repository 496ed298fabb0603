import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { LokoError } from "../../../lib/errors.js";
import { loadError } from "../../../lib/native/load-error.js";
import { loadAddonFrom } from "../../../lib/native/loader.js";

describe("loadAddonFrom", () => {
  let root: string;

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "loko-loader-"));
    writeFileSync(join(root, "package.json"), JSON.stringify({ name: "loko" }));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  function failure(): LokoError {
    try {
      loadAddonFrom(root);
    } catch (error) {
      expect(error).toBeInstanceOf(LokoError);
      return error as LokoError;
    }
    throw new Error("loadAddonFrom did not throw");
  }

  test("says where it looked, on what it runs and how to build when there is no binary", () => {
    const error = failure();

    expect(error.code).toBe("ERR_NATIVE_LOAD");
    expect(error.message).toContain("no binary was found for this platform");
    expect(error.message).toContain(join(root, "build", "Release"));
    expect(error.message).toContain(join(root, "prebuilds", `${process.platform}-${process.arch}`));
    expect(error.message).toContain(`Node.js ${process.versions.node}`);
    expect(error.message).toContain("npm ci && npm run build");
    expect(error.cause).toBeInstanceOf(Error);
  });

  test("names the binary and keeps the linker's reason when it cannot be loaded", () => {
    const release = join(root, "build", "Release");
    mkdirSync(release, { recursive: true });
    writeFileSync(join(release, "loko.node"), "not a shared library, but long enough to be read");

    const error = failure();

    expect(error.code).toBe("ERR_NATIVE_LOAD");
    expect(error.message).toContain(
      `${join(release, "loko.node")} was found and could not be loaded`,
    );
    expect(error.message).toContain(`Reason: ${(error.cause as Error).message}`);
  });
});

describe("loadError", () => {
  test("says which glibc a binary needs that was built on a newer system", () => {
    const cause = new Error(
      "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found (required by loko.node)",
    );

    expect(loadError("it could not be loaded", { root: "/nowhere", cause }).message).toContain(
      "Use a system with glibc 2.38 or newer, which this binary needs.",
    );
  });
});
