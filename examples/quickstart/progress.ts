import { SingleBar } from "cli-progress";

/** Follows one run: a bar in a terminal, a plain line for every tenth elsewhere. */
export interface Progress {
  update(done: number, onlineAccuracy: number): void;
  stop(): void;
}

export function startProgress(name: string, total: number): Progress {
  const started = performance.now();
  const rate = (done: number) => done / Math.max((performance.now() - started) / 1000, 1e-9);
  const percent = (accuracy: number) => `${(100 * accuracy).toFixed(1)} %`;
  return process.stdout.isTTY ? bar() : lines();

  function bar(): Progress {
    const single = new SingleBar({
      format: `${name.padEnd(6)} {bar} {value}/{total} | online acc. {accuracy} | {rate}/s | ETA {left} s`,
      barCompleteChar: "█",
      barIncompleteChar: "░",
      // The rest of the line takes up to 62 columns.
      barsize: Math.max(10, Math.min(40, (process.stdout.columns ?? 80) - 64)),
      hideCursor: true,
      fps: 10,
    });
    const fields = (done: number, accuracy: number) => ({
      accuracy: percent(accuracy).padStart(7),
      rate: rate(done).toFixed(0).padStart(5),
      left: Math.ceil((total - done) / Math.max(rate(done), 1e-9)),
    });
    single.start(total, 0, { accuracy: "      –", rate: "    –", left: "–" });
    return {
      update: (done, accuracy) => single.update(done, fields(done, accuracy)),
      stop: () => single.stop(),
    };
  }

  function lines(): Progress {
    const every = Math.max(1, Math.floor(total / 10));
    return {
      update(done, accuracy) {
        if (done % every !== 0 && done !== total) return;
        const left = Math.ceil((total - done) / Math.max(rate(done), 1e-9));
        console.log(
          `${name}: ${done}/${total}, online accuracy ${percent(accuracy)}, ${rate(done).toFixed(0)} samples/s, ETA ${left} s`,
        );
      },
      stop() {},
    };
  }
}
