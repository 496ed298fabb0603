// JSON that is written again as it was read. Python tells 1.0 from 1, JavaScript does not: transformers 5
// refuses a config.json in which a float has become an integer.

// A string without alternatives inside its repetition: a long one must not fill the stack of the matcher.
const TOKEN = /"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

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
  let start = -1;
  for (const { 0: token, index } of text.matchAll(TOKEN)) {
    const closes = token === "}" || token === "]";
    if (closes) depth--;
    const ends = (depth === 0 && closes) || (depth === 1 && token === ",");
    if (ends && key !== undefined) {
      members.set(key, text.slice(start, index).trimEnd());
      key = undefined;
    } else if (depth === 1 && token === ":" && start < 0) {
      start = index + 1;
    } else if (depth === 1 && key === undefined && token !== ",") {
      key = JSON.parse(token) as string;
      start = -1;
    }
    if (token === "{" || token === "[") depth++;
  }
  return new Map([...members].map(([name, value]) => [name, value.trimStart()]));
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
