// JSON that is written again as it was read. Python tells 1.0 from 1, JavaScript does not: transformers 5
// refuses a config.json in which a float has become an integer.

/**
 * The members of a JSON object as they are spelled.
 *
 * @param text - valid JSON whose top level is an object.
 * @returns key to the text of its value; the last one where a key is repeated, as JSON.parse decides.
 */
export function spelledMembers(text: string): Map<string, string> {
  const members = new Map<string, string>();
  let depth = 0;
  let key: string | undefined;
  let start = 0;
  for (let i = 0; i < text.length; i++) {
    const character = text[i];
    if (character === '"') {
      const end = endOfString(text, i);
      if (depth === 1 && key === undefined) {
        key = JSON.parse(text.slice(i, end)) as string;
        start = text.indexOf(":", end) + 1;
      }
      i = end - 1;
    } else if (character === "{" || character === "[") {
      depth++;
    } else if (character === "}" || character === "]" || character === ",") {
      if (depth === 1 && key !== undefined) {
        members.set(key, text.slice(start, i).trim());
        key = undefined;
      }
      if (character !== ",") depth--;
    }
  }
  return members;
}

/** Behind the string that begins at `start`; no regular expression, whose stack a long string would fill. */
function endOfString(text: string, start: number): number {
  let end = start + 1;
  while (text[end] !== '"') end += text[end] === "\\" ? 2 : 1;
  return end + 1;
}

/**
 * A JSON object with two blanks of indentation.
 *
 * @param spelled - texts to use for values that are equal to these.
 */
export function formatJson(
  values: Readonly<Record<string, unknown>>,
  spelled: ReadonlyMap<string, string>,
): string {
  const lines = Object.entries(values)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => {
      const given = spelled.get(key);
      const isSame =
        given !== undefined && JSON.stringify(JSON.parse(given)) === JSON.stringify(value);
      const text = isSame ? given : JSON.stringify(value, null, 2).replaceAll("\n", "\n  ");
      return `  ${JSON.stringify(key)}: ${text}`;
    });
  return `{\n${lines.join(",\n")}\n}\n`;
}
