import { closeSync, fstatSync, openSync, readSync } from "node:fs";

/** Of ELF's header for 64 bits, little-endian, where it says what is where in the file. */
const HEADER_BYTES = 64;
const ELF_64_LITTLE = Buffer.from([0x7f, 0x45, 0x4c, 0x46, 2, 1]);
const SECTION_TABLE = 0x28;
const SECTION_SIZE = 0x3a;
const SECTION_COUNT = 0x3c;

/**
 * Refuses a binary that is cut short, as an interrupted copy or a full disk leaves it. The dynamic linker
 * of Linux would map it all the same, and the process would end by SIGBUS at the first missing page.
 * Linkers put the table of sections last, so a file that holds all of it holds everything.
 *
 * @throws Error where the table of sections ends behind the file, or the file cannot be read.
 */
export function requireWholeFile(path: string): void {
  const file = openSync(path, "r");
  try {
    const { size } = fstatSync(file);
    const header = Buffer.alloc(HEADER_BYTES);
    const isComplete = readSync(file, header, 0, HEADER_BYTES, 0) === HEADER_BYTES;
    // Another format, or none: the linker says so.
    if (isComplete && !header.subarray(0, ELF_64_LITTLE.length).equals(ELF_64_LITTLE)) return;
    const end =
      Number(header.readBigUInt64LE(SECTION_TABLE)) +
      header.readUInt16LE(SECTION_SIZE) * header.readUInt16LE(SECTION_COUNT);
    if (isComplete && end <= size) return;
    throw new Error(
      `the file is cut short: it has ${size} bytes of ${isComplete ? end : `at least ${HEADER_BYTES}`}`,
    );
  } finally {
    closeSync(file);
  }
}
