import { types } from "node:util";
import type { Sharp } from "sharp";
import { describe, LokoError } from "../errors.js";
import { readInto, withFile } from "../io/files.js";
import { checkOptions, integerIn } from "../options.js";
import { checkRawImage, cmykToRgb, type ImageSource, type RawImage, toChannels } from "./image.js";
import type { ImageSize } from "./pixels.js";
import { firstLine, loadSharp } from "./sharp.js";

/** Options of {@link decodeImage}. */
export interface DecodeOptions {
  /** 3: RGB, grey repeated; 1: grey, made of RGB by ITU-R 601-2 luma. Default 3. */
  channels?: 1 | 3;
  /**
   * Most pixels of an image: a file of some kilobytes can stand for gigabytes. Default 178,956,970, from
   * which on Pillow refuses an image too.
   */
  maxPixels?: number;
}

/** Twice Pillow's `MAX_IMAGE_PIXELS`. */
export const MAX_PIXELS = 178_956_970;
/** libvips' own limit is lower still: 10,000,000 in each direction. */
export const maxPixelsRule = integerIn(1, 2 ** 34);

/** Far above any file whose pixels are below the limit. */
const MAX_FILE_BYTES = 2 ** 30;

/**
 * Decodes an image as Pillow's `Image.open(…).convert("RGB")` does: the first frame of an animation, no
 * rotation by EXIF, no colour profile, transparency dropped, palettes and CMYK turned into RGB. 16-bit
 * values lose their lower byte. JPEG, PNG, WebP, GIF and TIFF are known by their content.
 *
 * @param source - a path, the bytes of a file, or pixels, which only get the channels that were asked for.
 * @throws LokoError ERR_FILE_NOT_FOUND, ERR_FILE_READ; ERR_IMAGE_FORMAT for what is damaged, cut short, no
 * image or too large; ERR_MISSING_DEPENDENCY without the package sharp; ERR_INPUT_TYPE, ERR_OPTION.
 */
export async function decodeImage(
  source: ImageSource,
  options: DecodeOptions = {},
): Promise<RawImage> {
  checkOptions("decodeImage", options, {
    channels: { expected: "1 or 3", accepts: (value) => value === 1 || value === 3 },
    maxPixels: maxPixelsRule,
  });
  const { channels = 3, maxPixels = MAX_PIXELS } = options;
  const name = typeof source === "string" ? source : "image";
  return decodeSource(source, name, { channels, maxPixels });
}

/** @param name - where the image comes from, for messages. */
export async function decodeSource(
  source: ImageSource,
  name: string,
  { channels, maxPixels }: Required<DecodeOptions>,
): Promise<RawImage> {
  if (typeof source !== "string" && !types.isUint8Array(source)) {
    checkRawImage(source, name);
    return toChannels(source, channels);
  }
  const bytes = typeof source === "string" ? await readFile(source) : source;
  return toChannels(await decodeBytes(bytes, name, maxPixels), channels);
}

function imageError(name: string, problem: string, cause?: unknown): LokoError {
  return new LokoError("ERR_IMAGE_FORMAT", `${name}: ${problem}.`, { cause });
}

function readFile(path: string): Promise<Uint8Array> {
  return withFile(path, async ({ handle, size }) => {
    if (size > MAX_FILE_BYTES) {
      throw imageError(path, `a file of ${size} bytes; the limit is ${MAX_FILE_BYTES}`);
    }
    const bytes = new Uint8Array(size);
    return bytes.subarray(0, await readInto(handle, bytes, 0));
  });
}

/**
 * What files begin with; "." stands for any byte. Of the others that sharp knows, SVG is a drawing, and AVIF
 * has other pixels than in Pillow: colours of half the resolution are scaled up another way.
 */
const SIGNATURES: readonly (readonly [format: string, RegExp])[] = [
  ["JPEG", /^\xff\xd8\xff/],
  ["PNG", /^\x89PNG\r\n/],
  ["GIF", /^GIF8[79]a/],
  ["WebP", /^RIFF....WEBP/s],
  ["TIFF", /^(?:II[*+]\0|MM\0[*+])/],
];

function formatOf(bytes: Uint8Array, name: string): string {
  const start = Buffer.from(bytes.subarray(0, 12)).toString("latin1");
  const known = SIGNATURES.find(([, signature]) => signature.test(start));
  if (known !== undefined) return known[0];
  const names = SIGNATURES.map(([format]) => format).join(", ");
  throw imageError(
    name,
    bytes.length === 0
      ? "the file is empty"
      : `not an image of a known format (${names}); it begins with ${describe(start)}`,
  );
}

async function decodeBytes(bytes: Uint8Array, name: string, maxPixels: number): Promise<RawImage> {
  const format = formatOf(bytes, name);
  const sharp = await loadSharp();
  const attempt = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      const reason = firstLine((error as Error).message).trim();
      if (reason.endsWith("exceeds pixel limit")) {
        throw imageError(name, `more than ${maxPixels} pixels, the limit (maxPixels)`, error);
      }
      throw imageError(name, `damaged ${format} image: ${reason}`, error);
    }
  };
  const image = await attempt(async () =>
    // Pillow's tolerance: what is cut short or unreadable fails, what a decoder warns of does not.
    sharp(bytes, { failOn: "error", limitInputPixels: maxPixels, ignoreIcc: true }),
  );
  const { space, depth } = await attempt(() => image.metadata());
  if (depth !== "uchar" && depth !== "ushort") {
    throw imageError(name, `values of type ${depth}; expected 8 or 16 bits without a sign`);
  }
  const isCmyk = space === "cmyk";
  const pixels = await attempt(() => readPixels(image, isCmyk));
  if (pixels.channels !== (isCmyk ? 4 : 3)) {
    throw imageError(name, `${pixels.channels} channels in the colour space ${space}`);
  }
  const { data } = pixels;
  return isCmyk ? cmykToRgb(data, pixels) : { ...pixels, channels: 3 };
}

async function readPixels(
  image: Sharp,
  isCmyk: boolean,
): Promise<ImageSize & { data: Uint8Array; channels: number }> {
  const colours = isCmyk
    ? image.pipelineColourspace("cmyk").toColourspace("cmyk")
    : image.removeAlpha().toColourspace("srgb");
  const { data, info } = await colours.raw().toBuffer({ resolveWithObject: true });
  return { data, height: info.height, width: info.width, channels: info.channels };
}
