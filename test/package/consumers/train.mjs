import { LoKO, LokoError, Model } from "loko";
import { trainOneStep } from "./step.cjs";

console.log(JSON.stringify(await trainOneStep({ LoKO, LokoError, Model }, process.argv[2])));
