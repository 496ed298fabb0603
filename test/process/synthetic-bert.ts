// Writes a BERT checkpoint of any size with drawn weights, a tokenizer, and sentences to learn.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { writeCheckpoint } from "./synthetic.js";

export interface SyntheticBert {
  hidden: number;
  layers: number;
  heads: number;
  labels: readonly string[];
}

const GOOD = "good great fine lovely bright warm clever honest funny moving".split(" ");
const BAD = "bad poor dull awful grey cold stupid false boring empty".split(" ");
const NEUTRAL = (
  "the a this that film book play song story scene actor plot music end start world street house " +
  "night day was is seems looks felt very quite rather so and but with of in on about my our her"
).split(" ");
const SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const VOCABULARY = [...SPECIAL, ...GOOD, ...BAD, ...NEUTRAL];

/** Uniform in [0, 1), the same sequence in every run (a 32-bit linear congruential generator). */
function drawUniform(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** A model folder: `config.json`, `model.safetensors`, `vocab.txt` and `tokenizer_config.json`. */
export function writeSyntheticBert(dir: string, size: SyntheticBert): void {
  const config = {
    model_type: "bert",
    architectures: ["BertForSequenceClassification"],
    vocab_size: VOCABULARY.length,
    hidden_size: size.hidden,
    num_hidden_layers: size.layers,
    num_attention_heads: size.heads,
    intermediate_size: 4 * size.hidden,
    hidden_act: "gelu",
    max_position_embeddings: 64,
    type_vocab_size: 2,
    layer_norm_eps: 1e-12,
    pad_token_id: 0,
    id2label: Object.fromEntries(size.labels.entries()),
    label2id: Object.fromEntries(size.labels.map((label, index) => [label, index])),
  };
  writeCheckpoint(dir, config);
  writeFileSync(join(dir, "vocab.txt"), `${VOCABULARY.join("\n")}\n`);
  const tokenizer = { tokenizer_class: "BertTokenizer", do_lower_case: true, model_max_length: 64 };
  writeFileSync(join(dir, "tokenizer_config.json"), JSON.stringify(tokenizer));
}

/** Sentences of 4 to 11 words, one of them good or bad, which is the label: 1 or 0. */
export function drawSentences(count: number, seed = 1): { text: string; label: number }[] {
  const draw = drawUniform(seed);
  const pick = (words: readonly string[]) => words[Math.floor(draw() * words.length)]!;
  return Array.from({ length: count }, () => {
    const label = draw() < 0.5 ? 0 : 1;
    const words = Array.from({ length: 3 + Math.floor(8 * draw()) }, () => pick(NEUTRAL));
    words.splice(Math.floor(draw() * (words.length + 1)), 0, pick(label === 1 ? GOOD : BAD));
    return { text: words.join(" "), label };
  });
}

export function writeSentences(path: string, count: number, seed = 1): void {
  const lines = drawSentences(count, seed).map(({ text, label }) => `${text}\t${label}`);
  writeFileSync(path, `sentence\tlabel\n${lines.join("\n")}\n`);
}
