import { Command } from "commander";
import { packageVersion } from "../version.js";
import { reportFailure } from "./failure.js";
import { guardOutput } from "./output.js";

/** What a file of a command exports: its options, and the action that runs it. */
interface CommandModule {
  define(command: Command): void;
}

interface CommandEntry {
  readonly name: string;
  readonly description: string;
  /** Imports the command and all that it needs, which `loko --help` does not. */
  load(): Promise<CommandModule>;
}

const COMMANDS: readonly CommandEntry[] = [
  {
    name: "train",
    description: "learn from texts or images online and save the adapter",
    load: () => import("./train.js"),
  },
  {
    name: "eval",
    description: "measure a model and an adapter on held-out data",
    load: () => import("./eval.js"),
  },
  {
    name: "predict",
    description: "label texts or images from the command line, a file or stdin",
    load: () => import("./predict.js"),
  },
  {
    name: "inspect",
    description: "show what is in a model, an adapter or a .safetensors file",
    load: () => import("./inspect.js"),
  },
  {
    name: "doctor",
    description: "show what this machine offers, and what is missing",
    load: () => import("./doctor.js"),
  },
];

const EXAMPLES = `
Examples:
  loko train --model ./bert --train train.tsv --eval dev.tsv --output adapter
  loko predict --model ./bert --adapter adapter --text "a fine film"

Exit codes: 0 done, 1 failed, 2 wrong use, 129, 130, 143 stopped by SIGHUP, Ctrl-C, SIGTERM.`;

/**
 * Runs one command line.
 *
 * @param args - without the names of Node and of the script.
 * @returns the exit code.
 */
export async function run(args: readonly string[]): Promise<number> {
  guardOutput();
  try {
    const program = await createProgram(args);
    await program.parseAsync(args, { from: "user" });
    return 0;
  } catch (error) {
    return reportFailure(error, args);
  }
}

async function createProgram(args: readonly string[]): Promise<Command> {
  const program = new Command("loko")
    .description("Fine-tune models online, one sample at a time, without a learning rate.")
    .version(packageVersion(), "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand("help [command]", "print the help of a command")
    .addHelpText("after", EXAMPLES)
    .showSuggestionAfterError()
    .exitOverride()
    // Errors are thrown and reported in one place.
    .configureOutput({ outputError: () => {} });
  for (const { name, description, load } of COMMANDS) {
    const command = program.command(name).description(description);
    // `loko train …`, `loko help train`
    if (args.slice(0, 2).includes(name)) (await load()).define(command);
  }
  return program;
}
