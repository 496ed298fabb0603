import { describe, LokoError } from "../errors.js";

/**
 * Compiles a regular expression from an adapter configuration. Those come from Python, whose spelling of
 * named groups (`(?P<name>`) and of the ends of the text (`\A`, `\Z`) differs; the rest of what occurs in
 * module paths is the same in both languages.
 *
 * @param source - the expression as the user or the file gave it.
 * @param option - the option it came from, for the message.
 * @param wrap - what to put around it before it is compiled; by default it must match the whole text.
 * @throws LokoError ERR_LORA_CONFIG when it is not a valid regular expression.
 */
export function compilePattern(
  source: string,
  option: string,
  wrap: (pattern: string) => string = (pattern) => `^(?:${pattern})$`,
): RegExp {
  const pattern = source.replace(/\\[\s\S]|\(\?P</g, (token) => PYTHON_SPELLINGS[token] ?? token);
  try {
    // On its own first: wrapped, an unbalanced "a)(b" would become a valid expression.
    new RegExp(pattern);
    return new RegExp(wrap(pattern));
  } catch (error) {
    throw new LokoError(
      "ERR_LORA_CONFIG",
      `${option}: ${describe(source)} is not a regular expression: ${(error as Error).message}.`,
      { cause: error },
    );
  }
}

const PYTHON_SPELLINGS: Readonly<Record<string, string>> = {
  "(?P<": "(?<",
  "\\A": "^",
  "\\Z": "$",
};
