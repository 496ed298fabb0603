import { types } from "node:util";

// A list and not a type alone, because fromNative must tell our codes from Node's own "ERR_..." ones.
const CODES = [
  /** A file or a folder that was asked for does not exist. */
  "ERR_FILE_NOT_FOUND",
  /** A file exists and cannot be read: permissions, a folder in its place, too large, an I/O error. */
  "ERR_FILE_READ",
  /** A safetensors file ends before the data that its header promises. */
  "ERR_SAFETENSORS_TRUNCATED",
  /** A safetensors header is malformed, larger than the limit, or longer than its file. */
  "ERR_SAFETENSORS_HEADER",
  /** Offsets in a safetensors header overlap, leave holes, are out of range, or contradict a shape. */
  "ERR_SAFETENSORS_OFFSETS",
  /** A tensor has a data type that the safetensors format does not define. */
  "ERR_UNKNOWN_DTYPE",
  /** A checkpoint lacks a weight that the model, or the checkpoint's own index, names. */
  "ERR_WEIGHT_MISSING",
  /** A weight has another shape than the model's configuration implies. */
  "ERR_WEIGHT_SHAPE",
  /** A weight of a checkpoint holds NaN or an infinity, or overflows float32. */
  "ERR_WEIGHT_NOT_FINITE",
  /** A JSON configuration is malformed, or lacks a key, or has a value of the wrong type or range. */
  "ERR_CONFIG",
  /** `model_type` in `config.json` names an architecture that is not supported. */
  "ERR_UNKNOWN_MODEL_TYPE",
  /** The configuration names an activation function that is not supported. */
  "ERR_UNKNOWN_ACTIVATION",
  /** `numLabels` does not fit the classification head of the checkpoint. */
  "ERR_NUM_LABELS",
  /** An entry that selects modules (targets, patterns, modules to save) selects none. */
  "ERR_TARGET_MODULES",
  /** A LoRA rank is not a positive integer. */
  "ERR_LORA_RANK",
  /** Another adapter option is unknown or has a bad value. */
  "ERR_LORA_CONFIG",
  /** A class label is not an integer in [0, numLabels). */
  "ERR_LABEL_RANGE",
  /** A tensor or an input has another shape than the operation needs. */
  "ERR_SHAPE_MISMATCH",
  /** An argument has the wrong JavaScript type, for example a plain array for a typed one. */
  "ERR_INPUT_TYPE",
  /** An input holds NaN or an infinity. */
  "ERR_INPUT_NOT_FINITE",
  /** A model, a tensor or an optimizer was used after `dispose()`. */
  "ERR_DISPOSED",
  /** A model was given a second operation while one was still running. */
  "ERR_MODEL_BUSY",
  /** An optimizer was created for a model in which nothing is trainable. */
  "ERR_NO_TRAINABLE_PARAMETERS",
  /** An option is unknown or has a bad value. */
  "ERR_OPTION",
  /** The request is valid, and this version cannot do it. */
  "ERR_UNSUPPORTED",
  /** The device that was asked for is not available; the message says why. */
  "ERR_DEVICE_UNAVAILABLE",
  /** The GPU reported an error, and its model is of no more use; the message names the kernel. */
  "ERR_DEVICE_FAILED",
  /** The environment variable LOKO_CUBLASLT names a cuBLASLt that cannot be used; the message lists what was tried. */
  "ERR_CUBLAS_UNAVAILABLE",
  /** The native addon could not be found or loaded. */
  "ERR_NATIVE_LOAD",
  /** Memory on the host or on the device could not be allocated. */
  "ERR_OUT_OF_MEMORY",
  /** A bug in loko. */
  "ERR_INTERNAL",
  /** An IDX file (the format of MNIST) is malformed, truncated, or larger than the limit. */
  "ERR_IDX_FORMAT",
  /** A file or a folder could not be written: permissions, a full disk, an I/O error. */
  "ERR_FILE_WRITE",
  /** An output folder exists already and is not empty. */
  "ERR_OUTPUT_EXISTS",
  /** Another training writes into the output folder. */
  "ERR_OUTPUT_BUSY",
  /** A token id, a token type or a position is outside the tables of the model. */
  "ERR_TOKEN_RANGE",
  /** A sequence has more tokens than the model has positions, or a text is too long to tokenize. */
  "ERR_SEQUENCE_LENGTH",
  /** A tokenizer file is missing, malformed, or asks for something that is not supported. */
  "ERR_TOKENIZER",
  /** A data file (TSV, CSV, JSON lines, Parquet) is malformed, truncated or empty. */
  "ERR_DATA_FORMAT",
  /** A column that was asked for is not in the data, or holds values of another type. */
  "ERR_DATA_COLUMN",
  /** An image cannot be decoded: damaged, cut short, too large, or of a format that is not supported. */
  "ERR_IMAGE_FORMAT",
  /** An optional package that this needs is not installed; the message has the line that installs it. */
  "ERR_MISSING_DEPENDENCY",
  /** A label in a data file is neither an integer in range nor a name in `label2id`. */
  "ERR_LABEL_UNKNOWN",
  /** A training ended with a model whose outputs are not finite. */
  "ERR_DIVERGED",
  /** An adapter folder is malformed: bad configuration, missing or foreign tensors. */
  "ERR_ADAPTER_FORMAT",
  /** An adapter was made for another model: its modules or shapes do not fit. */
  "ERR_ADAPTER_MISMATCH",
  /** A checkpoint, or the state of an optimizer, is damaged, cut short or of another version. */
  "ERR_CHECKPOINT_FORMAT",
  /** A checkpoint is of another model, optimizer, dataset or of other training options. */
  "ERR_CHECKPOINT_MISMATCH",
] as const;

/**
 * The stable codes of {@link LokoError}; the text of a message may change, a code does not.
 * docs/errors.md says what each of them means.
 *
 * @useDeclaredType
 */
export type LokoErrorCode = (typeof CODES)[number];

/**
 * The one error class of the package. `code` is for programs; `message` says what was expected, what
 * came, where, and what to do. `cause` holds the underlying error where there is one.
 */
export class LokoError extends Error {
  /** Always `"LokoError"`. */
  override readonly name = "LokoError";
  /** What went wrong, for programs. */
  readonly code: LokoErrorCode;

  /** For errors of your own sources and callbacks; the package throws all others. */
  constructor(code: LokoErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

function isLokoErrorCode(code: unknown): code is LokoErrorCode {
  return (CODES as readonly unknown[]).includes(code);
}

/**
 * Maps an error thrown by the native addon to a {@link LokoError} with the same code and message. What
 * carries none of our codes came from below the addon's own checks and becomes `ERR_INTERNAL`. The
 * original is kept as `cause`.
 */
export function fromNative(error: unknown): LokoError {
  if (error instanceof LokoError) return error;
  if (!(error instanceof Error)) {
    return new LokoError("ERR_INTERNAL", `The native addon threw ${describe(error)}.`, {
      cause: error,
    });
  }
  const { code } = error as { code?: unknown };
  return new LokoError(isLokoErrorCode(code) ? code : "ERR_INTERNAL", error.message, {
    cause: error,
  });
}

/** Longest excerpt of a value that a message repeats; file contents may be hostile or very long. */
const MAX_EXCERPT = 120;

/** A short, safe text of an unexpected value for an error message: `"abc"`, `-1`, `an array of 3`. */
export function describe(value: unknown): string {
  switch (typeof value) {
    case "string": {
      const text = JSON.stringify(value.slice(0, MAX_EXCERPT));
      return value.length > MAX_EXCERPT ? `${text}... (${value.length} characters)` : text;
    }
    case "bigint":
      return `${value}n`;
    case "function":
      return "a function";
    case "object":
      return value === null ? "null" : describeObject(value);
    default:
      return String(value);
  }
}

/** Looks at nothing that the object could have overridden, and survives a proxy that throws. */
function describeObject(value: object): string {
  try {
    if (Array.isArray(value)) return `an array of ${Number(value.length)}`;
    if (!ArrayBuffer.isView(value)) return "an object";
    return `a ${types.isDataView(value) ? "DataView" : typedArrayName.call(value)}`;
  } catch {
    return "an object that cannot be inspected";
  }
}

const typedArrayPrototype = Object.getPrototypeOf(Uint8Array.prototype) as object;
const typedArrayName = Object.getOwnPropertyDescriptor(typedArrayPrototype, Symbol.toStringTag)!
  .get as (this: ArrayBufferView) => string;

/** The `count` candidates nearest to `name` by edit distance, nearest first, for a "did you mean". */
export function nearestNames(name: string, candidates: Iterable<string>, count = 3): string[] {
  return [...new Set(candidates)]
    .map((candidate) => ({ candidate, distance: editDistance(name, candidate) }))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, count)
    .map(({ candidate }) => candidate);
}

/** Levenshtein distance, by one row of the dynamic-programming table. */
function editDistance(a: string, b: string): number {
  const row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    let diagonal = row[0]!;
    row[0] = i;
    for (let j = 1; j <= b.length; j++) {
      const substitution = diagonal + (a[i - 1] === b[j - 1] ? 0 : 1);
      diagonal = row[j]!;
      row[j] = Math.min(substitution, diagonal + 1, row[j - 1]! + 1);
    }
  }
  return row[b.length]!;
}
