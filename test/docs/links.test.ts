import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { expect, test } from "vitest";
import { pages, ROOT, readPage } from "./blocks.js";

/** As GitHub makes the name of a heading. */
function anchorsOf(text: string): Set<string> {
  const headings = text.replace(/^```[\s\S]*?^```$/gm, "").matchAll(/^#+ (.+)$/gm);
  return new Set(
    Array.from(headings, ([, heading]) =>
      heading!
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, "")
        .replaceAll(" ", "-"),
    ),
  );
}

test("every link of the documentation to this repository leads to a file, and to a heading of it", () => {
  const broken: string[] = [];
  for (const page of pages()) {
    const text = readPage(page).replace(/^```[\s\S]*?^```$/gm, "");
    for (const [link, path = "", anchor] of text.matchAll(
      /\]\((?!https?:)([^)#\s]*)(?:#([^)]+))?\)/g,
    )) {
      const target = path === "" ? page : relative(ROOT, join(ROOT, dirname(page), path));
      const found = existsSync(join(ROOT, target));
      if (!found) broken.push(`${page}: ${link.slice(1)}`);
      else if (
        anchor !== undefined &&
        !anchorsOf(readFileSync(join(ROOT, target), "utf8")).has(anchor)
      )
        broken.push(`${page}: ${link.slice(1)}`);
    }
  }
  expect(broken).toEqual([]);
});

test("every guide is in the index of docs/", () => {
  const index = readPage("docs/README.md");
  const guides = pages().filter((page) => /^docs\/(?!README)[^/]+\.md$/.test(page));
  expect(guides.filter((page) => !index.includes(`](${page.slice(5)})`))).toEqual([]);
});
