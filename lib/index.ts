/**
 * Online fine-tuning of pretrained models with LoRA and the Low-Rank Kalman Optimizer.
 *
 * @module loko
 */

export { batches, Dataset, type Items, type ShuffleOptions } from "./data/dataset.js";
export { type IdxArray, type ReadIdxOptions, readIdx } from "./data/idx.js";
export {
  ImageDataset,
  type ImageDatasetOptions,
  type ImageExample,
  type ImageFormat,
  imageDataset,
} from "./data/image-dataset.js";
export {
  type DataFormat,
  type TextDatasetOptions,
  type TextExample,
  textDataset,
} from "./data/text.js";
export {
  type CublasLtInfo,
  type CudaCause,
  type CudaInfo,
  cublasLtInfo,
  type Device,
  type DeviceInfo,
  deviceInfo,
  type ModelDevice,
  type Precision,
} from "./device.js";
export { LokoError, type LokoErrorCode } from "./errors.js";
export { type DecodeOptions, decodeImage } from "./images/decode.js";
export type { Resample } from "./images/filters.js";
export type { ImageSource, RawImage } from "./images/image.js";
export {
  type ImageSize,
  invert,
  type NormalizeOptions,
  normalizeImages,
  type PixelInputs,
  rotate90,
} from "./images/pixels.js";
export { ImageProcessor, type ImageProcessorOptions } from "./images/processor.js";
export { resizeImage } from "./images/resize.js";
export type {
  AdapterSummary,
  LoadAdapterOptions,
  SaveAdapterOptions,
} from "./lora/adapter-folder.js";
export type { AdapterBias, AdapterOptions } from "./lora/config.js";
export type { DialectChoice } from "./lora/dialect.js";
export {
  type Evaluation,
  MetricAccumulator,
  type MetricName,
  type MetricOptions,
  type Predicted,
} from "./metrics/accumulator.js";
export {
  accuracy,
  ConfusionMatrix,
  type F1Average,
  f1Score,
  matthewsCorrelation,
} from "./metrics/confusion.js";
export { meanSquaredError, RunningMean } from "./metrics/mean.js";
export { type JacobianOptions, Model, type ModelInput, type ModelOptions } from "./model.js";
export type { ImageSizeOption } from "./models/image-size.js";
export type { ImageInputs, ModelInputs, TextInputs } from "./models/inputs.js";
export type { ProblemType } from "./models/labels.js";
export type { SaveOptions, SaveSummary } from "./models/model-folder.js";
export type { ParameterGroup, ParameterInfo } from "./models/parameters.js";
export {
  AdaGrad,
  type AdaGradOptions,
  Adam,
  type AdamOptions,
  AdamW,
  AMSGrad,
  RMSProp,
  type RMSPropOptions,
  SGD,
  type SGDOptions,
} from "./optim/gradient.js";
export { LoKO, type LoKOOptions } from "./optim/loko.js";
export {
  type KalmanStatistics,
  Optimizer,
  type SkipReason,
  type StepResult,
  type Targets,
} from "./optim/optimizer.js";
export { Tensor } from "./tensor/tensor.js";
export {
  type BatchOptions,
  type EncodeOptions,
  type Encoding,
  type TextOrPair,
  Tokenizer,
  type TokenizerOptions,
} from "./text/tokenizer.js";
export type { Truncation } from "./text/truncate.js";
export { type EncodeExamplesOptions, encodeExamples } from "./train/encode.js";
export { type EncodeImagesOptions, encodeImages } from "./train/encode-images.js";
export { type EvaluateOptions, evaluate } from "./train/evaluate.js";
export {
  type OnlineSample,
  type SampleStream,
  type StepEvent,
  type TrainOnlineOptions,
  trainOnline,
} from "./train/online.js";
export { Trainer, type TrainOptions } from "./train/trainer.js";
export type { DataPass, EpochSource, TrainerDataset } from "./train/trainer-data.js";
export type {
  BatchResult,
  LogEntry,
  TrainerCallback,
  TrainerControl,
  TrainerEvent,
  TrainerProgress,
  TrainOutput,
} from "./train/trainer-events.js";
export type {
  IntervalStrategy,
  LearningRateSchedule,
  ReportTarget,
  TrainerOptions,
} from "./train/trainer-options.js";
