// Prints what a cold `import "loko"` takes, in fresh processes and by turns with what it is compared with.
//
//   npm run build:ts && node scripts/cold-import.mjs [rounds, default 20] [--json]
//
// The clock is what a user waits for, on a machine with nothing else to do; processor time is what two
// measurements on a busy one can be compared by.
import { spawnSync } from "node:child_process";
import { parseArgs } from "node:util";
import { projectRoot } from "./check-tools.mjs";

/** What the library imports of Node's own modules. */
const NODE_MODULES = ["crypto", "fs/promises", "module", "os", "stream", "worker_threads", "zlib"];

const CASES = {
  'import "loko"': () => timeImport("loko"),
  "import of Node's modules in it": () => timeImport(...NODE_MODULES.map((name) => `node:${name}`)),
  "node -e 0": () => timeProcess("-e", "0"),
  "loko --version": () => timeProcess("dist/cli/main.js", "--version"),
  "loko --help": () => timeProcess("dist/cli/main.js", "--help"),
};

/** Milliseconds around the import. */
function timeImport(...specifiers) {
  const script = `
    const before = process.cpuUsage();
    const start = performance.now();
    for (const specifier of ${JSON.stringify(specifiers)}) await import(specifier);
    const wall = performance.now() - start;
    const { user, system } = process.cpuUsage(before);
    console.log(JSON.stringify({ wall, processor: (user + system) / 1000 }));`;
  return JSON.parse(node("--input-type=module", "-e", script));
}

/** Milliseconds of a whole process. */
function timeProcess(...args) {
  const start = performance.now();
  node(...args);
  return { wall: performance.now() - start };
}

function node(...args) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: projectRoot,
    encoding: "utf8",
  });
  if (status !== 0) throw new Error(stderr);
  return stdout;
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: "boolean", default: false } },
});
const rounds = Number(positionals[0] ?? 20);
const times = new Map(Object.keys(CASES).map((name) => [name, []]));
for (let round = 0; round < rounds; round++) {
  for (const [name, measure] of Object.entries(CASES)) times.get(name).push(measure());
}

const results = [...times].map(([name, all]) => {
  const of = (key) => all.map((time) => time[key]);
  const processor = all[0].processor === undefined ? undefined : median(of("processor"));
  return { name, median: median(of("wall")), least: Math.min(...of("wall")), processor };
});
if (values.json) {
  console.log(JSON.stringify(results));
} else {
  for (const { name, median, least, processor } of results) {
    const used = processor === undefined ? "" : `, processor ${processor.toFixed(1)}`;
    console.log(
      `${name.padEnd(32)} median ${median.toFixed(1)} ms, least ${least.toFixed(1)}${used}`,
    );
  }
}
