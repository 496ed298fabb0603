/** Who races: an implementation, and what it does with a sample. */
export interface ContenderKind {
  /** `loko`: this package in Node.js; `torch`: PyTorch and PEFT. */
  readonly side: "loko" | "torch";
  readonly work: "adamw" | "loko" | "predict";
  /** Cotangent rows of a LoKO step; `auto`: as many as the sample needs. */
  readonly rows?: "m" | "m-1" | "auto";
  /** Where it can compute. */
  readonly devices: readonly ("cpu" | "cuda")[];
}

const EVERYWHERE = ["cpu", "cuda"] as const;
const TORCH_JACOBIANS = ["loop", "batched", "jacrev"];

/** All contenders by the names that trial files use; pytorch/contenders.py has those of PyTorch. */
export const CONTENDERS: ReadonlyMap<string, ContenderKind> = new Map<string, ContenderKind>([
  ["loko adamw", { side: "loko", work: "adamw", devices: EVERYWHERE }],
  ["loko exact", { side: "loko", work: "loko", rows: "m-1", devices: EVERYWHERE }],
  ["loko auto", { side: "loko", work: "loko", rows: "auto", devices: EVERYWHERE }],
  // As many rows as the sample needs, too, but another update: PyTorch's filters are not its equal.
  ["loko default", { side: "loko", work: "loko", rows: "auto", devices: EVERYWHERE }],
  ["loko predict", { side: "loko", work: "predict", devices: EVERYWHERE }],
  ["torch adamw", { side: "torch", work: "adamw", devices: EVERYWHERE }],
  ["torch adamw compiled", { side: "torch", work: "adamw", devices: EVERYWHERE }],
  // Forward, backward and update captured once and replayed: the fewest launches that PyTorch can have.
  ["torch adamw graph", { side: "torch", work: "adamw", devices: ["cuda"] }],
  ["torch predict", { side: "torch", work: "predict", devices: EVERYWHERE }],
  ["torch predict compiled", { side: "torch", work: "predict", devices: EVERYWHERE }],
  ...TORCH_JACOBIANS.flatMap((name): [string, ContenderKind][] => [
    [`torch loko ${name}`, { side: "torch", work: "loko", rows: "m", devices: ["cpu"] }],
    [`torch loko ${name} m-1`, { side: "torch", work: "loko", rows: "m-1", devices: ["cpu"] }],
  ]),
]);
