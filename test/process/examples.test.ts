import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Model } from "../../lib/model.js";
import { imageFile } from "../unit/images/helpers.js";
import { drawSentences, writeSyntheticBert } from "./synthetic-bert.js";

const ROOT = resolve(import.meta.dirname, "../..");
const output = mkdtempSync(join(tmpdir(), "loko-quickstart-"));
afterAll(() => rmSync(output, { recursive: true }));

const node = (...args: string[]) =>
  execFileSync(process.execPath, args, { cwd: ROOT, encoding: "utf8" });

describe("the quickstart", () => {
  test("ends with LoKO 20 points above the frozen model, and writes what it says", () => {
    node("node_modules/typescript/bin/tsc", "-p", "tsconfig.examples.json");
    const script = "build/examples/quickstart/quickstart.js";
    const printed = node(script, "--samples", "600", "--output", output);
    const summary = JSON.parse(readFileSync(join(output, "summary.json"), "utf8"));
    expect(summary.loko.onlineAccuracy - summary.frozen.onlineAccuracy).toBeGreaterThan(0.2);
    expect(summary.loko.skipped).toBe(0);
    for (const run of [summary.frozen, summary.loko, summary.adamw]) {
      expect(run.samplesPerSecond).toBeGreaterThan(0);
      expect(run.lastQuarterAccuracy).toBeGreaterThanOrEqual(0);
    }
    expect(summary.config).toMatchObject({ samples: 600, shift: "rotate90", seed: 0 });
    // Not a terminal: plain lines, none of them rewritten.
    expect(printed).toContain("LoKO: 600/600, online accuracy");
    expect(printed).not.toContain("\u001b");
    const svg = readFileSync(join(output, "accuracy.svg"), "utf8");
    expect(svg).toMatch(/^<\?xml[^>]*>\n<svg /);
    for (const name of ["LoKO", "AdamW", "frozen"]) expect(svg).toContain(`>${name} `);
  });

  test("says how it is used when it is used wrongly", () => {
    let message = "";
    try {
      execFileSync(
        process.execPath,
        ["build/examples/quickstart/quickstart.js", "--smaples", "4"],
        {
          cwd: ROOT,
          encoding: "utf8",
          stdio: "pipe",
        },
      );
    } catch (error) {
      const { stderr, status } = error as { stderr: string; status: number };
      message = stderr;
      expect(status).toBe(2);
    }
    expect(message).toContain("--smaples");
    expect(message).toContain("Usage: npm run quickstart");
  });
});

describe("the README", () => {
  const examples = [
    ...readFileSync(join(ROOT, "README.md"), "utf8").matchAll(/```ts\n([\s\S]*?)```/g),
  ].map(([, code]) => code!);
  // Inside the package, so that "loko" is this one.
  const folder = join(ROOT, "build/readme");
  beforeAll(() => {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
  });

  test("shows an example that runs as it stands", () => {
    const script = join(folder, "images.mjs");
    writeFileSync(script, examples[0]!);
    const lines = node(script).trim().split("\n");
    expect(lines).toHaveLength(10);
    for (const line of lines) expect(line).toMatch(/^\d+\.\d{3} [\d.]+$/);
  });

  test("shows an example of text that runs as it stands, where those files are", async () => {
    writeSyntheticBert(join(folder, "bert-base-uncased"), {
      hidden: 32,
      layers: 1,
      heads: 2,
      labels: ["negative", "positive"],
    });
    const rows = drawSentences(50).map(({ text, label }) => `${text}\t${label}`);
    mkdirSync(join(folder, "SST-2"));
    writeFileSync(join(folder, "SST-2/train.tsv"), `sentence\tlabel\n${rows.join("\n")}\n`);
    writeFileSync(join(folder, "text.mjs"), examples[1]!);
    const printed = execFileSync(process.execPath, ["text.mjs"], {
      cwd: folder,
      encoding: "utf8",
    });
    expect(printed.trim().split("\n")).toHaveLength(50);
    using merged = await Model.fromPretrained(join(folder, "sst2-model"));
    expect(merged.id2label).toEqual(["negative", "positive"]);
    using base = await Model.fromPretrained(join(folder, "bert-base-uncased"));
    await base.loadAdapter(join(folder, "sst2-adapter"));
    const inputs = { inputIds: Int32Array.of(2, 7, 9, 3), shape: [1, 4] };
    const expected = await (await base.forward(inputs)).data();
    const actual = await (await merged.forward(inputs)).data();
    // Merging rounds each weight once.
    actual.forEach((logit, i) => {
      expect(Math.abs(logit - expected[i]!)).toBeLessThan(1e-5);
    });
  });

  test("shows an example of images that runs as it stands, where those files are", () => {
    const dir = join(folder, "resnet-50");
    cpSync(join(ROOT, "test/fixtures/vision/resnet_early/base"), dir, { recursive: true });
    const processor = { image_processor_type: "ConvNextImageProcessor", size: 224 };
    writeFileSync(join(dir, "preprocessor_config.json"), JSON.stringify(processor));
    for (const [label, file] of [
      ["bengal", "photo-444.jpg"],
      ["boxer", "rgb.png"],
    ] as const) {
      mkdirSync(join(folder, "pets/train", label), { recursive: true });
      for (let i = 0; i < 3; i++) {
        cpSync(imageFile(file), join(folder, "pets/train", label, `${i}${file.slice(-4)}`));
      }
    }
    writeFileSync(join(folder, "folder.mjs"), examples[2]!);
    const printed = execFileSync(process.execPath, ["folder.mjs"], {
      cwd: folder,
      encoding: "utf8",
    });
    const accuracies = printed.trim().split("\n").map(Number);
    expect(accuracies).toHaveLength(6);
    for (const accuracy of accuracies) expect(accuracy).toBeLessThanOrEqual(1);
  });
});
