import { readFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { openSafetensors } from "../../../lib/io/safetensors.js";
import type { TensorInfo } from "../../../lib/io/safetensors-header.js";
import {
  byteLengthOf,
  type TensorSource,
  writeSafetensors,
} from "../../../lib/io/safetensors-writer.js";
import { FIXTURES } from "../../parity/fixtures.js";
import { errorOf, temporaryFolder } from "./helpers.js";

const bytesAt = (file: Buffer, { byteOffset, byteLength }: TensorInfo) =>
  file.subarray(byteOffset, byteOffset + byteLength);

/** The tensors of a file in the order of their names, so in another one than that of the data. */
async function sourcesOf(path: string): Promise<TensorSource[]> {
  const { tensors } = await openSafetensors(path);
  const file = await readFile(path);
  return [...tensors.values()]
    .map((info) => ({
      name: info.name,
      dtype: info.dtype as TensorSource["dtype"],
      shape: info.shape,
      read: () => bytesAt(file, info),
    }))
    .sort((a, b) => (a.name < b.name ? 1 : -1));
}

describe("writeSafetensors", () => {
  test.each([
    "peft/bert/plain/adapter_model.safetensors",
    "peft/vit/bias_all/adapter_model.safetensors",
    "peft/roberta/bf16/adapter_model.safetensors",
    "vit/odd/base_f16/model.safetensors",
  ])("writes the very bytes of the reference implementation: %s", async (name) => {
    const written = join(await temporaryFolder(), "x.safetensors");
    await writeSafetensors(written, await sourcesOf(join(FIXTURES, name)));
    expect(await readFile(written)).toEqual(await readFile(join(FIXTURES, name)));
  });

  test("orders tensors of several types as the reference implementation does", async () => {
    const reference = join(FIXTURES, "vit/odd/expected.safetensors"); // F32 and F64
    const written = join(await temporaryFolder(), "x.safetensors");
    await writeSafetensors(written, await sourcesOf(reference));
    const names = async (path: string) => [...(await openSafetensors(path)).tensors.keys()];
    expect(await names(written)).toEqual(await names(reference));
  });

  test("aligns the data to 8 bytes, whatever the names, and reads back", async () => {
    const path = join(await temporaryFolder(), "x.safetensors");
    const tensor = fc.record({
      name: fc.string({ unit: "grapheme", minLength: 1 }).filter((name) => name !== "__metadata__"),
      dtype: fc.constantFrom("F64", "F32", "F16", "BF16" as const),
      shape: fc.array(fc.nat(3), { maxLength: 3 }),
      seed: fc.nat(255),
    });
    const tensors = fc.uniqueArray(tensor, { selector: ({ name }) => name, maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(tensors, async (list) => {
        const sources = list.map(({ seed, ...rest }): TensorSource => {
          const source = rest as Omit<TensorSource, "read">;
          return { ...source, read: () => new Uint8Array(byteLengthOf(source)).fill(seed) };
        });
        await writeSafetensors(path, sources);
        const file = await readFile(path);
        expect(file.readUInt32LE() % 8).toBe(0);
        const { tensors: read, metadata } = await openSafetensors(path);
        expect([...metadata]).toEqual([["format", "pt"]]);
        expect(read.size).toBe(sources.length);
        for (const source of sources) {
          const info = read.get(source.name)!;
          expect(info).toMatchObject({ dtype: source.dtype, shape: source.shape });
          expect(bytesAt(file, info)).toEqual(Buffer.from(await source.read()));
        }
      }),
      { numRuns: 60 },
    );
  });

  test("refuses data of another size than the shape says", async () => {
    const path = join(await temporaryFolder(), "x.safetensors");
    const tensor = {
      name: "w",
      dtype: "F32",
      shape: [2, 3],
      read: () => new Uint8Array(20),
    } as const;
    const error = await errorOf("ERR_INTERNAL", () => writeSafetensors(path, [tensor]));
    expect(error.message).toContain("w of shape [2,3] has 20 bytes");
  });
});
