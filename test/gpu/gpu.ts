// What the tests of this folder have in common. They are skipped where there is no GPU; `npm run test:gpu`
// says why, and can be told to fail then (scripts/test-gpu.mjs).
import { describe } from "vitest";
import { deviceInfo } from "../../lib/device.js";

const { cuda } = deviceInfo();

/** The first GPU, the one that models use. */
export const gpu = cuda.available ? cuda.devices[0] : undefined;

export const describeOnGpu = describe.skipIf(gpu === undefined);
