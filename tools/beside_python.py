#!/usr/bin/env python3
"""Compares gauntlet with Python on the same libtorch: loading a 146 MB checkpoint of WRN-28-10,
forward passes and input gradients. One thread, CPU seconds, both sides in turn.

    python3 tools/beside_python.py [ROUNDS] [BATCH]      # with the torch 2.11 of this Python

Prints the least time of each side and the ratio (below 1: gauntlet is faster). `load` names
make it stop after loading: ROUNDS BATCH load.
"""
import os, subprocess, sys, tempfile, time

import torch
import torch.nn as nn
import torch.nn.functional as F


class Block(nn.Module):
    def __init__(self, a, b, stride):
        super().__init__()
        self.stride = stride
        self.batchnorm_0, self.batchnorm_1 = nn.BatchNorm2d(a), nn.BatchNorm2d(b)
        self.conv_0 = nn.Conv2d(a, b, 3, stride, 0, bias=False)
        self.conv_1 = nn.Conv2d(b, b, 3, 1, 1, bias=False)
        if a != b:
            self.shortcut = nn.Conv2d(a, b, 1, stride, bias=False)

    def forward(self, x):
        active = F.silu(self.batchnorm_0(x), inplace=True)
        padded = F.pad(active, (1, 1, 1, 1) if self.stride == 1 else (0, 1, 0, 1))
        out = F.silu(self.batchnorm_1(self.conv_0(padded)), inplace=True)
        out = self.conv_1(out)
        return out + (self.shortcut(active) if hasattr(self, "shortcut") else x)


class Group(nn.Module):
    def __init__(self, n, a, b, stride):
        super().__init__()
        self.block = nn.Sequential(*(Block(b if i else a, b, 1 if i else stride) for i in range(n)))

    def forward(self, x):
        return self.block(x)


class Wide(nn.Module):
    def __init__(self, depth=28, width=10):
        super().__init__()
        n, c = (depth - 4) // 6, [16, 16 * width, 32 * width, 64 * width]
        self.init_conv = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.layer = nn.Sequential(*(Group(n, c[i], c[i + 1], min(i + 1, 2)) for i in range(3)))
        self.batchnorm, self.logits = nn.BatchNorm2d(c[3]), nn.Linear(c[3], 10)
        self.mean = torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1)
        self.std = torch.tensor([0.2471, 0.2435, 0.2616]).view(1, 3, 1, 1)

    def forward(self, x):
        x = self.layer(self.init_conv((x - self.mean) / self.std))
        x = F.silu(self.batchnorm(x), inplace=True)
        return self.logits(F.adaptive_avg_pool2d(x, 1).flatten(1))


def timed(best, case, rounds, run):
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.thread_time()
        kept = run()
        cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
        del kept
        best[case] = min(best.get(case, 9e9), cpu)
        best[case + " (wall)"] = min(best.get(case + " (wall)", 9e9), wall)


def gradient(net, x):
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(net(x).logsumexp(1).sum(), x)[0]


def first(path):
    """CPU and wall time of the first load in a fresh process: its memory is still cold."""
    code = ("import torch, time, sys; torch.set_num_threads(1); w, c = time.perf_counter(), "
            "time.thread_time(); torch.load(sys.argv[1], weights_only=True); "
            "print(time.thread_time() - c, time.perf_counter() - w)")
    done = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True)
    return map(float, done.stdout.split())


def main():
    rounds, batch = int((sys.argv + ["3"])[1]), int((sys.argv + ["", "8"])[2])
    only_load = sys.argv[3:]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net = Wide().eval()
    x = torch.rand(batch, 3, 32, 32)
    python, ours = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "wrn-28-10.pt")
        torch.save({"state_dict": net.state_dict()}, path)
        size = os.path.getsize(path)
        command = ["cargo", "bench", "-q", "--profile", "dev", "--bench", "beside", "--", path,
                   str(batch), *only_load]
        for _ in range(rounds):
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            for line in done.stdout.splitlines():
                case, number = line.rsplit(" ", 1)
                ours[case] = min(ours.get(case, 9e99), float(number))
            cpu, wall = first(path)
            python["load, first"] = min(python.get("load, first", 9e9), cpu)
            python["load, first (wall)"] = min(python.get("load, first (wall)", 9e9), wall)
            timed(python, "load", 7, lambda: torch.load(path, weights_only=True))
            if only_load:
                continue
            with torch.no_grad():
                timed(python, "forward", 2, lambda: net(x))
            timed(python, "input gradient", 2, lambda: gradient(net, x))
    before, peak = ours.pop("peak before loading"), ours.pop("peak while loading")
    for case in [case for case in ours if case.startswith("page faults")]:
        print(f"{case}: {ours.pop(case):.0f}")
    print(f"file {size / 1e6:.1f} MB; peak memory {peak / size:.2f} times the file, of which "
          f"{before / size:.2f} before loading")
    print(f"{'case':<32}{'gauntlet':>10}{'Python':>10}{'ratio':>8}")
    for case, seconds in ours.items():
        other = python[case.replace(", folded", "")]
        print(f"{case:<32}{seconds * 1e3:>8.1f}ms{other * 1e3:>8.1f}ms{seconds / other:>8.2f}")


main()
