import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runChild } from "./child.js";

/** Photographs of ImageNet's usual size, half of them in each class. */
const PHOTOGRAPHS = 40;

let dir: string;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "loko-images-"));
  for (const name of ["good", "bad"]) {
    for (const label of ["a", "b"]) mkdirSync(join(dir, name, label), { recursive: true });
  }
  for (let i = 0; i < PHOTOGRAPHS; i++) {
    const [width, height] = i % 3 === 0 ? [375, 500] : [500, 375];
    const data = Uint8Array.from({ length: width * height * 3 }, (_, at) => {
      const pixel = Math.floor(at / 3);
      const [x, y] = [pixel % width, Math.floor(pixel / width)];
      return 127 + 100 * Math.sin(x / (5 + i) + y / 17 + (at % 3)) + ((at * 7919) % 27);
    });
    const jpeg = sharp(data, { raw: { width, height, channels: 3 } }).jpeg({ quality: 90 });
    await jpeg.toFile(join(dir, "good", i % 2 ? "a" : "b", `${i}.jpg`));
  }
  const jpeg = readFileSync(join(dir, "good/b/0.jpg"));
  for (const file of ["a/0.jpg", "a/2.jpg", "b/3.jpg"]) writeFileSync(join(dir, "bad", file), jpeg);
  writeFileSync(join(dir, "bad/a/1.jpg"), jpeg.subarray(0, 5000));
});
afterAll(() => rmSync(dir, { recursive: true }));

/** What a case of children/images.mjs prints; it must end by itself, and with 0. */
async function run(name: string, folder = "good", nodeArgs: string[] = []) {
  const { code, signal, stdout, stderr } = await runChild("images.mjs", [name, join(dir, folder)], {
    nodeArgs,
  });
  expect({ code, signal, stderr: stderr.replace(/.*LOKO_IMAGE_SKIPPED.*\n(.*\n)?/g, "") }).toEqual({
    code: 0,
    signal: null,
    stderr: "",
  });
  return JSON.parse(stdout);
}

describe("images on other threads", () => {
  test("come in the same order and with the same bits, whatever their number", async () => {
    expect(await run("order")).toEqual({ same: true, threads: 0 });
  });

  test("leave no thread behind when the loop ends early", async () => {
    expect(await run("break")).toEqual({ seen: 2, threads: 0 });
  });

  test("do not keep a process alive that forgot to close them", async () => {
    expect(await run("abandon")).toEqual({ done: false });
  });

  test("stop at an abort, and leave no thread behind", async () => {
    const { message, seen, threads } = await run("abort");
    expect({ message, threads }).toEqual({ message: "enough", threads: 0 });
    expect(seen).toBeLessThan(PHOTOGRAPHS);
  });

  test("give the error of a damaged image with its path, or leave it out", async () => {
    const { results, threads } = await run("error", "bad");
    expect(threads).toBe(0);
    expect(results).toEqual([
      {
        // The one before it came out.
        seen: 1,
        failure: {
          name: "LokoError",
          code: "ERR_IMAGE_FORMAT",
          // libvips keeps its messages in one buffer of the process, which another thread may have emptied.
          message: expect.stringMatching(
            /bad.a.1\.jpg: damaged JPEG image: (VipsJpeg: premature end of JPEG image|Unknown error)\.$/,
          ),
        },
      },
      { seen: 3, failure: null },
    ]);
  });

  test("end with a coded error when a thread dies", async () => {
    const { code, message, threads } = await run("crash");
    expect({ code, threads }).toEqual({ code: "ERR_INTERNAL", threads: 0 });
    // 0 or 1, by what it was doing.
    expect(message).toMatch(/^A thread that decodes images failed: it ended with exit code [01]\./);
  });

  test("are checked before they are posted to a thread", async () => {
    expect(await run("odd")).toEqual([[1, 3, 224, 224], "ERR_INPUT_TYPE", "ERR_INPUT_TYPE"]);
  });

  // The bar is 5 % of the time; measured are 0.5 to 1.5 % with one thread, on two cores that others use
  // as well. A ViT-base step takes longer than these 100 ms, an image some 10 ms. Preparing it
  // when it is asked for would be 9 %.
  test("are ready when a training step asks for them", async () => {
    expect((await run("wait")).share).toBeLessThan(0.05);
  });
});

describe("without the package sharp", () => {
  const hook = (error: string) =>
    `data:text/javascript,${encodeURIComponent(`
      import { register } from "node:module";
      register("data:text/javascript," + encodeURIComponent(\`
        export async function resolve(name, context, next) {
          if (name === "sharp") throw ${error};
          return next(name, context);
        }\`));`)}`;

  test("image files are refused with the line that installs it", async () => {
    const absent =
      "Object.assign(new Error(\"Cannot find package 'sharp'\"), { code: 'ERR_MODULE_NOT_FOUND' })";
    const error = await run("batch", "bad", ["--import", hook(absent)]);
    expect(error).toEqual({
      name: "LokoError",
      code: "ERR_MISSING_DEPENDENCY",
      message:
        "Image files are decoded by the package sharp, which is not installed. Run: npm install sharp",
    });
  });

  test("that cannot be loaded, its own reason is given", async () => {
    const broken = 'new Error("Could not load the module using the linux-x64 runtime")';
    const error = await run("batch", "bad", ["--import", hook(broken)]);
    expect(error.code).toBe("ERR_MISSING_DEPENDENCY");
    expect(error.message).toContain("cannot be loaded: Could not load the module");
    expect(await run("batch", "bad")).toEqual({ shape: [1, 3, 224, 224] });
  });
});
