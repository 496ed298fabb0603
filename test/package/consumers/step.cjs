/** One LoKO step of the model in `dir`, and the coded error of a step that is wrong. */
exports.trainOneStep = async ({ LoKO, LokoError, Model }, dir) => {
  const model = await Model.fromPretrained(dir, { seed: 1 });
  try {
    await model.addAdapter({ r: 2, loraAlpha: 4 });
    const optimizer = new LoKO(model);
    const shape = [1, ...model.input.shape];
    const pixelValues = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) =>
      Math.sin(i),
    );
    const { loss, skipped } = await optimizer.step({ pixelValues, shape }, Int32Array.of(1));
    const wrong = await optimizer
      .step({ pixelValues, shape }, Int32Array.of(99))
      .catch((error) => error);
    const { loss: next } = await optimizer.step({ pixelValues, shape }, Int32Array.of(1));
    return {
      loss,
      next,
      skipped,
      code: wrong instanceof LokoError ? wrong.code : "not of this package",
    };
  } finally {
    model.dispose();
  }
};
