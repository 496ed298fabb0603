// One trial: all contenders are alive at the same time and take turns, so that what the machine does
// meanwhile (its clock, its neighbours) meets all of them alike.
import { setTimeout } from "node:timers/promises";
import { Child, ContenderFailure } from "./child.js";
import { CONTENDERS, type ContenderKind } from "./contenders.js";
import { measurePeak } from "./peak.js";
import type { Reply } from "./protocol.js";
import { median } from "./statistics.js";
import type { Trial } from "./trials.js";

/** What a contender did in one turn. */
export interface Turn {
  readonly round: number;
  readonly seconds: readonly number[];
  readonly rows: readonly number[];
  /** Processor time of the whole turn. */
  readonly cpuSeconds?: number | undefined;
}

/** All that was recorded of one contender. */
export interface Recording {
  readonly name: string;
  readonly kind: ContenderKind;
  readonly turns: readonly Turn[];
  /** From the first step on, warm-up included. */
  readonly losses: readonly number[];
  /** Peak of the steps after the warm-up, and of the whole process. */
  readonly stepPeakBytes: number;
  readonly processPeakBytes: number;
  readonly crossingsPerStep?: number | undefined;
  readonly facts: Readonly<Record<string, unknown>>;
}

export interface Race {
  readonly trial: Trial;
  readonly recordings: readonly Recording[];
  /** Who took no part, and why. */
  readonly skipped: Readonly<Record<string, string>>;
  /** GFLOP/s at the beginning of each round; empty where it cannot be measured. */
  readonly peaks: readonly number[];
}

export interface RaceOptions {
  /** How to start a contender. */
  command(name: string): { command: readonly string[]; env: NodeJS.ProcessEnv };
  /** Processes that start at the same time. */
  starters: number;
  report(line: string): void;
}

const WARM_UP_STEPS = 2;
/** Start and first step: imports, loading, and what torch.compile does. */
const START_SECONDS = 120;
const FIRST_STEP_SECONDS = 240;
const MAX_STEPS_PER_TURN = 1000;
/** Threads of the one before have gone to sleep then. */
const PAUSE_MS = 30;

/** A contender while the race goes on. */
class Runner {
  readonly turns: Turn[] = [];
  readonly losses: number[] = [];
  processPeak = 0;
  stepPeak = 0;
  crossings = 0;
  stepSeconds = 0;
  spent = 0;

  constructor(
    readonly name: string,
    readonly child: Child,
    readonly facts: Readonly<Record<string, unknown>>,
  ) {}

  async warmUp(): Promise<void> {
    for (let i = 0; i < WARM_UP_STEPS; i++) {
      const reply = await this.child.ask({ steps: 1 }, FIRST_STEP_SECONDS);
      this.losses.push(...reply.losses);
      this.processPeak = reply.peakBytes;
      this.stepSeconds = reply.seconds[0]!;
      // A step that takes so long needs no second one to settle.
      if (this.stepSeconds > 5) break;
    }
  }

  async takeTurn(round: number, steps: number): Promise<void> {
    const seconds = 60 + 5 * steps * this.stepSeconds;
    const request = { steps, resetPeak: this.turns.length === 0 };
    const reply = await this.child.ask(request, seconds);
    const { rows, cpuSeconds } = reply;
    this.turns.push({ round, seconds: reply.seconds, rows, cpuSeconds });
    this.#add(reply);
  }

  #add({ losses, seconds, peakBytes, crossings = 0 }: Reply): void {
    this.losses.push(...losses);
    this.stepPeak = Math.max(this.stepPeak, peakBytes);
    this.processPeak = Math.max(this.processPeak, peakBytes);
    this.crossings += crossings;
    this.stepSeconds = median(seconds);
    this.spent += seconds.reduce((a, b) => a + b, 0);
  }

  get steps(): number {
    return this.turns.reduce((sum, turn) => sum + turn.seconds.length, 0);
  }

  recording(): Recording {
    const kind = CONTENDERS.get(this.name)!;
    return {
      name: this.name,
      kind,
      turns: this.turns,
      losses: this.losses,
      stepPeakBytes: this.stepPeak,
      processPeakBytes: this.processPeak,
      crossingsPerStep: kind.side === "loko" ? this.crossings / this.steps : undefined,
      facts: this.facts,
    };
  }
}

/** Runs a trial; `names` are those of its contenders that can be started here. */
export async function race(
  trial: Trial,
  names: readonly string[],
  options: RaceOptions,
): Promise<Race> {
  const skipped: Record<string, string> = {};
  let runners: Runner[] = [];
  const peaks: number[] = [];
  /** Whoever fails is out; the others go on. */
  const attempt = async (name: string, act: () => Promise<void>): Promise<void> => {
    try {
      await act();
    } catch (error) {
      if (!(error instanceof ContenderFailure)) throw error;
      skipped[name] = error.message;
      runners.find((runner) => runner.name === name)?.child.stop();
      runners = runners.filter((runner) => runner.name !== name);
      options.report(`  ${name} is out: ${error.message}`);
    }
  };
  try {
    const waiting = [...names];
    const startSome = async () => {
      for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) {
        await attempt(name, async () => {
          const { command, env } = options.command(name);
          const { child, facts } = await Child.start(command, env, START_SECONDS);
          runners.push(new Runner(name, child, facts));
        });
      }
    };
    await Promise.all(Array.from({ length: options.starters }, startSome));
    runners.sort((a, b) => names.indexOf(a.name) - names.indexOf(b.name));
    for (const runner of [...runners]) await attempt(runner.name, () => runner.warmUp());

    for (let round = 0; round < trial.rounds; round++) {
      // That of a GPU cannot be measured by this program.
      const peak = trial.device === "cpu" ? await measurePeak(trial.threads) : undefined;
      if (peak !== undefined) peaks.push(peak);
      for (const runner of [...runners]) {
        const steps = stepsOfTurn(runner, trial, round);
        if (steps === 0) continue;
        await setTimeout(PAUSE_MS);
        await attempt(runner.name, () => runner.takeTurn(round, steps));
      }
    }
    return { trial, recordings: runners.map((runner) => runner.recording()), skipped, peaks };
  } finally {
    for (const { child } of runners) child.stop();
  }
}

/**
 * A turn lasts about the same for everyone. Whose step is longer than a turn sits out the next ones, but
 * has two steps in the end.
 */
function stepsOfTurn(
  runner: Pick<Runner, "steps" | "spent" | "stepSeconds">,
  { rounds, seconds, steps }: Trial,
  round: number,
): number {
  if (steps > 0) return Math.ceil(steps / rounds);
  const turn = seconds / rounds;
  const isDue = runner.spent < turn * (round + 0.5) || (round === rounds - 1 && runner.steps < 2);
  if (!isDue) return 0;
  return Math.min(MAX_STEPS_PER_TURN, Math.max(1, Math.round(turn / runner.stepSeconds)));
}
