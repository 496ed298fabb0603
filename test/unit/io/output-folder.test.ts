import { mkdir, readdir, readFile, rename, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";

import {
  checkFolder,
  discardUnfinished,
  type OutputFolderOptions,
  writeFolder,
} from "../../../lib/io/output-folder.js";
import { writeSafetensors } from "../../../lib/io/safetensors-writer.js";
import { errorOf, temporaryFolder } from "./helpers.js";

vi.mock("node:fs/promises", async (original) => {
  const actual = await original<typeof import("node:fs/promises")>();
  return { ...actual, rename: vi.fn(actual.rename) };
});

const write = (dir: string, options?: OutputFolderOptions, text = "new") =>
  writeFolder(dir, (folder) => writeFile(join(folder, "a.txt"), text), options);

/** An error as the file system throws it. */
const systemError = (code: string) => Object.assign(new Error(`${code}: it failed`), { code });

/** A folder `out` with two files, in a folder of its own. */
async function existingFolder() {
  const parent = await temporaryFolder();
  const dir = join(parent, "out");
  await mkdir(dir);
  await writeFile(join(dir, "a.txt"), "old");
  await writeFile(join(dir, "b.txt"), "mine");
  const contents = async () =>
    Promise.all(["a.txt", "b.txt"].map((name) => readFile(join(dir, name), "utf8")));
  return { parent, dir, contents };
}

describe("writeFolder", () => {
  test("makes a folder, with its parents and the usual permissions, and leaves nothing else", async () => {
    const parent = await temporaryFolder();
    await write(join(parent, "x", "y"));
    expect(await readFile(join(parent, "x", "y", "a.txt"), "utf8")).toBe("new");
    expect(await readdir(join(parent, "x"))).toEqual(["y"]);
    await mkdir(join(parent, "usual"));
    expect((await stat(join(parent, "x", "y"))).mode).toBe(
      (await stat(join(parent, "usual"))).mode,
    );
  });

  test("fills an empty folder, also through a link", async () => {
    const parent = await temporaryFolder();
    await mkdir(join(parent, "real"));
    await symlink(join(parent, "real"), join(parent, "link"));
    await write(join(parent, "link"));
    expect(await readFile(join(parent, "real", "a.txt"), "utf8")).toBe("new");
    expect((await readdir(parent)).sort()).toEqual(["link", "real"]);
  });

  test("refuses a folder that is not empty, and says how to replace it", async () => {
    const { parent, dir, contents } = await existingFolder();
    const error = await errorOf("ERR_OUTPUT_EXISTS", () => write(dir));
    expect(error.message).toContain(`${dir}: exists and is not empty (it holds "a.txt")`);
    expect(error.message).toContain("overwrite: true");
    expect(await contents()).toEqual(["old", "mine"]);
    expect(await readdir(parent)).toEqual(["out"]);
  });

  test("replaces its own files with overwrite and keeps the others", async () => {
    const { parent, dir, contents } = await existingFolder();
    await write(dir, { overwrite: true });
    expect(await contents()).toEqual(["new", "mine"]);
    expect(await readdir(parent)).toEqual(["out"]);
  });

  test("takes along what belongs to what it replaces", async () => {
    const { dir } = await existingFolder();
    await write(dir, { overwrite: true, isReplaced: (name) => name === "b.txt" });
    expect(await readdir(dir)).toEqual(["a.txt"]);
  });

  test("refuses the root, the working folder and a link to nothing, before anything is written", async () => {
    const parent = await temporaryFolder();
    const link = join(parent, "link");
    await symlink(join(parent, "nothing"), link);
    for (const [dir, words] of [
      ["/", "root"],
      [process.cwd(), "working folder"],
      [link, "link"],
    ] as const) {
      const fill = vi.fn();
      const error = await errorOf("ERR_FILE_WRITE", () =>
        writeFolder(dir, fill, { overwrite: true }),
      );
      expect(error.message).toContain(words);
      expect(fill).not.toHaveBeenCalled();
    }
    expect(await readdir(parent)).toEqual(["link"]);
  });

  test("can be tried without writing anything", async () => {
    const { parent, dir, contents } = await existingFolder();
    await checkFolder(join(parent, "new"));
    await checkFolder(dir, { overwrite: true });
    await errorOf("ERR_OUTPUT_EXISTS", () => checkFolder(dir));
    expect(await contents()).toEqual(["old", "mine"]);
    expect(await readdir(parent)).toEqual(["out"]);
  });

  test("leaves nothing when the process discards what is unfinished", async () => {
    const parent = await temporaryFolder();
    const filling = writeFolder(join(parent, "out"), async (folder) => {
      await writeFile(join(folder, "a.txt"), "half");
      discardUnfinished();
      expect(await readdir(parent)).toEqual([]);
    });
    await errorOf("ERR_FILE_WRITE", () => filling);
    expect(await readdir(parent)).toEqual([]);
  });

  test("never mixes its files with some others", async () => {
    const { dir, contents } = await existingFolder();
    const options = { overwrite: true, mustNotHold: ["c.txt", "b.txt"] };
    const error = await errorOf("ERR_OUTPUT_EXISTS", () => write(dir, options));
    expect(error.message).toContain("holds b.txt");
    expect(await contents()).toEqual(["old", "mine"]);
  });

  test("refuses what appeared in its place while it was writing", async () => {
    const parent = await temporaryFolder();
    const dir = join(parent, "out");
    await errorOf("ERR_OUTPUT_EXISTS", () => writeFolder(dir, () => write(dir, {}, "theirs")));
    expect(await readFile(join(dir, "a.txt"), "utf8")).toBe("theirs");
    expect(await readdir(parent)).toEqual(["out"]);
  });

  test.each([
    ["ENOSPC", "Free some space"],
    ["EDQUOT", "Free some space"],
    ["EACCES", "must be writable"],
    ["EROFS", "must be writable"],
    ["EIO", "Check the path and the disk"],
  ])("leaves nothing behind after %s and the old folder as it was", async (code, advice) => {
    const { parent, dir, contents } = await existingFolder();
    const fill = async (folder: string) => {
      await writeFile(join(folder, "a.txt"), "half");
      throw systemError(code);
    };
    const error = await errorOf("ERR_FILE_WRITE", () =>
      writeFolder(dir, fill, { overwrite: true }),
    );
    expect(error.message).toContain(`${dir}: cannot be written: ${code}`);
    expect(error.message).toContain(advice);
    expect(await contents()).toEqual(["old", "mine"]);
    await errorOf("ERR_FILE_WRITE", () => writeFolder(join(parent, "x/y/z"), fill));
    expect(await readdir(parent)).toEqual(["out"]);
  });

  test.runIf(process.platform === "linux")("reports a disk that is full", async () => {
    const parent = await temporaryFolder();
    const error = await errorOf("ERR_FILE_WRITE", () =>
      writeFolder(join(parent, "out"), async (folder) => {
        await symlink("/dev/full", join(folder, "model.safetensors"));
        const zeros = {
          name: "w",
          dtype: "F32",
          shape: [4],
          read: () => new Uint8Array(16),
        } as const;
        await writeSafetensors(join(folder, "model.safetensors"), [zeros]);
      }),
    );
    expect(error.message).toContain("ENOSPC");
    expect(await readdir(parent)).toEqual([]);
  });

  test.runIf(process.getuid?.() === 0)("reports a parent that is not writable", async () => {
    const parent = await temporaryFolder();
    process.seteuid!(65534);
    try {
      const error = await errorOf("ERR_FILE_WRITE", () => write(join(parent, "out")));
      expect(error.message).toContain("must be writable");
    } finally {
      process.seteuid!(0);
    }
    expect(await readdir(parent)).toEqual([]);
  });

  test("reports a file in the place of the folder or of a parent", async () => {
    const { dir, contents } = await existingFolder();
    for (const path of ["a.txt", "a.txt/x"]) {
      const error = await errorOf("ERR_FILE_WRITE", () => write(join(dir, path)));
      expect(error.message).toContain("part of the path is a file");
    }
    expect(await contents()).toEqual(["old", "mine"]);
  });

  test("moves the old folder back when the new one cannot take its place", async () => {
    const { parent, dir, contents } = await existingFolder();
    const actual = vi.mocked(rename).getMockImplementation()!;
    vi.mocked(rename).mockImplementationOnce(actual).mockRejectedValueOnce(systemError("EBUSY"));
    await errorOf("ERR_FILE_WRITE", () => write(dir, { overwrite: true }));
    expect(await contents()).toEqual(["old", "mine"]);
    expect(await readdir(parent)).toEqual(["out"]);
  });
});
