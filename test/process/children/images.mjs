// images.mjs <case> <folder of images>: streams of images on the threads of the built package.

import { createHash } from "node:crypto";
import { encodeImages, ImageProcessor, imageDataset } from "../../../dist/index.js";

const [name, folder] = process.argv.slice(2);
const processor = ImageProcessor.fromConfig({
  image_processor_type: "BitImageProcessor",
  size: { shortest_edge: 256 },
  crop_size: 224,
});
const dataset = await imageDataset(folder);
const shuffled = dataset.shuffle({ seed: 1 });
const print = (value) => console.log(JSON.stringify(value));
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
/** Threads that were begun and have not ended. */
let threads = 0;
process.on("worker", (worker) => {
  threads++;
  worker.on("exit", () => threads--);
});

async function digest(options) {
  const hash = createHash("sha256");
  for await (const { inputs, labels } of encodeImages(processor, shuffled, options)) {
    hash.update(new Uint8Array(inputs.pixelValues.buffer)).update(`${inputs.shape} ${labels}`);
  }
  return hash.digest("hex");
}

const errorOf = ({ name, code, message }) => ({ name, code, message });

const CASES = {
  async order() {
    const all = [];
    for (const workers of [0, 1, 3]) all.push(await digest({ workers, batchSize: 4 }));
    all.push(await digest({ workers: 2, batchSize: 4, prefetch: 1 }));
    print({ same: new Set(all).size === 1, threads });
  },

  async break() {
    let seen = 0;
    for await (const _ of encodeImages(processor, shuffled, { workers: 2 })) {
      if (++seen === 2) break;
    }
    print({ seen, threads });
  },

  // Never closed; the process ends all the same.
  async abandon() {
    const iterator = encodeImages(processor, shuffled, { workers: 2 })[Symbol.asyncIterator]();
    const { done } = await iterator.next();
    print({ done });
  },

  async abort() {
    const controller = new AbortController();
    const options = { workers: 2, signal: controller.signal };
    let seen = 0;
    try {
      for await (const _ of encodeImages(processor, shuffled, options)) {
        if (++seen === 3) setTimeout(() => controller.abort(new Error("enough")), 1);
        await sleep(2);
      }
    } catch (error) {
      print({ message: error.message, seen, all: dataset.size, threads });
    }
  },

  // The folder has a file that is cut short.
  async error() {
    const results = [];
    for (const onError of ["throw", "skip"]) {
      let seen = 0;
      let failure = null;
      try {
        for await (const _ of encodeImages(processor, dataset, { workers: 2, onError })) seen++;
      } catch (error) {
        failure = errorOf(error);
      }
      results.push({ seen, failure });
    }
    print({ results, threads });
  },

  // Threads that are ended from outside, as the system does when memory runs out.
  async crash() {
    process.on("worker", (worker) => setTimeout(() => worker.terminate(), 150));
    try {
      for await (const _ of encodeImages(processor, shuffled, { workers: 2, onError: "skip" }));
    } catch (error) {
      print({ ...errorOf(error), threads });
    }
  },

  async odd() {
    const image = { data: new Uint8Array(3), height: 1, width: 1, channels: 3 };
    const run = async (source) => {
      const examples = [{ image: source, label: 0, row: 1, name: "odd" }];
      try {
        for await (const { inputs } of encodeImages(processor, examples, { workers: 1 })) {
          return inputs.shape;
        }
      } catch (error) {
        return errorOf(error).code;
      }
    };
    // What cannot be posted to a thread must not matter, or have a code.
    print([await run({ ...image, extra: () => {} }), await run(7), await run(() => {})]);
  },

  async wait() {
    const step = 100;
    let waited = 0;
    let asked;
    const started = performance.now();
    for await (const _ of encodeImages(processor, shuffled)) {
      // The first image has nothing to hide behind.
      if (asked !== undefined) waited += performance.now() - asked;
      await sleep(step);
      asked = performance.now();
    }
    print({ share: waited / (performance.now() - started) });
  },

  async batch() {
    try {
      const { shape } = await processor.batch([`${folder}/a/0.jpg`]);
      print({ shape });
    } catch (error) {
      print(errorOf(error));
    }
  },
};

await CASES[name]();
