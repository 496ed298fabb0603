import { fromNative, LokoError } from "../errors.js";
import type { NativeSession } from "../native/addon.js";
import type { ModelGraph } from "../nn/graph.js";
import { elementsOf } from "../tensor/shape.js";
import type { ModelDefinition } from "./architecture.js";
import type { InputRules } from "./inputs.js";
import type { ParameterLayout } from "./parameters.js";

/**
 * What a model and its optimizers share: the native session, and the one place where its errors become
 * `LokoError`s.
 */
export class ModelRuntime {
  readonly graph: ModelGraph;
  /** What a batch is checked against. */
  readonly inputs: InputRules;
  /** Undefined until an adapter is added. */
  layout: ParameterLayout | undefined;
  /** Whether the adapter was loaded for inference alone. */
  isFrozen = false;
  readonly #session: NativeSession;
  #disposed = false;

  constructor(session: NativeSession, { graph, tokens }: ModelDefinition) {
    this.#session = session;
    this.graph = graph;
    this.inputs = { input: graph.input, tokens };
  }

  /** Number of trainable parameters n. */
  get parameterCount(): number {
    return this.layout?.size ?? 0;
  }

  /** @throws LokoError ERR_DISPOSED */
  requireAlive(): void {
    if (this.#disposed) {
      throw new LokoError(
        "ERR_DISPOSED",
        "The model was used after dispose(); load it again with Model.fromPretrained.",
      );
    }
  }

  /** @throws LokoError ERR_NO_TRAINABLE_PARAMETERS */
  requireTrainable(what: string): void {
    if (this.parameterCount > 0 && !this.isFrozen) return;
    const reason = this.isFrozen
      ? "the adapter was loaded for inference: call loadAdapter with { isTrainable: true }."
      : "this one has none; call addAdapter first.";
    throw new LokoError(
      "ERR_NO_TRAINABLE_PARAMETERS",
      `${what} needs a model with trainable parameters, and ${reason}`,
    );
  }

  /** Runs one native call and maps what it throws. */
  call<T>(action: (session: NativeSession) => T): T {
    this.requireAlive();
    try {
      return action(this.#session);
    } catch (error) {
      throw fromNative(error);
    }
  }

  /** As {@link ModelRuntime.call}, for calls that return a promise. */
  async run<T>(action: (session: NativeSession) => Promise<T>): Promise<T> {
    try {
      return await this.call(action);
    } catch (error) {
      throw fromNative(error);
    }
  }

  dispose(): void {
    this.#disposed = true;
    this.#session.dispose();
  }
}

/** An array for a native result. @throws LokoError ERR_OUT_OF_MEMORY */
export function allocate(shape: readonly number[]): Float32Array {
  const size = elementsOf(shape);
  try {
    return new Float32Array(size);
  } catch (cause) {
    throw new LokoError(
      "ERR_OUT_OF_MEMORY",
      `A result of shape [${shape.join(", ")}] needs ${size * Float32Array.BYTES_PER_ELEMENT} bytes, ` +
        "which cannot be allocated; use a smaller batch.",
      { cause },
    );
  }
}
