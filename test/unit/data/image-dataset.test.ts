import { chmod, mkdir, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { gzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import {
  type ImageDatasetOptions,
  type ImageExample,
  imageDataset,
} from "../../../lib/data/image-dataset.js";
import { decodeImage } from "../../../lib/images/decode.js";
import type { RawImage } from "../../../lib/images/image.js";
import { imageFile, readImageFile } from "../images/helpers.js";
import { errorOf, temporaryFolder } from "../io/helpers.js";

/** A folder with files of the given content. */
async function folderOf(files: Readonly<Record<string, string | Uint8Array>>): Promise<string> {
  const dir = await temporaryFolder();
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(dir, name)), { recursive: true });
    await writeFile(join(dir, name), content);
  }
  return dir;
}

async function examplesOf(path: string, options?: ImageDatasetOptions): Promise<ImageExample[]> {
  const examples: ImageExample[] = [];
  for await (const example of await imageDataset(path, options)) examples.push(example);
  return examples;
}

/** An IDX file: uint8, the dimensions, the data. */
function idxFile(shape: readonly number[], data: Iterable<number>, type = 8): Buffer {
  const header = Buffer.alloc(4 + 4 * shape.length);
  header.set([0, 0, type, shape.length]);
  for (const [i, extent] of shape.entries()) header.writeUInt32BE(extent, 4 + 4 * i);
  return Buffer.concat([header, Buffer.from([...data])]);
}

describe("a folder of images", () => {
  const files = {
    "cat/2.jpg": "",
    "cat/1.PNG": "",
    "cat/deep/0.webp": "",
    "ant/a.jpeg": "",
    "ant/notes.txt": "",
    "ant/.hidden.jpg": "",
    ".cache/x.jpg": "",
    "Bee/b.tif": "",
    "top.jpg": "",
  };

  test("has its subfolders as classes, all sorted by code points as in torchvision", async () => {
    const dir = await folderOf(files);
    const dataset = await imageDataset(dir);
    expect(dataset.classes).toEqual(["Bee", "ant", "cat"]);
    expect(dataset.size).toBe(5);
    const path = (name: string) => ({ image: join(dir, name), name: join(dir, name) });
    expect(await examplesOf(dir)).toEqual([
      { ...path("Bee/b.tif"), label: 0, row: 1 },
      { ...path("ant/a.jpeg"), label: 1, row: 2 },
      { ...path("cat/1.PNG"), label: 2, row: 3 },
      { ...path("cat/2.jpg"), label: 2, row: 4 },
      { ...path("cat/deep/0.webp"), label: 2, row: 5 },
    ]);
  });

  test("above U+FFFF is sorted by code points and not by UTF-16", async () => {
    const dir = await folderOf({ "\uff21/a.jpg": "", "\u{1f600}/a.jpg": "" });
    expect((await imageDataset(dir)).classes).toEqual(["\uff21", "\u{1f600}"]);
  });

  test("takes the indices of the classes that are given", async () => {
    const dir = await folderOf(files);
    const classes = ["cat", "dog", "ant", "Bee"];
    const dataset = await imageDataset(dir, { classes });
    expect(dataset.classes).toEqual(classes);
    const labels = (await examplesOf(dir, { classes })).map(({ label }) => label);
    expect(labels).toEqual([3, 2, 0, 0, 0]);
  });

  test("with a class outside of the list is refused, or the class is left out", async () => {
    const dir = await folderOf(files);
    const { message } = await errorOf("ERR_LABEL_UNKNOWN", () =>
      imageDataset(dir, { classes: ["cat", "ants"] }),
    );
    expect(message).toContain(`${join(dir, "Bee")}: the folder is not among the 2 classes`);
    const skip = { unlistedClasses: "skip" } as const;
    const some = await examplesOf(dir, { classes: ["cat", "ant"], ...skip });
    expect(some.map(({ label }) => label)).toEqual([1, 0, 0, 0]);
    // Where folders may be left out, a mistyped name would otherwise go unnoticed.
    const typo = await errorOf("ERR_LABEL_UNKNOWN", () =>
      imageDataset(dir, { classes: ["cat", "ants"], ...skip }),
    );
    expect(typo.message).toContain('the class "ants" has no folder');
  });

  test("without labels is all images in it and below", async () => {
    const dir = await folderOf(files);
    const examples = await examplesOf(dir, { labels: false });
    expect(examples).toHaveLength(6);
    expect(examples.every((example) => !("label" in example))).toBe(true);
  });

  test("that is empty, or has an empty class, is ERR_DATA_FORMAT", async () => {
    const empty = await temporaryFolder();
    expect((await errorOf("ERR_DATA_FORMAT", () => imageDataset(empty))).message).toContain(empty);
    await errorOf("ERR_DATA_FORMAT", () => imageDataset(empty, { labels: false }));
    const dir = await folderOf({ "a/1.jpg": "", "b/readme.txt": "" });
    const { message } = await errorOf("ERR_DATA_FORMAT", () => imageDataset(dir));
    expect(message).toContain(`${join(dir, "b")}: the class has no image`);
  });

  test("that cannot be read, is not there or runs in circles has a code", async () => {
    const dir = await folderOf({ "a/1.jpg": "", "b/1.jpg": "" });
    await errorOf("ERR_FILE_NOT_FOUND", () => imageDataset(join(dir, "none")));
    await symlink(join(dir, "a"), join(dir, "a/again"));
    const { message } = await errorOf("ERR_DATA_FORMAT", () => imageDataset(dir));
    expect(message).toContain("perhaps a link leads back.");
    const locked = await folderOf({ "a/1.jpg": "" });
    await chmod(join(locked, "a"), 0o000);
    if (process.getuid?.() !== 0) await errorOf("ERR_FILE_READ", () => imageDataset(locked));
    await chmod(join(locked, "a"), 0o700);
  });

  test("follows links to files and folders; one that leads nowhere fails when it is read", async () => {
    const dir = await folderOf({ "a/1.jpg": "" });
    await symlink(join(dir, "a"), join(dir, "b"));
    await symlink(join(dir, "nowhere"), join(dir, "a/2.jpg"));
    const examples = await examplesOf(dir);
    expect(examples.map(({ label }) => label)).toEqual([0, 0, 1, 1]);
    await errorOf("ERR_FILE_NOT_FOUND", () => decodeImage(examples[1]!.image));
  });

  test("is shuffled as a whole, though it is longer than the buffer of other datasets", async () => {
    // A hundred files under 120 names each.
    const files = Array.from({ length: 100 }, (_, i) => [`${i}.jpg`, ""]);
    const one = await folderOf(Object.fromEntries(files));
    const dir = await temporaryFolder();
    for (let i = 0; i < 120; i++) await symlink(one, join(dir, `class-${i}`));
    const shuffled: number[] = [];
    for await (const { row } of (await imageDataset(dir)).shuffle({ seed: 1 })) shuffled.push(row);
    expect(new Set(shuffled).size).toBe(12_000);
    expect(shuffled).toHaveLength(12_000);
    // With a buffer of 10,000 the last 1,000 rows could not come first; the chance is 1e-38 of a whole one.
    expect(shuffled.slice(0, 1000).filter((row) => row > 11_000).length).toBeGreaterThan(0);
  });
});

describe("MNIST's files", () => {
  const images = idxFile([3, 2, 2], Array(12).keys());
  const labels = idxFile([3], [2, 0, 1]);
  const files = {
    "train-images-idx3-ubyte": images,
    "train-labels-idx1-ubyte.gz": gzipSync(labels),
    "t10k-images-idx3-ubyte.gz": gzipSync(idxFile([1, 2, 2], [9, 9, 9, 9])),
    "t10k-labels-idx1-ubyte.gz": gzipSync(idxFile([1], [1])),
  };

  test("are found in a folder, by their split, plain or compressed", async () => {
    const dir = await folderOf(files);
    const dataset = await imageDataset(dir);
    expect({ size: dataset.size, classes: dataset.classes }).toEqual({
      size: 3,
      classes: undefined,
    });
    const examples = await examplesOf(dir);
    expect(examples.map(({ label }) => label)).toEqual([2, 0, 1]);
    const image = { data: Uint8Array.of(4, 5, 6, 7), height: 2, width: 2, channels: 1 };
    expect(examples[1]).toEqual({
      image,
      label: 0,
      row: 2,
      name: `${join(dir, "train-images-idx3-ubyte")}: image 2`,
    });
    expect(await examplesOf(dir, { split: "test" })).toHaveLength(1);
    expect(await examplesOf(join(dir, "t10k-images-idx3-ubyte.gz"))).toHaveLength(1);
  });

  test("need no labels where none are wanted, and take other names", async () => {
    const dir = await folderOf({ "x.idx": images, "y.idx": labels });
    const idx = { format: "idx", labelsPath: join(dir, "y.idx") } as const;
    expect((await examplesOf(join(dir, "x.idx"), idx)).map((e) => e.label)).toEqual([2, 0, 1]);
    const bare = await examplesOf(join(dir, "x.idx"), { format: "idx", labels: false });
    expect(bare[0]).not.toHaveProperty("label");
    const run = () => imageDataset(join(dir, "x.idx"), { format: "idx" });
    expect((await errorOf("ERR_FILE_NOT_FOUND", run)).message).toContain("pass labelsPath");
  });

  test("with colours are [N, H, W, C]", async () => {
    const dir = await folderOf({
      "train-images-idx3-ubyte": idxFile([2, 1, 2, 3], Array(12).keys()),
      "train-labels-idx1-ubyte": idxFile([2], [0, 1]),
    });
    const [, second] = await examplesOf(dir);
    const data = Uint8Array.of(6, 7, 8, 9, 10, 11);
    expect(second!.image).toEqual({ data, height: 1, width: 2, channels: 3 });
  });

  test.each<[string, Buffer, Buffer, string]>([
    ["cut short", images.subarray(0, -1), labels, "ERR_IDX_FORMAT"],
    ["with a wrong magic number", Buffer.from("not idx at all"), labels, "ERR_IDX_FORMAT"],
    ["of no images", idxFile([0, 2, 2], []), idxFile([0], []), "ERR_DATA_FORMAT"],
    ["of a vector", idxFile([3], [1, 2, 3]), labels, "ERR_DATA_FORMAT"],
    ["of another type", idxFile([3, 2, 2], Array(12).keys(), 9), labels, "ERR_DATA_FORMAT"],
    ["with two channels", idxFile([3, 1, 2, 2], Array(12).keys()), labels, "ERR_DATA_FORMAT"],
    ["with labels of images", images, images, "ERR_DATA_FORMAT"],
    ["with too few labels", images, idxFile([2], [0, 1]), "ERR_DATA_FORMAT"],
    ["with labels cut short", images, labels.subarray(0, -2), "ERR_IDX_FORMAT"],
  ])("%s are refused", async (_, images, labels, code) => {
    const dir = await folderOf({
      "train-images-idx3-ubyte": images,
      "train-labels-idx1-ubyte": labels,
    });
    const { message } = await errorOf(code as "ERR_IDX_FORMAT", () => imageDataset(dir));
    expect(message).toContain(dir);
  });

  test("with a label outside of the classes are ERR_LABEL_RANGE, naming it", async () => {
    const dir = await folderOf(files);
    for (const options of [{ numLabels: 2 }, { classes: ["a", "b"] }]) {
      const { message } = await errorOf("ERR_LABEL_RANGE", () => imageDataset(dir, options));
      expect(message).toContain("label 1: expected a label in [0, 2)");
    }
  });
});

/** `count` records; the pixels of record n are n in red, 10 + n in green, 20 + n in blue. */
function cifarFile(labels: readonly (readonly number[])[]): Buffer {
  const planes = (n: number) =>
    [n, 10 + n, 20 + n].map((value) => Buffer.alloc(1024, value)) as Uint8Array[];
  return Buffer.concat(labels.flatMap((label, n) => [Buffer.from(label), ...planes(n)]));
}

describe("CIFAR's binary files", () => {
  const ten = {
    ...Object.fromEntries(
      [1, 2, 3, 4, 5].map((n) => [`data_batch_${n}.bin`, cifarFile([[n], [9]])]),
    ),
    "test_batch.bin": cifarFile([[7]]),
    "batches.meta.txt": "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n",
  };
  const hundred = {
    "train.bin": cifarFile([
      [3, 42],
      [19, 99],
    ]),
    "test.bin": cifarFile([[0, 1]]),
  };

  test("of CIFAR-10 are read in their order, with the names that come with them", async () => {
    const dir = await folderOf(ten);
    const dataset = await imageDataset(dir);
    expect(dataset.size).toBe(10);
    expect(dataset.classes?.[3]).toBe("cat");
    const examples = await examplesOf(dir);
    expect(examples.map(({ label }) => label)).toEqual([1, 9, 2, 9, 3, 9, 4, 9, 5, 9]);
    const { data, ...size } = examples[1]!.image as RawImage;
    expect(size).toEqual({ height: 32, width: 32, channels: 3 });
    expect([...data.subarray(0, 6)]).toEqual([1, 11, 21, 1, 11, 21]);
    expect(examples[3]!.name).toBe(`${join(dir, "data_batch_2.bin")}: record 2`);
    expect((await examplesOf(dir, { split: "test" })).map(({ label }) => label)).toEqual([7]);
    const one = await examplesOf(join(dir, "data_batch_4.bin"), { labels: false });
    expect(one.map((example) => "label" in example)).toEqual([false, false]);
  });

  test("of CIFAR-100 have fine labels, or coarse ones", async () => {
    const dir = await folderOf(hundred);
    const labels = async (options?: ImageDatasetOptions) =>
      (await examplesOf(dir, options)).map(({ label }) => label);
    expect(await labels()).toEqual([42, 99]);
    expect(await labels({ granularity: "coarse" })).toEqual([3, 19]);
    expect(await labels({ split: "test" })).toEqual([1]);
  });

  test("that are cut short or of another kind are ERR_DATA_FORMAT, naming the file", async () => {
    const dir = await folderOf({ ...ten, "data_batch_3.bin": cifarFile([[1], [2]]).subarray(1) });
    const { message } = await errorOf("ERR_DATA_FORMAT", () => imageDataset(dir));
    expect(message).toContain("data_batch_3.bin: 6145 bytes are no multiple of a record of 3073");
    const file = join(dir, "data_batch_3.bin");
    const unknown = await errorOf("ERR_DATA_FORMAT", () => imageDataset(file));
    expect(unknown.message).toContain("no multiple of 3073 (CIFAR-10) or 3074 (CIFAR-100)");
    const empty = await folderOf({ "train.bin": "" });
    await errorOf("ERR_DATA_FORMAT", () => imageDataset(empty));
    const lacking = await folderOf({ "data_batch_1.bin": cifarFile([[1]]) });
    await errorOf("ERR_FILE_NOT_FOUND", () => imageDataset(lacking));
  });

  test("with a label outside of the classes are ERR_LABEL_RANGE, naming the record", async () => {
    const dir = await folderOf({ "test_batch.bin": cifarFile([[0], [10]]) });
    const run = () => examplesOf(dir, { split: "test" });
    expect((await errorOf("ERR_LABEL_RANGE", run)).message).toContain("record 2: expected a label");
    const few = () => examplesOf(dir, { split: "test", classes: ["a"] });
    await errorOf("ERR_LABEL_RANGE", few);
  });
});

describe("images in Parquet", () => {
  test.each([
    ["images", "label"],
    ["images-v2", "label"],
    ["images-pages", "label"],
    ["images-required", "label"],
    ["binary", "label"],
    ["cifar100", "fine_label"],
  ])("%s.parquet has eleven images with labels", async (name) => {
    const path = imageFile(`${name}.parquet`);
    const dataset = await imageDataset(path);
    expect(dataset.size).toBe(11);
    expect(dataset.classes).toEqual(name === "images" ? ["ant", "bee", "cat"] : undefined);
    const examples = await examplesOf(path);
    expect(examples.map(({ label }) => label)).toEqual([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1]);
    expect(examples[4]!.name).toBe(`${path}: row 5`);
    const images = await Promise.all(examples.map(({ image }) => decodeImage(image)));
    expect(images.map(({ height, width }) => [height, width])).toEqual(Array(11).fill([6, 8]));
    // Each is another one, and nothing else is kept alive with it.
    expect(new Set(images.map(({ data }) => data.join())).size).toBe(11);
    for (const { image } of examples) {
      expect((image as Uint8Array).buffer.byteLength).toBe((image as Uint8Array).byteLength);
    }
  });

  test("is read from all files of a split in a folder", async () => {
    const dir = await temporaryFolder();
    for (const name of ["train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"]) {
      await symlink(imageFile("images.parquet"), join(dir, `${name}.parquet`));
    }
    expect((await imageDataset(dir)).size).toBe(22);
    expect(await examplesOf(dir, { split: "test" })).toHaveLength(11);
    const other = await temporaryFolder();
    await symlink(imageFile("images.parquet"), join(other, "test.parquet"));
    await errorOf("ERR_FILE_NOT_FOUND", () => imageDataset(other));
  });

  test("finds the columns that are named, and says which there are", async () => {
    const path = imageFile("cifar100.parquet");
    const coarse = await examplesOf(path, { labelColumn: "coarse_label" });
    expect(coarse.map(({ label }) => label)).toEqual(Array(11).fill(0));
    expect((await examplesOf(path, { labels: false }))[0]).not.toHaveProperty("label");
    const run = () => imageDataset(path, { imageColumn: "picture" });
    const { message } = await errorOf("ERR_DATA_COLUMN", run);
    expect(message).toContain('"img", "fine_label", "coarse_label"');
    await errorOf("ERR_DATA_COLUMN", () => examplesOf(path, { imageColumn: "fine_label" }));
  });

  test("without its bytes is ERR_DATA_COLUMN, and a path in it is not followed", async () => {
    for (const [name, row] of [
      ["images-null", 3],
      ["images-path", 1],
    ] as const) {
      const path = imageFile(`${name}.parquet`);
      const { message } = await errorOf("ERR_DATA_COLUMN", () => examplesOf(path));
      expect(message).toContain(`${path}: row ${row}, column "image": expected the bytes`);
    }
  });

  test("is bytes also where they happen to be text", async () => {
    for await (const { image } of (await imageDataset(imageFile("images-null.parquet"))).take(1)) {
      expect(image).toEqual(new Uint8Array(Buffer.from("plain text")));
    }
  });

  test("with more dictionary indices than values is damaged, and never decoded", async () => {
    const bytes = new Uint8Array(readImageFile("images-null.parquet"));
    // A page: 3 bytes of definition levels, packed: 2, 2, 0; indices of 1 bit; the header of their run.
    const levels = Buffer.from(bytes).indexOf(Buffer.of(3, 0, 0, 0, 3, 0b1010, 0, 1));
    expect(levels).toBeGreaterThan(0);
    bytes[levels + 8] = 2 * 63; // 63 times the same index, where two are left
    const dir = await folderOf({ "a.parquet": bytes });
    const { message } = await errorOf("ERR_DATA_FORMAT", () => examplesOf(join(dir, "a.parquet")));
    expect(message).toContain("run of 63 values where 2 are left");
  });

  test("with a label outside of the classes is an error that names the row", async () => {
    const path = imageFile("images.parquet");
    const some = () => examplesOf(path, { classes: ["ant", "bee"] });
    const { message } = await errorOf("ERR_LABEL_UNKNOWN", some);
    expect(message).toContain(`${path}: row 3: the label 2 ("cat") is not among the 2 classes`);
    const other = () => examplesOf(path, { classes: ["x", "y"] });
    expect((await errorOf("ERR_LABEL_RANGE", other)).message).toContain(
      `${path}: row 3: the label`,
    );
    const bare = () => examplesOf(imageFile("binary.parquet"), { numLabels: 2 });
    expect((await errorOf("ERR_LABEL_RANGE", bare)).message).toContain("row 3, column");
  });

  test("goes by the names of its classes where they are in the list", async () => {
    const path = imageFile("images.parquet");
    const labels = async (classes: string[]) =>
      (await examplesOf(path, { classes })).slice(0, 3).map(({ label }) => label);
    expect(await labels(["dog", "cat", "bee", "ant"])).toEqual([3, 2, 1]);
    expect(await labels(["Ameise", "Biene", "Katze"])).toEqual([0, 1, 2]);
  });

  test("of text is refused", async () => {
    const path = imageFile("../data/snappy.parquet");
    await errorOf("ERR_DATA_COLUMN", () => imageDataset(path));
    await errorOf("ERR_DATA_COLUMN", () => examplesOf(path, { imageColumn: "sentence1" }));
    await errorOf("ERR_DATA_FORMAT", () =>
      imageDataset(imageFile("rgb.png"), { format: "parquet" }),
    );
  });
});

describe("an argument", () => {
  test("that is wrong is ERR_INPUT_TYPE or ERR_OPTION", async () => {
    const dir = await folderOf({ "a/1.jpg": "", "x.csv": "" });
    await errorOf("ERR_INPUT_TYPE", () => imageDataset(7 as never));
    for (const options of [
      { format: "coco" },
      { split: "dev" },
      { classes: [] },
      { classes: ["a", "a"] },
      { classes: "a,b" },
      { numLabels: 0 },
      { labels: "no" },
      { clases: ["a"] },
      { granularity: "coarse" },
      { labelsPath: "y" },
      { imageColumn: "img" },
      { numLabels: 3 },
    ]) {
      await errorOf("ERR_OPTION", () => imageDataset(dir, options as never));
    }
    await errorOf("ERR_DATA_FORMAT", () => imageDataset(join(dir, "x.csv"), { format: "folder" }));
    const run = () => imageDataset(join(dir, "x.csv"));
    expect((await errorOf("ERR_OPTION", run)).message).toContain("cannot tell the format");
  });
});
