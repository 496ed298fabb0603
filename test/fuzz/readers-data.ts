// Readers of datasets and images.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { readIdx } from "../../lib/data/idx.js";
import { type ImageDatasetOptions, imageDataset } from "../../lib/data/image-dataset.js";
import { type TextDatasetOptions, textDataset } from "../../lib/data/text.js";
import { decodeImage } from "../../lib/images/decode.js";
import { ImageProcessor } from "../../lib/images/processor.js";
import { toFileError } from "../../lib/io/files.js";
import { type Files, fixtureFile, fixturePath, type Reader } from "./reader.js";

/** The images of the fixtures have fewer pixels; what a changed header claims is refused above it. */
const MAX_PIXELS = 2 ** 20;

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(`broken promise: ${what}`);
}

function texts(
  name: string,
  file: string,
  originals: readonly Files[],
  options: TextDatasetOptions = { numLabels: 3, label2id: { neg: 0, pos: 1 } },
): Reader {
  return {
    name,
    originals,
    async read(dir) {
      let rows = 0;
      for await (const { text, label = 0, row } of textDataset(join(dir, file), options)) {
        check(typeof text === "string" && row === ++rows, "texts in order");
        check(options.regression || [0, 1, 2].includes(label), "labels in range");
      }
      check(rows > 0, "a row at least");
    },
  };
}

function images(
  name: string,
  path: string,
  originals: readonly Files[],
  options: ImageDatasetOptions = {},
): Reader {
  const processor = ImageProcessor.fromConfig(
    { image_processor_type: "ViTImageProcessor", size: 8 },
    { maxPixels: MAX_PIXELS },
  );
  return {
    name,
    originals,
    async read(dir) {
      const dataset = await imageDataset(join(dir, path), { ...options });
      let rows = 0;
      for await (const { image, label } of dataset) {
        check(label === undefined || (Number.isSafeInteger(label) && label >= 0), "a label");
        if (rows++ < 2) await processor.batch([image]);
      }
      check(rows === dataset.size, "as many rows as the dataset says");
    },
  };
}

function idxFiles(): Files {
  const pixels = new Uint8Array(16 + 24).fill(7);
  pixels.set([0, 0, 8, 3, 0, 0, 0, 6, 0, 0, 0, 2, 0, 0, 0, 2]);
  const labels = Uint8Array.of(0, 0, 8, 1, 0, 0, 0, 6, 0, 1, 2, 3, 4, 5);
  return new Map([
    ["train-images-idx3-ubyte", pixels],
    ["train-labels-idx1-ubyte", labels],
  ]);
}

function cifarFolder(): Files {
  const names = "airplane automobile bird cat deer dog frog horse ship truck".split(" ");
  return new Map([
    ...[1, 2, 3, 4, 5].map(
      (batch) => [`data_batch_${batch}.bin`, new Uint8Array(3073).fill(batch)] as const,
    ),
    ["batches.meta.txt", Buffer.from(`${names.join("\n")}\n`)],
  ]);
}

const idx: Reader = {
  name: "idx",
  originals: [8, 9, 11, 12, 13, 14].map((type) => {
    const size = { 8: 1, 9: 1, 11: 2, 12: 4, 13: 4, 14: 8 }[type]!;
    const bytes = new Uint8Array(12 + 6 * size).fill(1);
    bytes.set([0, 0, type, 2, 0, 0, 0, 2, 0, 0, 0, 3]);
    return new Map([["a.idx", bytes]]);
  }),
  async read(dir) {
    const { data, shape } = await readIdx(join(dir, "a.idx"));
    const elements = shape.reduce((a, b) => a * b, 1);
    check(data.length === elements, "as many elements as the shape has");
  },
};

const decode: Reader = {
  name: "image-file",
  originals: [
    ...["photo-420.jpg", "photo-444.jpg", "cmyk.jpg", "exif.jpg", "grey.jpg", "profile.jpg"],
    ...["rgb.png", "rgba.png", "palette.png", "rgb16.png", "bilevel.png", "tall.png"],
    ...["animated.gif", "animated.webp", "lossy.webp", "rgb.tif", "cmyk.tif"],
  ].map((name) => fixtureFile(`images/${name}`, "image")),
  async read(dir) {
    const path = join(dir, "image");
    for (const source of [
      path,
      await readFile(path).catch((e) => Promise.reject(toFileError(path, e))),
    ]) {
      const { data, height, width, channels } = await decodeImage(source, {
        maxPixels: MAX_PIXELS,
      });
      check(data.length === height * width * channels, "all pixels");
    }
  },
};

async function processors(): Promise<Reader> {
  const text = await readFile(fixturePath("images/processors.json"), "utf8");
  const cases = Object.values(JSON.parse(text) as Record<string, { config: object }>);
  const photo = fixturePath("images/photo-420.jpg");
  return {
    name: "preprocessor-config",
    originals: cases.map(
      ({ config }) => new Map([["preprocessor_config.json", Buffer.from(JSON.stringify(config))]]),
    ),
    async read(dir) {
      const processor = await ImageProcessor.fromPretrained(dir);
      const { pixelValues, shape } = await processor.batch([photo]);
      check(pixelValues.length === shape.reduce((a, b) => a * b, 1), "all pixels");
    },
  };
}

export async function dataReaders(): Promise<Reader[]> {
  const data = (names: readonly string[], as: string) =>
    names.map((name) => fixtureFile(`data/${name}`, as));
  const [zipped] = data(["rows.tsv.gz"], "rows.tsv.gz");
  // Changes to compressed bytes end in gzip's checksum; the text is changed as well.
  const plain = new Uint8Array(gunzipSync(zipped!.get("rows.tsv.gz")!));
  const gzipped = [zipped!, new Map([["rows.tsv.gz", plain]])];
  const parquet = ["plain", "snappy", "zstd-v2", "gzip-int32", "brotli-uint8", "lz4-double"];
  const cifar = (labels: number) => [
    new Map([["a.bin", new Uint8Array(2 * (3072 + labels)).fill(5)]]),
  ];
  const folder = new Map([
    ...fixtureFile("images/rgb.png", "a/1.png"),
    ...fixtureFile("images/grey.jpg", "b/2.jpg"),
  ]);
  return [
    texts("csv", "rows.csv", data(["rows.csv", "quoted.csv"], "rows.csv")),
    texts("tsv-gzip", "rows.tsv.gz", gzipped),
    texts("jsonl", "rows.jsonl", data(["rows.jsonl"], "rows.jsonl")),
    texts(
      "parquet-texts",
      "rows.parquet",
      data(
        [...parquet, "delta", "bool", "names", "test-set"].map((n) => `${n}.parquet`),
        "rows.parquet",
      ),
    ),
    texts("parquet-scores", "rows.parquet", data(["score.parquet"], "rows.parquet"), {
      regression: true,
    }),
    images(
      "parquet-images",
      "rows.parquet",
      ["images", "images-v2", "images-pages", "images-required", "binary", "cifar100"].map((name) =>
        fixtureFile(`images/${name}.parquet`, "rows.parquet"),
      ),
    ),
    idx,
    images("idx-images", "", [idxFiles()], { numLabels: 6 }),
    images("cifar10", "a.bin", cifar(1), { format: "cifar10" }),
    images("cifar100", "a.bin", cifar(2), { format: "cifar100" }),
    images("cifar-folder", "", [cifarFolder()]),
    images("image-folder", "", [folder]),
    decode,
    await processors(),
  ];
}
