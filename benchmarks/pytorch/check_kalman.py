"""Compares kalman.py, through every way to a Jacobian, with the reference that the tests' fixtures come from.

    python benchmarks/pytorch/check_kalman.py     # prints the largest relative differences; fails above 1e-9
"""

import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import ViTConfig, ViTForImageClassification

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "test/fixtures"))

from contenders import JACOBIANS, trained
from loko_reference import LokoReference

STEPS = 20
CLASSES = 5


def make_model():
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8,
        patch_size=4, num_channels=1, num_labels=CLASSES, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, initializer_range=0.2,
    )
    # The names of transformers 4 and 5.
    targets = r".*\.(query|value|q_proj|v_proj)"
    lora = LoraConfig(r=2, lora_alpha=4, target_modules=targets, modules_to_save=["classifier"])
    return get_peft_model(ViTForImageClassification(config), lora).double().eval()


def check(name, reduced):
    """Largest relative differences of losses and of theta over a stream."""
    model, other = make_model(), make_model()
    reference = LokoReference(other, trained(other))
    contender = JACOBIANS[name](model, {"classes": CLASSES}, reduced)
    worst = 0.0
    for _ in range(STEPS):
        pixels, label = torch.randn(1, 1, 8, 8).double(), int(torch.randint(CLASSES, ()))
        logits, _ = contender.step({"pixel_values": pixels}, torch.tensor([label]))
        expected = reference.step(pixels, label)["logits"]
        worst = max(worst, float((logits[0] - expected).abs().max() / expected.abs().max()))
    theta = torch.cat([value.detach().flatten() for value in trained(model).values()])
    return worst, float((theta - reference.theta).norm() / reference.theta.norm())


torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
failed = False
for name in JACOBIANS:
    for reduced in (False, True):
        logits, theta = check(name, reduced)
        failed |= not (logits < 1e-9 and theta < 1e-9)
        print(f"{name:8} {'m-1' if reduced else 'm':4} logits {logits:.1e}  theta {theta:.1e}")
sys.exit(1 if failed else 0)
