import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    // Forked processes, because a native fault then ends one worker and not the whole run.
    pool: "forks",
    // What a test expects of "auto" must not depend on the machine; LOKO_DEVICE=cuda runs them on a GPU.
    env: { LOKO_DEVICE: process.env.LOKO_DEVICE ?? "cpu" },
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
