import { LokoError } from "../errors.js";
import type { LinearModule } from "../lora/match.js";
import type { Activation, GraphNode, GraphSpec, LinearPartSpec } from "../native/addon.js";

/**
 * A value inside a graph: `rows` x `cols` numbers for each sample. Tokens of a transformer are rows,
 * features are columns.
 */
export interface Value {
  readonly id: number;
  readonly rows: number;
  readonly cols: number;
}

/** A weight that a graph reads, by its name in a checkpoint of the task model. */
export interface WeightRequirement {
  readonly name: string;
  readonly shape: readonly number[];
}

export interface LinearOptions {
  /** Path of the module; its weight is `<module>.weight` of shape [out, in], its bias `<module>.bias`. */
  readonly module: string;
  /** Number of output features. */
  readonly out: number;
  /** Default true. */
  readonly bias?: boolean;
  /** The shape in the checkpoint where it is not [out, in], as for a convolution that acts on patches. */
  readonly weightShape?: readonly number[];
}

/** A complete architecture: what native code lowers, and what LoRA and the weight loader must know. */
export interface ModelGraph {
  readonly spec: GraphSpec;
  /** Every linear module, in the order of computation. */
  readonly linears: readonly LinearModule[];
  /** Paths of all modules that have parameters of their own. */
  readonly modules: readonly string[];
  readonly weights: readonly WeightRequirement[];
  /** Pixels of one sample. */
  readonly image: { readonly channels: number; readonly height: number; readonly width: number };
  /** Number of outputs m. */
  readonly outputs: number;
}

/**
 * Describes an architecture as operations of fused granularity, in the order of computation. Shapes
 * are inferred here and again in native/core/graph.cc; weights are only named.
 *
 * @example
 * ```ts
 * const g = new GraphBuilder();
 * const patches = g.patchify(g.image(3, 32, 32), 4);
 * const [x] = g.linear(patches, [{ module: "projection", out: 64 }]);
 * const graph = g.finish(g.selectFirst(x));
 * ```
 */
export class GraphBuilder {
  readonly #nodes: GraphNode[] = [];
  readonly #linears: LinearModule[] = [];
  readonly #modules = new Set<string>();
  readonly #weights: WeightRequirement[] = [];
  #values = 0;
  #image: ModelGraph["image"] | undefined;

  /** The input: an image of C channels, planar. */
  image(channels: number, height: number, width: number): Value {
    this.#image = { channels, height, width };
    return this.#add({ op: "image", channels, height, width }, channels * height, width);
  }

  /** Square patches in row-major order, features ordered (channel, y, x) as a Conv2d weight is. */
  patchify(input: Value, patch: number): Value {
    const { channels, height, width } = this.#image!;
    const patches = (height / patch) * (width / patch);
    return this.#add({ op: "patchify", input: input.id, patch }, patches, channels * patch * patch);
  }

  /** Puts the class token before the patches and adds position embeddings. */
  assembleTokens(input: Value, names: { cls: string; pos: string }): Value {
    this.#require(names.cls, [1, 1, input.cols]);
    this.#require(names.pos, [1, input.rows + 1, input.cols]);
    return this.#add(
      { op: "assembleTokens", input: input.id, ...names },
      input.rows + 1,
      input.cols,
    );
  }

  /**
   * y = act(x·Wᵀ + b + residual). Several parts share their input and become one product; activation
   * and residual need exactly one part.
   *
   * @returns one value per part.
   */
  linear<const Parts extends readonly LinearOptions[]>(
    input: Value,
    parts: Parts,
    options: { activation?: Activation; residual?: Value } = {},
  ): { [K in keyof Parts]: Value } {
    const specs = parts.map((part) => this.#linearPart(input, part));
    const { activation, residual } = options;
    this.#nodes.push({
      op: "linear",
      input: input.id,
      parts: specs,
      ...(activation === undefined ? {} : { activation }),
      ...(residual === undefined ? {} : { residual: residual.id }),
    });
    return parts.map(({ out }) => this.#value(input.rows, out)) as { [K in keyof Parts]: Value };
  }

  layerNorm(input: Value, { module, eps }: { module: string; eps: number }): Value {
    const [weight, bias] = [`${module}.weight`, `${module}.bias`];
    this.#modules.add(module);
    this.#require(weight, [input.cols]);
    this.#require(bias, [input.cols]);
    return this.#add(
      { op: "layerNorm", input: input.id, weight, bias, eps },
      input.rows,
      input.cols,
    );
  }

  /** softmax(q·kᵀ / sqrt(width of a head))·v for each head. */
  attention(q: Value, k: Value, v: Value, heads: number): Value {
    const scale = 1 / Math.sqrt(q.cols / heads);
    return this.#add({ op: "attention", q: q.id, k: k.id, v: v.id, heads, scale }, q.rows, q.cols);
  }

  /** The first row (class token) of each sample. */
  selectFirst(input: Value): Value {
    return this.#add({ op: "selectFirst", input: input.id }, 1, input.cols);
  }

  /** @param output - the logits, one row for each sample. */
  finish(output: Value): ModelGraph {
    if (this.#image === undefined || output.rows !== 1) {
      throw new LokoError("ERR_INTERNAL", "A graph needs an image and an output of one row.");
    }
    return {
      spec: { nodes: this.#nodes, output: output.id },
      linears: this.#linears,
      modules: [...this.#modules],
      weights: this.#weights,
      image: this.#image,
      outputs: output.cols,
    };
  }

  #linearPart(input: Value, part: LinearOptions): LinearPartSpec {
    const { module, out, bias = true, weightShape } = part;
    this.#modules.add(module);
    this.#require(`${module}.weight`, weightShape ?? [out, input.cols]);
    // What is a convolution in the checkpoint is no target for a linear LoRA.
    if (weightShape === undefined) {
      this.#linears.push({ path: module, inFeatures: input.cols, outFeatures: out });
    }
    if (!bias) return { module, weight: `${module}.weight`, out };
    this.#require(`${module}.bias`, [out]);
    return { module, weight: `${module}.weight`, bias: `${module}.bias`, out };
  }

  #require(name: string, shape: readonly number[]): void {
    this.#weights.push({ name, shape });
  }

  #add(node: GraphNode, rows: number, cols: number): Value {
    this.#nodes.push(node);
    return this.#value(rows, cols);
  }

  #value(rows: number, cols: number): Value {
    return { id: this.#values++, rows, cols };
  }
}
