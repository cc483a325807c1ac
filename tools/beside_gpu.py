#!/usr/bin/env python3
"""Measures one GPU, then gauntlet beside the official Python code on it. One JSON object a line.

    python3 tools/beside_gpu.py FOLDER PART... [--device cuda:0] [--gauntlet target/debug/gauntlet]
        [--attacks apgd-ce,apgd-t,fab-t,square] [--small]

FOLDER holds checkouts or links: auto-attack (fra31/auto-attack), edm (NVlabs/edm), DM-Improves-AT
(wzekai99/DM-Improves-AT), and data (with cifar-10-batches-bin) and resnet2b.torchscript.pt. Needs
PyTorch 2.11 and numpy. Parts:

    ceilings   matrix products, 3x3 convolutions, copies: what the card can do
    parity     one evaluation on the CPU and on the card: every flag that differs, largest logit error
    attacks    AutoAttack on a ResNet-2B; APGD-CE of full length on a WRN-28-10
    sampler    EDM's CIFAR-10 network, 18 steps
    training   steps of the paper's recipe on a WRN-28-10

Seconds are of the clock on the wall, of the work alone: processes, files and the first batch or
steps are left out on both sides. `--small` takes tiny sizes, to try the parts without a GPU.
"""

import argparse
import json
import os
import pickle
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Multiply-adds of a forward pass of one 32x32 image.
WRN_GMAC, EDM_GMAC = 5.25, 21.0


def say(part, **values):
    shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
    print(json.dumps({"part": part, **shown}), flush=True)


class Card:
    """The device and its clock."""

    def __init__(self, name):
        import torch
        self.torch, self.name, self.gpu = torch, name, name != "cpu"

    def wait(self):
        if self.gpu:
            self.torch.cuda.synchronize()

    def seconds(self, work, rounds=10, warm=3):
        for _ in range(warm):
            work()
        times = []
        for _ in range(rounds):
            self.wait()
            begun = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - begun)
        return statistics.median(times)


def ceilings(given, card):
    torch = card.torch
    n = 256 if given.small else 8192
    kinds = [("fp32", torch.float32, False), ("tf32", torch.float32, True), ("bf16", torch.bfloat16, True)]
    for name, kind, tf32 in kinds:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        a, b = (torch.randn(n, n, device=card.name, dtype=kind) for _ in range(2))
        product = 2 * n**3 / card.seconds(lambda: a @ b, 5) / 1e12
        best = (0, "")
        for channels, edge in ((64, 32), (160, 32), (320, 16), (640, 8)):
            for layout in (torch.contiguous_format, torch.channels_last):
                batch = 4 if given.small else 512
                x = torch.randn(batch, channels, edge, edge, device=card.name, dtype=kind)
                w = torch.randn(channels, channels, 3, 3, device=card.name, dtype=kind)
                x, w = x.to(memory_format=layout), w.to(memory_format=layout)
                work = 2 * x.numel() * channels * 9
                speed = work / card.seconds(lambda: torch.conv2d(x, w, padding=1), 5) / 1e12
                best = max(best, (speed, f"{channels} channels at {edge}, {layout}"))
        say("ceilings", numbers=name, matmul_tflops=product, conv_tflops=best[0], conv=best[1])
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, True
    a = torch.empty(1 << (20 if given.small else 30), dtype=torch.uint8, device=card.name)
    b = torch.empty_like(a)
    say("ceilings", copy_gb_per_s=2 * a.numel() / card.seconds(lambda: b.copy_(a)) / 1e9)
    # How long the host takes to ask for one tiny operation.
    c = torch.zeros(1, device=card.name)
    def many():
        for _ in range(1000):
            c.add_(1)
    say("ceilings", launch_us=card.seconds(many, 5) * 1e3)


def evaluate(given, out, *more):
    command = [given.gauntlet, "evaluate", "--json", "--out", str(out), *map(str, more)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-800:]}")
    return json.loads(done.stdout[done.stdout.index("{"):])


def parity(given, card):
    import pyarrow.parquet as parquet
    count = 8 if given.small else 512
    for norm, eps in (("linf", "2/255"), ("l2", "0.25")):
        with tempfile.TemporaryDirectory() as folder:
            rows, counts = [], []
            for device in ("cpu", card.name):
                out = Path(folder) / device.replace(":", "")
                found = evaluate(given, out, "--model", given.folder / "resnet2b.torchscript.pt",
                                 "--data-dir", given.folder / "data", "--norm", norm, "--eps", eps,
                                 "--examples", count, "--device", device)
                rows.append(parquet.read_table(out / "records.parquet").to_pylist())
                counts.append([found["clean"], *found["robust_after"].values()])
            told = [(a, b) for a, b in zip(*rows)
                    if (a["clean_prediction"], a["broken_by"]) != (b["clean_prediction"], b["broken_by"])]
            flags = sum(is_robust(a) != is_robust(b) for a, b in told)
            apart = max(abs(a["clean_margin"] - b["clean_margin"]) for a, b in zip(*rows))
            say("parity", norm=norm, eps=eps, examples=count, clean_and_robust_after_each=counts,
                flags_that_differ=flags, clean_margins_differ_by=apart,
                broken_by_another=[[a["index"], a["broken_by"], b["broken_by"]] for a, b in told])


def is_robust(row):
    return row["clean_prediction"] == row["label"] and row["broken_by"] is None


def images(given, count):
    import numpy as np
    raw = np.fromfile(given.folder / "data/cifar-10-batches-bin/test_batch.bin", np.uint8)
    raw = raw.reshape(-1, 3073)[:count]
    return raw[:, 1:].reshape(-1, 3, 32, 32).copy(), raw[:, 0].astype("int64")


def attacks(given, card):
    import numpy as np
    torch = card.torch
    sys.path.insert(0, str(given.folder / "auto-attack"))
    from autoattack import AutoAttack
    torch._C._set_graph_executor_optimize(False)

    def official(model, x, y, eps, chosen):
        suite = AutoAttack(model, norm="Linf", eps=eps, seed=0, version="standard", device=card.name,
                           verbose=False)
        if chosen:
            suite.attacks_to_run = chosen
        card.wait()
        begun = time.perf_counter()
        found, labels = suite.run_standard_evaluation(x, y, bs=len(x), return_labels=True)
        card.wait()
        return time.perf_counter() - begun, int((labels == y).sum())

    # A small network: what an iteration costs beside its passes. Each attack meets every image.
    count = 8 if given.small else 512
    pixels, labels = images(given, count)
    x = torch.from_numpy(pixels).float().div(255).to(card.name)
    y = torch.from_numpy(labels).to(card.name)
    path = given.folder / "resnet2b.torchscript.pt"
    model = torch.jit.load(path, map_location=card.name).eval()
    model(x[:2])
    for attack in given.attacks.split(","):
        found = evaluate(given, Path(given.scratch) / attack, "--model", path, "--data-dir",
                         given.folder / "data", "--norm", "linf", "--eps", "2/255", "--examples",
                         count, "--batch-size", count, "--device", card.name, "--suite", "custom",
                         "--attacks", attack)
        theirs, robust = official(model, x, y, 2 / 255, [attack])
        ours = found["seconds"][attack]
        say("attacks", model="ResNet-2B", what=f"{attack}, linf 2/255", images=count,
            official_s=theirs, ours_s=ours, ratio=theirs / ours, robust=[robust, found["robust"]])

    # A bound so small that nothing breaks: every image takes the whole length.
    sys.path.insert(0, str(HERE))
    from official_import import import_official
    import_official(str(given.folder / "DM-Improves-AT"), card.name)
    from core.models import create_model
    info = {"data": "cifar10", "num_classes": 10, "mean": [0.5] * 3, "std": [0.5] * 3}
    torch.manual_seed(0)
    net = create_model("wrn-28-10-swish", False, info, torch.device(card.name)).eval()
    net = getattr(net, "module", net)
    count = 4 if given.small else 256
    pixels = np.resize(pixels, (count, 3, 32, 32))
    x = torch.from_numpy(pixels).float().div(255).to(card.name)
    with torch.no_grad():
        y = net(x).argmax(1)
        traced = torch.jit.trace(net, x[:2], check_trace=False)
    path, data = Path(given.scratch) / "wide.pt", Path(given.scratch) / "own.npz"
    traced.save(str(path))
    np.savez(data, image=pixels.transpose(0, 2, 3, 1), label=y.cpu().numpy())
    model = torch.jit.load(path, map_location=card.name).eval()
    attack = "apgd-ce:5" if given.small else "apgd-ce"  # the official one has no shorter way
    warm = x.clone().requires_grad_(True)
    model(warm).sum().backward()
    theirs, robust = (float("nan"), 0) if given.small else official(model, x, y, 1e-6, ["apgd-ce"])
    found = evaluate(given, Path(given.scratch) / "wide", "--model", path, "--data", data, "--norm",
                     "linf", "--eps", "0.000001", "--batch-size", count, "--device", card.name,
                     "--suite", "custom", "--attacks", attack)
    ours = sum(found["seconds"].values())
    # A pass back to the images costs about as much as one forward.
    passes = found["forwards"]["apgd-ce"] + found["backwards"]["apgd-ce"]
    say("attacks", model="WRN-28-10", what=f"{attack}, nothing breaks", images=count,
        official_s=theirs, ours_s=ours, ratio=theirs / ours, robust=[robust, found["robust"]],
        ours_tflops=2 * WRN_GMAC * passes / ours / 1e3)


def sampler(given, card):
    torch = card.torch
    sys.path.insert(0, str(HERE))
    sys.path.insert(0, str(given.folder / "edm"))
    import beside_edm
    beside_edm.without_the_rest()
    about = argparse.Namespace(network="", size="tiny" if given.small else "cifar")
    path = beside_edm.network(about, Path(given.scratch))
    from generate import edm_sampler
    with open(path, "rb") as file:
        net = pickle.load(file)["ema"].to(card.name)
    batch, steps = (4, 3) if given.small else (128, 18)
    latents = torch.randn(batch, 3, net.img_resolution, net.img_resolution, device=card.name)
    labels = torch.eye(10, device=card.name)[torch.arange(batch, device=card.name) % 10]
    theirs = batch / card.seconds(lambda: edm_sampler(net, latents, labels, num_steps=steps), 2, 1)
    speeds = []
    for rounds in (1, 3):
        out = Path(given.scratch) / f"set{rounds}.npz"
        gpu = ["--gpu", card.name.split(":")[1]] if card.gpu else []
        command = [given.gauntlet, "generate", "--denoiser", str(path), "--count", str(batch * rounds),
                   "--batch", str(batch), "--steps", str(steps), "--out", str(out), *gpu]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        speeds.append((batch * rounds, float(re.search(r"([0-9.]+) s\s*$", done.stdout).group(1))))
    (few, short), (many, long) = speeds
    ours = (many - few) / (long - short)
    say("sampler", network=about.size, batch=batch, steps=steps, official_images_per_s=theirs,
        ours_images_per_s=ours, ratio=ours / theirs,
        ours_tflops=2 * EDM_GMAC * (2 * steps - 1) * ours / 1e3)


def training(given, card):
    torch = card.torch
    sys.path.insert(0, str(HERE))
    from official_import import import_official
    import_official(str(given.folder / "DM-Improves-AT"), card.name)
    from core.models import create_model
    from core.utils import set_bn_momentum
    from gowal21uncovering.utils.trades import trades_loss
    from gowal21uncovering.utils.watrain import ema_update
    arch, batch = ("wrn-10-1-swish", 16) if given.small else ("wrn-28-10-swish", 256)
    info = {"data": "cifar10", "num_classes": 10, "mean": [0.5] * 3, "std": [0.5] * 3}
    model, averaged = (create_model(arch, False, info, torch.device(card.name)) for _ in range(2))
    set_bn_momentum(model, momentum=0.01)
    free = [p for n, p in model.named_parameters() if "batchnorm" in n]
    decayed = [p for n, p in model.named_parameters() if "batchnorm" not in n]
    optimizer = torch.optim.SGD([{"params": decayed}, {"params": free, "weight_decay": 0.0}], lr=1e-4,
                                weight_decay=5e-4, momentum=0.9, nesterov=True)
    x = torch.rand(batch, 3, 32, 32, device=card.name)
    y = torch.arange(batch, device=card.name) % 10

    def step():
        loss, _ = trades_loss(model, x, y, optimizer, step_size=2 / 255, epsilon=8 / 255,
                              perturb_steps=10, beta=5.0, attack="linf-pgd", label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        ema_update(averaged, model, 100, decay_rate=0.995, warmup_steps=0)

    theirs = batch / card.seconds(step, 3, 1)
    del model, averaged, optimizer
    if card.gpu:
        torch.cuda.empty_cache()
    for precision in ("fp32", "bf16")[:1 if given.small else 2]:
        out = Path(given.scratch) / f"train-{precision}"
        command = [given.gauntlet, "train", "--data", "synthetic", "--arch", arch,
                   "--preset", "dmat", "--norm", "linf", "--eps", "8/255", "--out", str(out),
                   "--set", f"train.batch={batch}", "--set", "train.epochs=2",
                   "--set", "train.validation=0", "--set", f"train.precision={precision}",
                   "--set", f"data.train.count={batch * 8}", "--set", "data.resolution=32",
                   "--device", card.name]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise RuntimeError(done.stdout[-800:])
        first, second = map(json.loads, (out / "log.jsonl").read_text().splitlines())
        ours = batch * (second["step"] - first["step"]) / (second["seconds"] - first["seconds"])
        # Ten crafting steps, the attack's and the update's passes: 11 x 2 + 2 + 2 x 2 forwards.
        say("training", arch=arch, batch=batch, precision=precision, official_images_per_s=theirs,
            ours_images_per_s=ours, ratio=ours / theirs, ours_tflops=2 * WRN_GMAC * 27 * ours / 1e3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("parts", nargs="+")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--gauntlet", default="target/debug/gauntlet")
    parser.add_argument("--attacks", default="apgd-ce,apgd-t,fab-t,square")
    parser.add_argument("--small", action="store_true", help="tiny sizes, for a try without a GPU")
    given = parser.parse_args()
    for part in given.parts:
        with tempfile.TemporaryDirectory() as given.scratch:
            try:
                globals()[part](given, Card(given.device))
            except Exception as error:  # one part's trouble leaves the others
                say(part, error=f"{type(error).__name__}: {error}"[:900])


if __name__ == "__main__":
    main()
