"""Opens in Python what loko has written, and prints the logits as JSON.

    python open_loko.py FOLDER

FOLDER/<family>/loko/<case> holds an adapter or a merged model. An adapter is opened in each of the ways
that users have: PeftModel, AutoPeftModel, and load_adapter of the model itself.
"""

import json
import pathlib
import sys

import peft
import torch

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "fixtures"))
import peft_models  # noqa: E402


# In half precision Python would round the trained head, which loko keeps in float32.
OPTIONS = {"num_labels": 3, "dtype": torch.float32}


def _with_peft(family, folder, base):
    model = peft_models.load_base(family, base, **OPTIONS)
    return peft.PeftModel.from_pretrained(model, folder)


def _with_auto(family, folder, _base):
    text = peft.AutoPeftModelForSequenceClassification
    return (peft.AutoPeftModel if family in peft_models.IMAGE_SIZES else text).from_pretrained(folder, **OPTIONS)


def _with_load_adapter(family, folder, base):
    model = peft_models.load_base(family, base, **OPTIONS)
    model.load_adapter(str(folder))
    return model


def _open(family, folder):
    """The ways to open a folder, by name."""
    if not (folder / "adapter_config.json").exists():
        yield "merged", lambda: peft_models.load_base(family, folder)
        return
    config = json.loads((folder / "adapter_config.json").read_text())
    base = config["base_model_name_or_path"]
    yield "PeftModel", lambda: _with_peft(family, folder, base)
    yield "AutoPeftModel", lambda: _with_auto(family, folder, base)
    # transformers' own loader leaves biases out, and a model without a head has none to replace.
    if config["bias"] == "none":
        yield "load_adapter", lambda: _with_load_adapter(family, folder, base)


def main():
    root = pathlib.Path(sys.argv[1])
    results = {}
    for family in peft_models.TASK_CLASSES:
        inputs = json.loads((root / family / "expected.json").read_text())["inputs"]
        inputs = {
            name: torch.tensor(values, dtype=torch.float32 if name == "pixel_values" else torch.long)
            for name, values in inputs.items()
        }
        other = "-v4" if peft_models.IS_V5 else "-v5"  # written for the other major version
        for folder in sorted((root / family / "loko").iterdir()):
            if folder.name.endswith(other):
                continue
            for way, load in _open(family, folder):
                torch.manual_seed(0)
                try:
                    logits = peft_models.float64_logits(load(), inputs).tolist()
                except Exception as error:  # reported as a row of the table
                    logits = f"{type(error).__name__}: {error}".splitlines()[0]
                results[f"{family}/{folder.name}/{way}"] = logits
    print(json.dumps(results))


if __name__ == "__main__":
    main()
