import { LokoError } from "../errors.js";
import type { LinearModule } from "../lora/match.js";
import type { Activation, GraphNode, GraphSpec, LinearPartSpec } from "../native/addon.js";

/**
 * A value inside a graph: `rows` x `cols` numbers for each sample. Tokens of a transformer are rows,
 * features are columns. The tokens of a text have no number of their own: each batch decides.
 */
export interface Value {
  readonly id: number;
  readonly rows: number | "tokens";
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

/** What one sample is. */
export type GraphInput =
  | {
      readonly kind: "image";
      readonly channels: number;
      readonly height: number;
      readonly width: number;
    }
  | {
      readonly kind: "text";
      readonly vocabulary: number;
      readonly positionCount: number;
      readonly typeCount: number;
      /** Most tokens of one sample. */
      readonly maxTokens: number;
    };

export interface EmbedTokensOptions {
  /** Paths of the three embedding modules. */
  readonly words: string;
  readonly positions: string;
  readonly types: string;
  readonly vocabulary: number;
  readonly positionCount: number;
  readonly typeCount: number;
  readonly width: number;
  /** Most tokens of one sample. */
  readonly maxTokens: number;
}

/** A complete architecture: what native code lowers, and what LoRA and the weight loader must know. */
export interface ModelGraph {
  readonly spec: GraphSpec;
  /** Every linear module, in the order of computation. */
  readonly linears: readonly LinearModule[];
  /** Paths of all modules that have parameters of their own. */
  readonly modules: readonly string[];
  readonly weights: readonly WeightRequirement[];
  readonly input: GraphInput;
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
  #input: GraphInput | undefined;

  /** The input: an image of C channels, planar. */
  image(channels: number, height: number, width: number): Value {
    this.#input = { kind: "image", channels, height, width };
    return this.#add({ op: "image", channels, height, width }, channels * height, width);
  }

  /** Square patches in row-major order, features ordered (channel, y, x) as a Conv2d weight is. */
  patchify(input: Value, patch: number): Value {
    if (this.#input?.kind !== "image") {
      throw new LokoError("ERR_INTERNAL", "Patches are cut out of an image.");
    }
    const { channels, height, width } = this.#input;
    const patches = (height / patch) * (width / patch);
    return this.#add({ op: "patchify", input: input.id, patch }, patches, channels * patch * patch);
  }

  /** Puts the class token before the patches and adds position embeddings. */
  assembleTokens(input: Value, names: { cls: string; pos: string }): Value {
    const tokens = Number(input.rows) + 1;
    this.#require(names.cls, [1, 1, input.cols]);
    this.#require(names.pos, [1, tokens, input.cols]);
    return this.#add({ op: "assembleTokens", input: input.id, ...names }, tokens, input.cols);
  }

  /** The input: numbers of tokens; the value is the sum of their rows of three tables. */
  embedTokens(options: EmbedTokensOptions): Value {
    const { words, positions, types, width, maxTokens, ...counts } = options;
    const { vocabulary, positionCount, typeCount } = counts;
    this.#input = { kind: "text", ...counts, maxTokens };
    const table = (module: string, rows: number) => {
      this.#modules.add(module);
      this.#require(`${module}.weight`, [rows, width]);
      return `${module}.weight`;
    };
    const names = {
      words: table(words, vocabulary),
      positions: table(positions, positionCount),
      types: table(types, typeCount),
    };
    return this.#add({ op: "embedTokens", ...names, ...counts, width, maxTokens }, "tokens", width);
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
    if (this.#input === undefined || output.rows !== 1) {
      throw new LokoError("ERR_INTERNAL", "A graph needs an input and an output of one row.");
    }
    return {
      spec: { nodes: this.#nodes, output: output.id },
      linears: this.#linears,
      modules: [...this.#modules],
      weights: this.#weights,
      input: this.#input,
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

  #add(node: GraphNode, rows: Value["rows"], cols: number): Value {
    this.#nodes.push(node);
    return this.#value(rows, cols);
  }

  #value(rows: Value["rows"], cols: number): Value {
    return { id: this.#values++, rows, cols };
  }
}
