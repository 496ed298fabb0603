// Finds the code blocks of the documentation and what is to be done with each of them.
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";

export const ROOT = resolve(import.meta.dirname, "../..");

/**
 * What a comment in the line above a block says:
 *
 * - `<!-- run: NAME -->`: a folder of its own is prepared by scenarios.ts, and the block runs in it.
 * - `<!-- continues -->`, or `<!-- continues: NAME -->` where another one was begun in between: it runs in that
 *   folder after the blocks before it; TypeScript of several blocks in a row is one program.
 * - `<!-- run: NAME, file: PATH -->`, `<!-- continues, file: PATH -->`: it is written into the folder.
 * - `<!-- reads: KIND -->`: JSON that is given to what reads it.
 * - `<!-- not run: REASON -->`.
 *
 * Further lines of the first two are code in front of the block that readers do not see.
 */
export interface Marker {
  readonly verb: "run" | "continues" | "reads" | "not run";
  /** What follows the colon; empty where nothing does. */
  readonly argument: string;
  /** Where the block is written to. */
  readonly file: string | undefined;
  readonly hidden: string;
}

export interface Block {
  /** Path from the root of the repository. */
  readonly page: string;
  /** Line of the opening fence, from 1. */
  readonly line: number;
  readonly language: string;
  readonly code: string;
  readonly marker: Marker | undefined;
}

/** README.md, CONTRIBUTING.md and everything in docs/. */
export function pages(): string[] {
  const guides = readdirSync(join(ROOT, "docs"), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".md"))
    .map((path) => join("docs", path));
  return ["README.md", "CONTRIBUTING.md", ...guides.sort()];
}

export const readPage = (page: string): string => readFileSync(join(ROOT, page), "utf8");

const FENCED = /^(?:<!-- ((?:(?!-->)[\s\S])*)-->\n)?```(\w*)\n([\s\S]*?)^```$/gm;

export function blocksOf(page: string, text = readPage(page)): Block[] {
  return [...text.matchAll(FENCED)].map((match) => {
    const [whole, comment, language, code] = match;
    const fence = match.index + whole.indexOf("```");
    return {
      page,
      line: text.slice(0, fence).split("\n").length,
      language: language!,
      code: code!,
      marker: comment === undefined ? undefined : parseMarker(comment),
    };
  });
}

/** Other comments, such as those around generated tables, are none. */
function parseMarker(comment: string): Marker | undefined {
  const [first, ...rest] = comment.split("\n");
  const known = /^(run|continues|reads|not run)(?:: (.+?))?(?:, file: (\S+))?$/.exec(first!.trim());
  if (known === null) return undefined;
  const [, verb, argument = "", file] = known;
  return { verb: verb as Marker["verb"], argument, file, hidden: rest.join("\n") };
}

export const placeOf = ({ page, line }: Block): string => `${page}:${line}`;
