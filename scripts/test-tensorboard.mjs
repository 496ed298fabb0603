// Trains a little, and lets TensorBoard's own reader compare its event files with the log:
//
//   node scripts/test-tensorboard.mjs
//
// LOKO_PYTHON: an interpreter with tensorboard, default python3. Without one it is skipped, with the reason.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Dataset, LoKO, Model, Trainer } from "../dist/index.js";

const path = (name) => fileURLToPath(new URL(`../test/${name}`, import.meta.url));
const python = process.env.LOKO_PYTHON ?? "python3";

if (spawnSync(python, ["-c", "import tensorboard"]).status !== 0) {
  console.log(`SKIPPED: ${python} has no tensorboard; LOKO_PYTHON may name one that has.`);
  process.exit(0);
}

const outputDir = mkdtempSync(join(tmpdir(), "loko-tensorboard-"));
try {
  const model = await Model.fromPretrained(path("fixtures/vit/odd/base"));
  await model.addAdapter({ r: 2 });
  const shape = [1, ...model.input.shape];
  const size = shape.reduce((a, b) => a * b);
  const samples = Array.from({ length: 30 }, (_, i) => ({
    inputs: { pixelValues: Float32Array.from({ length: size }, (_, j) => Math.sin(i + j)), shape },
    labels: Int32Array.of(i % 7),
  }));
  const trainer = new Trainer(model, new LoKO(model), {
    outputDir,
    epochs: 2,
    loggingSteps: 1,
    evalDataset: Dataset.from(samples.slice(0, 5)),
    evalStrategy: "steps",
    evalSteps: 10,
    reportTo: ["tensorboard", "jsonl"],
  });
  await trainer.train(Dataset.from(samples));
  model.dispose();
  const { status } = spawnSync(python, [path("interop/compare_events.py"), outputDir], {
    stdio: "inherit",
  });
  process.exitCode = status ?? 1;
} finally {
  rmSync(outputDir, { recursive: true });
}
