import { readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  BINARY,
  manifest,
  PLATFORM,
  pack,
  ROOT,
  type Tarball,
  temporaryFolder,
} from "./tarball.js";

/** npm's own advice is that a package stays small; CUDA's kernels will be most of it. */
const MAX_BYTES = 15e6;

describe("the npm package", () => {
  const folder = temporaryFolder();
  let tarball: Tarball;

  beforeAll(() => {
    tarball = pack(folder);
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  test("runs nothing when it is installed", () => {
    // `prebuild` is here because npm would run it before `build`, which nobody expects of it.
    const names = ["preinstall", "install", "postinstall", "prepare", "prepublish", "prebuild"];

    expect(Object.keys(manifest.scripts).filter((name) => names.includes(name))).toEqual([]);
  });

  test("holds the library, the binary, and the sources of the addon without their tests", () => {
    const kinds = [
      /^(?:LICENSE|README\.md|CONTRIBUTING\.md|package\.json|CMakeLists\.txt)$/,
      /^docs\/.+\.(?:md|svg)$/,
      /^dist\/.+\.(?:js|d\.ts)$/,
      /^prebuilds\/[^/]+\/loko\.[^/]+\.node$/,
      /^native\/(?:addon|core|cpu|cuda|filter|ref)\/.+\.(?:cc|h|cu|cuh|map)$/,
      /^scripts\/(?:build-native|check-tools)\.mjs$/,
    ];

    expect(tarball.files.filter((path) => !kinds.some((kind) => kind.test(path)))).toEqual([]);
    for (const kind of kinds) expect(tarball.files.some((path) => kind.test(path))).toBe(true);
    expect(tarball.files).toContain(`prebuilds/${PLATFORM}/${BINARY}`);
  });

  test("holds every page and picture that its pages link to", () => {
    const pages = tarball.files.filter((path) => path.endsWith(".md"));
    const links = pages.flatMap((page) => {
      const text = readFileSync(ROOT + page, "utf8").replace(/^```[\s\S]*?^```$/gm, "");
      const found = text.matchAll(/\]\((?!\w+:)([^)#\s]+)(?:#[^)]*)?\)/g);
      return Array.from(found, ([, target]) => ({ page, target: join(dirname(page), target!) }));
    });

    expect(links.length).toBeGreaterThan(100);
    expect(links.filter(({ target }) => !tarball.files.includes(target))).toEqual([]);
  });

  test("is small", () => {
    expect(tarball.bytes).toBeLessThan(MAX_BYTES);
  });

  test("points to no source map", () => {
    const scripts = tarball.files.filter((path) => path.endsWith(".js"));
    const mapped = scripts.filter((path) =>
      readFileSync(ROOT + path, "utf8").includes("sourceMappingURL="),
    );

    expect(mapped).toEqual([]);
  });

  test("is what publint expects of one", async () => {
    const bytes = readFileSync(tarball.path);
    const { messages, pkg } = await publint({
      pack: { tarball: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) },
      strict: true,
    });

    expect(messages.map((message) => formatMessage(message, pkg!))).toEqual([]);
  });
});
