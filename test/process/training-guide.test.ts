import { execFileSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { writeSentences, writeSyntheticBert } from "./synthetic-bert.js";

const ROOT = resolve(import.meta.dirname, "../..");
// Inside the package, so that "loko" is this one.
const folder = join(ROOT, "build/training-guide");

describe("docs/training.md", () => {
  const examples = [
    ...readFileSync(join(ROOT, "docs/training.md"), "utf8").matchAll(/```ts\n([\s\S]*?)```/g),
  ].map(([, code]) => code!);

  beforeAll(() => {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    const labels = ["negative", "positive"];
    writeSyntheticBert(join(folder, "bert"), { hidden: 64, layers: 2, heads: 4, labels });
    writeSentences(join(folder, "train.tsv"), 3200, 1);
    writeSentences(join(folder, "dev.tsv"), 40, 99);
  });

  test("shows code that runs as it stands", () => {
    const [training, events, state] = examples;
    const before = `
const dataset = textDataset("train.tsv", { label2id });
const { signal } = new AbortController();
const { optimizer } = trainer;
`;
    // The second run begins anew beside the first one's checkpoints.
    const code = [
      training,
      "console.log(trainingLoss);",
      before,
      state,
      `rmSync("run", { recursive: true });`,
      events,
    ];
    const imports = 'import { rmSync } from "node:fs";';
    writeFileSync(join(folder, "guide.mjs"), [imports, ...code].join("\n"));
    const printed = execFileSync(process.execPath, ["guide.mjs"], {
      cwd: folder,
      encoding: "utf8",
    });
    const [loss, ...rest] = printed.trim().split("\n");
    // Of two classes, and log 2 is chance.
    expect(Number(loss)).toBeLessThan(Math.log(2) + 0.1);
    expect(rest.join()).toContain("learning_rate");
    const checkpoints = readdirSync(join(folder, "run")).filter((name) => /^checkpoint/.test(name));
    expect(checkpoints).toHaveLength(2);
    expect(readdirSync(join(folder, "adapter"))).toContain("adapter_model.safetensors");
  });
});
