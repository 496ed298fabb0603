import { mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { visionFolder, vitFolder } from "../parity/fixtures.js";
import { runLoko } from "./loko.js";
import { writeSentences, writeSyntheticBert } from "./synthetic-bert.js";

const COMMANDS = ["train", "eval", "predict", "inspect", "doctor"];

let dir: string;
let model: string;
let data: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "loko-cli-"));
  model = join(dir, "bert");
  data = join(dir, "data.tsv");
  writeSyntheticBert(model, { hidden: 16, layers: 1, heads: 2, labels: ["negative", "positive"] });
  writeSentences(data, 20);
  writeFileSync(join(dir, "bad.json"), '{ "model": "bert", "batchsize": 1 }');
  writeFileSync(join(dir, "broken.json"), "{");
  symlinkSync(join(dir, "nothing"), join(dir, "dangling"));
});
afterAll(() => rmSync(dir, { recursive: true }));

const loko = (...args: string[]) => runLoko(args, { cwd: dir });
const train = (...args: string[]) =>
  loko("train", "--model", model, "--train", data, "--output", "out", ...args);

describe("loko --help", () => {
  test("lists the commands, and each shows an example of itself", async () => {
    const { code, stdout, stderr } = await loko("--help");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    for (const name of COMMANDS) {
      expect(stdout).toMatch(new RegExp(`^ {2}${name} +\\w`, "m"));
      const help = await loko(name, "--help");
      expect({ code: help.code, stderr: help.stderr }).toEqual({ code: 0, stderr: "" });
      expect(help.stdout).toMatch(new RegExp(`Examples?:\\n {2}loko ${name} `));
      expect(help.stdout).toContain("--json");
      expect((await loko("help", name)).stdout).toBe(help.stdout);
    }
  });

  test("is what loko alone prints, on stderr and as wrong use", async () => {
    const [alone, help] = await Promise.all([loko(), loko("--help")]);
    expect(alone).toEqual({ code: 2, signal: null, stdout: "", stderr: help.stdout });
  });
});

describe("wrong use", () => {
  test.each<[string, string[], string]>([
    [
      "an unknown command",
      ["trian"],
      "unknown command 'trian' (Did you mean train?). See loko --help.",
    ],
    ["an unknown flag", ["doctor", "--jsn"], "(Did you mean --json?). See loko doctor --help."],
    ["a flag without its value", ["eval", "--model"], "argument missing. See loko eval --help."],
    [
      "a value out of range",
      ["train", "--epochs", "0"],
      "Expected an integer >= 1. See loko train",
    ],
    [
      "a missing argument",
      ["inspect"],
      "missing required argument 'path'. See loko inspect --help.",
    ],
    ["a missing option", ["predict"], "predict needs --model <dir>."],
    [
      "an unknown key of a file",
      ["train", "bad.json"],
      'option "batchsize"; the nearest are "batchSize"',
    ],
    [
      "a file of options where a checkpoint belongs",
      ["train", "--resume", "bad.json"],
      "a file of options comes first, as in `loko train run.json --resume`. See loko train",
    ],
  ])("%s ends with 2 and one line that says what", async (_, args, words) => {
    const { code, stdout, stderr } = await loko(...args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(/^error ERR_OPTION: .+\n$/);
    expect(stderr).toContain(words);
  });

  test.each<[string, string[], string]>([
    ["a learning rate for LoKO", ["--lr", "0.1"], "LoKO has no learning rate"],
    [
      "an adapter and a rank for it",
      ["--adapter", "x", "--r", "4"],
      "--r cannot be given with --adapter: ",
    ],
    ["an unknown metric", ["--metrics", "acc"], 'Unknown metric "acc"'],
    ["a metric of another task", ["--metrics", "meanSquaredError"], "does not fit classification"],
    ["another option of LoKO", ["--optimizer-options", '{"taw":1}'], 'unknown option "taw"'],
    ["evaluations of nothing", ["--eval-every", "5"], "--eval-every needs --eval."],
    [
      "patience without evaluations",
      ["--eval", "data.tsv", "--early-stopping-patience", "2"],
      "--early-stopping-patience needs --eval-every.",
    ],
    [
      "the best of no checkpoints",
      ["--eval", "data.tsv", "--eval-every", "2", "--load-best"],
      "--load-best needs --save-every.",
    ],
    [
      "the best of other steps",
      ["--eval", "data.tsv", "--eval-every", "2", "--save-every", "3", "--load-best"],
      ": --load-best needs --save-every to be a multiple of --eval-every, got 3 and 2.",
    ],
    [
      "a limit of no checkpoints",
      ["--save-total-limit", "2"],
      "--save-total-limit needs --save-every or --checkpoint-dir or --resume.",
    ],
    [
      "a warm-up of a constant rate",
      ["--optimizer", "adamw", "--warmup-steps", "10"],
      ': --lr-scheduler-type "constant" has no warm-up: use "constant_with_warmup", or leave ' +
        "--warmup-steps out.",
    ],
    [
      "checkpoints in the output",
      ["--checkpoint-dir", "out"],
      "--checkpoint-dir out is in --output",
    ],
    ["checkpoints below it", ["--checkpoint-dir", "out/a/b"], "out/a/b is in --output out, which"],
    ["logs in the output", ["--log-dir", "./out/logs"], "--log-dir ./out/logs is in --output out"],
  ])("%s is refused before anything is written", async (_, args, words) => {
    const { code, stdout, stderr } = await train(...args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(words);
    expect(readdirSync(dir)).not.toContain("out");
  });

  test("of predict: --text beside --data, and --pair without --text", async () => {
    const predict = (...args: string[]) => loko("predict", "--model", model, ...args);
    const both = await predict("--text", "a", "--data", data);
    expect(both).toMatchObject({ code: 2, stderr: expect.stringContaining("choose one") });
    const pair = await predict("--pair", "a");
    expect(pair).toMatchObject({ code: 2, stderr: expect.stringContaining("--pair needs --text") });
  });
});

describe("a failed run", () => {
  test.each<[string, string[], string, string]>([
    [
      "a model that is not there",
      ["eval", "--model", "nope", "--data", "x"],
      "ERR_FILE_NOT_FOUND",
      "nope",
    ],
    [
      "an image model",
      ["predict", "--model", vitFolder("act"), "--text", "a"],
      "ERR_UNSUPPORTED",
      "images",
    ],
    ["a file that is no model", ["inspect", "bad.json"], "ERR_UNSUPPORTED", ".safetensors"],
    ["a path that is not there", ["inspect", "nope"], "ERR_FILE_NOT_FOUND", "nope"],
    ["a configuration that is no JSON", ["train", "broken.json"], "ERR_CONFIG", "broken.json"],
  ])("ends with 1 and the code: %s", async (_, args, error, words) => {
    const { code, stdout, stderr } = await loko(...args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(new RegExp(`^error ${error}: .+\\n$`));
    expect(stderr).toContain(words);
  });

  test.each<[string, string[], string, string]>([
    ["data that is not there", ["--train", "nope.tsv"], "ERR_FILE_NOT_FOUND", "nope.tsv"],
    ["a column that is not there", ["--text-column", "txt"], "ERR_DATA_COLUMN", '"txt"'],
    [
      "held-out data that is bad",
      ["--eval", "bad.json", "--format", "tsv"],
      "ERR_DATA",
      "bad.json",
    ],
    ["a module that is not there", ["--target-modules", "quary"], "ERR_TARGET_MODULES", '"query"'],
    ["an output that is a file", ["--output", "bad.json"], "ERR_FILE_WRITE", "bad.json"],
    ["an output that holds something", ["--output", "."], "ERR_FILE_WRITE", "working folder"],
    [
      "an output that is a model",
      ["--output", "bert", "--overwrite"],
      "ERR_OUTPUT_EXISTS",
      "bert: holds config.json",
    ],
    ["an output that is the root", ["--output", "/", "--overwrite"], "ERR_FILE_WRITE", "root"],
    ["an output that is a link to nothing", ["--output", "dangling"], "ERR_FILE_WRITE", "link"],
    ["an adapter that is not there", ["--adapter", "nope"], "ERR_FILE_NOT_FOUND", "nope"],
    ["a head of another size", ["--num-labels", "3"], "ERR_NUM_LABELS", "3"],
  ])("refuses before the training: %s", async (_, args, error, words) => {
    const before = readdirSync(dir);
    const { code, stdout, stderr } = await train(...args);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(stderr).toMatch(new RegExp(`^error ${error}\\w*: .+\\n$`));
    expect(stderr).toContain(words);
    expect(readdirSync(dir)).toEqual(before);
  });

  test("says the same as JSON with --json, and shows a stack only when it is asked to", async () => {
    const { code, stdout, stderr } = await loko("inspect", "nope", "--json");
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    expect(JSON.parse(stderr)).toEqual({
      error: { code: "ERR_FILE_NOT_FOUND", message: "nope: no such file or folder." },
    });
    expect((await loko("inspect", "nope", "--verbose")).stderr).toMatch(/\n {4}at /);
    const debug = await runLoko(["inspect", "nope"], { env: { DEBUG: "1" } });
    expect(debug.stderr).toMatch(/\n {4}at /);
    const usage = await loko("eval", "--json");
    expect(usage.code).toBe(2);
    expect(JSON.parse(usage.stderr).error.code).toBe("ERR_OPTION");
  });
});

describe("loko doctor", () => {
  test("prints what this machine offers", async () => {
    const { code, stdout, stderr } = await loko("doctor");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain(`Node.js      ${process.version}`);
    expect(stdout).toMatch(/^addon +\/.+\.node$/m);
    expect(stdout).toMatch(/^CPU kernels +(amx|avx512|avx2|generic)/m);
    expect(stdout).toMatch(/^CUDA +(available|not available: .+)$/m);
    expect(stdout).toMatch(/^images +decoded by sharp 0\.\d+\.\d+$/m);
    const json = JSON.parse((await loko("doctor", "--json")).stdout);
    expect(json).toMatchObject({ node: process.version, cpu: { available: true } });
    const { available, cause, runtime } = json.cuda;
    if (!available)
      expect(["notCompiled", "noDriver", "driverTooOld", "noDevice"]).toContain(cause);
    // Which GPUs the addon has machine code for, where it was built with CUDA; and where cuBLASLt was looked for.
    expect(/^CUDA build +CUDA \d+\.\d+, for sm_\d+/m.test(stdout)).toBe(cause !== "notCompiled");
    expect(json.cublasLt === undefined).toBe(runtime === undefined);
  });

  test("ends with 1 and the reason where the addon cannot be loaded", async () => {
    const { code, stdout, stderr } = await runLoko(["doctor"], { env: { LOKO_PREBUILD: dir } });
    expect(code).toBe(1);
    expect(stdout).toMatch(/^addon +not loaded, see below$/m);
    expect(stderr).toMatch(/^error ERR_NATIVE_LOAD: /);
  });
});

describe("loko inspect", () => {
  test("shows type, sizes, labels, tokenizer and modules of a text model", async () => {
    const { code, stdout } = await loko("inspect", model);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^model +bert \(BertForSequenceClassification\)$/m);
    expect(stdout).toMatch(/^labels +2: negative, positive$/m);
    expect(stdout).toMatch(/^tokenizer +vocab.txt$/m);
    expect(stdout).toMatch(/^bert\.encoder\.layer\.N\.attention\.self\.query +1 +16 +16$/m);
  });

  test("shows an image model, an adapter and a file of weights, as JSON too", async () => {
    const base = vitFolder("odd");
    const shown = JSON.parse((await loko("inspect", base, "--json")).stdout);
    expect(shown).toMatchObject({
      kind: "model",
      modelType: "vit",
      tensorCount: 56,
      tokenizer: [],
    });
    expect(shown.linears).toHaveLength(7);
    expect(shown.convolutions).toMatchObject([{ inFeatures: 3, outFeatures: 48, kernel: [4, 4] }]);

    const folder = vitFolder("odd", "adapter");
    const adapter = JSON.parse((await loko("inspect", folder, "--json")).stdout);
    expect(adapter).toMatchObject({ kind: "adapter", config: { r: 8, lora_alpha: 16 } });
    expect((await loko("inspect", folder)).stdout).toMatch(/^target_modules +query, value$/m);

    const file = join(folder, "adapter_model.safetensors");
    const weights = JSON.parse((await loko("inspect", file, "--json")).stdout);
    expect(weights).toMatchObject({ kind: "safetensors", tensors: adapter.tensors });
    expect((await loko("inspect", file)).stdout).toMatch(
      /^F32 +\[8, 48\] +base_model\.model\.vit\.encoder\.layer\.0\..+\.query\.lora_A\.weight$/m,
    );
  });

  test("shows the convolutions of a net, those of all layers together", async () => {
    const { stdout } = await loko("inspect", visionFolder("timm_resnet18"));
    expect(stdout).toMatch(/^model +resnet18 \(ResNet\)$/m);
    expect(stdout).toMatch(/^loko +knows this model$/m);
    expect(stdout).toMatch(/^layerN\.N\.conv1 +5 +4-64 +4-8 +3x3$/m);
    expect(stdout).toMatch(/^fc +1 +8 +3$/m);
  });

  test("keeps the number in the name of a model, which is none of a layer", async () => {
    const { stdout } = await loko("inspect", visionFolder("dinov2"));
    expect(stdout).toMatch(/^dinov2\.encoder\.layer\.N\.mlp\.fc1 /m);
  });

  test("shows a file of more tensors than a call has room for arguments", async () => {
    const tensors = Array.from({ length: 150_000 }, (_, i) => [
      `t${i}`,
      { dtype: "F32", shape: [0], data_offsets: [0, 0] },
    ]);
    const header = Buffer.from(JSON.stringify(Object.fromEntries(tensors)));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(header.length));
    writeFileSync(join(dir, "many.safetensors"), Buffer.concat([length, header]));
    const { code, stdout, stderr } = await loko("inspect", "many.safetensors");
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toMatch(/^F32 +\[0\] +t149999$/m);
    expect(stdout).toMatch(/^tensors +0 parameters in 150,000 tensors, F32, 0 B$/m);
  });

  test("says why a model is not supported, and still shows the rest", async () => {
    const other = join(dir, "other");
    writeSyntheticBert(other, { hidden: 16, layers: 1, heads: 2, labels: ["a", "b"] });
    writeFileSync(join(other, "config.json"), '{ "model_type": "t5" }');
    const { code, stdout } = await loko("inspect", other);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^loko +cannot: ERR_UNKNOWN_MODEL_TYPE: .+"t5"\.$/m);
    expect(stdout).toMatch(/^weights +[\d,]+ parameters/m);
  });
});
