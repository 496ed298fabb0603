/** Who races: an implementation, and what it does with a sample. */
export interface ContenderKind {
  /** `loko`: this package in Node.js; `torch`: PyTorch and PEFT. */
  readonly side: "loko" | "torch";
  readonly work: "adamw" | "loko" | "predict";
  /** Cotangent rows of a LoKO step; `auto`: as many as the sample needs. */
  readonly rows?: "m" | "m-1" | "auto";
}

const TORCH_JACOBIANS = ["loop", "batched", "jacrev"];

/** All contenders by the names that trial files use; pytorch/contenders.py has those of PyTorch. */
export const CONTENDERS: ReadonlyMap<string, ContenderKind> = new Map<string, ContenderKind>([
  ["loko adamw", { side: "loko", work: "adamw" }],
  ["loko exact", { side: "loko", work: "loko", rows: "m-1" }],
  ["loko auto", { side: "loko", work: "loko", rows: "auto" }],
  ["loko predict", { side: "loko", work: "predict" }],
  ["torch adamw", { side: "torch", work: "adamw" }],
  ["torch adamw compiled", { side: "torch", work: "adamw" }],
  ["torch predict", { side: "torch", work: "predict" }],
  ["torch predict compiled", { side: "torch", work: "predict" }],
  ...TORCH_JACOBIANS.flatMap((name): [string, ContenderKind][] => [
    [`torch loko ${name}`, { side: "torch", work: "loko", rows: "m" }],
    [`torch loko ${name} m-1`, { side: "torch", work: "loko", rows: "m-1" }],
  ]),
]);
