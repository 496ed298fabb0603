"""Makes the models and the data of the stream laboratory (docs/streams.md).

    python benchmarks/streams/make_assets.py --out build/streams/assets

Needs torch, transformers, scikit-learn, and Debian's dataset-fashion-mnist, wamerican, wdutch, wfrench,
wngerman, witalian, wportuguese, wspanish and wswedish. Writes a folder per model (as save_pretrained does)
and idx.gz files of what the streams draw from: samples that no model was trained on. Seeded, one thread.
"""

import argparse
import json
import pathlib
import time
import unicodedata

import numpy
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from transformers import BertConfig, BertForSequenceClassification, ViTConfig, ViTForImageClassification

from idx import read_idx, write_idx

DICTIONARIES = {
    "english": "american-english",
    "dutch": "dutch",
    "french": "french",
    "german": "ngerman",
    "italian": "italian",
    "portuguese": "portuguese",
    "spanish": "spanish",
    "swedish": "swedish",
}
WORD_LENGTHS = range(4, 13)
TOKENS = 12
WORDS_TRAINED = 6000  # per language
WORDS_STREAMED = 1500


class LeNet5(torch.nn.Module):
    """As docs/models.md has it."""

    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = torch.nn.Conv2d(6, 16, 5)
        self.fc1 = torch.nn.Linear(16 * 5 * 5, 120)
        self.fc2 = torch.nn.Linear(120, 84)
        self.fc3 = torch.nn.Linear(84, 10)

    def forward(self, x):
        pool = torch.nn.functional.max_pool2d
        x = pool(self.conv1(x).relu(), 2)
        x = pool(self.conv2(x).relu(), 2)
        return self.fc3(self.fc2(self.fc1(x.flatten(1)).relu()).relu())

    def save_pretrained(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.state_dict(), folder / "model.safetensors")
        config = {
            "model_type": "lenet",
            "num_channels": 1,
            "image_size": 28,
            "padding": 2,
            "conv_channels": [6, 16],
            "hidden_sizes": [120, 84],
            "hidden_act": "relu",
            "pooling": "max",
            "num_labels": 10,
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def new_vit(labels, image_size, patch_size, hidden, layers):
    return ViTForImageClassification(
        ViTConfig(
            image_size=image_size,
            patch_size=patch_size,
            num_channels=1,
            hidden_size=hidden,
            num_attention_heads=4,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=labels,
        )
    )


def new_bert(labels):
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=27,  # padding, a to z
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=96,
            max_position_embeddings=TOKENS,
            type_vocab_size=1,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=labels,
        )
    )


def pixels(images):
    """uint8 [B, H, W] as float32 [B, 1, H, W]: (x / 255 - 0.5) / 0.5."""
    return torch.from_numpy(images).float().div(255).sub(0.5).div(0.5).unsqueeze(1)


def logits_of(model, x):
    if isinstance(model, LeNet5):
        return model(pixels(x))
    if isinstance(model, BertForSequenceClassification):
        tokens = torch.from_numpy(x.astype(numpy.int64))
        return model(input_ids=tokens, attention_mask=(tokens != 0).long()).logits
    return model(pixels(x)).logits


def train(model, sample_batch, steps, peak):
    """AdamW with a one-cycle schedule; sample_batch() gives inputs and labels."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps, pct_start=0.15)
    model.train()
    for _ in range(steps):
        x, y = sample_batch()
        loss = torch.nn.functional.cross_entropy(logits_of(model, x), torch.from_numpy(y.astype(numpy.int64)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model, x, y):
    hits = [logits_of(model, x[i : i + 500]).argmax(1).numpy() for i in range(0, len(x), 500)]
    return float((numpy.concatenate(hits) == y).mean())


def batches(x, y, generator, size=128):
    def draw():
        rows = generator.integers(len(x), size=size)
        return x[rows], y[rows]

    return draw


@torch.no_grad()
def with_new_rows(model, labels, rebuild):
    """A head of `labels` outputs; rows of the classes that were not trained are N(0, 0.02^2), bias 0."""
    grown = rebuild(labels)
    weights = model.state_dict()
    old = weights["classifier.weight"].shape[0]
    weight = 0.02 * torch.randn(labels, weights["classifier.weight"].shape[1])
    bias = torch.zeros(labels)
    weight[:old], bias[:old] = weights["classifier.weight"], weights["classifier.bias"]
    weights["classifier.weight"], weights["classifier.bias"] = weight, bias
    grown.load_state_dict(weights)
    return grown


def make_garments(out, data, generator):
    x, y = read_idx(data / "train-images-idx3-ubyte.gz"), read_idx(data / "train-labels-idx1-ubyte.gz")
    test_x, test_y = read_idx(data / "t10k-images-idx3-ubyte.gz"), read_idx(data / "t10k-labels-idx1-ubyte.gz")
    write_idx(out / "garments-images.idx.gz", test_x)
    write_idx(out / "garments-labels.idx.gz", test_y)

    lenet = train(LeNet5(), batches(x, y, generator), 2400, 3e-3)
    save(lenet, out / "lenet", accuracy(lenet, test_x, test_y))
    vit = train(new_vit(10, 28, 7, 48, 3), batches(x, y, generator), 3000, 3e-3)
    save(vit, out / "vit", accuracy(vit, test_x, test_y))

    few, known = y < 7, test_y < 7
    part = train(new_vit(7, 28, 7, 48, 3), batches(x[few], y[few], generator), 2000, 3e-3)
    shown = accuracy(part, test_x[known], test_y[known])
    save(with_new_rows(part, 10, lambda n: new_vit(n, 28, 7, 48, 3)), out / "vit-part", shown)


def make_new_heads(out):
    """The models that know a part of the classes, with a head that knows none of them."""
    for architecture, family in ((ViTForImageClassification, "vit"), (BertForSequenceClassification, "bert")):
        model = architecture.from_pretrained(out / f"{family}-part")
        torch.nn.init.normal_(model.classifier.weight, std=0.02)
        torch.nn.init.zeros_(model.classifier.bias)
        model.save_pretrained(out / f"{family}-new-head")


def words_of(file):
    """Lower-case words of plain letters; accents are dropped, names (capitals) are not words."""
    text = (pathlib.Path("/usr/share/dict") / file).read_text(encoding="utf-8", errors="ignore")
    plain = unicodedata.normalize("NFKD", text)
    words = ("".join(c for c in word if not unicodedata.combining(c)) for word in plain.split("\n"))
    return {w.lower() for w in words if w.isascii() and w.isalpha() and len(w) in WORD_LENGTHS}


def encode(words):
    rows = numpy.zeros((len(words), TOKENS), numpy.uint8)
    for row, word in zip(rows, words):
        row[: len(word)] = [ord(letter) - 96 for letter in word]
    return rows


def make_words(out, generator):
    sets = [words_of(file) for file in DICTIONARIES.values()]
    x, y, test_x, test_y = [], [], [], []
    for label, own in enumerate(sets):
        others = set().union(*(s for i, s in enumerate(sets) if i != label))
        unique = sorted(own - others)
        drawn = [unique[i] for i in generator.permutation(len(unique))[: WORDS_TRAINED + WORDS_STREAMED]]
        rows = encode(drawn)
        x.append(rows[:WORDS_TRAINED])
        test_x.append(rows[WORDS_TRAINED:])
        y.append(numpy.full(len(x[-1]), label, numpy.uint8))
        test_y.append(numpy.full(len(test_x[-1]), label, numpy.uint8))
    x, y, test_x, test_y = map(numpy.concatenate, (x, y, test_x, test_y))
    write_idx(out / "words-tokens.idx.gz", test_x)
    write_idx(out / "words-labels.idx.gz", test_y)

    bert = train(new_bert(8), batches(x, y, generator), 4000, 3e-3)
    save(bert, out / "bert", accuracy(bert, test_x, test_y))
    few, known = y < 5, test_y < 5
    part = train(new_bert(5), batches(x[few], y[few], generator), 2500, 3e-3)
    shown = accuracy(part, test_x[known], test_y[known])
    save(with_new_rows(part, 8, new_bert), out / "bert-part", shown)


def pairs(images, labels, generator, count):
    """Two digits side by side as one image [16, 16] of 100 classes."""
    left, right = generator.integers(len(images), size=(2, count))
    joined = numpy.zeros((count, 16, 16), numpy.uint8)
    joined[:, 4:12, :8], joined[:, 4:12, 8:] = images[left], images[right]
    return joined, 10 * labels[left] + labels[right]


def make_pairs(out, generator):
    digits = load_digits()
    order = generator.permutation(len(digits.target))
    images = (digits.images[order] * 15).astype(numpy.uint8)
    labels = digits.target[order].astype(numpy.uint8)
    test_x, test_y = pairs(images[1100:], labels[1100:], generator, 8000)
    write_idx(out / "pairs-images.idx.gz", test_x)
    write_idx(out / "pairs-labels.idx.gz", test_y)
    model = train(
        new_vit(100, 16, 4, 64, 3), lambda: pairs(images[:1100], labels[:1100], generator, 128), 4000, 2e-3
    )
    save(model, out / "vit-pairs", accuracy(model, test_x, test_y))


def save(model, folder, shown):
    model.save_pretrained(folder)
    print(f"{folder.name}: accuracy on held-out samples {shown:.4f}, {time.process_time():.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("/usr/share/datasets/fashion-mnist"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = numpy.random.default_rng(0)
    arguments.out.mkdir(parents=True, exist_ok=True)
    make_garments(arguments.out, arguments.data, generator)
    make_words(arguments.out, generator)
    make_pairs(arguments.out, generator)
    make_new_heads(arguments.out)


if __name__ == "__main__":
    main()
