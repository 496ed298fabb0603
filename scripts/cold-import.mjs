// Prints what a cold `import "loko"` takes: milliseconds around the import in fresh processes, beside an
// import of nothing but Node's own modules, and whole processes beside `node -e 0`.
//
//   npm run build:ts && node scripts/cold-import.mjs [rounds, default 20]
import { spawnSync } from "node:child_process";
import { projectRoot } from "./check-tools.mjs";

const NOTHING = "data:text/javascript,";

/** Milliseconds of the clock and of the processor around the import of `specifier` in a fresh process. */
export function timeImport(specifier) {
  const script = `
    const before = process.cpuUsage();
    const start = performance.now();
    await import(${JSON.stringify(specifier)});
    const wall = performance.now() - start;
    const { user, system } = process.cpuUsage(before);
    console.log(JSON.stringify({ wall, cpu: (user + system) / 1000 }));`;
  return JSON.parse(node("--input-type=module", "-e", script));
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

function node(...args) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: projectRoot,
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(stderr);
  return stdout;
}

function timeProcess(...args) {
  const start = performance.now();
  node(...args);
  return { wall: performance.now() - start };
}

/** By turns, so that whatever else the machine does meets all of them. */
function measure(rounds, cases) {
  const times = cases.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, [, run]] of cases.entries()) times[i].push(run());
  }
  for (const [i, [name]] of cases.entries()) {
    const of = (key) => times[i].map((time) => time[key]);
    const cpu = times[i][0].cpu === undefined ? "" : `, processor ${median(of("cpu")).toFixed(1)}`;
    const [low, middle] = [Math.min(...of("wall")), median(of("wall"))];
    console.log(`${name.padEnd(26)} median ${middle.toFixed(1)} ms, least ${low.toFixed(1)}${cpu}`);
  }
}

if (process.argv[1] === import.meta.filename) {
  measure(Number(process.argv[2] ?? 20), [
    ['import "loko"', () => timeImport("loko")],
    ["import of nothing", () => timeImport(NOTHING)],
    ["node -e 0", () => timeProcess("-e", "0")],
    ["loko --version", () => timeProcess("dist/cli/main.js", "--version")],
    ["loko --help", () => timeProcess("dist/cli/main.js", "--help")],
  ]);
}
