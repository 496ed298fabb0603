// Runs the shell commands of the documentation, and compares what they print with what it shows.
import { execFile } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { expect } from "vitest";
import { type Block, placeOf, ROOT } from "./blocks.js";

const BIN = join(ROOT, "build/documentation/bin");

/** Puts the built command line, and an `npx` that runs it, in front of everything else on the path. */
export function installCommands(): void {
  mkdirSync(BIN, { recursive: true });
  const script = join(ROOT, "dist/cli/main.js");
  writeFileSync(join(BIN, "loko"), `#!/bin/sh\nexec "${process.execPath}" "${script}" "$@"\n`);
  writeFileSync(join(BIN, "npx"), '#!/bin/sh\nexec "$@"\n');
  for (const name of ["loko", "npx"]) chmodSync(join(BIN, name), 0o755);
}

/** The commands of a block, without comments; a backslash at the end of a line goes on in the next one. */
export function commandsOf(code: string): string[] {
  return code
    .replaceAll("\\\n", " ")
    .split("\n")
    .map((line) => line.replace(/(^|\s)#.*$/, "").trim())
    .filter((line) => line !== "");
}

const SCRIPTS = Object.keys(
  (JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as { scripts: object }).scripts,
);

/** Checks a command that only starts a script of package.json, as `LOKO_WERROR=ON npm run build -- --x`. */
export function checkNpmScript(command: string): void {
  for (const part of command.split("&&")) {
    const [, name] =
      /^\s*(?:[A-Z_]+=\S+\s+)*npm (?:run )?([\w:-]+)/.exec(part) ?? expect.fail(command);
    if (name !== "ci") expect(SCRIPTS).toContain(name);
  }
}

/** What a user's shell may run here: our command, and harmless others around it. */
const ALLOWED = /^(?:npx loko|loko|printf|head|cat|kill|rm)\b/;

const run = promisify(execFile);

/** Runs a command in `dir`; returns its exit code and its output, stdout before stderr. */
export async function runCommand(command: string, dir: string) {
  for (const part of command.split("|")) expect(part.trim()).toMatch(ALLOWED);
  const env = { ...process.env, PATH: `${BIN}${delimiter}${process.env.PATH}` };
  try {
    const { stdout, stderr } = await run("/bin/sh", ["-c", command], { cwd: dir, env });
    return { code: 0, lines: linesOf(stdout + stderr) };
  } catch (error) {
    const { code, stdout, stderr } = error as { code: number; stdout: string; stderr: string };
    return { code, lines: linesOf(stdout + stderr) };
  }
}

export const linesOf = (text: string): string[] => text.split("\n").filter((line) => line !== "");

interface Shown {
  readonly command: string;
  readonly output: readonly string[];
}

/** A block of the language console: lines after `$ ` are commands, others what they print. */
function sessionOf(code: string): Shown[] {
  return code
    .split(/^\$ /m)
    .filter((part) => part.trim() !== "")
    .map((part) => {
      const [command, ...output] = linesOf(part);
      return { command: command!, output };
    });
}

/** What remains the same on another machine: not paths, decimal fractions (times, what was learned), and widths. */
function textOf(line: string): string {
  return line
    .replace(/(?:^|(?<=[ "]))(?:\/[\w.-]+)+/g, "PATH")
    .replace(/-?\d+\.[\d.]+(?:e[+-]?\d+)?/g, "0.0")
    .replace(/\s+/g, " ")
    .trim();
}

/** The bar is drawn in a terminal only; elsewhere a line comes for each tenth. */
const PROGRESS = /it\/s/;
/** Lines of `loko doctor` that say something of the machine alone. */
const OF_MACHINE = /^(CPU|CUDA|GPU|images|memory|Node\.js)/;

function comparable(lines: readonly string[]): string[] {
  return lines
    .filter((line) => !PROGRESS.test(line))
    .map(textOf)
    .map((line) => (OF_MACHINE.test(line) ? line.split(" ")[0]! : line));
}

/** Runs the commands of a session, and compares line by line; one that shows an error must fail. */
export async function checkSession(block: Block, dir: string): Promise<void> {
  for (const { command, output } of sessionOf(block.code)) {
    const { code, lines } = await runCommand(command, dir);
    const failed = output.some((line) => line.startsWith("error ERR_"));
    expect({ at: placeOf(block), command, failed, lines }).toMatchObject({ failed: code !== 0 });
    expect(comparable(lines), `${placeOf(block)}: $ ${command}`).toEqual(comparable(output));
  }
}
