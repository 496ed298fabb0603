"""Writes random tiny models and adapters with PEFT, and the logits that PEFT computes.

    python make_cases.py FOLDER SEED

FOLDER/<family>/base, headless and base_f16 are models, FOLDER/<family>/peft/<case> adapters, and
FOLDER/<family>/expected.json holds the inputs and the logits.
"""

import json
import pathlib
import sys

import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "fixtures"))
import peft_models  # noqa: E402

BACKBONES = {
    "vit": "ViTModel",
    "dinov2": "Dinov2Model",
    "resnet": "ResNetModel",
    "bert": "BertModel",
    "roberta": "RobertaModel",
}


def _write_family(family, folder, seed):
    base = folder / "base"
    model = peft_models.random_model(family, seed)
    model.save_pretrained(base)
    model.half().save_pretrained(folder / "base_f16")
    backbone = getattr(transformers, BACKBONES[family])
    backbone.from_pretrained(base).save_pretrained(folder / "headless")
    if family == "bert":
        backbone.from_pretrained(base, add_pooling_layer=False).save_pretrained(folder / "poolerless")
    inputs = peft_models.random_inputs(family, seed + 1)
    logits = {"base": peft_models.float64_logits(peft_models.load_base(family, base), inputs)}
    for index, case in enumerate(peft_models.cases(family)):
        target = folder / "peft" / case
        peft_models.write_adapter(family, case, base, target, seed + 2 + index)
        logits[case] = peft_models.adapted_logits(family, base, target, inputs)
    expected = {
        "inputs": peft_models.to_json(inputs),
        "logits": {case: values.tolist() for case, values in logits.items()},
    }
    (folder / "expected.json").write_text(json.dumps(expected))


def main():
    folder, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    torch.manual_seed(seed)
    for index, family in enumerate(peft_models.TASK_CLASSES):
        _write_family(family, folder / family, seed + 1000 * index)


if __name__ == "__main__":
    main()
