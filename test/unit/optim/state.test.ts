import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openSafetensors } from "../../../lib/io/safetensors.js";
import { Model, type ModelOptions } from "../../../lib/model.js";
import { AdaGrad, Adam, AdamW, AMSGrad, RMSProp, SGD } from "../../../lib/optim/gradient.js";
import { LoKO } from "../../../lib/optim/loko.js";
import type { Optimizer } from "../../../lib/optim/optimizer.js";
import { type ImageFixture, loadAdapted, readVit, vitFolder } from "../../parity/fixtures.js";
import { expectError } from "../model/checkpoints.js";
import { images, lossGradient } from "./samples.js";

let dir: string;
let vit: ImageFixture;
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), "loko-state-"));
  vit = await readVit("odd");
});
afterAll(() => rmSync(dir, { recursive: true }));

const load = (options?: ModelOptions) => loadAdapted("odd", vit, options);
const step = (optimizer: Optimizer, i: number) =>
  optimizer.step(images(1, i), Int32Array.of((3 * i) % 7));

const OPTIMIZERS: readonly [string, (model: Model) => Optimizer][] = [
  ["LoKO", (model) => new LoKO(model)],
  ["LoKO of the paper", (model) => LoKO.paper(model)],
  [
    "LoKO with residual noise",
    (model) => new LoKO(model, { noise: "residual", covariance: "vdekf" }),
  ],
  [
    "LoKO with process noise",
    (model) =>
      new LoKO(model, { processNoiseRatio: 1e-3, p0: { loraA: 0.1, loraB: 1, head: 0.3 } }),
  ],
  ["SGD", (model) => new SGD(model, { lr: 0.01, momentum: 0.9 })],
  ["AdaGrad", (model) => new AdaGrad(model, { lrDecay: 0.1 })],
  ["RMSProp", (model) => new RMSProp(model, { centered: true, momentum: 0.5 })],
  ["Adam", (model) => new Adam(model)],
  ["AdamW", (model) => new AdamW(model)],
  ["AMSGrad", (model) => new AMSGrad(model)],
];

describe("saveState and loadState", () => {
  test.each(OPTIMIZERS)("of %s: what follows is equal bit by bit", async (name, create) => {
    using model = await load();
    const optimizer = create(model);
    for (let i = 0; i < 5; i++) await step(optimizer, i);
    const file = join(dir, `${name}.safetensors`);
    await optimizer.saveState(file);
    const expected = [];
    for (let i = 5; i < 9; i++) expected.push(await step(optimizer, i));

    using other = await load({ threads: 1 });
    await other.writeParameters((await other.readParameters()).fill(0.5));
    const resumed = create(other);
    await step(resumed, 77); // must be forgotten
    await resumed.loadState(file);
    for (let i = 5; i < 9; i++) expect(await step(resumed, i)).toEqual(expected[i - 5]);
    expect(await other.readParameters()).toEqual(await model.readParameters());
    await optimizer.saveState(join(dir, "a"));
    await resumed.saveState(join(dir, "b"));
    expect(readFileSync(join(dir, "b")).equals(readFileSync(join(dir, "a")))).toBe(true);
  });

  test("hold before the first step, and on the reference backend in float64", async () => {
    using model = await load({ device: "ref" });
    const optimizer = new LoKO(model, { noise: "ema" });
    await optimizer.saveState(join(dir, "fresh"));
    await step(optimizer, 1);
    await optimizer.saveState(join(dir, "ref"));
    const { tensors, metadata } = await openSafetensors(join(dir, "ref"));
    // θ and p are no float32 numbers there.
    expect(tensors.get("theta")!.dtype).toBe("F64");
    expect(tensors.get("R")!.shape).toEqual([7, 7]);
    expect(metadata.get("optimizer")).toBe("loko");
    await optimizer.loadState(join(dir, "fresh"));
    await step(optimizer, 1);
    await optimizer.saveState(join(dir, "again"));
    expect(readFileSync(join(dir, "again")).equals(readFileSync(join(dir, "ref")))).toBe(true);
  });

  test("replace a file whole, and leave none that was begun", async () => {
    using model = await load();
    const optimizer = new AdamW(model);
    await optimizer.saveState(join(dir, "once"));
    await optimizer.saveState(join(dir, "once"));
    await expectError(() => optimizer.saveState(join(dir, "none/x")), "ERR_FILE_WRITE", "none/x");
    await expectError(() => optimizer.saveState(dir), "ERR_FILE_WRITE", "is a folder");
    await expectError(() => optimizer.saveState("/dev/null"), "ERR_FILE_WRITE", "no regular file");
    await expectError(() => optimizer.saveState(3 as never), "ERR_INPUT_TYPE");
    expect(readdirSync(dir).filter((name) => name.startsWith("."))).toEqual([]);
    expect(readdirSync(join(dir, "..")).filter((name) => name.startsWith(".loko-state"))).toEqual(
      [],
    );
  });
});

describe("loadState refuses, and changes nothing:", () => {
  let model: Model;
  let optimizer: Optimizer;
  let file: string;
  beforeAll(async () => {
    model = await load();
    optimizer = new AdamW(model, { lr: 0.01 });
    await step(optimizer, 1);
    file = join(dir, "adamw.safetensors");
    await optimizer.saveState(file);
  });
  afterAll(() => model.dispose());

  async function refuses(other: Optimizer, path: string, code: string, ...words: string[]) {
    await step(other, 3);
    const before = join(dir, "before");
    await other.saveState(before);
    await expectError(() => other.loadState(path), code, ...words);
    await other.saveState(join(dir, "after"));
    expect(readFileSync(join(dir, "after")).equals(readFileSync(before))).toBe(true);
  }

  test("another optimizer, and other options", async () => {
    using same = await load();
    const mismatch = "ERR_CHECKPOINT_MISMATCH";
    await refuses(new LoKO(same), file, mismatch, "another optimizer", '"loko"', '"adamw"');
    await refuses(new Adam(same, { lr: 0.01 }), file, mismatch, '"adam"');
    await refuses(new AdamW(same, { lr: 0.02 }), file, mismatch, "other options", "0.02", "0.01");
  });

  test("a model with other parameters, another scale, or another type", async () => {
    using ranked = await Model.fromPretrained(vitFolder("odd"));
    await ranked.addAdapter({ ...vit.options, r: 3 });
    await refuses(
      new AdamW(ranked, { lr: 0.01 }),
      file,
      "ERR_CHECKPOINT_MISMATCH",
      "other trainable parameters: number 0 must be",
      "[3, ",
    );
    using scaled = await Model.fromPretrained(vitFolder("odd"));
    await scaled.addAdapter({ ...vit.options, loraAlpha: 77 });
    await refuses(
      new AdamW(scaled, { lr: 0.01 }),
      file,
      "ERR_CHECKPOINT_MISMATCH",
      "another scale",
    );
  });

  test("where the adapter that it was made for has been merged", async () => {
    using merged = await load();
    const old = new AdamW(merged, { lr: 0.01 });
    await merged.mergeAdapter();
    await expectError(() => old.loadState(file), "ERR_OPTION", "no longer has");
    await expectError(() => old.saveState(join(dir, "merged")), "ERR_OPTION", "no longer has");
  });

  test("a file that is cut short, of no optimizer, of another version, or with bad numbers", async () => {
    const bytes = readFileSync(file);
    const bad = join(dir, "bad");
    writeFileSync(bad, bytes);
    truncateSync(bad, bytes.length - 5);
    await refuses(optimizer, bad, "ERR_SAFETENSORS_TRUNCATED");
    await refuses(optimizer, join(dir, "nowhere"), "ERR_FILE_NOT_FOUND");
    const adapter = new URL(
      "../../fixtures/vit/odd/adapter/adapter_model.safetensors",
      import.meta.url,
    );
    await refuses(optimizer, adapter.pathname, "ERR_CHECKPOINT_FORMAT", "loko_state");

    const version = Buffer.from(bytes);
    version.write('"loko_state":"9"', bytes.indexOf('"loko_state":"1"'));
    writeFileSync(bad, version);
    await refuses(optimizer, bad, "ERR_CHECKPOINT_FORMAT", 'version "9"');

    const { tensors } = await openSafetensors(file);
    const patch = (name: string, value: number) => {
      const copy = Buffer.from(bytes);
      const { byteOffset, dtype } = tensors.get(name)!;
      if (dtype === "F64") copy.writeDoubleLE(value, byteOffset);
      else copy.writeFloatLE(value, byteOffset);
      writeFileSync(bad, copy);
    };
    patch("steps", 1.5);
    await refuses(optimizer, bad, "ERR_CHECKPOINT_FORMAT", '"steps" must be a count');
    patch("exp_avg_sq", Number.NaN);
    await refuses(optimizer, bad, "ERR_CHECKPOINT_FORMAT", '"exp_avg_sq" must be finite, got nan');
  });
});

describe("stepWith, which the Trainer calls,", () => {
  const labels = Int32Array.of(1, 5, 2);
  const one = (i: number) => {
    const { pixelValues } = images(3);
    return { pixelValues: pixelValues.slice(768 * i, 768 * (i + 1)), shape: [1, 3, 16, 16] };
  };

  test("accumulates uneven batches to the gradient of one large batch, and clips it", async () => {
    using model = await load();
    const theta = await model.readParameters();
    const gradient = await lossGradient(model, images(3), labels);
    const norm = Math.hypot(...gradient);
    const optimizer = new SGD(model, { lr: 1 });
    const { pixelValues } = images(3);
    const two = { pixelValues: pixelValues.slice(0, 2 * 768), shape: [2, 3, 16, 16] };
    const first = await optimizer.stepWith(two, labels.slice(0, 2), {
      weight: 2 / 3,
      apply: false,
    });
    expect(first.gradientNorm).toBeUndefined();
    expect(await model.readParameters()).toEqual(theta);
    const last = await optimizer.stepWith(one(2), labels.slice(2), {
      weight: 1 / 3,
      begin: false,
      learningRate: 0.5,
      maxGradNorm: norm / 4,
    });
    // float32 forward and backward passes: 1e-5 of the norm, as elsewhere.
    expect(Math.abs(last.gradientNorm! / norm - 1)).toBeLessThan(1e-5);
    const after = await model.readParameters();
    const worst = after.reduce(
      (most, value, i) => Math.max(most, Math.abs(value - (theta[i]! - (0.5 * gradient[i]!) / 4))),
      0,
    );
    expect(worst).toBeLessThan(1e-5 * norm);
  });

  test("skips a whole step of which one batch is not finite, and nothing of the next one", async () => {
    using model = await load();
    const optimizer = new SGD(model, { lr: 1 });
    const theta = await model.readParameters();
    await model.writeParameters(theta.map(() => 1e38));
    const bad = await optimizer.stepWith(one(0), labels.slice(0, 1), { weight: 0.5, apply: false });
    expect(bad.skipped).not.toBeNull();
    await model.writeParameters(theta);
    const rest = { weight: 0.5, begin: false };
    const last = await optimizer.stepWith(one(1), labels.slice(1, 2), rest);
    expect(last.skipped).toBe(bad.skipped);
    expect(await model.readParameters()).toEqual(theta);
    expect((await optimizer.step(one(1), labels.slice(1, 2))).skipped).toBeNull();
  });

  test("drops the gradient of a step that was never finished", async () => {
    using model = await load();
    using other = await load();
    const [optimizer, fresh] = [new AdamW(model), new AdamW(other)];
    await optimizer.stepWith(one(0), labels.slice(0, 1), { apply: false });
    await optimizer.step(one(1), labels.slice(1, 2));
    await fresh.step(one(1), labels.slice(1, 2));
    expect(await model.readParameters()).toEqual(await other.readParameters());
  });

  test.each(OPTIMIZERS.slice(4))("knows the learning rate of %s by default", async (_, create) => {
    using model = await load();
    using other = await load();
    const Class = create(model).constructor as typeof SGD;
    const [plain, told] = [new Class(model), new Class(other)];
    await plain.step(one(1), labels.slice(1, 2));
    await told.stepWith(one(1), labels.slice(1, 2), { learningRate: told.learningRate });
    expect(await model.readParameters()).toEqual(await other.readParameters());
  });

  test("has nothing to control in LoKO", async () => {
    using model = await load();
    await expectError(
      () => new LoKO(model).stepWith(one(0), labels.slice(0, 1), { learningRate: 1 }),
      "ERR_UNSUPPORTED",
      "no learning rate",
    );
  });
});
