import { describe, LokoError } from "../errors.js";
import { readBoolean, readNumber } from "../io/config.js";
import { type JsonObject, ofSameOrigin, originOf } from "../io/json.js";
import { RESAMPLES } from "./filters.js";
import type { ImageSize } from "./pixels.js";
import type { ProcessorSettings, SizeRule } from "./processor-settings.js";

const IMAGENET_STANDARD = [0.5, 0.5, 0.5];
const CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073];
const CLIP_STD = [0.26862954, 0.26130258, 0.27577711];

/** What a processor of transformers does where the file says nothing. */
interface Defaults {
  readonly size: number;
  /** Whether a size of one number is a square, or else the length of the shorter edge. */
  readonly isSquare: boolean;
  readonly resample: number;
  readonly crop: number | undefined;
  readonly mean: readonly number[];
  readonly std: readonly number[];
  /** ConvNext's rule: below 384 resize to size / crop_pct and cut the middle, else only resize. */
  readonly usesCropPct?: boolean;
}

/** Class attributes of transformers 5.18 (`models/<name>/image_processing_pil_<name>.py`). */
const PROCESSORS: Readonly<Record<string, Defaults>> = {
  // ViT, DINO, Swin
  ViT: {
    size: 224,
    isSquare: true,
    resample: 2,
    crop: undefined,
    mean: IMAGENET_STANDARD,
    std: IMAGENET_STANDARD,
  },
  // BiT, DINOv2
  Bit: {
    size: 224,
    isSquare: false,
    resample: 3,
    crop: 224,
    mean: CLIP_MEAN,
    std: CLIP_STD,
  },
  // ConvNeXT, ResNet, RegNet. Its class has the ImageNet "standard" 0.5, and not the mean of ImageNet.
  ConvNext: {
    size: 384,
    isSquare: false,
    resample: 3,
    crop: undefined,
    mean: IMAGENET_STANDARD,
    std: IMAGENET_STANDARD,
    usesCropPct: true,
  },
};

const TYPE_KEYS = ["image_processor_type", "feature_extractor_type"];

/** Steps that are known here. Any other `do_…` that is true would change the pixels. */
const STEPS = ["do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb"];

/**
 * Reads what `preprocessor_config.json` holds. As in transformers, null stands for an absent key.
 *
 * @throws LokoError ERR_CONFIG for a key of the wrong type, ERR_UNSUPPORTED for an unknown type of
 * processor or a step that is not known here.
 */
export function readProcessorConfig(json: JsonObject): ProcessorSettings {
  const config = withoutNulls(json);
  const defaults = readDefaults(config, originOf(json));
  refuseOtherSteps(config, originOf(json));
  const flag = (key: string, byDefault: boolean) =>
    readBoolean(config, key, { default: byDefault });
  flag("do_convert_rgb", true);
  const normalize = flag("do_normalize", true) ? readNormalize(config, defaults) : undefined;
  const size = flag("do_resize", true) ? readResize(config, defaults) : undefined;
  const crop = flag("do_center_crop", defaults.crop !== undefined)
    ? readSquareSize(config, "crop_size", defaults.crop)
    : undefined;
  const rescaleFactor = flag("do_rescale", true)
    ? readNumber(config, "rescale_factor", { default: 1 / 255 })
    : undefined;
  requireFinite(config, rescaleFactor ?? 1, normalize);
  return {
    // A model of grey images is known by its one mean.
    channels: normalize?.mean.length === 1 ? 1 : 3,
    resize: size?.resize,
    crop: crop ?? size?.crop,
    rescaleFactor,
    normalize,
  };
}

function withoutNulls(json: JsonObject): JsonObject {
  const entries = Object.entries(json).filter(([, value]) => value !== null);
  return ofSameOrigin(Object.fromEntries(entries), json);
}

/** `ViTImageProcessor`, `ViTImageProcessorFast`, `ViTImageProcessorPil`, `ViTFeatureExtractor`. */
function readDefaults(config: JsonObject, path: string): Defaults {
  const key = TYPE_KEYS.find((name) => Object.hasOwn(config, name));
  const known = Object.keys(PROCESSORS).map((name) => `"${name}ImageProcessor"`);
  if (key === undefined) {
    throw new LokoError(
      "ERR_CONFIG",
      `${path}: expected "image_processor_type", one of ${known.join(", ")}, got nothing.`,
    );
  }
  const type = config[key];
  const [, name = ""] =
    /^(\w+?)(?:ImageProcessor(?:Fast|Pil)?|FeatureExtractor)$/.exec(String(type)) ?? [];
  if (typeof type === "string" && Object.hasOwn(PROCESSORS, name)) return PROCESSORS[name]!;
  throw new LokoError(
    "ERR_UNSUPPORTED",
    `${path}: the image processor ${describe(type)} is not supported; expected one of ` +
      `${known.join(", ")}.`,
  );
}

function refuseOtherSteps(config: JsonObject, path: string): void {
  const isOther = ([key, value]: [string, unknown]) =>
    key.startsWith("do_") && !STEPS.includes(key) && value !== false;
  const [key] = Object.entries(config).find(isOther) ?? [];
  if (key === undefined) return;
  throw new LokoError(
    "ERR_UNSUPPORTED",
    `${path}: ${describe(key)} is ${describe(config[key])}, and this step is not supported; the ` +
      `steps are ${STEPS.join(", ")}.`,
  );
}

function readNormalize(
  config: JsonObject,
  { mean, std }: Defaults,
): ProcessorSettings["normalize"] {
  const means = readChannels(config, "image_mean", mean);
  const deviations = readChannels(config, "image_std", std);
  const length = Array.isArray(means)
    ? means.length
    : Array.isArray(deviations)
      ? deviations.length
      : 3;
  const fill = (value: number | readonly number[]) =>
    typeof value === "number" ? Array.from({ length }, () => value) : value;
  const normalize = { mean: fill(means), std: fill(deviations) };
  if (normalize.mean.length !== length || normalize.std.length !== length) {
    throw badValue(config, "image_std", `${length} numbers, as many as "image_mean" has`);
  }
  if (normalize.std.includes(0)) throw badValue(config, "image_std", "numbers other than 0");
  return normalize;
}

/** What the two ends of a pixel become must be within float32. */
function requireFinite(
  config: JsonObject,
  rescaleFactor: number,
  normalize: ProcessorSettings["normalize"],
): void {
  const { mean, std } = normalize ?? { mean: [0], std: [1] };
  const ends = mean.flatMap((m, channel) =>
    [0, 255].map((pixel) => (pixel * rescaleFactor - m) / std[channel]!),
  );
  if (ends.every((value) => Number.isFinite(Math.fround(value)))) return;
  const key = normalize === undefined ? "rescale_factor" : "image_std";
  throw badValue(config, key, "numbers that keep pixels within float32");
}

function readChannels(
  config: JsonObject,
  key: string,
  byDefault: readonly number[],
): number | readonly number[] {
  const value = Object.hasOwn(config, key) ? config[key] : byDefault;
  if (Number.isFinite(value)) return value as number;
  const isList = Array.isArray(value) && (value.length === 1 || value.length === 3);
  if (isList && value.every(Number.isFinite)) return value as number[];
  throw badValue(config, key, "a number, or a list of 1 or 3 of them");
}

function readResize(
  config: JsonObject,
  defaults: Defaults,
): { resize: NonNullable<ProcessorSettings["resize"]>; crop?: ImageSize } {
  const code = readNumber(config, "resample", {
    integer: true,
    min: 0,
    max: RESAMPLES.length - 1,
    default: defaults.resample,
  });
  const resample = RESAMPLES[code]!;
  const size = readSize(config, defaults);
  if (!defaults.usesCropPct) return { resize: { size, resample } };
  if (size.kind !== "shortest" || size.longest !== undefined) {
    throw badValue(config, "size", 'a number or {"shortest_edge": number}');
  }
  const { edge } = size;
  const square = { height: edge, width: edge };
  if (edge >= 384) return { resize: { size: { kind: "exact", ...square }, resample } };
  const cropPct = readNumber(config, "crop_pct", { min: 2 ** -10, max: 1, default: 224 / 256 });
  if (config.do_center_crop === true) {
    throw badValue(config, "do_center_crop", 'false beside "crop_pct", which crops already');
  }
  const larger: SizeRule = { kind: "shortest", edge: Math.trunc(edge / cropPct) };
  return { resize: { size: larger, resample }, crop: square };
}

/** Longest edge; a model with 2^14 of them would have 16 Mi pixels. */
const MAX_EDGE = 2 ** 14;

function isEdge(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= MAX_EDGE;
}

const SIZE_FORMS =
  'a number, [height, width], or an object with "height" and "width", "shortest_edge" (and ' +
  '"longest_edge"), or "max_height" and "max_width"; edges are integers in [1, 16384]';

/** All spellings of `get_size_dict`. */
function readSize(config: JsonObject, { size, isSquare }: Defaults): SizeRule {
  const value = Object.hasOwn(config, "size") ? config.size : size;
  if (isEdge(value) && !isSquare) return { kind: "shortest", edge: value };
  const square = toHeightWidth(value);
  if (square !== undefined) return { kind: "exact", ...square };
  const edges =
    toEdges(value, ["shortest_edge"]) ?? toEdges(value, ["shortest_edge", "longest_edge"]);
  if (edges !== undefined) return { kind: "shortest", edge: edges[0]!, longest: edges[1] };
  const limits = toEdges(value, ["max_height", "max_width"]);
  if (limits !== undefined) return { kind: "within", height: limits[0]!, width: limits[1]! };
  throw badValue(config, "size", SIZE_FORMS);
}

function readSquareSize(config: JsonObject, key: string, byDefault: number | undefined): ImageSize {
  const size = toHeightWidth(Object.hasOwn(config, key) ? config[key] : byDefault);
  if (size !== undefined) return size;
  throw badValue(config, key, 'a number, [height, width], or {"height": number, "width": number}');
}

function toHeightWidth(value: unknown): ImageSize | undefined {
  const [height, width] = isEdge(value)
    ? [value, value]
    : Array.isArray(value) && value.length === 2
      ? value
      : (toEdges(value, ["height", "width"]) ?? []);
  return isEdge(height) && isEdge(width) ? { height, width } : undefined;
}

/** The values of an object that has these keys and no other. */
function toEdges(value: unknown, keys: readonly string[]): number[] | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  const given = Object.entries(value).filter(([, edge]) => edge !== null);
  const edges = keys.map((key) => given.find(([name]) => name === key)?.[1]);
  return given.length === keys.length && edges.every(isEdge) ? edges : undefined;
}

function badValue(config: JsonObject, key: string, expected: string): LokoError {
  const got = Object.hasOwn(config, key) ? showJson(config[key]) : "nothing (the key is absent)";
  return new LokoError(
    "ERR_CONFIG",
    `${originOf(config)}: "${key}" must be ${expected}, got ${got}.`,
  );
}

/** A short list or object as it stands in the file. */
function showJson(value: unknown): string {
  const text = typeof value === "object" ? JSON.stringify(value) : undefined;
  return text !== undefined && text.length <= 80 ? text : describe(value);
}
