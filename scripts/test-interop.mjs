// Exchanges adapters and models with Python in both directions and compares the logits:
//
//   node scripts/test-interop.mjs
//
// LOKO_PYTHON: interpreters with torch, transformers and peft, separated by ":". Default python3. Without
// one of them it is skipped, with the reason, and the exit code is 0. LOKO_SEED: of the random models.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Model } from "../dist/index.js";

// One case has a key that nobody knows, which is warned of.
process.removeAllListeners("warning");

const TOLERANCE = 1e-5;
const FAMILIES = ["vit", "dinov2", "resnet", "bert", "roberta"];
const SCRIPTS = fileURLToPath(new URL("../test/interop/", import.meta.url));

/** Models whose modules have other names in transformers 5. */
const RENAMED = ["vit", "dinov2"];

/** Adapters that loko makes itself; the others are those that PEFT made, read and written again. */
const TRANSFORMER_ADAPTERS = {
  plain: { r: 3, loraAlpha: 5 },
  rslora: { r: 3, loraAlpha: 5, useRslora: true },
  patterns: { r: 3, rankPattern: { value: 4, "layer.1.*query": 2 }, alphaPattern: { query: 7.5 } },
  excluded: {
    r: 2,
    targetModules: ["query", "output.dense"],
    excludeModules: ".*attention.output.*",
  },
  layers: { r: 3, layersToTransform: [1], layersPattern: "layer" },
  regex: { r: 2, targetModules: ".*\\.layer\\.[1]\\..*(query|key)" },
  all_linear: { r: 2, targetModules: "all-linear" },
  bias_lora_only: { r: 3, bias: "lora_only" },
  bias_all: { r: 3, bias: "all" },
  saved_modules: { r: 3, modulesToSave: ["intermediate.dense", "classifier"] },
  frozen_head: { r: 3, modulesToSave: [] },
};
// The biases behind DINOv2's layer scales cannot be trained.
const { bias_all: _, ...WITHOUT_ALL_BIASES } = TRANSFORMER_ADAPTERS;
const OWN_ADAPTERS = {
  vit: TRANSFORMER_ADAPTERS,
  bert: TRANSFORMER_ADAPTERS,
  roberta: TRANSFORMER_ADAPTERS,
  dinov2: {
    ...WITHOUT_ALL_BIASES,
    excluded: { r: 2, targetModules: ["query", "fc2"], excludeModules: ".*layer\\.0.*fc2" },
    saved_modules: { r: 3, modulesToSave: ["mlp.fc1", "classifier"] },
    patches: { r: 2, targetModules: ["projection", "fc1", "fc2"] },
  },
  resnet: {
    plain: { r: 3, loraAlpha: 5 },
    rslora: { r: 3, loraAlpha: 5, useRslora: true },
    patterns: {
      r: 3,
      rankPattern: { "layer.0.convolution": 2 },
      alphaPattern: { "shortcut.convolution": 7.5 },
    },
    excluded: { r: 2, excludeModules: ".*(embedder|shortcut).*" },
    layers: { r: 3, layersToTransform: [0], layersPattern: "stages" },
    regex: { r: 2, targetModules: ".*\\.stages\\.1\\..*\\.layer\\.[01]\\.convolution" },
    head_too: { r: 3, targetModules: ["convolution", "classifier.1"], modulesToSave: [] },
    frozen_head: { r: 3, modulesToSave: [] },
  },
};

const interpreters = [];
for (const path of (process.env.LOKO_PYTHON ?? "python3").split(":")) {
  const { reason, versions } = probe(path);
  if (reason === undefined) interpreters.push({ path, versions });
  else console.log(`*** SKIPPED: ${path}: ${reason}`);
}
const seed = Number(process.env.LOKO_SEED ?? Math.floor(Math.random() * 1e6));
const rows = [];
for (const maker of interpreters) {
  console.log(`\nmodels and adapters made by ${maker.versions}, LOKO_SEED=${seed}`);
  const folder = await mkdtemp(join(tmpdir(), "loko-interop-"));
  try {
    const made = await exchange(maker.path, folder, seed);
    printTable(made);
    rows.push(...made);
  } finally {
    await rm(folder, { recursive: true });
  }
}
const failures = rows.filter(({ error }) => !(error <= TOLERANCE));
for (const { family, name, way, error } of failures) {
  console.log(`FAILED: ${family}, ${name}, ${way}: ${error}`);
}
if (rows.length === 0) console.log("*** SKIPPED: nothing was compared");
else console.log(`\n${rows.length - failures.length} passed, ${failures.length} failed`);
process.exitCode = failures.length === 0 ? 0 : 1;

function probe(interpreter) {
  const program =
    "import torch, transformers, peft; print('torch', torch.__version__, " +
    "'transformers', transformers.__version__, 'peft', peft.__version__)";
  const { status, stdout, stderr, error } = spawnSync(interpreter, ["-c", program], {
    encoding: "utf8",
  });
  if (error !== undefined) return { reason: error.message };
  if (status === 0) return { versions: stdout.trim() };
  return { reason: stderr.trim().split("\n").at(-1) };
}

function python(interpreter, script, ...args) {
  const { status, stdout, stderr } = spawnSync(interpreter, [join(SCRIPTS, script), ...args], {
    encoding: "utf8",
    maxBuffer: 2 ** 28,
    env: { ...process.env, HF_HUB_OFFLINE: "1", PYTHONWARNINGS: "ignore" },
  });
  if (status !== 0) throw new Error(`${script} failed:\n${stderr}`);
  return stdout;
}

/** One row per comparison: { family, name, way, error }. */
async function exchange(interpreter, folder, seed) {
  python(interpreter, "make_cases.py", folder, String(seed));
  const rows = [];
  const ours = new Map();
  for (const family of FAMILIES) {
    const root = join(folder, family);
    const expected = JSON.parse(readFileSync(join(root, "expected.json"), "utf8"));
    const inputs = inputsOf(expected.inputs);
    for (const name of await readdir(join(root, "peft"))) {
      await withModel(join(root, "base"), sizeOf(inputs), async (model) => {
        await model.loadAdapter(join(root, "peft", name));
        const logits = await logitsOf(model, inputs);
        const error = maxAbsError(logits, expected.logits[name].flat());
        rows.push({ family, name, way: "PEFT to loko", error });
        await write(model, join(root, "loko"), `again-${name}`, inputs, ours, family);
      });
    }
    for (const [name, options] of Object.entries(OWN_ADAPTERS[family])) {
      await writeOwn(root, "base", name, options, inputs, ours, family);
    }
    for (const base of await readdir(root)) {
      if (["base_f16", "headless", "poolerless"].includes(base)) {
        await writeOwn(root, base, base, { r: 3 }, inputs, ours, family);
      }
    }
  }
  // Every interpreter, because what loko writes must load in each.
  for (const { path, versions } of interpreters) {
    const theirs = JSON.parse(python(path, "open_loko.py", folder));
    for (const [key, logits] of Object.entries(theirs)) {
      const [family, name, way] = key.split("/");
      const isText = typeof logits === "string";
      const error = isText ? logits : maxAbsError(ours.get(`${family}/${name}`), logits.flat());
      rows.push({ family, name, way: `loko to ${way} (${versions})`, error });
    }
  }
  return rows;
}

async function writeOwn(root, base, name, adapter, inputs, ours, family) {
  const options = { ...sizeOf(inputs), numLabels: 3, seed: 1 };
  await withModel(join(root, base), options, async (model) => {
    await model.addAdapter({ ...adapter, initLoraWeights: false });
    const theta = await model.readParameters();
    // Biases and heads begin as in the base model; moved, a test sees them.
    await model.writeParameters(theta.map((value, i) => 0.5 * value + 0.1 * Math.sin(i + 1)));
    await write(model, join(root, "loko"), name, inputs, ours, family);
  });
}

/** Saves the adapter, then merges and saves the model, and keeps the logits of both. */
async function write(model, folder, name, inputs, ours, family) {
  const logits = await logitsOf(model, inputs);
  await model.saveAdapter(join(folder, name));
  ours.set(`${family}/${name}`, logits);
  if (RENAMED.includes(family) && !name.startsWith("again-")) {
    for (const dialect of ["v4", "v5"]) {
      await model.saveAdapter(join(folder, `${name}-${dialect}`), { dialect });
      ours.set(`${family}/${name}-${dialect}`, logits);
    }
  }
  await model.mergeAdapter();
  await model.save(join(folder, `${name}-merged`));
  await withModel(join(folder, `${name}-merged`), sizeOf(inputs), async (merged) => {
    ours.set(`${family}/${name}-merged`, await logitsOf(merged, inputs));
  });
}

/** Models of images are made for the size of the inputs. */
function sizeOf({ shape }) {
  return shape.length === 4 ? { imageSize: shape.slice(2) } : {};
}

async function withModel(dir, options, use) {
  const model = await Model.fromPretrained(dir, options);
  try {
    await use(model);
  } finally {
    model.dispose();
  }
}

async function logitsOf(model, inputs) {
  const logits = await model.forward(inputs);
  return logits.data();
}

function inputsOf({ pixel_values, input_ids, attention_mask, token_type_ids }) {
  const shapeOf = (value) => (Array.isArray(value) ? [value.length, ...shapeOf(value[0])] : []);
  if (pixel_values !== undefined) {
    const values = Float32Array.from(pixel_values.flat(Number.POSITIVE_INFINITY));
    return { pixelValues: values, shape: shapeOf(pixel_values) };
  }
  return {
    inputIds: Int32Array.from(input_ids.flat()),
    attentionMask: Int32Array.from(attention_mask.flat()),
    tokenTypeIds: token_type_ids && Int32Array.from(token_type_ids.flat()),
    shape: shapeOf(input_ids),
  };
}

function maxAbsError(actual, expected) {
  if (actual.length !== expected.length) return `${actual.length} logits, not ${expected.length}`;
  return expected.reduce((worst, value, i) => {
    const error = Math.abs(value - actual[i]);
    return error <= worst ? worst : error;
  }, 0);
}

/** The largest error of each case: read from PEFT, opened as an adapter, opened as a merged model. */
function printTable(rows) {
  const kinds = ["in", "out", "merged"];
  const columns = FAMILIES.flatMap((family) => kinds.map((kind) => `${family} ${kind}`));
  const lines = new Map();
  for (const { family, name, way, error } of rows) {
    const kind = way === "PEFT to loko" ? "in" : way.includes("merged") ? "merged" : "out";
    const line = name.replace(/^again-|-(?:merged|v4|v5)$/g, "");
    const cells = lines.get(line) ?? {};
    const worst = cells[`${family} ${kind}`] ?? 0;
    lines.set(line, { ...cells, [`${family} ${kind}`]: error <= worst ? worst : error });
  }
  const show = (error = "-") => (typeof error === "number" ? error.toExponential(1) : error);
  const print = (name, cells) =>
    console.log(name.padEnd(16) + cells.map((cell) => cell.slice(0, 14).padStart(15)).join(""));
  print("max |error|", columns);
  for (const [line, cells] of lines)
    print(
      line,
      columns.map((column) => show(cells[column])),
    );
}
