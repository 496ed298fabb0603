import { execFile } from "node:child_process";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";
import { ImageProcessor } from "../../lib/images/processor.js";
import type { JsonObject } from "../../lib/io/json.js";
import { architectureOf } from "../../lib/models/architecture.js";
import { type Block, blocksOf, pages, placeOf, ROOT } from "./blocks.js";
import {
  checkNpmScript,
  checkSession,
  commandsOf,
  installCommands,
  linesOf,
  runCommand,
} from "./commands.js";
import { compile, referenceExamples } from "./compile.js";
import { programOf, runsOf, type Step } from "./runs.js";
import { SCENARIOS } from "./scenarios.js";

// Inside the package, so that "loko" is this one.
const FOLDER = join(ROOT, "build/documentation");

const blocks = pages().flatMap((page) => blocksOf(page));
const runs = runsOf(blocks, FOLDER);
const isOf = (verb: string) => (block: Block) => block.marker?.verb === verb;

const node = promisify(execFile);

/** Runs a step; returns what a program printed. */
async function runStep(step: Step, dir: string): Promise<string[]> {
  const [block] = step.blocks as [Block];
  if (step.program !== undefined) {
    const script = step.program.replace(/\.ts$/, ".js");
    return linesOf((await node(process.execPath, [script], { cwd: dir })).stdout);
  }
  if (block.marker!.file !== undefined) {
    writeFileSync(join(dir, block.marker!.file), block.code);
  } else if (block.language === "console") {
    await checkSession(block, dir);
  } else {
    for (const command of commandsOf(block.code)) {
      const { code, lines } = await runCommand(command, dir);
      expect({ at: placeOf(block), command, code, lines }).toMatchObject({ code: 0 });
    }
  }
  return [];
}

/** What JSON on a page is read by. */
const READERS: Readonly<Record<string, (value: JsonObject) => unknown>> = {
  processor: (config) => ImageProcessor.fromConfig(config),
  model: (config) => {
    const checkpoint = { dir: "", config, weights: new Map() };
    return architectureOf(checkpoint).define(checkpoint);
  },
};

let complaints: readonly string[];
beforeAll(async () => {
  rmSync(FOLDER, { recursive: true, force: true });
  installCommands();
  const programs = runs.flatMap(({ steps }) => steps.filter(({ program }) => program));
  const sources = new Map(programs.map((step) => [step.program!, programOf(step)]));
  const exported = Object.keys(await import("../../lib/index.js"));
  for (const [name, code] of referenceExamples(exported)) {
    sources.set(join(FOLDER, "reference", name), code);
  }
  for (const [path, code] of sources) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, code);
  }
  complaints = compile([...sources.keys()]);
}, 120_000);

describe("the code in the documentation", () => {
  test("passes the type check of the built package, examples of the API reference included", () => {
    expect(complaints).toEqual([]);
  });

  for (const { scenario, dir, steps } of runs) {
    const places = steps.flatMap((step) => step.blocks.map(placeOf)).join(", ");
    test(`runs with the files of "${scenario}": ${places}`, async () => {
      const { prepare, check } = SCENARIOS[scenario] ?? expect.fail(`no scenario "${scenario}"`);
      mkdirSync(dir, { recursive: true });
      await prepare(dir);
      const lines: string[] = [];
      for (const step of steps) lines.push(...(await runStep(step, dir)));
      await check?.(dir, lines);
    });
  }

  test("is read by what reads such JSON", () => {
    for (const block of blocks.filter(isOf("reads"))) {
      const read = READERS[block.marker!.argument] ?? expect.fail(placeOf(block));
      expect(read(JSON.parse(block.code)), placeOf(block)).toBeDefined();
    }
  });

  test("starts scripts that exist where it is of commands of npm", () => {
    const others = blocks.filter(({ marker, language }) => !marker && language === "sh");
    for (const { code } of others) for (const command of commandsOf(code)) checkNpmScript(command);
  });

  test("is marked where it cannot run, with the reason, and nothing else is left out", () => {
    const left = blocks.filter(isOf("not run"));
    const reasons = left.map(({ page, marker }) => `${page}: ${marker!.argument}`);
    expect(reasons).toEqual(NOT_RUN);
    const unmarked = blocks.filter(
      ({ marker, language }) => !marker && !["sh", "text", "mermaid"].includes(language),
    );
    expect(unmarked.map(placeOf)).toEqual([]);
  });
});

/** Each of these is a promise that nobody keeps for us: not more than a dozen. */
const NOT_RUN = [
  "CONTRIBUTING.md: installs packages",
  "docs/adapters.md: needs PEFT",
  "docs/cuda.md: needs a GPU",
  "docs/cuda.md: needs a GPU",
  "docs/decisions/package-holds-the-sources.md: installs packages",
  "docs/from-peft.md: needs PEFT",
  "docs/images.md: needs the network",
  "docs/models.md: needs torchvision",
  "docs/models.md: needs PyTorch",
  "docs/releasing.md: needs Docker",
  "docs/streams.md: needs PyTorch",
];
