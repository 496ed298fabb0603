import { Command } from "commander";
import { describe, expect, test } from "vitest";
import { checkOptimizer } from "../../../lib/cli/optimizers.js";
import {
  choice,
  integer,
  list,
  listOr,
  number,
  object,
  SharedOptions,
  text,
} from "../../../lib/cli/options.js";
import { positiveNumber } from "../../../lib/options.js";
import { expectError } from "../model/checkpoints.js";

interface Options {
  model: string;
  epochs: number;
  rate?: number;
  kind: string;
  targetModules?: string | string[];
  metrics?: string[];
  extra?: object;
  overwrite?: boolean;
}

function resolve(args: string[], file?: Record<string, unknown>): Options {
  const command = new Command("train").exitOverride().configureOutput({ writeErr: () => {} });
  const options = new SharedOptions(command)
    .value("--model <dir>", "", text)
    .value("--epochs <n>", "", integer(1), 1)
    .value("--rate <number>", "", number(positiveNumber))
    .value("--kind <name>", "", choice("a", "b"), "a")
    .value("--target-modules <names>", "", listOr("all-linear"))
    .value("--metrics <names>", "", list)
    .value("--extra <json>", "", object)
    .flag("--overwrite", "");
  command.parse(args, { from: "user" });
  return options.resolve<Options>(["model"], file && { path: "run.json", values: file });
}

describe("the options of a command", () => {
  test("come from flags before the file, and from the file before the defaults", () => {
    const file = { model: "file", epochs: 3, overwrite: true, metrics: ["f1"] };
    expect(resolve(["--model", "flag"], file)).toEqual({ ...file, model: "flag", kind: "a" });
    expect(resolve(["--epochs", "1"], file).epochs).toBe(1); // also where a flag repeats the default
    expect(resolve(["--model", "flag"])).toEqual({ model: "flag", epochs: 1, kind: "a" });
  });

  test("are read from text by their kind", () => {
    const args = ["--model", "m", "--rate", "1e-3", "--metrics", "f1, accuracy"];
    const more = ["--target-modules", "query,value", "--extra", '{"preset":"paper"}'];
    expect(resolve([...args, ...more])).toMatchObject({
      rate: 1e-3,
      metrics: ["f1", "accuracy"],
      targetModules: ["query", "value"],
      extra: { preset: "paper" },
    });
    const linear = resolve(["--model", "m", "--target-modules", "all-linear"]);
    expect(linear.targetModules).toBe("all-linear");
  });

  test.each<[string, string[], string]>([
    ["a number that is none", ["--epochs", "x"], "Expected an integer >= 1"],
    ["an empty number", ["--epochs", ""], "Expected an integer >= 1"],
    ["a number out of range", ["--rate", "-1"], "Expected a finite float32 number > 0"],
    ["an unknown choice", ["--kind", "c"], 'Expected one of "a", "b"'],
    ["an empty text", ["--model", ""], "Expected a text that is not empty"],
    ["a list with a hole", ["--metrics", "f1,,accuracy"], "Expected names, separated by commas"],
    ["JSON that is none", ["--extra", "{preset}"], "Expected a JSON object"],
    ["JSON of another kind", ["--extra", "[1]"], "Expected a JSON object"],
    ["an unknown flag", ["--epoch", "1"], "Did you mean --epochs?"],
    ["a flag without its value", ["--model"], "argument missing"],
    ["arguments that nobody wants", ["a", "b"], "too many arguments"],
  ])("refuse %s as a flag", (_, args, words) => {
    expect(() => resolve(args)).toThrow(words);
  });

  test.each<[string, Record<string, unknown>, string[]]>([
    ["an unknown key, naming the nearest", { batchsize: 3, epoch: 1 }, ['"batchsize"', "run.json"]],
    ["a flag's spelling", { "target-modules": [] }, ['"target-modules"', '"targetModules"']],
    ["a value of another type", { epochs: "3" }, ["epochs", ">= 1", '"3"']],
    ["a value out of range", { rate: 0 }, ["rate", "> 0"]],
    ["an unknown choice", { kind: "c" }, ["kind", '"b"']],
    ["null", { model: null }, ["model", "null"]],
    ["an array where an object belongs", { extra: [] }, ["extra", "a JSON object"]],
  ])("refuse %s in a file", async (_, file, words) => {
    await expectError(() => resolve([], file), "ERR_OPTION", ...words);
  });

  test("name the flag that is needed and missing", async () => {
    await expectError(() => resolve([]), "ERR_OPTION", "--model <dir>", "loko train --help");
  });
});

describe("LoKO on the command line", () => {
  test("takes no learning rate", async () => {
    const loko = { optimizer: "loko" } as const;
    checkOptimizer(loko);
    checkOptimizer({ optimizer: "adamw", lr: 1e-3 });
    await expectError(() => checkOptimizer({ ...loko, lr: 0.1 }), "ERR_OPTION", "learning rate");
  });
});
