import type { Evaluation } from "../metrics/accumulator.js";
import type { StepResult, Targets } from "../optim/optimizer.js";

/** One entry of the log, with the keys of the Hugging Face Trainer: `loss`, `learning_rate`, `eval_loss`. */
export type LogEntry = Readonly<Record<string, number>>;

/** Where a training stands. */
export interface TrainerProgress {
  /** Steps done. */
  readonly globalStep: number;
  /** Steps of the whole training. */
  readonly maxSteps: number;
  /** Passes done, with a fraction where the length of the dataset is known. */
  readonly epoch: number;
}

/**
 * What a {@link Trainer} tells while it runs; `type` tells the events apart:
 * - `"trainBegin"`, once; `resumedFrom` is the checkpoint.
 * - `"epochBegin"` and `"epochEnd"`, around each pass over the data.
 * - `"step"`, after each update of the parameters.
 * - `"log"`: `logs` is a copy of what was written to the logs.
 * - `"evaluate"`: `metrics` of the held-out data, and `logs`, the same with the keys of the log.
 * - `"save"`: `checkpoint` is the path of the folder.
 * - `"trainEnd"`, once; `output` is what {@link Trainer.train} returns.
 */
export type TrainerEvent = TrainerProgress &
  (
    | {
        readonly type: "trainBegin";
        /** Path of the checkpoint that the training goes on from. */
        readonly resumedFrom?: string;
      }
    | { readonly type: "epochBegin" }
    | {
        readonly type: "step";
        /** One result for each forward pass of the step: more than one where gradients accumulate. */
        readonly results: readonly BatchResult[];
        /** Samples learned from so far. */
        readonly samples: number;
        /** Share of all samples so far that were predicted correctly before the model learned from them. */
        readonly onlineAccuracy: number;
        /** Absent for LoKO. */
        readonly learningRate?: number;
      }
    | { readonly type: "log"; readonly logs: LogEntry }
    | { readonly type: "evaluate"; readonly metrics: Evaluation; readonly logs: LogEntry }
    | { readonly type: "save"; readonly checkpoint: string }
    | { readonly type: "epochEnd" }
    | { readonly type: "trainEnd"; readonly output: TrainOutput }
  );

/** What one forward pass saw, and the labels that it learned from. */
export interface BatchResult extends StepResult {
  /** Class indices [B], or float targets [B * m]. */
  readonly labels: Targets;
}

/** What a training came to. */
export interface TrainOutput {
  /** Steps of the whole training, those before a resumed checkpoint included. */
  readonly globalStep: number;
  /** Steps of this call: without those before a resumed checkpoint. */
  readonly steps: number;
  /**
   * Steps of the whole training that changed nothing, because their numbers went wrong ({@link SkipReason}).
   * Where that was every one, `LOKO_NOTHING_LEARNED` is warned of.
   */
  readonly skippedSteps: number;
  /** Mean loss of all steps, each measured before the model learned from it. */
  readonly trainingLoss: number;
  /**
   * `train_runtime` in seconds, `train_samples_per_second` and `train_steps_per_second`, all three of this
   * call; `train_loss` and `epoch` of the whole training.
   */
  readonly metrics: LogEntry;
  /** Path of the best checkpoint, where there were evaluations and checkpoints. */
  readonly bestModelCheckpoint: string | null;
  /** Whether it ended before its last step: stopped early, or by a callback. */
  readonly stopped: boolean;
  /**
   * Whether the model is of no use any more: its outputs in the last step were not finite, and no better
   * model was loaded. {@link Trainer.train} rejects then.
   */
  readonly diverged: boolean;
}

/**
 * What happens next: set by the Trainer before the events `"step"` and `"epochEnd"`, changed by callbacks,
 * and cleared again by the Trainer when it is done. What is still set when a training is interrupted is made
 * up for when it is resumed.
 */
export interface TrainerControl {
  /** End the training after this step. */
  shouldTrainingStop: boolean;
  /** Begin the next pass over the data. */
  shouldEpochStop: boolean;
  /** Write a log entry now. */
  shouldLog: boolean;
  /** Evaluate now; ignored without an `evalDataset`. */
  shouldEvaluate: boolean;
  /** Save a checkpoint now; ignored without an `outputDir`. */
  shouldSave: boolean;
}

/** Called with every event; the training waits for it, and fails with what it throws. */
export type TrainerCallback = (
  event: TrainerEvent,
  control: TrainerControl,
) => void | Promise<void>;
