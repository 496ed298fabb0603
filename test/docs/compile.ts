// Type checks the documentation's TypeScript against the built package, as a user's compiler does, and emits it.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import ts from "typescript";
import { ROOT } from "./blocks.js";

const OPTIONS: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2022,
  lib: ["lib.es2023.d.ts", "lib.esnext.disposable.d.ts"],
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  types: ["node"],
  strict: true,
  skipLibCheck: true,
};

/** Writes a `.js` beside each file; returns what the compiler complains of. */
export function compile(files: readonly string[]): string[] {
  const program = ts.createProgram(files, OPTIONS);
  const { diagnostics } = program.emit();
  return [...ts.getPreEmitDiagnostics(program), ...diagnostics].map(
    ({ file, start = 0, messageText }) => {
      const { line } = file?.getLineAndCharacterOfPosition(start) ?? { line: 0 };
      const source = file?.text.split("\n")[line] ?? "";
      const message = ts.flattenDiagnosticMessageText(messageText, " ");
      return `${file?.fileName}: ${message} In: ${source.trim()}`;
    },
  );
}

/** What the examples of the API reference take for granted beside the package's exports. */
const GIVEN = `
  const model: loko.Model;
  const optimizer: loko.Optimizer;
  const tokenizer: loko.Tokenizer;
  const processor: loko.ImageProcessor;
  const trainer: loko.Trainer<loko.TextExample>;
  const dataset: loko.Dataset<loko.TextExample>;
  const stream: loko.SampleStream;
  const results: Iterable<loko.BatchResult>;
  const inputs: loko.ModelInputs;
  const pixelValues: Float32Array;
  const labels: Int32Array;
  const signal: AbortSignal;
`;

/** Examples of what is not exported. */
const INTERNAL = /^nn\//;

/**
 * The examples in lib's doc comments as programs, by the name of a file; `…` stands for any statement.
 *
 * @param exported - names that the package exports.
 */
export function referenceExamples(exported: readonly string[]): Map<string, string> {
  const globals = exported.map((name) => `  const ${name}: typeof loko.${name};`).join("\n");
  const given = `import type * as loko from "loko";\ndeclare global {${GIVEN}${globals}\n}\n`;
  const programs = new Map([["given.d.ts", given]]);
  for (const path of readdirSync(join(ROOT, "lib"), { recursive: true, encoding: "utf8" })) {
    if (!path.endsWith(".ts") || INTERNAL.test(path)) continue;
    const text = readFileSync(join(ROOT, "lib", path), "utf8");
    for (const { 1: comment, index } of text.matchAll(/\* ```ts\n([\s\S]*?)\* ```/g)) {
      const line = text.slice(0, index).split("\n").length;
      const code = comment!.replace(/^ *\* ?/gm, "").replaceAll("…", "{}");
      programs.set(`${path.replace(/\W/g, "-")}-${line}.ts`, `${code}export {};\n`);
    }
  }
  return programs;
}
