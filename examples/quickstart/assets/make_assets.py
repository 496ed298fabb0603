"""Makes the quickstart's checkpoint and data from Fashion-MNIST. See README.md beside this file.

    python make_assets.py --seed 0

The checkpoint is trained on the 60,000 upright training images only; the data files hold the first
images of the test set. No choice below was made by looking at the test set.
"""

import argparse
import gzip
import hashlib
import json
import pathlib
import struct
import time

import numpy
import torch
from transformers import ViTConfig, ViTForImageClassification

LABELS = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
]
STREAM = 4000
BATCH = 128
PEAK_LEARNING_RATE = 1.5e-3


def read_idx(path):
    """An idx.gz file of unsigned bytes as an array."""
    with gzip.open(path) as file:
        _, kind, dimensions = struct.unpack(">HBB", file.read(4))
        assert kind == 8, f"{path} does not hold unsigned bytes"
        shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
        return numpy.frombuffer(file.read(), numpy.uint8).reshape(shape)


def write_idx(path, array):
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    # mtime 0: the same bytes on every run.
    path.write_bytes(gzip.compress(header + array.tobytes(), compresslevel=9, mtime=0))


def pixels(images):
    """uint8 [B, 28, 28] as float32 [B, 1, 28, 28]: (x / 255 - 0.5) / 0.5."""
    return (torch.from_numpy(images.copy()).float().div(255).sub(0.5).div(0.5)).unsqueeze(1)


def new_model():
    config = ViTConfig(
        image_size=28,
        patch_size=4,
        num_channels=1,
        hidden_size=96,
        num_attention_heads=4,
        intermediate_size=192,
        num_hidden_layers=6,
        layer_norm_eps=1e-6,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(LABELS)),
        label2id={name: i for i, name in enumerate(LABELS)},
    )
    return ViTForImageClassification(config)


def train(model, images, labels, epochs, generator):
    """AdamW with a one-cycle schedule; the only augmentation is a horizontal flip."""
    x, y = pixels(images), torch.from_numpy(labels.astype(numpy.int64))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05, fused=True)
    steps = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_LEARNING_RATE, total_steps=steps, pct_start=0.15
    )
    model.train()
    started = time.monotonic()
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for start in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            batch = x[rows]
            flip = torch.rand(BATCH, generator=generator) < 0.5
            batch[flip] = batch[flip].flip(-1)
            loss = torch.nn.functional.cross_entropy(model(pixel_values=batch).logits, y[rows])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        elapsed = time.monotonic() - started
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {elapsed:.0f} s", flush=True)


@torch.no_grad()
def accuracy(model, images, labels):
    model.eval()
    predictions = [
        model(pixel_values=pixels(images[i : i + 500])).logits.argmax(1)
        for i in range(0, len(images), 500)
    ]
    return float((torch.cat(predictions).numpy() == labels).mean())


def save_checkpoint(model, folder):
    model.save_pretrained(folder)
    processor = {
        "do_convert_rgb": False,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": False,
        "image_mean": [0.5],
        "image_processor_type": "ViTImageProcessor",
        "image_std": [0.5],
        "rescale_factor": 1 / 255,
        "size": {"height": 28, "width": 28},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    here = pathlib.Path(__file__).parent
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--data", type=pathlib.Path, default=pathlib.Path("/usr/share/datasets/fashion-mnist")
    )
    parser.add_argument("--out", type=pathlib.Path, default=here)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)

    train_images = read_idx(arguments.data / "train-images-idx3-ubyte.gz")
    train_labels = read_idx(arguments.data / "train-labels-idx1-ubyte.gz")
    test_images = read_idx(arguments.data / "t10k-images-idx3-ubyte.gz")
    test_labels = read_idx(arguments.data / "t10k-labels-idx1-ubyte.gz")

    data_files = {
        "fashion-mnist-images-idx3-ubyte.gz": test_images[:STREAM],
        "fashion-mnist-labels-idx1-ubyte.gz": test_labels[:STREAM],
    }
    for name, array in data_files.items():
        write_idx(arguments.out / name, array)

    model = new_model()
    generator = torch.Generator().manual_seed(arguments.seed)
    train(model, train_images, train_labels, arguments.epochs, generator)
    checkpoint = arguments.out / "vit-fashion-mnist"
    save_checkpoint(model, checkpoint)
    print(f"upright, test set: {accuracy(model, test_images, test_labels):.4f}")
    print(f"upright, the slice: {accuracy(model, test_images[:STREAM], test_labels[:STREAM]):.4f}")

    files = [arguments.out / name for name in data_files] + sorted(checkpoint.iterdir())
    for file in files:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        print(f"{digest}  {file.relative_to(arguments.out)}  {file.stat().st_size}")


if __name__ == "__main__":
    main()
