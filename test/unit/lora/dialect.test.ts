import { join } from "node:path";
import { describe, expect, test } from "vitest";

import { openSafetensors } from "../../../lib/io/safetensors.js";
import { dialectsOf } from "../../../lib/lora/dialect.js";
import { FIXTURES } from "../../parity/fixtures.js";

describe("dialectsOf", () => {
  test.each(["bert", "roberta"])("%s has one naming, whatever is chosen", (modelType) => {
    for (const choice of ["both", "v4", "v5"] as const) {
      const [dialect, ...others] = dialectsOf(modelType, choice);
      expect(others).toEqual([]);
      expect(dialect!.fromCheckpoint("encoder.layer.0.x")).toBe("encoder.layer.0.x");
    }
  });

  test("chooses the namings of a ViT", () => {
    const names = (choice: "both" | "v4" | "v5") =>
      dialectsOf("vit", choice).map((d) => d.fromCheckpoint("vit.encoder.layer.11.output.dense"));
    expect(names("v4")).toEqual(["vit.encoder.layer.11.output.dense"]);
    expect(names("v5")).toEqual(["vit.layers.11.mlp.fc2"]);
    expect(names("both")).toEqual([...names("v4"), ...names("v5")]);
  });

  test("gives a ViT the names of transformers 5 and takes them back", async () => {
    const [v5] = dialectsOf("vit", "v5");
    // A checkpoint has the names of version 4; the adapters beside it were written under version 5.
    const base = await openSafetensors(join(FIXTURES, "peft/vit/base/model.safetensors"));
    for (const name of base.tensors.keys()) {
      const renamed = v5!.fromCheckpoint(name);
      expect(renamed === name).toBe(!name.includes("encoder.layer"));
      expect(v5!.toCheckpoint(renamed)).toBe(name);
    }
    const adapter = await openSafetensors(
      join(FIXTURES, "peft/vit/bias_all/adapter_model.safetensors"),
    );
    const biases = [...adapter.tensors.keys()]
      .filter((name) => name.endsWith("bias") && !/original_module|modules_to_save/.test(name))
      .map((name) => name.slice("base_model.model.".length).replace(".base_layer", ""));
    const expected = [...base.tensors.keys()].filter((name) => name.endsWith("bias"));
    expect(biases.map((name) => v5!.toCheckpoint(name)).sort()).toEqual(expected.sort());
  });

  test("leaves names alone that only look like those of a layer", () => {
    const [v5] = dialectsOf("vit", "v5");
    for (const name of ["vit.encoder.layer.x.output.dense", "vit.encoder.layer.0.output.denser"]) {
      expect(v5!.fromCheckpoint(name)).toBe(name);
    }
    expect(v5!.toCheckpoint("vit.layers.0.mlp.fc3")).toBe("vit.layers.0.mlp.fc3");
  });
});
