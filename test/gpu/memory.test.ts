import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Device } from "../../lib/device.js";
import { Model } from "../../lib/model.js";
import { AdamW } from "../../lib/optim/gradient.js";
import { LoKO } from "../../lib/optim/loko.js";
import { writeCheckpoint } from "../process/synthetic.js";
import { describeOnGpu, gpu } from "./gpu.js";

const TOKENS = 512;
const HEADS = 8;
const LAYERS = 2;
/** What a gradient step keeps of one text at least: the probabilities of attention. */
const BYTES_PER_TEXT = LAYERS * HEADS * TOKENS * TOKENS * 4;

let dir: string;
beforeAll(() => {
  dir = mkdtempSync(join(tmpdir(), "loko-gpu-"));
  writeCheckpoint(dir, {
    model_type: "bert",
    architectures: ["BertForSequenceClassification"],
    vocab_size: 100,
    hidden_size: 64,
    num_hidden_layers: LAYERS,
    num_attention_heads: HEADS,
    intermediate_size: 64,
    hidden_act: "gelu",
    max_position_embeddings: TOKENS,
    type_vocab_size: 2,
    layer_norm_eps: 1e-12,
    pad_token_id: 0,
    num_labels: 4,
  });
});
afterAll(() => rmSync(dir, { recursive: true }));

async function load(device: Device): Promise<Model> {
  const model = await Model.fromPretrained(dir, { device });
  await model.addAdapter({ r: 2, targetModules: ["query", "value"] });
  return model;
}

function texts(batch: number, tokens = TOKENS) {
  const inputIds = Int32Array.from({ length: batch * tokens }, (_, i) => 1 + (i % 99));
  return { inputIds, shape: [batch, tokens] as const };
}

/** MiB that all processes have of it, or undefined where nobody tells. */
function usedMiB(): number | undefined {
  const [device = "0"] = (process.env.CUDA_VISIBLE_DEVICES ?? "0").split(",");
  const args = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", `--id=${device}`];
  try {
    const used = Number(execFileSync("nvidia-smi", args, { encoding: "utf8", stdio: "pipe" }));
    return Number.isNaN(used) ? undefined : used; // it says [N/A] where it does not know
  } catch {
    return undefined;
  }
}

describeOnGpu("memory of the GPU", () => {
  test("that is too small is a coded error, and what comes next works", async () => {
    const { memoryBytes } = gpu!;
    const tooMany = Math.ceil((1.5 * memoryBytes) / BYTES_PER_TEXT);
    using large = await load("cuda");
    const optimizer = new AdamW(large, { lr: 1e-3 });
    const first = [texts(3), Int32Array.of(2, 1, 0)] as const;
    await optimizer.step(...first);
    const before = await large.readParameters();
    await expect(optimizer.step(texts(tooMany), new Int32Array(tooMany))).rejects.toMatchObject({
      code: "ERR_OUT_OF_MEMORY",
    });
    expect(await large.readParameters()).toEqual(before);

    using small = await load("cuda");
    const next = new AdamW(small, { lr: 1e-3 });
    // The one that had asked for too much is whole, too: a batch of its first size, and of a new one.
    await next.step(...first);
    for (const it of [next, optimizer]) {
      expect((await it.step(...first)).skipped).toBeNull();
      expect((await it.step(texts(2), Int32Array.of(0, 1))).skipped).toBeNull();
    }
    expect(await large.readParameters()).toEqual(await small.readParameters());
  }, 300_000);

  test("does not grow over 10,000 steps", async ({ skip }) => {
    using model = await load("cuda");
    const optimizer = new LoKO(model, { observation: "softmax", observationRank: "exact" });
    const step = (t: number) => optimizer.step(texts(1, 16), Int32Array.of(t % 4));
    for (let t = 0; t < 100; t++) await step(t);
    const before = usedMiB();
    if (before === undefined) return skip("nvidia-smi is not here");
    for (let t = 0; t < 10_000; t++) await step(t);
    // Other processes on the GPU would show; this is for one that has nothing else to do.
    expect(usedMiB()).toBe(before);
  }, 600_000);
});
