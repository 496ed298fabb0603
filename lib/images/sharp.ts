import type Sharp from "sharp";
import { LokoError } from "../errors.js";

type SharpFactory = typeof Sharp;

/**
 * The optional peer dependency that decodes image files.
 *
 * @throws LokoError ERR_MISSING_DEPENDENCY when it is not installed, or has no binary for this machine.
 */
export async function loadSharp(): Promise<SharpFactory> {
  try {
    return (await import("sharp")).default;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const isAbsent = code === "ERR_MODULE_NOT_FOUND" && message.includes("'sharp'");
    const problem = isAbsent ? "is not installed" : `cannot be loaded: ${firstLine(message)}`;
    throw new LokoError(
      "ERR_MISSING_DEPENDENCY",
      `Image files are decoded by the package sharp, which ${problem}. Run: npm install sharp`,
      { cause: error },
    );
  }
}

/** sharp's own advice has many lines. */
export function firstLine(message: string): string {
  return message.split("\n", 1)[0]!;
}
