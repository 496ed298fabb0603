import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { BINARY, PLATFORM, ROOT } from "./tarball.js";

/** Of Debian 12, whose headers the bound of 2.34 holds for; those of a newer one choose newer symbols. */
const BUILD_GLIBC = "2.36";

function hostGlibc(): unknown {
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  return header.glibcVersionRuntime;
}

function verify(...args: string[]) {
  return spawnSync(process.execPath, [join(ROOT, "scripts/verify-prebuilds.mjs"), ...args], {
    encoding: "utf8",
  });
}

describe.runIf(process.platform === "linux")("scripts/verify-prebuilds.mjs", () => {
  // What `npm run build` leaves is not what is shipped.
  test.skipIf(process.env.PREBUILDS_ONLY)("finds what is wrong with a binary", () => {
    const { status, stdout, stderr } = verify(
      "--glibc",
      "2.17",
      "--cuda",
      join(ROOT, "build/Release/loko.node"),
    );

    expect(status).toBe(1);
    expect(stdout).toMatch(
      /loko\.node: \d+\.\d\d MiB, glibc 2\.\d+, with(?:out)? CUDA, .*libstdc\+\+/,
    );
    expect(stderr).toMatch(/needs glibc 2\.\d+, and at most 2\.17 is allowed/);
    expect(stderr).toContain("needs a shared C++ library");
    expect(stderr).toContain("needs libraries that a system may lack: libstdc++.so.6");
    expect(stderr).toContain("is not stripped");
    expect(stderr).not.toContain("exports more");
    expect(stderr).not.toContain("executable stack");
  });

  // Long before a release: one call of a new function of libm or libc is enough.
  test.skipIf(process.env.PREBUILDS_ONLY || hostGlibc() !== BUILD_GLIBC)(
    "finds no newer glibc in what is built every day than a release may need",
    () => {
      const { stderr } = verify(join(ROOT, "build/Release/loko.node"));

      expect(stderr).toContain("is not stripped");
      expect(stderr).not.toContain("needs glibc");
    },
  );

  test("finds what is missing", () => {
    const { status, stderr } = verify("plan9-mips/loko.node");

    expect(status).toBe(1);
    expect(stderr.trim()).toBe("prebuilds/plan9-mips/loko.node is missing.");
  });

  test.runIf(process.env.PREBUILDS_ONLY)("finds nothing wrong with what is shipped", () => {
    const { status, stdout, stderr } = verify();

    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toContain(`prebuilds/${PLATFORM}/${BINARY}`);
  });
});
