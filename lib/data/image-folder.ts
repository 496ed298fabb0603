import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, LokoError, nearestNames } from "../errors.js";
import { toFileError } from "../io/files.js";
import { MAX_BUFFER } from "./dataset.js";
import type { ImageExample, ImageSourceFacts } from "./image-source.js";
import { formatError, listNames } from "./records.js";

/** Options of a folder of images. */
export interface ImageFolderOptions {
  readonly classes?: readonly string[];
  readonly unlistedClasses?: "throw" | "skip";
  /** false: images of the folder and of those below it, without labels. */
  readonly labels: boolean;
}

const IMAGE = /\.(?:jpe?g|png|webp|gif|tiff?)$/i;

/** Symbolic links can go round in circles. */
const MAX_DEPTH = 32;

interface LabelledFile {
  readonly path: string;
  readonly label?: number;
}

/**
 * Lists a folder of images as torchvision's `ImageFolder` does: a subfolder is a class, classes and files are
 * sorted, folders inside of a class belong to it. Hidden files and files that are no images by their name
 * do not count.
 *
 * @throws LokoError ERR_FILE_NOT_FOUND, ERR_FILE_READ; ERR_DATA_FORMAT for a folder or a class without
 * images; ERR_LABEL_UNKNOWN for a folder that is not among the classes.
 */
export async function openImageFolder(
  dir: string,
  options: ImageFolderOptions,
): Promise<ImageSourceFacts> {
  if (!options.labels) {
    const files = (await listImages(dir)).map((path) => ({ path }));
    if (files.length === 0) throw formatError(dir, `no image in it or below (${IMAGE_NAMES})`);
    return facts(files, options.classes);
  }
  const folders = (await listFolder(dir)).folders.sort(byCodePoint);
  if (folders.length === 0) {
    throw formatError(dir, "expected a subfolder of images for each class, found no subfolder");
  }
  const classes = options.classes ?? folders;
  const taken = folders.filter((name) => isListed(dir, name, classes, options));
  if (options.unlistedClasses === "skip") requireAll(dir, classes, taken);
  const files: LabelledFile[] = [];
  for (const name of taken) {
    const label = classes.indexOf(name);
    const paths = await listImages(join(dir, name));
    if (paths.length === 0) {
      throw formatError(join(dir, name), `the class has no image (${IMAGE_NAMES})`);
    }
    for (const path of paths) files.push({ path, label });
  }
  return facts(files, classes);
}

const IMAGE_NAMES = ".jpg, .jpeg, .png, .webp, .gif, .tif, .tiff";

function facts(
  files: readonly LabelledFile[],
  classes: readonly string[] | undefined,
): ImageSourceFacts {
  async function* open(): AsyncGenerator<ImageExample, void, undefined> {
    let row = 0;
    for (const { path, label } of files) {
      const example: ImageExample = { image: path, row: ++row, name: path };
      if (label !== undefined) example.label = label;
      yield example;
    }
  }
  return { classes, size: files.length, shuffleBuffer: MAX_BUFFER, open };
}

function isListed(
  dir: string,
  name: string,
  classes: readonly string[],
  { unlistedClasses = "throw" }: ImageFolderOptions,
): boolean {
  if (classes.includes(name)) return true;
  if (unlistedClasses === "skip") return false;
  throw new LokoError(
    "ERR_LABEL_UNKNOWN",
    `${join(dir, name)}: the folder is not among the ${classes.length} classes; the nearest are ` +
      `${listNames(nearestNames(name, classes))}. Pass unlistedClasses: "skip" to leave it out.`,
  );
}

/** Where folders may be left out, a mistyped class would go unnoticed. */
function requireAll(dir: string, classes: readonly string[], found: readonly string[]): void {
  const missing = classes.find((name) => !found.includes(name));
  if (missing === undefined) return;
  throw new LokoError(
    "ERR_LABEL_UNKNOWN",
    `${dir}: the class ${describe(missing)} has no folder of that name.`,
  );
}

/** Paths of all images of a folder and of those below it, sorted. */
async function listImages(dir: string, depth = 0): Promise<string[]> {
  if (depth > MAX_DEPTH) {
    throw formatError(dir, `more than ${MAX_DEPTH} folders deep; perhaps a link leads back`);
  }
  const { files, folders } = await listFolder(dir);
  const images = files.filter((name) => IMAGE.test(name)).map((name) => join(dir, name));
  for (const name of folders) {
    // Not as arguments, of which there can be too many.
    for (const path of await listImages(join(dir, name), depth + 1)) images.push(path);
  }
  return depth === 0 ? images.sort(byCodePoint) : images;
}

/** Names of what is in a folder and not hidden; links count as what they lead to. */
async function listFolder(dir: string): Promise<{ files: string[]; folders: string[] }> {
  const names = { files: [] as string[], folders: [] as string[] };
  try {
    for (const entry of await readdir(dir, { withFileTypes: true })) {
      if (entry.name.startsWith(".")) continue;
      const isLink = entry.isSymbolicLink();
      const kind = isLink ? await stat(join(dir, entry.name)).catch(() => entry) : entry;
      if (kind.isDirectory()) names.folders.push(entry.name);
      else names.files.push(entry.name);
    }
  } catch (error) {
    throw toFileError(dir, error);
  }
  return names;
}

/** Python's order of strings, which above U+FFFF is not that of UTF-16. */
function byCodePoint(a: string, b: string): number {
  if (/[\ud800-\udfff]/.test(a + b)) return Buffer.compare(Buffer.from(a), Buffer.from(b));
  return a < b ? -1 : a > b ? 1 : 0;
}
