"""Records golden attack runs anew, with the official AutoAttack on this machine.

Another kind of CPU rounds otherwise; with this environment (on an Intel CPU also with the library
that `MAKE` in src/attack/golden_tests.rs describes, by LD_PRELOAD) it rounds as the tests do:

    ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 \\
        python tools/golden_attacks.py AUTOATTACK SHARED OUT [NAME ...]
    GAUNTLET_SHARED=OUT GAUNTLET_GOLDEN_BITS=1 cargo test --lib golden -- --include-ignored

AUTOATTACK is a checkout of fra31/auto-attack, SHARED the folder of test data, OUT a new folder of
the same layout. Needs PyTorch of gauntlet's libtorch version, and numpy.
"""

import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import torch


def write(path, tensors):
    header, blobs, offset = {}, [], 0
    for name, tensor in tensors.items():
        blob = tensor.contiguous().numpy().tobytes()
        kind = {torch.float32: "F32", torch.int32: "I32"}[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + len(blob)]}
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def images(shared, count):
    path = shared / "data/cifar10/cifar-10-batches-bin/test_batch.bin"
    records = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 3073)[:count]
    pixels = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy())
    return pixels.float() / 255, torch.from_numpy(records[:, 0].astype(np.int64))


def attack(model, side, name, x, y):
    from autoattack import AutoAttack
    suite = AutoAttack(model, norm=side["norm"], eps=side["eps"], seed=side["seed"],
                       version=side.get("version", "standard"), device="cpu", verbose=False)
    suite.attacks_to_run = [name]
    return suite.run_standard_evaluation(x, y, bs=side["batch_size"])


def mistaken(model, x, y, batch):
    return torch.cat([model(a).max(1)[1] != b for a, b in zip(x.split(batch), y.split(batch))])


def individual(model, side, x, y):
    right = (~mistaken(model, x, y, len(y))).nonzero().squeeze(1)
    found = {}
    for name in side["broken"]:
        adversarial = attack(model, side, name, x[right], y[right])
        broken = mistaken(model, adversarial, y[right], side["batch_size"])
        flags = torch.zeros(len(y), dtype=torch.int32)
        flags[right[broken]] = 1
        found[f"{name}.broken"] = flags
        found[f"{name}.adversarial_index"] = right[broken].int()
        found[f"{name}.adversarial"] = adversarial[broken]
    return found


def cascade(model, side, x, y):
    by = torch.full((len(y),), -1, dtype=torch.int32)
    by[mistaken(model, x, y, side["batch_size"])] = -2
    best = x.clone()
    for number, name in enumerate(side["attacks"]):
        left = (by == -1).nonzero().squeeze(1)
        if not len(left):
            break
        adversarial = attack(model, side, name, x[left], y[left])
        broken = mistaken(model, adversarial, y[left], side["batch_size"])
        by[left[broken]] = number
        best[left[broken]] = adversarial[broken]
    found = (by >= 0).nonzero().squeeze(1)
    return {"broken_by": by, "adversarial_index": found.int(), "adversarial": best[found]}


def main(autoattack, shared, out, *names):
    sys.path.insert(0, autoattack)
    torch.set_num_threads(1)
    torch._C._set_graph_executor_optimize(False)
    shared, out = Path(shared).resolve(), Path(out)
    target = out / "golden/attacks"
    target.mkdir(parents=True)
    for folder in ("models", "data"):
        (out / folder).symlink_to(shared / folder)
    for sidecar in sorted((shared / "golden/attacks").glob("*.json")):
        if names and sidecar.stem not in names:
            continue
        side = json.loads(sidecar.read_text())
        model = torch.jit.load(shared / f"models/{side['model']}.torchscript.pt").eval()
        x, y = images(shared, side["images"][1])
        record = cascade if "attacks" in side else individual
        write(target / f"{sidecar.stem}.safetensors", record(model, side, x, y))
        shutil.copy(sidecar, target)
        print(sidecar.stem, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
