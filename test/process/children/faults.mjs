// faults.mjs <case> <model> <folder>: a fault from outside, and what the package makes of it.
import { readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { AdamW, LoKO, Model } from "../../../dist/index.js";
import { prepare } from "./common.mjs";

const [name, dir, folder] = process.argv.slice(2);
const print = (value) => console.log(JSON.stringify(value));
const bits = (array) => Buffer.from(array.buffer).toString("hex");

/** The code of the error, or "ok". */
async function codeOf(run) {
  try {
    await run();
    return "ok";
  } catch (error) {
    return error.code ?? String(error);
  }
}

/** Everything that writes, to folders in `folder`. */
async function save(model, optimizer, merged) {
  return {
    adapter: await codeOf(() => model.saveAdapter(join(folder, "adapter"))),
    state: await codeOf(() => optimizer.saveState(join(folder, "state.safetensors"))),
    model: await codeOf(() => merged.save(join(folder, "model"))),
    left: readdirSync(folder).sort(),
  };
}

const CASES = {
  // Two models take turns and overlap; both must end where each ends alone.
  async "two-models"() {
    const make = async (optimizerOf) => {
      const { model, sample } = await prepare(dir, { threads: 2 });
      return { model, sample, optimizer: optimizerOf(model) };
    };
    const kinds = [(model) => new LoKO(model), (model) => new AdamW(model)];
    const train = async ({ model, sample, optimizer }) => {
      for (let i = 0; i < 6; i++) await optimizer.step(sample.inputs, sample.labels);
      const theta = await model.readParameters();
      model.dispose();
      return bits(theta);
    };
    const alone = [];
    for (const kind of kinds) alone.push(await train(await make(kind)));
    const together = await Promise.all(kinds.map(async (kind) => train(await make(kind))));
    print({ equal: String(alone) === String(together), different: alone[0] !== alone[1] });
  },

  // Started under `ulimit -f`, or on a full disk.
  async save() {
    const { model, optimizer, sample } = await prepare(dir);
    const merged = await Model.fromPretrained(dir);
    await optimizer.step(sample.inputs, sample.labels);
    const codes = await save(model, optimizer, merged);
    const usable = await codeOf(() => optimizer.step(sample.inputs, sample.labels));
    print({ ...codes, usable });
  },

  // As nobody, to whom the folder does not belong: root may write everywhere.
  async "read-only"() {
    const { model, optimizer, sample } = await prepare(dir);
    const merged = await Model.fromPretrained(dir);
    if (process.getuid() === 0) {
      process.setgid(65534);
      process.setuid(65534);
    }
    const codes = await save(model, optimizer, merged);
    const usable = await codeOf(() => optimizer.step(sample.inputs, sample.labels));
    print({ ...codes, usable });
  },

  // The files of a model disappear while it is in use.
  async vanished() {
    const { model, optimizer, sample } = await prepare(dir);
    const other = await Model.fromPretrained(dir);
    rmSync(dir, { recursive: true });
    const step = await codeOf(() => optimizer.step(sample.inputs, sample.labels));
    const saveAdapter = await codeOf(() => model.saveAdapter(join(folder, "adapter")));
    const saveModel = await codeOf(() => other.save(join(folder, "model")));
    const load = await codeOf(() => Model.fromPretrained(dir));
    const left = readdirSync(folder).sort();
    print({ step, saveAdapter, saveModel, load, left });
  },

  // Started under `ulimit -v` with a little more than this needs without a folder, which it prints.
  async "out-of-memory"() {
    const { model, optimizer, sample } = await prepare(dir, { threads: 1 });
    await optimizer.step(sample.inputs, sample.labels);
    if (folder === undefined) {
      print({
        peak: Number(/^VmPeak:\s+(\d+)/m.exec(readFileSync("/proc/self/status", "utf8"))[1]),
      });
      return;
    }
    const start = join(folder, "start");
    await optimizer.saveState(start);
    await optimizer.step(sample.inputs, sample.labels);
    const expected = bits(await model.readParameters());
    await optimizer.loadState(start);
    const size = sample.inputs.pixelValues.length;
    const batch = 512;
    const shape = [batch, ...sample.inputs.shape.slice(1)];
    // Its numbers need 25 MB, and what is computed of them hundreds.
    const many = { pixelValues: new Float32Array(batch * size).fill(0.5), shape };
    const adamw = new AdamW(model);
    const labels = new Int32Array(batch);
    const codes = {
      forward: await codeOf(() => model.forward(many)),
      jacobian: await codeOf(() => model.jacobian(many)),
      step: await codeOf(() => adamw.step(many, labels)),
      again: await codeOf(() => adamw.step(many, labels)),
      load: await codeOf(() => Model.fromPretrained(dir, { threads: 1000 })),
    };
    // Nothing of it has left a trace: the next step is bit by bit what it would have been.
    await optimizer.step(sample.inputs, sample.labels);
    print({ ...codes, equal: expected === bits(await model.readParameters()) });
  },
};

await CASES[name]();
