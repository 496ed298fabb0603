import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { textDataset } from "../../lib/data/text.js";
import { Model } from "../../lib/model.js";
import { Tokenizer } from "../../lib/text/tokenizer.js";
import { encodeExamples } from "../../lib/train/encode.js";
import { evaluate } from "../../lib/train/evaluate.js";
import { type RunOptions, runLoko } from "./loko.js";
import { drawSentences, writeSentences, writeSyntheticBert } from "./synthetic-bert.js";

const LABELS = ["negative", "positive"];

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "loko-train-"));
  writeSyntheticBert(join(dir, "bert"), { hidden: 64, layers: 2, heads: 4, labels: LABELS });
  // A step of this one takes several milliseconds: the training can be stopped in the middle.
  writeSyntheticBert(join(dir, "slow"), { hidden: 256, layers: 6, heads: 4, labels: LABELS });
  writeSentences(join(dir, "train.tsv"), 2000, 1);
  writeSentences(join(dir, "dev.tsv"), 300, 99);
});
afterAll(() => rmSync(dir, { recursive: true }));

const loko = (args: string[], options: RunOptions = {}) => runLoko(args, { cwd: dir, ...options });
const train = (output: string, ...args: string[]) =>
  loko(["train", "--model", "bert", "--train", "train.tsv", "--output", output, ...args]);
const results = (output: string) =>
  JSON.parse(readFileSync(join(dir, output, "results.json"), "utf8"));

/** The held-out accuracy of an adapter folder, by the library. */
async function accuracyOf(model: string, adapter: string): Promise<number> {
  using loaded = await Model.fromPretrained(join(dir, model));
  await loaded.loadAdapter(join(dir, adapter));
  const tokenizer = await Tokenizer.fromPretrained(join(dir, model));
  const examples = textDataset(join(dir, "dev.tsv"), { label2id: loaded.label2id });
  const batches = encodeExamples(tokenizer, examples, { batchSize: 8 });
  return (await evaluate(loaded, batches)).accuracy!;
}

describe("loko train", () => {
  test("learns 2,000 sentences, saves the adapter and prints the metrics", async () => {
    const metrics = "accuracy,f1,matthewsCorrelation";
    const run = await train("learned", "--eval", "dev.tsv", "--metrics", metrics);
    expect(run).toMatchObject({ code: 0, signal: null });
    expect(run.stdout).toMatch(/^parameters +4,226 trainable of 116,932 \(3\.61 %\)$/m);
    expect(run.stdout).toMatch(/^train +train\.tsv: 2,000 rows$/m);
    expect(run.stdout).toMatch(/^optimizer +loko \(no learning rate\)$/m);
    expect(run.stdout).toMatch(/^ +samples +loss +accuracy +f1 +matthewsCorrelation$/m);
    expect(run.stdout).toMatch(/^online, epoch 1 +2,000 +\d\.\d{4} +0\.\d{4} +/m);
    expect(run.stdout).toMatch(/^held-out +300 +\d\.\d{4} +0\.\d{4} +/m);
    // Not a terminal: plain lines, one for each tenth, none of them rewritten.
    expect(run.stderr.trim().split("\n")).toHaveLength(10);
    expect(run.stderr).not.toContain("\u001b");

    const { eval: held, online, ...rest } = results("learned");
    expect(rest).toMatchObject({ status: "completed", steps: 2000, skipped: {} });
    expect(online).toHaveLength(1);
    // Half of the labels are 1; the model begins with a random head.
    expect(held.accuracy).toBeGreaterThan(0.9);
    expect(held.accuracy).toBe(await accuracyOf("bert", "learned"));
    expect(run.stdout).toContain(held.accuracy.toFixed(4));

    const evaluated = await loko(
      ["eval", "--model", "bert", "--adapter", "learned", "--data", "dev.tsv", "--json"].concat(
        "--metrics",
        metrics,
      ),
    );
    expect(JSON.parse(evaluated.stdout)).toEqual(held);
  });

  test("reads a configuration file, and repeats itself by the seed", async () => {
    const config = { model: "bert", train: "train.tsv", maxSteps: 60, optimizer: "adamw", seed: 7 };
    const more = { batchSize: 8, lr: 0.01, r: 4, targetModules: ["query"], json: true };
    writeFileSync(join(dir, "run.json"), JSON.stringify({ ...config, ...more }));
    const first = await loko(["train", "run.json", "--output", "one"]);
    const second = await loko(["train", "run.json", "--output", "two"]);
    const third = await loko(["train", "run.json", "--output", "three", "--seed", "8"]);
    const shown = JSON.parse(first.stdout);
    expect(shown).toEqual(results("one"));
    expect(shown).toMatchObject({ steps: 60, options: { ...config, lr: 0.01, output: "one" } });
    expect(shown.online[0].samples).toBe(480);
    expect(first.stderr).toBe("");
    const adapter = (name: string) => readFileSync(join(dir, name, "adapter_model.safetensors"));
    expect(adapter("two").equals(adapter("one"))).toBe(true);
    expect(adapter("three").equals(adapter("one"))).toBe(false);
    expect([second.code, third.code]).toEqual([0, 0]);
  });

  test("goes on with an adapter, over several epochs", async () => {
    const { stdout, code } = await train("more", "--adapter", "learned", "--epochs", "2");
    expect(code).toBe(0);
    expect(stdout).toContain("continued from learned");
    const { online, steps } = results("more");
    expect(steps).toBe(4000);
    // Begins where the other run ended: far above chance from the first samples on.
    for (const epoch of online) expect(epoch.accuracy).toBeGreaterThan(0.9);
  });

  test("keeps an adapter that is there, unless it may overwrite it", async () => {
    const before = readFileSync(join(dir, "learned/adapter_model.safetensors"));
    const refused = await train("learned", "--max-steps", "1");
    expect(refused).toMatchObject({ code: 1, stdout: "" });
    expect(refused.stderr).toMatch(/^error ERR_OUTPUT_EXISTS: learned: /);
    expect(readFileSync(join(dir, "learned/adapter_model.safetensors")).equals(before)).toBe(true);
    const replaced = await train("one", "--max-steps", "1", "--overwrite");
    expect(replaced.code).toBe(0);
    expect(results("one").steps).toBe(1);
  });

  test("ends with 1 when it has diverged, and reports the steps that learned nothing", async () => {
    const { stdout, stderr, code } = await train(
      "diverged",
      ...["--optimizer", "adamw", "--lr", "1e30", "--max-steps", "20"],
    );
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error ERR_DIVERGED: .+smaller --lr\.$/m);
    expect(stdout).toMatch(/^optimizer +adamw/m);
    expect(results("diverged")).toMatchObject({
      status: "failed",
      skipped: { "non-finite-logits": 19 },
    });
  });

  test("saves beside the output when that has become impossible meanwhile", async () => {
    const run = await loko(
      [
        "train",
        "--model",
        "slow",
        "--train",
        "train.tsv",
        "--output",
        "taken",
        "--max-steps",
        "600",
      ],
      {
        onProgress() {
          mkdirSync(join(dir, "taken"), { recursive: true });
          writeFileSync(join(dir, "taken", "note.txt"), "somebody else's");
        },
      },
    );
    expect(run.code).toBe(1);
    const [, rescue] = /ERR_OUTPUT_EXISTS.*The adapter was saved to (\S+) instead\./.exec(
      run.stderr,
    )!;
    expect(await accuracyOf("slow", basename(rescue!))).toBeGreaterThan(0.4);
    expect(readdirSync(join(dir, "taken"))).toEqual(["note.txt"]);
  });

  test("trains a regression", async () => {
    writeSyntheticBert(join(dir, "score"), { hidden: 64, layers: 2, heads: 4, labels: ["score"] });
    const lines = drawSentences(1000).map(({ text, label }) => `${text}\t${4 * label - 2}`);
    writeFileSync(join(dir, "scores.tsv"), `sentence\tlabel\n${lines.join("\n")}\n`);
    const args = ["--model", "score", "--train", "scores.tsv", "--eval", "scores.tsv"];
    const { code, stdout } = await loko(["train", ...args, "--output", "scored", "--epochs", "5"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^labels +1 number \(regression\)$/m);
    expect(stdout).toMatch(/^ +samples +loss +meanSquaredError$/m);
    // The targets are -2 and 2: a constant would have 4.
    expect(results("scored").eval.meanSquaredError).toBeLessThan(1);
    const predicted = await loko([
      ...["predict", "--model", "score", "--adapter", "scored", "--text", "the film was great"],
    ]);
    expect(Number(predicted.stdout)).toBeGreaterThan(0);
  });
});

describe.runIf(process.platform !== "win32")("loko train, when it is stopped", () => {
  const slow = (output: string, signals: NodeJS.Signals[], ...args: string[]) =>
    loko(["train", "--model", "slow", "--train", "train.tsv", "--output", output, ...args], {
      onProgress(stderr, child) {
        if (/^epoch 1\/\d+: \d+ of/m.test(stderr)) for (const s of signals.splice(0)) child.kill(s);
      },
    });

  test.each<[NodeJS.Signals, number]>([
    ["SIGINT", 130],
    ["SIGTERM", 143],
    ["SIGHUP", 129],
  ])("by %s, finishes the step, saves a usable adapter and ends with %d", async (name, code) => {
    const output = `stopped-${name}`;
    const run = await slow(output, [name], "--eval", "dev.tsv");
    expect({ code: run.code, signal: run.signal }).toEqual({ code, signal: null });
    expect(run.stderr).toContain("Stopping after this step to save the adapter");
    expect(run.stdout).toMatch(
      /^stopped +after \d+ of 2,000 steps; the adapter so far is complete$/m,
    );
    const { status, steps, online, eval: held } = results(output);
    expect({ status, held }).toEqual({ status: "interrupted", held: undefined });
    expect(steps).toBeGreaterThanOrEqual(200);
    expect(steps).toBeLessThan(2000);
    expect(online[0].samples).toBe(steps);
    expect(await accuracyOf("slow", output)).toBeGreaterThan(0.4);
  });

  test("twice, ends at once and leaves nothing", async () => {
    // A step of 500 sentences takes a second: the second signal comes before it is over.
    const run = await loko(
      [
        ...["train", "--model", "slow", "--train", "train.tsv", "--output", "nothing"],
        ...["--optimizer", "sgd", "--batch-size", "500", "--max-steps", "3"],
      ],
      {
        onProgress(stderr, child) {
          if (stderr.includes("Stopping after")) child.kill("SIGINT");
          else if (stderr.includes("epoch 1/1: 1 of 3")) child.kill("SIGINT");
        },
      },
    );
    expect({ code: run.code, signal: run.signal }).toEqual({ code: 130, signal: null });
    expect(readdirSync(dir).filter((name) => /nothing/.test(name))).toEqual([]);
  });
});

test("loko train, when its data change underneath, saves what it has learned and ends with 1", async () => {
  const rows = join(dir, "changing.tsv");
  writeSentences(rows, 200, 1);
  const run = await loko(
    ["train", "--model", "slow", "--train", "changing.tsv", "--output", "failed", "--epochs", "2"],
    {
      // The second pass reads the file again. Renamed, since a file being written is empty for a moment.
      onProgress: (stderr) => {
        if (!stderr.includes("epoch 1/2")) return;
        writeFileSync(`${rows}.new`, "sentence\tlabel\nfine\tperhaps\n");
        renameSync(`${rows}.new`, rows);
      },
    },
  );
  expect({ code: run.code, signal: run.signal }).toEqual({ code: 1, signal: null });
  expect(run.stderr).toContain("error ERR_LABEL_UNKNOWN");
  const { status, steps, online } = results("failed");
  expect({ status, steps }).toEqual({ status: "failed", steps: 200 });
  expect(online).toHaveLength(1);
  expect(await accuracyOf("slow", "failed")).toBeGreaterThan(0.4);
});

describe("loko predict", () => {
  const predict = (args: string[], options: RunOptions = {}) =>
    loko(["predict", "--model", "bert", "--adapter", "learned", ...args], options);

  test("labels a text, a pair, and the lines of stdin", async () => {
    const good = await predict(["--text", "the film was great"]);
    expect(good).toMatchObject({ code: 0, stderr: "" });
    expect(good.stdout).toMatch(/^positive\t(0\.[5-9]\d{3}|1\.0000)\n$/);
    const lines = await predict([], { input: "the film was great\nthe boring plot\n" });
    expect(lines.stdout.split("\n").map((line) => line.split("\t")[0])).toEqual([
      "positive",
      "negative",
      "",
    ]);
    expect(lines.stdout.startsWith(good.stdout)).toBe(true);
    const pair = await predict(["--text", "the film", "--pair", "boring", "--json"]);
    expect(JSON.parse(pair.stdout)).toMatchObject({ row: 1, text: "the film", pair: "boring" });
    expect(await predict([], { input: "" })).toMatchObject({ code: 0, stdout: "" });
    const marked = await predict([], { input: "\ufeffthe film was great\r\n" });
    expect(marked.stdout).toBe(good.stdout);
    const damaged = await predict([], { input: Buffer.from("fine\na \xff film\n", "latin1") });
    expect(damaged.code).toBe(1);
    expect(damaged.stderr).toMatch(
      /^error ERR_DATA_FORMAT: standard input: line 2: is not valid UTF-8/,
    );
  });

  test("labels a file without labels, one JSON document a line", async () => {
    const sentences = drawSentences(20, 5);
    const lines = sentences.map(({ text }) => JSON.stringify({ text })).join("\n");
    writeFileSync(join(dir, "texts.jsonl"), lines);
    const { code, stdout, stderr } = await predict(["--data", "texts.jsonl", "--json"]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    const documents = stdout
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(documents.map(({ text }) => text)).toEqual(sentences.map(({ text }) => text));
    for (const { label, index, probability, probabilities } of documents) {
      expect(LABELS[index]).toBe(label);
      expect(probabilities[label]).toBe(probability);
      expect(Math.abs(probabilities.negative + probabilities.positive - 1)).toBeLessThan(1e-12);
    }
    const right = documents.filter(({ index }, i) => index === sentences[i]!.label);
    expect(right.length).toBeGreaterThanOrEqual(17);
  });

  test("ends quietly when nobody reads on", async () => {
    const input = "the film was great\n".repeat(20_000);
    const { code, stderr } = await predict([], {
      input,
      onOutput: (_, child) => child.stdout!.destroy(),
    });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  });

  test("warns of a head that is drawn at random", async () => {
    const { code, stderr } = await loko([
      ...["predict", "--model", "bert", "--text", "a", "--num-labels", "3"],
      "--ignore-mismatched-sizes",
    ]);
    expect(code).toBe(0);
    expect(stderr).toContain("LOKO_NEW_HEAD");
  });
});
