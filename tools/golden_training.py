#!/usr/bin/env python3
"""Training objectives by the official code, in more settings than one: what
`src/train/official_tests.rs` compares with, written to src/train/official.json.

    tools/golden_training.py DM-IMPROVES-AT        # a checkout of wzekai99/DM-Improves-AT

Needs PyTorch 2.11, numpy and pandas. Weights, images and noise are formulas of counters, so only
numbers are stored: losses, and of each gradient its length and its product with another formula.
"""

import json
import math
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent))
from official_import import import_official  # noqa: E402

import_official(sys.argv[1])
from core.attacks import CWLoss, create_attack  # noqa: E402
from core.models import create_model  # noqa: E402
from core.utils import Trainer  # noqa: E402
from core.utils.mart import mart_loss  # noqa: E402
from gowal21uncovering.utils.trades import trades_loss, trades_loss_LSE  # noqa: E402


def unit(k, count):
    with np.errstate(over="ignore"):
        z = (np.uint64(k) << np.uint64(40)) + np.arange(count, dtype=np.uint64)
        z = (z + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**24


def tensor(k, shape, low, high):
    values = low + (high - low) * unit(k, math.prod(shape))
    return torch.from_numpy(values.astype(np.float32)).view(*shape)


def fill(model):
    state = model.state_dict()
    for k, name in enumerate(sorted(state)):
        value = state[name]
        if value.dim() >= 2:
            bound = math.sqrt(3 / math.prod(value.shape[1:]))
            low, high = -bound, bound
        elif name.endswith("running_var"):
            low, high = 1, 1.5
        elif name.endswith("num_batches_tracked"):
            continue
        elif name.endswith("weight"):
            low, high = 0.8, 1.2
        else:
            low, high = -0.1, 0.1
        value.copy_(tensor(k, value.shape, low, high))


IMAGES, NOISE, PROBE = 1 << 20, 3 << 20, 5 << 20
ROOT3 = math.sqrt(3)
torch.Tensor.uniform_ = lambda self, low=0, high=1, **_: self.copy_(
    low + (high - low) * (tensor(NOISE, self.shape, -1, 1) + 1) / 2)
torch.randn = lambda *shape, **_: tensor(NOISE, tuple(shape[0]), -ROOT3, ROOT3)


class Fixed:
    """An optimiser that only clears gradients."""

    def __init__(self, model):
        self.model = model

    def zero_grad(self):
        self.model.zero_grad()


def adversarial(case, model, x, y):
    holder = MagicMock()
    holder.model, holder.params.keep_clean = model, case.get("keep_clean", False)
    holder.criterion = torch.nn.CrossEntropyLoss()
    holder.attack = create_attack(model, holder.criterion, case["attack"], case["eps"],
                                  case["steps"], case["step_size"], rand_init_type="uniform")
    holder.optimizer = Fixed(model)
    return Trainer.adversarial_loss(holder, x, y)


def objective(case, model, x, y, target):
    common = dict(step_size=case["step_size"], epsilon=case["eps"], perturb_steps=case["steps"],
                  beta=case["beta"], attack=case["attack"])
    mixed = case.get("cutmix", False)
    label = target if mixed else y
    if case["loss"] == "trades":
        lam = case.get("consistency", 0.0)
        return trades_loss(model, x, label, Fixed(model), label_smoothing=case["ls"],
                           use_cutmix=mixed, use_consistency=lam > 0, cons_lambda=lam,
                           cons_tem=case.get("temperature", 0.5), **common)
    if case["loss"] == "score":
        return trades_loss_LSE(model, x, label, Fixed(model), label_smoothing=case["ls"],
                               clip_value=case.get("clip", 0), use_cutmix=mixed,
                               num_classes=case["classes"], **common)
    if case["loss"] == "mart":
        return mart_loss(model, x, y, Fixed(model), **common)
    if case["loss"] == "pgd-at":
        return adversarial(case, model, x, y)
    holder = MagicMock()
    holder.model, holder.criterion = model, torch.nn.CrossEntropyLoss()
    return Trainer.standard_loss(holder, x, y)


def run(case):
    data = case["dataset"]
    info = {"data": data, "num_classes": case["classes"], "mean": [0.5] * 3, "std": [0.5] * 3}
    model = create_model(case["arch"], False, info, torch.device("cpu"))
    model = model.module if hasattr(model, "module") else model
    while isinstance(model, torch.nn.Sequential):
        model = model[0]
    fill(model)
    model.train()
    # Many pixels lie at the ends of the box, as in real images.
    x = tensor(IMAGES, (8, 3, 32, 32), -0.4, 1.4).clamp(0, 1)
    y = torch.arange(8) * 3 % case["classes"]
    if case.get("consistency", 0) > 0:
        y = y[:4].repeat(2)
    one_hot = torch.nn.functional.one_hot(y, case["classes"]).float()
    target = 0.7 * one_hot + 0.3 * one_hot.roll(1, 0)
    if case["loss"] == "validation":
        model.eval()
        attack = create_attack(model, CWLoss, case["attack"], case["eps"], case["steps"],
                               case["step_size"])
        found, _ = attack.perturb(x, model(x).argmax(1))
        with torch.no_grad():
            logits = model(found)
        return {"logits": logits.flatten().tolist()}
    loss, _ = objective(case, model, x, y, target)
    loss.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        probe = tensor(PROBE, parameter.shape, -1, 1).double()
        gradient = parameter.grad.double()
        gradients[name] = [gradient.norm().item(), (gradient * probe).sum().item()]
    running = {name: value.double().norm().item() for name, value in model.named_buffers()
               if "running" in name}
    return {"loss": loss.item(), "gradients": gradients, "running": running}


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


LINF = dict(attack="linf-pgd", eps=8 / 255, step_size=2 / 255, norm="linf", epsilon="8/255")
L2 = dict(attack="l2-pgd", eps=128 / 255, step_size=15 / 255, norm="l2", epsilon="128/255")
C10 = dict(arch="wrn-10-1-swish", dataset="cifar10", classes=10)
C100 = dict(arch="wrn-10-1-swish", dataset="cifar100", classes=100)
SVHN = dict(arch="wrn-10-1-swish", dataset="svhn", classes=10)
BASE = dict(beta=5.0, ls=0.1, steps=4)

CASES = {
    "trades linf, 100 classes, beta 3": BASE | LINF | C100 | dict(loss="trades", beta=3.0, ls=0.3),
    "trades linf, no smoothing": BASE | LINF | SVHN | dict(loss="trades", ls=0.0),
    "trades l2, 100 classes": BASE | L2 | C100 | dict(loss="trades", ls=0.2),
    "trades linf, cutmix": BASE | LINF | C10 | dict(loss="trades", cutmix=True),
    "trades l2, cutmix": BASE | L2 | C10 | dict(loss="trades", cutmix=True),
    "trades linf, consistency": BASE | LINF | C10 | dict(loss="trades", consistency=2.0),
    "trades l2, consistency": BASE | L2 | C10 | dict(
        loss="trades", consistency=1.0, temperature=1.5),
    "score linf, clipped": BASE | LINF | C10 | dict(loss="score", clip=0.002, beta=4.0),
    "score l2": BASE | L2 | C100 | dict(loss="score", beta=4.0, ls=0.2),
    "score linf, cutmix": BASE | LINF | C10 | dict(loss="score", cutmix=True),
    "mart linf": BASE | LINF | C10 | dict(loss="mart", beta=6.0),
    "mart linf, 100 classes": BASE | LINF | C100 | dict(loss="mart", beta=2.0),
    "pgd-at linf": BASE | LINF | C10 | dict(loss="pgd-at"),
    "pgd-at l2": BASE | L2 | SVHN | dict(loss="pgd-at"),
    "pgd-at linf, clean kept": BASE | LINF | C10 | dict(loss="pgd-at", keep_clean=True),
    "standard": BASE | LINF | C100 | dict(loss="standard"),
    "validation linf": BASE | LINF | C10 | dict(loss="validation", steps=10),
    "validation l2": BASE | L2 | C10 | dict(loss="validation", steps=10),
}

out = {name: case | {"expected": run(case)} for name, case in CASES.items()}
path = Path(__file__).parent.parent / "src/train/official.json"
lines = [f"{json.dumps(name)}: {json.dumps(rounded(case))}" for name, case in out.items()]
path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
print(path, len(out), "cases")
