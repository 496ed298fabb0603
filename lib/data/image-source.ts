import type { ImageSource } from "../images/image.js";

/** An image that is not decoded yet, and its label. */
export interface ImageExample {
  /** A path, the bytes of an image file, or pixels: what `ImageProcessor.batch` takes. */
  image: ImageSource;
  /** The class index. Absent where the data has none. */
  label?: number;
  /** Which example of the dataset it is, from 1. */
  row: number;
  /** Where the image comes from, for messages: its path, or file and place in it. */
  name: string;
}

/** What is known of a dataset of images before one of them is read. */
export interface ImageSourceFacts {
  /** Names of the classes, by their index; undefined where the data does not say. */
  readonly classes: readonly string[] | undefined;
  /** Number of examples. */
  readonly size: number;
  /** Default of how many examples are held in memory to draw from. */
  readonly shuffleBuffer?: number;
  open(): AsyncGenerator<ImageExample, void, undefined>;
}
