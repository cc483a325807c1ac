#!/usr/bin/env python3
"""Samples the official EDM code and gauntlet in turn: same network, libtorch, threads, steps.

    python3 tools/beside_edm.py EDM [--size tiny|cifar] [--rounds 3] [--count N] [--steps 18]
        [--batch 16] [--threads 1] [--gauntlet target/debug/gauntlet] [--network FILE.pkl]

EDM is a checkout of NVlabs/edm. Without --network a DDPM++ of that size with random weights is made
by the official classes and pickled as they do it: `tiny` is 16x16 pixels with 32 channels, `cifar`
the published 32x32 network with 128 channels, both conditioned on ten classes. Needs PyTorch of
gauntlet's libtorch version and numpy; what else EDM imports (to download files, to parse arguments)
is not used here and may be absent.

Prints CPU seconds for each image and network evaluation, the least of all rounds, and the ratio
(above 1: gauntlet is faster). gauntlet's seconds include reading the network and writing the set;
the official ones do not.
"""

import argparse
import importlib.util
import os
import pickle
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import MagicMock

SIZES = {
    "tiny": dict(img_resolution=16, model_channels=32, channel_mult=[1, 2], num_blocks=2, attn_resolutions=[8]),
    "cifar": dict(img_resolution=32, model_channels=128, channel_mult=[2, 2, 2], num_blocks=4, attn_resolutions=[16]),
}


def without_the_rest():
    """Lets EDM's files be imported without packages that sampling does not use."""
    for name in ("requests", "click", "tqdm", "PIL", "PIL.Image", "scipy", "scipy.optimize", "psutil"):
        if importlib.util.find_spec(name.split(".")[0]) is None:
            sys.modules[name] = MagicMock(__spec__=None, __path__=[])


def network(given, folder):
    if given.network:
        return Path(given.network)
    import torch
    from training.networks import EDMPrecond
    torch.manual_seed(0)
    about = dict(SIZES[given.size])
    edge = about.pop("img_resolution")
    net = EDMPrecond(img_resolution=edge, img_channels=3, label_dim=10, model_type="SongUNet",
                     augment_dim=9, dropout=0.0, embedding_type="positional", encoder_type="standard",
                     decoder_type="standard", channel_mult_noise=1, resample_filter=[1, 1], **about)
    # Layers that start at zero would make every network the same.
    for parameter in net.parameters():
        if parameter.abs().max() < 1e-3:
            torch.nn.init.normal_(parameter, std=0.02)
    path = folder / "network.pkl"
    with open(path, "wb") as file:
        pickle.dump(dict(ema=net.eval().requires_grad_(False)), file)
    return path


def official(given, path):
    """CPU seconds of one official run."""
    import torch
    from generate import edm_sampler
    with open(path, "rb") as file:
        net = pickle.load(file)["ema"]
    shape = [given.batch, net.img_channels, net.img_resolution, net.img_resolution]
    spent = []
    for round in range(given.rounds):
        begun = time.process_time()
        for start in range(0, given.count, given.batch):
            torch.manual_seed(start)
            latents = torch.randn(shape)
            labels = torch.eye(net.label_dim)[torch.arange(given.batch) % net.label_dim]
            images = edm_sampler(net, latents, labels, num_steps=given.steps)
            (images * 127.5 + 128).clip(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        spent.append(time.process_time() - begun)
        yield spent[-1]


def ours(given, path, folder):
    out = folder / "set.npz"
    out.unlink(missing_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(
        [given.gauntlet, "generate", "--denoiser", str(path), "--count", str(given.count), "--steps",
         str(given.steps), "--batch", str(given.batch), "--out", str(out)],
        check=True, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(given.threads)})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = float(re.search(r"([0-9.]+) s\s*$", said.stdout).group(1))
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("edm")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--network")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--steps", type=int, default=18)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gauntlet", default="target/debug/gauntlet")
    given = parser.parse_args()
    given.count = given.count or {"tiny": 64, "cifar": 16}[given.size]
    assert given.count % given.batch == 0, "--count must be a multiple of --batch"
    sys.path.insert(0, given.edm)
    without_the_rest()
    import torch
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        path = network(given, folder)
        sides = {"official": [], "gauntlet": []}
        theirs = official(given, path)
        for _ in range(given.rounds):
            sides["official"].append(next(theirs))
            cpu, wall = ours(given, path, folder)
            sides["gauntlet"].append(cpu)
        passes = given.count * (2 * given.steps - 1)
        for name, spent in sides.items():
            rounds = " ".join(f"{1e3 * seconds / passes:.3f}" for seconds in spent)
            print(f"{name:<9} {1e3 * min(spent) / passes:8.3f} ms CPU an image and evaluation  ({rounds})")
        print(f"ratio     {min(sides['official']) / min(sides['gauntlet']):8.3f}")


if __name__ == "__main__":
    main()
