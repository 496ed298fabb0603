// Puts the blocks of the documentation together to runs: what happens in one folder, in order.
import { join } from "node:path";
import { type Block, placeOf } from "./blocks.js";

/** Blocks that run one after the other in a folder of their own. */
export interface Run {
  readonly scenario: string;
  readonly dir: string;
  readonly steps: Step[];
}

/** A TypeScript program of one block or more, or one block of another language. */
export interface Step {
  readonly blocks: Block[];
  /** Only for TypeScript. */
  readonly program?: string;
}

const isProgram = ({ language }: Block) => language === "ts" || language === "js";

/** @param folder - in which each run gets one of its own. */
export function runsOf(all: readonly Block[], folder: string): Run[] {
  const found: Run[] = [];
  for (const block of all) {
    const { verb, argument = "" } = block.marker ?? {};
    if (verb === "run") {
      const name = `${block.page.replace(/\W/g, "-")}-${block.line}`;
      found.push({ scenario: argument, dir: join(folder, name), steps: [] });
      addStep(found.at(-1)!, block);
    } else if (verb === "continues") {
      const run = found.findLast(
        (run) => pageOf(run) === block.page && (argument === "" || run.scenario === argument),
      );
      if (run === undefined) throw new Error(`${placeOf(block)}: nothing runs on this page yet.`);
      addStep(run, block);
    }
  }
  return found;
}

const pageOf = ({ steps }: Run) => steps[0]!.blocks[0]!.page;

function addStep({ dir, steps }: Run, block: Block): void {
  const last = steps.at(-1);
  if (!isProgram(block)) steps.push({ blocks: [block] });
  else if (last?.program === undefined) {
    steps.push({ blocks: [block], program: join(dir, `step-${steps.length}.ts`) });
  } else last.blocks.push(block);
}

/** The source of a program, with the code that readers do not see. */
export const programOf = (step: Step): string =>
  step.blocks.map(({ marker, code }) => `${marker!.hidden}\n${code}`).join("");
