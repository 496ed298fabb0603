// The names of a model's modules in memory, which PEFT writes into adapters. Checkpoints, and this
// package, use those of transformers 4. transformers 5 gives some models others, and PEFT does not
// translate between the two.

/** One way to name the modules of a model. */
export interface Dialect {
  /** The name in this dialect of a module or parameter that has `path` in a checkpoint. */
  fromCheckpoint(path: string): string;
  /** The reverse; a name that is none of this dialect comes back as it is. */
  toCheckpoint(path: string): string;
}

/** Which names to write: `"both"` loads everywhere, the others with one major version of transformers. */
export type DialectChoice = "both" | "v4" | "v5";

const CHECKPOINT: Dialect = { fromCheckpoint: (path) => path, toCheckpoint: (path) => path };

const VIT_V5 = renamedLayers("vit.encoder.layer.", "vit.layers.", [
  ["attention.attention.query", "attention.q_proj"],
  ["attention.attention.key", "attention.k_proj"],
  ["attention.attention.value", "attention.v_proj"],
  ["attention.output.dense", "attention.o_proj"],
  ["intermediate.dense", "mlp.fc1"],
  ["output.dense", "mlp.fc2"],
  ["layernorm_before", "layernorm_before"],
  ["layernorm_after", "layernorm_after"],
]);

const DINOV2_V5 = renamedLayers("dinov2.encoder.layer.", "dinov2.encoder.layer.", [
  ["attention.attention.query", "attention.q_proj"],
  ["attention.attention.key", "attention.k_proj"],
  ["attention.attention.value", "attention.v_proj"],
  ["attention.output.dense", "attention.o_proj"],
]);

/** Models whose names changed in transformers 5. */
const V5: ReadonlyMap<string, Dialect> = new Map([
  ["vit", VIT_V5],
  ["dinov2", DINOV2_V5],
]);

/** Those of a choice, the names of checkpoints first; one where the names never changed. */
export function dialectsOf(modelType: string, choice: DialectChoice = "both"): readonly Dialect[] {
  const v5 = V5.get(modelType);
  if (v5 === undefined || choice === "v4") return [CHECKPOINT];
  return choice === "v5" ? [v5] : [CHECKPOINT, v5];
}

/** Renames `<from><index>.<module>` to `<to><index>.<module>`, module by module. */
function renamedLayers(
  from: string,
  to: string,
  modules: readonly (readonly [from: string, to: string])[],
): Dialect {
  const rename = (path: string, from: string, to: string, table: ReadonlyMap<string, string>) => {
    if (!path.startsWith(from)) return path;
    const [, index, inside] = /^(\d+)\.(.*)$/.exec(path.slice(from.length)) ?? [];
    for (const [module, other] of table) {
      if (inside === module || inside?.startsWith(`${module}.`)) {
        return `${to}${index}.${other}${inside.slice(module.length)}`;
      }
    }
    return path;
  };
  const forward = new Map(modules);
  const backward = new Map(modules.map(([module, other]) => [other, module]));
  return {
    fromCheckpoint: (path) => rename(path, from, to, forward),
    toCheckpoint: (path) => rename(path, to, from, backward),
  };
}
