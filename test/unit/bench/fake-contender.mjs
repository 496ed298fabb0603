// A contender that logs whose turn it is and behaves as it is told.
import { appendFileSync } from "node:fs";
import { createInterface } from "node:readline";

const [log, name, behaviour] = process.argv.slice(2);
const say = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

if (behaviour === "silent") setInterval(() => {}, 1000);
else if (behaviour === "refuses") say({ failed: "no compiler" });
else if (behaviour === "dies") {
  console.error("warning: something\nout of memory");
  process.exitCode = 1;
} else {
  say({ ready: { node: process.version } });
  let requests = 0;
  for await (const line of createInterface({ input: process.stdin })) {
    const { steps, resetPeak = false } = JSON.parse(line);
    appendFileSync(log, `${name} ${steps}${resetPeak ? " reset" : ""}\n`);
    requests++;
    if (behaviour === "fails later" && requests === 4) {
      say({ failed: "not finite" });
      break;
    }
    const fill = (value) => Array.from({ length: steps }, () => value);
    say({
      seconds: fill(Number(behaviour) || 0.1),
      losses: fill(0.5),
      rows: fill(1),
      peakBytes: 1e8,
    });
  }
}
