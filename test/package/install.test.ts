import { execFileSync, spawnSync } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import * as loko from "../../lib/index.js";
import { vitConfig, writeCheckpoint } from "../process/synthetic.js";
import { barePath, install, manifest, ownPackage, pack, temporaryFolder } from "./tarball.js";

const CONSUMERS = fileURLToPath(new URL("consumers/", import.meta.url));

const { trainOneStep } = createRequire(import.meta.url)("./consumers/step.cjs") as {
  trainOneStep(
    library: typeof loko,
    dir: string,
  ): Promise<{ loss: number; next: number; skipped: string | null; code: string }>;
};

/** Of npm's own processor time, because the clock also counts what else the machine does. */
const MAX_SECONDS = 3;

describe.runIf(process.platform === "linux")("the packed package, without a compiler", () => {
  const folder = temporaryFolder();
  const model = join(folder, "model");
  const consumer = join(folder, "consumer");
  let bin: string;
  let tarball: string;

  beforeAll(() => {
    bin = barePath(folder);
    tarball = pack(folder).path;
    mkdirSync(model);
    writeCheckpoint(
      model,
      vitConfig({ hidden: 16, layers: 1, heads: 2, image: 8, patch: 4, labels: 3 }),
    );
  });
  afterAll(() => rmSync(folder, { recursive: true }));

  function run(program: string, ...args: string[]): string {
    return execFileSync(join(bin, "node"), [program, ...args], {
      cwd: consumer,
      encoding: "utf8",
      env: { PATH: bin },
    });
  }

  test.each([
    ["with", []],
    ["without", ["--ignore-scripts"]],
  ])("is installed %s scripts, in under 3 s, and nothing is built", (_, flags) => {
    rmSync(consumer, { recursive: true, force: true });
    const seconds = install(tarball, consumer, bin, ...flags);

    console.info(
      `npm ci: ${seconds.wall.toFixed(2)} s, ${seconds.cpu.toFixed(2)} s of processor time`,
    );
    expect(seconds.cpu).toBeLessThan(MAX_SECONDS);
    expect(existsSync(join(consumer, "node_modules/loko/build"))).toBe(false);
    // Without what only some users need, and without what only we need.
    for (const name of ["sharp", "vitest", "cmake-js"]) {
      expect(existsSync(join(consumer, "node_modules", name))).toBe(false);
    }
  });

  test("trains a step from ESM and from CommonJS, with the numbers of the sources", async () => {
    cpSync(CONSUMERS, consumer, { recursive: true });
    const expected = await trainOneStep(loko, model);

    expect(expected).toMatchObject({ skipped: null, code: "ERR_LABEL_RANGE" });
    expect(expected.next).toBeLessThan(expected.loss);
    for (const program of ["train.mjs", "train.cjs"]) {
      expect([program, JSON.parse(run(program, model))]).toEqual([program, expected]);
    }
  });

  test("brings the command line", () => {
    expect(run("node_modules/.bin/loko", "--version").trim()).toBe(manifest.version);
    expect(JSON.parse(run("node_modules/.bin/loko", "doctor", "--json"))).toMatchObject({
      addon: expect.stringContaining(join(consumer, "node_modules/loko/prebuilds")),
      cpu: { available: true },
      sharp: null,
    });
  });

  test.each([
    ["node16", ts.ModuleKind.Node16, ts.ModuleResolutionKind.Node16],
    ["bundler", ts.ModuleKind.ESNext, ts.ModuleResolutionKind.Bundler],
  ])("has types that a strict consumer can check by the resolution %s", (_, module, resolution) => {
    for (const name of ["@types/node", "undici-types"]) provide(name);

    expect(complaints("types.mts", { module, moduleResolution: resolution })).toEqual([]);
  });

  test("has types that CommonJS can check by nodenext, and as docs/install.md says by no older one", () => {
    // Not in consumers/, where the compiler would check it as a file of this repository, which has no CommonJS.
    const code =
      'import { Model } from "loko";\nexport const load = () => Model.fromPretrained("vit");\n';
    writeFileSync(join(consumer, "types.cts"), code);
    expect(complaints("types.cts", { module: ts.ModuleKind.NodeNext })).toEqual([]);
    expect(complaints("types.cts", { module: ts.ModuleKind.Node20 })).toEqual([]);
    for (const module of [ts.ModuleKind.Node16, ts.ModuleKind.Node18]) {
      expect(complaints("types.cts", { module })).toEqual([
        expect.stringContaining("is a CommonJS module whose imports will produce 'require' calls"),
      ]);
    }
  });

  test("has types that need nothing of Node.js, with the two libraries that docs/install.md names", () => {
    const withLibraries = (...names: string[]) =>
      complaints("types.mts", {
        module: ts.ModuleKind.NodeNext,
        types: [],
        lib: ["es2022", ...names].map((name) => `lib.${name}.d.ts`),
      }).join();

    expect(withLibraries("dom", "esnext.disposable")).toBe("");
    expect(withLibraries("dom")).toContain("Cannot find name 'Disposable'");
    expect(withLibraries("esnext.disposable")).toContain("Cannot find name 'AbortSignal'");
  });

  /** What the compiler says of a file of the consumer's, and of ours as it sees them. */
  function complaints(file: string, options: ts.CompilerOptions): string[] {
    const program = ts.createProgram([join(consumer, file)], {
      strict: true,
      exactOptionalPropertyTypes: true,
      skipLibCheck: false,
      noEmit: true,
      target: ts.ScriptTarget.ES2022,
      lib: ["lib.es2023.d.ts", "lib.esnext.disposable.d.ts"],
      types: ["node"],
      typeRoots: [join(consumer, "node_modules", "@types")],
      ...options,
    });
    // Ours and the consumer's: the rest of skipLibCheck false, Node's and the language's, is not ours to check.
    const files = program.getSourceFiles().filter(({ fileName }) => fileName.startsWith(consumer));
    const own = files.filter(({ fileName }) => !fileName.includes("/@types/"));
    const problems = [
      ...program.getOptionsDiagnostics(),
      ...own.flatMap((source) => [
        ...program.getSyntacticDiagnostics(source),
        ...program.getSemanticDiagnostics(source),
      ]),
    ];

    expect(own.map(({ fileName }) => fileName)).toContain(
      join(consumer, "node_modules/loko/dist/index.d.ts"),
    );
    return problems.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n"));
  }

  test("can be built where it lies, with the packages that its errors name", () => {
    const root = join(consumer, "node_modules", "loko");
    const { stderr } = spawnSync("node", ["scripts/build-native.mjs"], {
      cwd: root,
      encoding: "utf8",
    });
    const [, names = "", command = ""] = /missing \((.*)\): (.*)/.exec(stderr) ?? [];

    expect(command).toMatch(/^npm install --no-save cmake-js@\d+ node-addon-api@\d+$/);
    for (const name of names.split(", ")) provide(name);
    execFileSync("node", ["scripts/build-native.mjs", "--configure-only"], {
      cwd: root,
      stdio: "pipe",
    });
    const commands = JSON.parse(readFileSync(join(root, "build/compile_commands.json"), "utf8"));
    const sources = (commands as { file: string }[]).map(({ file }) =>
      file.replace(`${root}/native/`, ""),
    );

    expect(sources).toContain("addon/addon.cc");
    expect(sources).toContain("core/engine.cc");
    expect(sources.filter((name) => name.startsWith("test/"))).toEqual([]);
  });

  /** Puts a package that we have into the consumer's node_modules, where its dependencies are found. */
  function provide(name: string): void {
    const path = join(consumer, "node_modules", name);
    if (existsSync(path)) return;
    mkdirSync(dirname(path), { recursive: true });
    symlinkSync(ownPackage(name), path);
  }
});
