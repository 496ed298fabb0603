import { CommanderError } from "commander";
import { LokoError } from "../errors.js";
import { flagOf } from "./checks.js";
import { Interrupted } from "./interrupt.js";

const FAILED = 1;
const WRONG_USE = 2;

/**
 * Says on stderr why a command failed: one line, or one JSON document with `--json`.
 *
 * @returns the exit code.
 */
export function reportFailure(error: unknown, args: readonly string[]): number {
  if (error instanceof CommanderError && error.exitCode === 0) return 0; // --help, --version
  if (error instanceof CommanderError && error.code === "commander.help") return WRONG_USE;
  if (error instanceof Interrupted) return error.exitCode; // has said so itself
  const { code, message, exitCode } = explain(error, args);
  const verbose = args.includes("--verbose") || Boolean(process.env.DEBUG);
  const stack = verbose && error instanceof Error ? error.stack : undefined;
  if (args.includes("--json")) {
    process.stderr.write(`${JSON.stringify({ error: { code, message, stack } })}\n`);
  } else {
    process.stderr.write(`error ${code}: ${message}\n${stack ? `${stack}\n` : ""}`);
  }
  return exitCode;
}

/** Options of the library whose flags have other names. */
const RENAMED: Readonly<Record<string, string>> = {
  resumeFromCheckpoint: "resume",
  outputDir: "checkpoint-dir",
  overwriteOutputDir: "overwrite",
  evalDataset: "eval",
  evalSteps: "eval-every",
  saveSteps: "save-every",
  loadBestModelAtEnd: "load-best",
  loggingDir: "log-dir",
};

/** Options of the library that a command has as flags. */
const NAMES = [
  ...["textColumn", "pairColumn", "imageColumn", "labelColumn", "unlistedClasses", "numLabels"],
  ...["ignoreMismatchedSizes", "batchSize", "maxLength", "overwrite", "gradientAccumulationSteps"],
  ...["lrSchedulerType", "warmupSteps", "maxGradNorm", "earlyStoppingPatience", "saveTotalLimit"],
  ...Object.keys(RENAMED),
];

/** Not in a path or between quotes, and with the value that a message gives it. */
const FLAGS = new RegExp(
  `(?<!["'/\\w-])(${NAMES.join("|")})\\b(?!\\s*\\()(: true|: (?=\\d)|: "\\w+")?`,
  "g",
);

/** Messages of the library name its options, and its Trainer; here they are flags. */
function inFlags(message: string): string {
  return message.replace(/^Trainer: /, "").replace(FLAGS, (_, name: string, value = "") => {
    const renamed = RENAMED[name];
    const flag = renamed === undefined ? flagOf(name) : `--${renamed}`;
    if (value === ": true") return flag;
    return value === "" ? flag : `${flag} ${value.slice(2).replaceAll('"', "")}`;
  });
}

function explain(
  error: unknown,
  [command]: readonly string[],
): { code: string; message: string; exitCode: number } {
  if (error instanceof CommanderError) {
    const isCommand = error.code !== "commander.unknownCommand" && /^\w/.test(command ?? "");
    const help = isCommand ? `loko ${command} --help` : "loko --help";
    const message = error.message
      .replace(/^error: /, "")
      .replaceAll("\n", " ")
      .replace(/\.$/, "");
    return { code: "ERR_OPTION", message: `${message}. See ${help}.`, exitCode: WRONG_USE };
  }
  if (error instanceof LokoError) {
    const { code } = error;
    const message = inFlags(error.message);
    return { code, message, exitCode: code === "ERR_OPTION" ? WRONG_USE : FAILED };
  }
  const what = error instanceof Error ? error.message : String(error);
  const message = `${what}. This is a bug in loko; --verbose shows where.`;
  return { code: "ERR_INTERNAL", message, exitCode: FAILED };
}
