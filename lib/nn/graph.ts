import { LokoError } from "../errors.js";
import type { LinearModule } from "../lora/modules.js";
import type {
  Activation,
  BatchNormSpec,
  Extent,
  GraphNode,
  LinearPartSpec,
} from "../native/addon.js";
import { convExtent, poolExtent } from "./extent.js";
import type {
  AvgPoolOptions,
  BatchNormOptions,
  Conv2dOptions,
  ConvModule,
  EmbedTokensOptions,
  ExtentOption,
  GraphInput,
  Grid,
  LinearOptions,
  MaxPoolOptions,
  ModelGraph,
  Value,
  WeightRequirement,
} from "./operations.js";

export type * from "./operations.js";

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
  readonly #convolutions: ConvModule[] = [];
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
    const grid = { height: height / patch, width: width / patch };
    return this.#addGrid(
      { op: "patchify", input: input.id, patch },
      grid,
      channels * patch * patch,
    );
  }

  /** The planar image as one row of channels for each pixel. */
  pixels(image: Value): Value {
    return this.patchify(image, 1);
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
   * y = act(scale ⊙ (x·Wᵀ + b) + residual). Several parts share their input and become one product;
   * activation, residual and output scale need exactly one part.
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
    return parts.map(({ out }) => this.#value(input.rows, out, input.grid)) as {
      [K in keyof Parts]: Value;
    };
  }

  /**
   * y = act(norm(conv(x) + b) + residual), with zeros around the image. A 1x1 convolution of stride 1 costs
   * what {@link linear} costs.
   */
  conv2d(input: Value, options: Conv2dOptions): Value {
    const { module, out, groups = 1, bias = false, norm, activation, residual } = options;
    const [kernel, stride] = [extentOf(options.kernel), extentOf(options.stride ?? 1)];
    const [padding, dilation] = [extentOf(options.padding ?? 0), extentOf(options.dilation ?? 1)];
    const grid = convExtent(gridOf(input), { kernel, stride, padding, dilation }, module);
    if (input.cols % groups !== 0 || out % groups !== 0) {
      throw new LokoError(
        "ERR_INTERNAL",
        `${module} has ${groups} groups, which do not divide it.`,
      );
    }
    this.#modules.add(module);
    this.#require(`${module}.weight`, [out, input.cols / groups, ...kernel]);
    if (bias) this.#require(`${module}.bias`, [out]);
    this.#convolutions.push({
      path: module,
      inChannels: input.cols,
      outChannels: out,
      kernel,
      stride,
      padding,
      dilation,
      groups,
    });
    return this.#addGrid(
      {
        op: "conv2d",
        input: input.id,
        module,
        weight: `${module}.weight`,
        ...(bias ? { bias: `${module}.bias` } : {}),
        out,
        kernel,
        stride,
        padding,
        dilation,
        groups,
        ...(norm === undefined ? {} : { norm: this.#batchNormSpec(norm, out) }),
        ...(activation === undefined ? {} : { activation }),
        ...(residual === undefined ? {} : { residual: residual.id }),
      },
      grid,
      out,
    );
  }

  /** A batch norm that no convolution before it can take in: act(scale ⊙ x + shift). */
  batchNorm(input: Value, options: BatchNormOptions & { activation?: "none" | "relu" }): Value {
    const { activation } = options;
    const node: GraphNode = {
      op: "batchNorm",
      input: input.id,
      ...this.#batchNormSpec(options, input.cols),
      ...(activation === undefined ? {} : { activation }),
    };
    return this.#add(node, input.rows, input.cols, input.grid);
  }

  /** `torch.nn.MaxPool2d`. */
  maxPool(input: Value, options: MaxPoolOptions): Value {
    const window = poolWindow(options);
    const grid = poolExtent(gridOf(input), window);
    return this.#addGrid({ op: "maxPool", input: input.id, ...window }, grid, input.cols);
  }

  /** `torch.nn.AvgPool2d`. */
  avgPool(input: Value, { countIncludePad = true, ...options }: AvgPoolOptions): Value {
    const window = poolWindow(options);
    const grid = poolExtent(gridOf(input), window);
    return this.#addGrid(
      { op: "avgPool", input: input.id, ...window, countIncludePad },
      grid,
      input.cols,
    );
  }

  /**
   * The mean of the rows from `skip` (default 0) on: global average pooling, or the mean of the patches
   * behind a class token.
   */
  meanRows(input: Value, { skip = 0 }: { skip?: number } = {}): Value {
    return this.#add({ op: "meanRows", input: input.id, skip }, 1, input.cols);
  }

  /**
   * Columns side by side. Nothing is copied where the operands can be written side by side in the first
   * place: each concatenation of a DenseNet's block is a prefix of one wide buffer.
   */
  concat(values: readonly Value[]): Value {
    const [first] = values;
    if (first === undefined || values.some(({ rows }) => rows !== first.rows)) {
      throw new LokoError("ERR_INTERNAL", "Concatenated values have the same rows.");
    }
    const cols = values.reduce((sum, value) => sum + value.cols, 0);
    const inputs = values.map(({ id }) => id);
    return this.#add({ op: "concat", inputs }, first.rows, cols, first.grid);
  }

  /** [pixels, channels] as one row, in PyTorch's order (channel, y, x). */
  flatten(input: Value): Value {
    return this.#add({ op: "flatten", input: input.id }, 1, Number(input.rows) * input.cols);
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
      input.grid,
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
      convolutions: this.#convolutions,
      modules: [...this.#modules],
      weights: this.#weights,
      input: this.#input,
      outputs: output.cols,
    };
  }

  #linearPart(input: Value, part: LinearOptions): LinearPartSpec {
    const { module, out, bias = true, weightShape, outputScale } = part;
    this.#modules.add(module);
    this.#require(`${module}.weight`, weightShape ?? [out, input.cols]);
    if (weightShape === undefined) {
      this.#linears.push({ path: module, inFeatures: input.cols, outFeatures: out });
    } else {
      this.#addPatchProjection(module, weightShape);
    }
    if (bias) this.#require(`${module}.bias`, [out]);
    if (outputScale !== undefined) this.#require(outputScale, [out]);
    return {
      module,
      weight: `${module}.weight`,
      ...(bias ? { bias: `${module}.bias` } : {}),
      out,
      ...(outputScale === undefined ? {} : { outputScale }),
    };
  }

  /** A convolution whose kernel is its stride, computed as a linear map of patches. */
  #addPatchProjection(path: string, shape: readonly number[]): void {
    const [outChannels, inChannels, height, width] = shape;
    if (outChannels === undefined || inChannels === undefined) return;
    if (height === undefined || width === undefined) return;
    this.#convolutions.push({
      path,
      inChannels,
      outChannels,
      kernel: [height, width],
      stride: [height, width],
      padding: [0, 0],
      dilation: [1, 1],
      groups: 1,
    });
  }

  #batchNormSpec({ module, eps }: BatchNormOptions, channels: number): BatchNormSpec {
    this.#modules.add(module);
    const vector = (name: string) => {
      this.#require(`${module}.${name}`, [channels]);
      return `${module}.${name}`;
    };
    return {
      weight: vector("weight"),
      bias: vector("bias"),
      mean: vector("running_mean"),
      variance: vector("running_var"),
      eps,
    };
  }

  #require(name: string, shape: readonly number[]): void {
    this.#weights.push({ name, shape });
  }

  #addGrid(node: GraphNode, grid: Grid, cols: number): Value {
    return this.#add(node, grid.height * grid.width, cols, grid);
  }

  #add(node: GraphNode, rows: Value["rows"], cols: number, grid?: Grid): Value {
    this.#nodes.push(node);
    return this.#value(rows, cols, grid);
  }

  #value(rows: Value["rows"], cols: number, grid?: Grid): Value {
    return { id: this.#values++, rows, cols, ...(grid === undefined ? {} : { grid }) };
  }
}

function extentOf(option: ExtentOption): Extent {
  return typeof option === "number" ? [option, option] : option;
}

function gridOf(value: Value): Grid {
  if (value.grid === undefined) throw new LokoError("ERR_INTERNAL", "A value without pixels.");
  return value.grid;
}

function poolWindow({ kernel, stride = kernel, padding = 0, ceilMode = false }: MaxPoolOptions) {
  return {
    kernel: extentOf(kernel),
    stride: extentOf(stride),
    padding: extentOf(padding),
    ceilMode,
  };
}
