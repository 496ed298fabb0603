import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { vitFolder } from "../parity/fixtures.js";
import { imageFile } from "../unit/images/helpers.js";
import { LOKO, type RunOptions, runLoko } from "./loko.js";
import { vitConfig, writeCheckpoint } from "./synthetic.js";

const SIZE = { hidden: 32, layers: 1, heads: 2, image: 16, patch: 8 };
const PROCESSOR = { image_processor_type: "ViTImageProcessor", size: 16, resample: 2 };

let dir: string;

/** A model folder with random weights, and names of its labels where there are such. */
function writeModel(name: string, labels: number, names?: string[]): void {
  const config = vitConfig({ ...SIZE, labels });
  const id2label = names && { id2label: Object.fromEntries(names.map((n, i) => [i, n])) };
  mkdirSync(join(dir, name));
  writeCheckpoint(join(dir, name), { ...config, ...id2label });
  writeFileSync(join(dir, name, "preprocessor_config.json"), JSON.stringify(PROCESSOR));
}

/** Noise of one colour: what there is to learn. */
async function writeImages(folder: string, colour: number, count: number, seed: number) {
  mkdirSync(join(dir, folder), { recursive: true });
  for (let i = 0; i < count; i++) {
    const data = Uint8Array.from({ length: 20 * 24 * 3 }, (_, at) =>
      at % 3 === colour ? 200 + ((at * 31 + i * 17 + seed) % 50) : (at * 13 + i * 7 + seed) % 60,
    );
    const image = sharp(data, { raw: { width: 24, height: 20, channels: 3 } });
    await image.jpeg({ quality: 95 }).toFile(join(dir, folder, `${i}.jpg`));
  }
}

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "loko-cli-images-"));
  writeModel("vit", 2);
  // Not in the order of the alphabet, in which the folders are.
  writeModel("named", 2, ["red", "blue"]);
  for (const [part, count, seed] of [
    ["train", 60, 1],
    ["val", 10, 100],
  ] as const) {
    await writeImages(`colours/${part}/blue`, 2, count, seed);
    await writeImages(`colours/${part}/red`, 0, count, seed);
  }
});
afterAll(() => rmSync(dir, { recursive: true }));

const loko = (args: string[], options: RunOptions = {}) => runLoko(args, { cwd: dir, ...options });
const train = (model: string, output: string, ...args: string[]) =>
  loko(["train", "--model", model, "--train", "colours/train", "--output", output, ...args]);
const results = (output: string) =>
  JSON.parse(readFileSync(join(dir, output, "results.json"), "utf8"));

describe("loko train with images", () => {
  test("learns from a folder, and its classes are part of the result", async () => {
    const run = await train("vit", "learned", "--eval", "colours/val");
    expect(run).toMatchObject({ code: 0, signal: null });
    const line = (name: string, words: string) => new RegExp(`^${name} +${words}$`, "m");
    expect(run.stdout).toMatch(line("train", "colours/train: 120 images, classes 2: blue, red"));
    expect(run.stdout).toMatch(line("eval", "colours/val: 20 images, classes 2: blue, red"));
    const { eval: held, ...rest } = results("learned");
    expect(rest).toMatchObject({
      status: "completed",
      steps: 120,
      classes: ["blue", "red"],
      rows: { train: 120, eval: 20 },
    });
    // Noise of one colour each: a model that learned anything separates them.
    expect(held.accuracy).toBeGreaterThan(0.9);

    const args = ["--model", "vit", "--adapter", "learned", "--data", "colours/val", "--json"];
    expect(JSON.parse((await loko(["eval", ...args])).stdout)).toEqual(held);
  });

  test("repeats itself by the seed, whatever the number of threads", async () => {
    const some = ["--max-steps", "30", "--optimizer", "adamw", "--batch-size", "4"];
    const adapters = [];
    for (const [workers, seed] of [
      ["0", "3"],
      ["3", "3"],
      ["1", "4"],
    ] as const) {
      const output = `out-${workers}-${seed}`;
      const run = await train("vit", output, ...some, "--workers", workers, "--seed", seed);
      expect(run.code).toBe(0);
      adapters.push(readFileSync(join(dir, output, "adapter_model.safetensors")));
    }
    expect(adapters[1]!.equals(adapters[0]!)).toBe(true);
    expect(adapters[2]!.equals(adapters[0]!)).toBe(false);
  });

  test("numbers the classes as a model does that has their names", async () => {
    const run = await train("named", "by-name", "--max-steps", "1");
    expect(run.code).toBe(0);
    expect(results("by-name").classes).toEqual(["red", "blue"]);
    expect(run.stderr).not.toContain("LOKO_CLASSES");
  });

  test("takes classes from a file, and warns when none is known to the model", async () => {
    writeFileSync(join(dir, "classes.txt"), "red\r\nblue\n\n");
    const run = await train("vit", "listed", "--classes", "classes.txt", "--max-steps", "1");
    expect(run.code).toBe(0);
    expect(results("listed").classes).toEqual(["red", "blue"]);
    writeModel("other", 2, ["cat", "dog"]);
    const other = await train("other", "unknown", "--max-steps", "1");
    expect(other.code).toBe(0);
    expect(other.stderr).toContain("LOKO_CLASSES");
  });

  test.each<[string, string[], string, string]>([
    ["more classes than labels", ["--model", "one"], "ERR_NUM_LABELS", "--num-labels 2 and"],
    ["names of which the model knows some", ["--model", "half"], "ERR_LABEL_UNKNOWN", '"blue"'],
    [
      "a class that is not listed",
      ["--classes", "red.txt"],
      "ERR_LABEL_UNKNOWN",
      "colours/train/blue",
    ],
    [
      "a label that the model has not",
      ["--train", imageFile("binary.parquet")],
      "ERR_LABEL_RANGE",
      "binary.parquet: row 3: expected a label in [0, 2)",
    ],
    ["a list of nothing", ["--classes", "empty.txt"], "ERR_DATA_FORMAT", "empty.txt"],
    ["a folder without classes", ["--train", "colours/val/red"], "ERR_DATA_FORMAT", "no subfolder"],
    [
      "a column of texts",
      ["--text-column", "a"],
      "ERR_UNSUPPORTED",
      "--text-column is not for images",
    ],
    ["a format of texts", ["--format", "tsv"], "ERR_UNSUPPORTED", "tsv is a format of texts"],
    ["a processor of an unfit size", ["--model", "odd"], "ERR_SHAPE_MISMATCH", "images of 20x20"],
    ["a processor of grey images", ["--model", "grey-made"], "ERR_SHAPE_MISMATCH", "1x16x16"],
    [
      "a model without a processor",
      ["--model", "bare"],
      "ERR_FILE_NOT_FOUND",
      "preprocessor_config",
    ],
  ])("refuses before the training: %s", async (_, args, error, words) => {
    if (args[0] === "--model") {
      const [, name] = args as [string, string];
      writeModel(name, name === "one" ? 1 : 2, name === "half" ? ["red", "green"] : undefined);
      const processor = join(dir, name, "preprocessor_config.json");
      if (name === "one") {
        const config = join(dir, name, "config.json");
        const changed = {
          ...JSON.parse(readFileSync(config, "utf8")),
          problem_type: "single_label_classification",
        };
        writeFileSync(config, JSON.stringify(changed));
      }
      const grey = { image_mean: [0.5], image_std: [0.5] };
      const changes = name === "odd" ? { size: 20 } : name === "grey-made" ? grey : {};
      writeFileSync(processor, JSON.stringify({ ...PROCESSOR, ...changes }));
      if (name === "bare") rmSync(processor);
    }
    writeFileSync(join(dir, "red.txt"), "red\n");
    writeFileSync(join(dir, "empty.txt"), "\n");
    const { code, stdout, stderr } = await train("vit", "refused", ...args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(new RegExp(`^error ${error}: .+\\n$`));
    expect(stderr).toContain(words);
  });

  test("stops at a damaged image with what it has learned, or leaves it out", async () => {
    mkdirSync(join(dir, "damaged/a"), { recursive: true });
    const jpeg = readFileSync(join(dir, "colours/val/red/0.jpg"));
    for (let i = 0; i < 8; i++) {
      writeFileSync(join(dir, `damaged/a/${i}.jpg`), i === 5 ? jpeg.subarray(0, 300) : jpeg);
    }
    const data = ["--train", "damaged", "--workers", "1"];
    const strict = await train("vit", "strict", ...data);
    expect(strict.code).toBe(1);
    expect(strict.stderr).toMatch(/error ERR_IMAGE_FORMAT: damaged\/a\/5\.jpg: damaged JPEG image/);
    expect(results("strict").status).toBe("failed");
    const lenient = await train("vit", "lenient", ...data, "--on-error", "skip");
    expect(lenient.code).toBe(0);
    expect(lenient.stderr).toContain("LOKO_IMAGE_SKIPPED");
    expect(results("lenient")).toMatchObject({ status: "completed", steps: 7 });
  });

  test("loads the model for the images that the processor makes", async () => {
    writeModel("wide", 2);
    const processor = join(dir, "wide/preprocessor_config.json");
    writeFileSync(processor, JSON.stringify({ ...PROCESSOR, size: 32 }));
    const run = await train("wide", "enlarged", "--max-steps", "2");
    expect(run).toMatchObject({ code: 0, signal: null });
    const adapted = ["--model", "wide", "--adapter", "enlarged", "--data", "colours/val"];
    expect((await loko(["eval", ...adapted])).code).toBe(0);
    expect((await loko(["predict", ...adapted])).stdout.trim().split("\n")).toHaveLength(20);
  });

  test("reads Parquet with the names of its classes", async () => {
    writeModel("insects", 3);
    const data = ["--train", imageFile("images.parquet"), "--epochs", "2"];
    const run = await train("insects", "parquet", ...data);
    expect(run.code).toBe(0);
    expect(run.stdout).toMatch(/images\.parquet: 11 images, classes 3: ant, bee, cat$/m);
    expect(results("parquet").steps).toBe(22);
  });
});

describe("loko predict with images", () => {
  const predict = (...args: string[]) =>
    loko(["predict", "--model", "vit", "--adapter", "learned", ...args]);

  test("labels one image, a folder, and the paths on stdin", async () => {
    const named = ["--classes", "learned/results.json"];
    const one = await predict("--image", "colours/val/red/3.jpg", ...named);
    expect(one).toMatchObject({ code: 0, stderr: "" });
    expect(one.stdout).toMatch(/^red\t0\.\d{4}\n$/);
    expect((await predict("--image", "colours/val/red/3.jpg")).stdout).toMatch(/^LABEL_1\t/);

    const folder = await predict("--data", "colours/val", "--json", ...named);
    const lines = folder.stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(lines).toHaveLength(20);
    expect(lines[0]).toMatchObject({ row: 1, image: "colours/val/blue/0.jpg" });
    const right = lines.filter(({ image, label }) => image.includes(`/${label}/`));
    expect(right.length).toBeGreaterThan(18);
    expect(Object.keys(lines[0].probabilities)).toEqual(["blue", "red"]);

    // Without classes among its folders, too.
    expect((await predict("--data", "colours/val/red")).stdout.split("\n")).toHaveLength(11);
    const input = "colours/val/red/3.jpg\ncolours/val/blue/3.jpg\n";
    const lined = await loko(["predict", "--model", "vit", "--adapter", "learned", ...named], {
      input,
    });
    expect(lined.stdout).toMatch(/^red\t.+\nblue\t.+\n$/);
    expect(lined.stdout.split("\n")[0]).toBe(one.stdout.trim());
  });

  test("answers each line at once, and ends when nobody reads on though stdin stays open", async () => {
    const args = [LOKO, "predict", "--model", "vit", "--adapter", "learned"];
    const child = spawn(process.execPath, args, {
      cwd: dir,
      timeout: 50_000,
      killSignal: "SIGKILL",
    });
    const ended = once(child, "close");
    child.stdin.on("error", () => {}); // it is gone in the end
    child.stdin.write("colours/val/red/3.jpg\n");
    const [answer] = await once(child.stdout, "data");
    expect(String(answer)).toMatch(/^LABEL_1\t/);
    child.stdout.destroy();
    // The first one finds out.
    for (let i = 0; i < 3; i++) child.stdin.write("colours/val/red/3.jpg\n");
    expect(await ended).toEqual([0, null]);
  });

  test("refuses what is not there, no image, or not for images", async () => {
    writeFileSync(join(dir, "three.txt"), "red\nblue\ngreen\n");
    for (const [args, code, words] of [
      [["--image", "nope.jpg"], 1, "ERR_FILE_NOT_FOUND: nope.jpg"],
      [["--image", "vit/config.json"], 1, "ERR_IMAGE_FORMAT: vit/config.json"],
      [["--image", "a", "--classes", "three.txt"], 1, "ERR_NUM_LABELS: three.txt: 3 classes"],
      [["--text", "a"], 1, "--text is not for images"],
      [["--image", "a", "--data", "b"], 2, "choose one"],
      [["--image", "a", "--text", "b"], 2, "choose one"],
    ] as const) {
      const run = await predict(...args);
      expect(run).toMatchObject({ code, stdout: "", stderr: expect.stringContaining(words) });
    }
  });

  test("works with a model of grey images", async () => {
    const grey = vitFolder("grey");
    const processor = { ...PROCESSOR, size: 9, image_mean: [0.5], image_std: [0.5] };
    mkdirSync(join(dir, "grey"));
    for (const file of ["config.json", "model.safetensors"]) {
      writeFileSync(join(dir, "grey", file), readFileSync(join(grey, file)));
    }
    writeFileSync(join(dir, "grey/preprocessor_config.json"), JSON.stringify(processor));
    const args = ["predict", "--model", "grey", "--image", imageFile("grey.png")];
    expect((await loko(args)).stdout).toMatch(/^LABEL_[01]\t0\.\d{4}\n$/);
  });
});
