import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { openSafetensors } from "../../lib/io/safetensors.js";
import { imageFile, readImageFile } from "../unit/images/helpers.js";
import { vitConfig, writeCheckpoint } from "./synthetic.js";

const ROOT = resolve(import.meta.dirname, "../..");
// Inside the package, so that "loko" is this one.
const folder = join(ROOT, "build/images-guide");
const LABELS = ["tabby", "pug", "beagle"];

describe("docs/images.md", () => {
  const examples = [
    ...readFileSync(join(ROOT, "docs/images.md"), "utf8").matchAll(/```ts\n([\s\S]*?)```/g),
  ].map(([, code]) => code!);

  beforeAll(() => {
    rmSync(folder, { recursive: true, force: true });
    const model = join(folder, "vit-base-patch16-224");
    mkdirSync(model, { recursive: true });
    const size = { hidden: 16, layers: 1, heads: 2, image: 32, patch: 8, labels: LABELS.length };
    writeCheckpoint(model, { ...vitConfig(size), id2label: { ...LABELS } });
    const processor = { image_processor_type: "ViTImageProcessor", size: 32 };
    writeFileSync(join(model, "preprocessor_config.json"), JSON.stringify(processor));
    writeFileSync(join(folder, "cat.jpg"), readImageFile("photo-420.jpg"));
    writeFileSync(join(folder, "dog.png"), readImageFile("tall.png"));
    for (const [label, file] of [
      ["bengal", "photo-444.jpg"],
      ["boxer", "rgb.png"],
    ] as const) {
      mkdirSync(join(folder, "pets/train", label), { recursive: true });
      for (let i = 0; i < 60; i++) {
        const copy = join(folder, "pets/train", label, `${i}${file.slice(-4)}`);
        writeFileSync(copy, readFileSync(imageFile(file)));
      }
    }
  });

  const run = (name: string, code: string) => {
    writeFileSync(join(folder, name), code);
    const printed = execFileSync(process.execPath, [name], { cwd: folder, encoding: "utf8" });
    return printed.trim().split("\n");
  };

  test("shows how to go from files to labels, in code that runs as it stands", () => {
    const lines = run("predict.mjs", examples[0]!);
    expect(lines).toHaveLength(2);
    for (const line of lines) expect(LABELS).toContain(line);
  });

  test("shows how to go from a folder to an adapter, in code that runs as it stands", async () => {
    const [progress, classes] = run("train.mjs", examples[1]!);
    expect(progress).toMatch(/^100 [01]\.\d{3}$/);
    expect(classes).toBe("bengal,boxer");
    const adapter = join(folder, "pets-adapter/adapter_model.safetensors");
    const { tensors } = await openSafetensors(adapter);
    expect(tensors.get("base_model.model.classifier.weight")!.shape).toEqual([2, 16]);
  });
});
