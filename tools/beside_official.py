"""Runs the official AutoAttack beside gauntlet on this machine, with the same model and images.

    python tools/beside_official.py AUTOATTACK MODEL.torchscript.pt DATA_DIR [--norm Linf]
        [--eps 2/255] [--version standard] [--examples 256] [--batch 128] [--seed 0]
        [--attacks apgd-ce,fab-t] [--threads 1] [--gauntlet target/debug/gauntlet]
        [--modes reference,strict] [--ours MODEL.pth]

AUTOATTACK is a checkout of fra31/auto-attack, DATA_DIR the folder of cifar-10-batches-bin. Needs
PyTorch of gauntlet's libtorch version, and numpy. `--ours` names the same network as a checkpoint,
in which gauntlet may fold what a program hides. Reference mode must break the same examples with
the same images, bit for bit, on one thread; of strict mode the robust count is compared. Times are
CPU seconds of the whole process, start and defence checks included.
"""

import argparse
import json
import resource
import struct
import subprocess
import sys
import tempfile
from pathlib import Path


def tensors(path):
    import numpy as np
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    kinds = {"F32": np.float32, "I64": np.int64}
    return {name: np.frombuffer(raw[8 + size:][slice(*about["data_offsets"])], kinds[about["dtype"]])
            .reshape(about["shape"])
            for name, about in json.loads(raw[8:8 + size]).items() if name != "__metadata__"}


def official(given, out):
    sys.path.insert(0, given.autoattack)
    sys.path.insert(0, str(Path(__file__).parent))
    import numpy as np
    import torch
    from autoattack import AutoAttack
    torch.set_num_threads(given.threads)
    torch._C._set_graph_executor_optimize(False)
    records = np.fromfile(Path(given.data) / "cifar-10-batches-bin/test_batch.bin", np.uint8)
    records = records.reshape(-1, 3073)[:given.examples]
    x = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy()).float() / 255
    y = torch.from_numpy(records[:, 0].astype(np.int64))
    model = torch.jit.load(given.model).eval()
    suite = AutoAttack(model, norm=given.norm, eps=epsilon(given.eps), seed=given.seed,
                       version=given.version, device="cpu", verbose=False)
    if given.attacks:  # the version's settings, some of its attacks
        suite.attacks_to_run = given.attacks.split(",")
    found, labels = suite.run_standard_evaluation(x, y, bs=given.batch, return_labels=True)
    changed = (found != x).flatten(1).any(1).numpy()
    np.savez(out, adversarial=found.numpy(), robust=(labels == y).numpy(), changed=changed)


def epsilon(text):
    top, _, bottom = text.partition("/")
    return float(top) / float(bottom or 1)


def gauntlet(given, mode, out):
    which = ["--suite", given.version]
    if given.attacks:
        which = ["--suite", "custom", "--attacks", given.attacks]
    command = [given.gauntlet, "evaluate", "--model", given.ours or given.model, "--data", "cifar10",
               "--data-dir", given.data, "--norm", given.norm.lower(), "--eps", given.eps,
               "--mode", mode, "--examples", str(given.examples), "--batch-size",
               str(given.batch), "--seed", str(given.seed), "--threads", str(given.threads),
               "--device", "cpu", "--save-images", "--json", "--out", str(out), *which]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    summary = json.loads(text[text.index("{"):])
    images = {}
    for path in sorted(out.rglob("adversarial/*.safetensors")):
        saved = tensors(path)
        images.update(zip(saved["index"].tolist(), saved["adversarial"]))
    return summary, images


def spent(work):
    def seconds():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime
    begun = seconds()
    value = work()
    return value, seconds() - begun


def main():
    parser = argparse.ArgumentParser()
    for name in ("autoattack", "model", "data"):
        parser.add_argument(name)
    for name, fallback in (("norm", "Linf"), ("eps", "2/255"), ("version", "standard"),
                           ("attacks", ""), ("gauntlet", "target/debug/gauntlet"),
                           ("modes", "reference,strict"), ("ours", ""), ("official-out", "")):
        parser.add_argument(f"--{name}", default=fallback)
    for name, fallback in (("examples", 256), ("batch", 128), ("seed", 0), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=fallback)
    given = parser.parse_args()
    if given.official_out:
        return official(given, given.official_out)
    import numpy as np
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "official.npz"
        again = [sys.executable, __file__, *sys.argv[1:], "--official-out", str(out)]
        _, cost = spent(lambda: subprocess.run(again, check=True, stdout=subprocess.DEVNULL))
        theirs = np.load(out)
        robust, adversarial = theirs["robust"], theirs["adversarial"]
        print(f"official   robust {robust.sum()}/{given.examples}  {cost:8.1f} CPU s", flush=True)
        same = True
        for mode in given.modes.split(","):
            (summary, images), own = spent(lambda: gauntlet(given, mode, Path(folder) / mode))
            line = (f"{mode:<10} robust {summary['robust']}/{given.examples}  {own:8.1f} CPU s  "
                    f"official/ours {cost / own:.2f}")
            if mode == "reference":
                broken = {int(i) for i in np.flatnonzero(theirs["changed"] & ~robust)}
                flags = broken == set(images) and summary["robust"] == robust.sum()
                bits = sum(np.array_equal(images[i], adversarial[i]) for i in broken & set(images))
                same = flags and bits == len(broken)
                line += f"  flags {'equal' if flags else 'DIFFER'}, images equal {bits}/{len(broken)}"
            print(line, flush=True)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
