import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { decodeImage } from "../../../lib/images/decode.js";
import { toChannels } from "../../../lib/images/image.js";
import { resizeImage } from "../../../lib/images/resize.js";
import { errorOf, temporaryFolder } from "../io/helpers.js";
import { imageFile, readImageFile } from "./helpers.js";

/** Writes a file with the given bytes and decodes it. */
async function decodeFile(name: string, bytes: Uint8Array | string) {
  const path = join(await temporaryFolder(), name);
  await writeFile(path, bytes);
  return { path, run: () => decodeImage(path) };
}

describe("a file that is no whole image", () => {
  test("is ERR_IMAGE_FORMAT with its path when it is empty or something else", async () => {
    for (const [bytes, words] of [
      ["", "the file is empty"],
      ["hello, this is text", "not an image of a known format"],
      ["<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>", "it begins with"],
      ["\0\0\0\x1cftypavif", "it begins with"],
      ["BM", "JPEG, PNG, GIF, WebP, TIFF"],
    ] as const) {
      const { path, run } = await decodeFile("a.jpg", bytes);
      const { message } = await errorOf("ERR_IMAGE_FORMAT", run);
      expect(message).toContain(path);
      expect(message).toContain(words);
    }
  });

  test.each([
    ["photo-420.jpg", 0.5],
    ["photo-444.jpg", 0.3],
    ["rgb.png", 0.6],
    ["animated.webp", 0.1],
    ["rgb.tif", 0.5],
  ])("is ERR_IMAGE_FORMAT with its path when it is cut short: %s", async (name, share) => {
    const bytes = readImageFile(name);
    const { path, run } = await decodeFile(name, bytes.subarray(0, bytes.length * share));
    const { message } = await errorOf("ERR_IMAGE_FORMAT", run);
    expect(message).toContain(`${path}: damaged `);
  });

  test("is ERR_IMAGE_FORMAT with its path when its header is damaged", async () => {
    const bytes = new Uint8Array(readImageFile("rgb.png"));
    bytes[20] = 0xff; // its width
    const { path, run } = await decodeFile("a.png", bytes);
    expect((await errorOf("ERR_IMAGE_FORMAT", run)).message).toContain(path);
  });

  test("is refused above the limit of pixels, before they are made", async () => {
    const { message } = await errorOf("ERR_IMAGE_FORMAT", () =>
      decodeImage(imageFile("photo-420.jpg"), { maxPixels: 120 * 90 - 1 }),
    );
    expect(message).toContain("more than 10799 pixels");
    await decodeImage(imageFile("photo-420.jpg"), { maxPixels: 120 * 90 });
  });

  test("is refused when its values are floats", async () => {
    const { message } = await errorOf("ERR_IMAGE_FORMAT", () =>
      decodeImage(imageFile("float.tif")),
    );
    expect(message).toContain("values of type float");
  });

  test("is ERR_FILE_NOT_FOUND or ERR_FILE_READ when it cannot be read", async () => {
    const dir = await temporaryFolder();
    await errorOf("ERR_FILE_NOT_FOUND", () => decodeImage(join(dir, "none.jpg")));
    await errorOf("ERR_FILE_READ", () => decodeImage(dir));
    const locked = join(dir, "locked.jpg");
    await writeFile(locked, readImageFile("photo-420.jpg"));
    await chmod(locked, 0o000);
    // Root may read everything.
    if (process.getuid?.() !== 0) await errorOf("ERR_FILE_READ", () => decodeImage(locked));
  });
});

describe("an argument", () => {
  test("that is no image is ERR_INPUT_TYPE or ERR_SHAPE_MISMATCH", async () => {
    for (const source of [undefined, null, 7, {}, { data: [1, 2] }, new Float32Array(3)]) {
      await errorOf("ERR_INPUT_TYPE", () => decodeImage(source as never));
    }
    const data = new Uint8Array(6);
    for (const size of [
      { height: 0, width: 2, channels: 3 },
      { height: 1, width: 2, channels: 2 },
      { height: 1, width: 3, channels: 3 },
      { height: 1.5, width: 4, channels: 1 },
      { width: 2, channels: 3 },
    ]) {
      await errorOf("ERR_SHAPE_MISMATCH", () => decodeImage({ data, ...size } as never));
    }
  });

  test("that is a bad option is ERR_OPTION", async () => {
    for (const options of [{ channels: 2 }, { maxPixels: 0 }, { pixels: 1 }]) {
      await errorOf("ERR_OPTION", () => decodeImage(new Uint8Array(0), options as never));
    }
    const image = { data: new Uint8Array(4), height: 2, width: 2, channels: 1 } as const;
    for (const [size, filter] of [
      [{ height: 0, width: 1 }, "box"],
      [{ height: 1, width: 1.5 }, "box"],
      [{ height: 1, width: 1 }, "cubic"],
    ] as const) {
      await errorOf("ERR_OPTION", () => resizeImage(image, size, filter as never));
    }
  });
});

test("grey is repeated, and RGB becomes grey by the weights of ITU-R 601-2", () => {
  const grey = { data: Uint8Array.of(0, 7, 255), height: 1, width: 3, channels: 1 } as const;
  const rgb = toChannels(grey, 3);
  expect([...rgb.data]).toEqual([0, 0, 0, 7, 7, 7, 255, 255, 255]);
  expect([...toChannels(rgb, 1).data]).toEqual([0, 7, 255]);
  // 0.299, 0.587 and 0.114 of 255, rounded.
  const primaries = { ...rgb, data: Uint8Array.of(255, 0, 0, 0, 255, 0, 0, 0, 255) };
  expect([...toChannels(primaries, 1).data]).toEqual([76, 150, 29]);
});

test("pixels that are given need no decoder, and are not copied without need", async () => {
  const image = { data: new Uint8Array(12), height: 2, width: 2, channels: 3 } as const;
  expect(await decodeImage(image)).toBe(image);
});
