"""Compares `gauntlet forward` with the official Python classes: networks of random weights, saved
as their authors save them, computed on both sides.

    python tools/beside_classes.py [--edm EDM] [--dm DM-IMPROVES-AT] [--robustbench ROBUSTBENCH]
        [--gauntlet target/debug/gauntlet] [--only TEXT] [--keep FOLDER]

The options name checkouts of NVlabs/edm, wzekai99/DM-Improves-AT and RobustBench/robustbench; what
is not named is left out; the formats of `beside_formats.py` need none. Needs PyTorch and safetensors. Prints the greatest error of each case,
relative to the greatest output; above 1e-4 is a failure, and so is a case that does not load.
"""

import argparse
import importlib.util
import io
import pickle
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import beside_formats

TOLERANCE = 1e-4
CIFAR10 = [0.4914, 0.4822, 0.4465], [0.2471, 0.2435, 0.2616]
CIFAR100 = [0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]


def module(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


def stir(net, seed=0):
    """Weights and statistics at which every path counts (official starts zero some of them)."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, value in net.named_parameters():
            if value.dim() > 1:
                value.normal_(0, (2 / value[0].numel()) ** 0.5)
            else:
                value.uniform_(0.5, 1.5) if name.endswith("weight") else value.normal_(0, 0.2)
        for name, value in net.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(0, 0.5)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2)
    return net.eval()


class Normalised(torch.nn.Module):
    """A normalisation and a network, as many wrap theirs."""

    def __init__(self, net, mean, std):
        super().__init__()
        self.net, self.mean, self.std = net, *(torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))

    def forward(self, x):
        return self.net((x - self.mean) / self.std)


def of_dm(root):
    models = Path(root) / "core/models"
    sys.path.insert(0, str(root))
    part = {p.stem: module(p, f"dm_{p.stem}") for p in models.glob("*.py") if p.stem != "__init__"}
    stats = {"cifar10": CIFAR10, "cifar100": CIFAR100, "svhn": ([0.5] * 3, [0.5] * 3),
             "tiny-imagenet": ([0.4802, 0.4481, 0.3975], [0.2302, 0.2265, 0.2262])}

    def case(arch, build, data, k, normalize=False, told=False, size=32):
        def make():
            body = stir(build(arch, k, data))
            pair = [part["resnet"].Normalization(*stats[data])] if normalize else []
            net = torch.nn.DataParallel(torch.nn.Sequential(*pair, body)).eval()
            saved = {"model_state_dict": net.state_dict(), "unaveraged_model_state_dict":
                     {n: torch.zeros_like(v) for n, v in net.state_dict().items()}}
            return net.module, saved
        mark = "+normalize" if normalize else ""
        extra = ["--dataset", data] + (["--arch", arch] if told else [])
        return (f"dm {arch} {data}{mark}{' --arch' if told else ''}", make, size, extra)

    swish = lambda a, k, d: part["wideresnetwithswish"].wideresnetwithswish(a, d, k)
    preact_swish = lambda a, k, d: part["preact_resnetwithswish"].preact_resnetwithswish(a, d, k)
    preact = lambda a, k, d: part["preact_resnet"].preact_resnet(a, k)
    plain = lambda a, k, d: part["resnet"].resnet(a, k)
    wide = lambda a, k, d: part["wideresnet"].wideresnet(a, k)
    tiny = lambda a, k, d: part["ti_wideresnetwithswish"].ti_wideresnetwithswish(a, k)
    tiny_preact = lambda a, k, d: part["ti_preact_resnet"].ti_preact_resnet(a, k)
    for data, k in (("cifar10", 10), ("cifar100", 100), ("svhn", 10)):
        yield case("wrn-16-4-swish", swish, data, k)
        yield case("preact-resnet18-swish", preact_swish, data, k)
    yield case("preact-resnet34-swish", preact_swish, "cifar10", 10)
    for arch, build in (("wrn-16-4", wide), ("wrn-34-2", wide), ("resnet18", plain),
                        ("resnet34", plain), ("resnet50", plain), ("preact-resnet18", preact),
                        ("preact-resnet34", preact), ("preact-resnet50", preact)):
        yield case(arch, build, "cifar10", 10)
        yield case(arch, build, "cifar10", 10, told=True)
        yield case(arch, build, "cifar100", 100, normalize=True)
    yield case("wrn-16-4-swish", swish, "svhn", 10, normalize=True)
    yield case("wrn-16-4-swish", tiny, "tiny-imagenet", 200, size=64)
    yield case("preact-resnet18", tiny_preact, "tiny-imagenet", 200, size=64)
    yield case("preact-resnet18", tiny_preact, "tiny-imagenet", 200, normalize=True, size=64)


def of_robustbench(root):
    folder = Path(root) / "robustbench/model_zoo/architectures"
    package = types.ModuleType("rb")
    package.__path__ = [str(folder)]
    sys.modules["rb"] = package
    part = lambda name: importlib.import_module(f"rb.{name}")
    residual, wide, dm = part("resnet"), part("wide_resnet"), part("dm_wide_resnet")
    swish, silu, relu = dm.Swish, torch.nn.SiLU, torch.nn.ReLU

    def case(file, build, stats=None, beside=True, wrap=None, data="cifar10", extra=()):
        """As RobustBench: `stats` beside the network (`mu`, `sigma`), in the file or left out."""
        def make():
            body = stir(build())
            net = Normalised(body, *stats) if stats else body
            state = dict(body.state_dict())
            if stats and beside:
                state |= {"mu": net.mean, "sigma": net.std}
            return net, wrap(state) if wrap else state
        where = "" if not stats else " mu in the file" if beside else " mu in the class"
        return f"robustbench {file}{where}", make, 32, ["--dataset", data, *extra], f"{file}.pt"

    module_ = lambda state: {"state_dict": {f"module.{n}": v for n, v in state.items()}}
    model_ = lambda state: {f"model.{n}": v for n, v in state.items()}
    classic = lambda d, w, **k: lambda: wide.WideResNet(d, widen_factor=w, **k)
    block = lambda b, **k: lambda: residual.PreActResNet(b, [2, 2, 2, 2], **k)
    v1, v2 = residual.PreActBlock, residual.PreActBlockV2
    yield case("Carmon2019Unlabeled", classic(28, 2, sub_block1=True), wrap=module_)
    yield case("Wu2020Adversarial", classic(34, 1), wrap=module_)
    yield case("Standard", classic(28, 2), wrap=lambda s: {"state_dict": s})
    yield case("Sehwag2021Proxy_R18", residual.ResNet18, wrap=module_)
    for stats, beside in ((CIFAR10, True), (CIFAR10, False)):
        yield case("Rice2020Overfitting", classic(34, 2), stats, beside)
        yield case("Wong2020Fast", block(v1), stats, beside)
        yield case("Kireev2021Effectiveness_RLAT", block(v2, bn_before_fc=True), stats, beside,
                   wrap=lambda s: {"last": s, "best": {n: v * 0 for n, v in s.items()}})
    yield case("Chen2020Efficient", classic(34, 2, sub_block1=True), CIFAR10, True, wrap=model_)
    rony = [0.491, 0.482, 0.447], [0.247, 0.243, 0.262]
    yield case("Rony2019Decoupling", classic(28, 2), rony, True)
    yield case("Rony2019Decoupling", classic(28, 2), rony, False)
    bottleneck = lambda: residual.ResNet(residual.Bottleneck, [3, 4, 6, 3])
    engstrom = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
    yield case("Engstrom2019Robustness", bottleneck, engstrom, True)
    yield case("Engstrom2019Robustness", bottleneck, engstrom, False)
    halves = [0.5] * 3, [0.5] * 3
    yield case("Hendrycks2019Using", classic(28, 2), halves, False)
    yield case("Hendrycks2020AugMix_WRN", classic(40, 2), halves, True)
    yield case("Andriushchenko2020Understanding", block(v1),
               wrap=lambda s: {"last": s, "best": {n: v * 0 for n, v in s.items()}})
    rice = lambda: residual.PreActResNet(v1, [2, 2, 2, 2], 100, bn_before_fc=True,
                                         out_shortcut=True)
    wu = ([0.5070751592371323, 0.48654887331495095, 0.4409178433670343],
          [0.2673342858792401, 0.2564384629170883, 0.27615047132568404])
    yield case("Rice2020Overfitting", rice, wu, True, data="cifar100")
    yield case("Rice2020Overfitting", rice, wu, False, data="cifar100")
    yield case("Wu2020Adversarial", classic(34, 2, num_classes=100), wu, False, data="cifar100")
    for name, act in (("Gowal2020Uncovering_28_10_extra", swish), ("Wang2023Better_WRN-28-10", silu)):
        yield case(name, lambda act=act: dm.DMWideResNet(10, 28, 2, act), wrap=module_)
    yield case("Rebuffi2021Fixing_R18_ddpm", lambda: dm.DMPreActResNet(10, 18, 0, swish))
    gowal = lambda: dm.DMWideResNet(10, 16, 2, relu)
    yield case("my-relu", gowal, extra=["--arch", "wrn-16-2"])
    exploring = part("robust_wide_resnet").RobustWideResNet
    yield case("Huang2021Exploring", lambda: exploring(10, [16, 64, 128, 96], [2, 3, 4]))
    boosting = part("boosting_wide_resnet").BoostingWideResNet

    def pang():
        net = stir(boosting(34, 2))
        return net, {n: v for n, v in net.state_dict().items() if n not in ("mu", "sigma")}
    yield "robustbench Pang2020Boosting", pang, 32, [], "Pang2020Boosting.pt"


def of_edm(root):
    for absent in ("requests", "click", "psutil"):
        if importlib.util.find_spec(absent) is None:
            sys.modules[absent] = types.ModuleType(absent)
    sys.path.insert(0, str(root))
    from training import networks
    try:
        from training.augment import AugmentPipe
        from training.loss import EDMLoss
        beside = {"loss_fn": EDMLoss(), "augment_pipe": AugmentPipe(p=0.12)}
    except ImportError:
        beside = {"loss_fn": None, "augment_pipe": None}

    def case(name, precond, model, label=0, half=False, told=True, key="ema", **kwargs):
        def make():
            net = stir(getattr(networks, precond)(
                img_resolution=16, img_channels=3, label_dim=label, model_type=model, **kwargs))
            net.requires_grad_(False)
            if half:
                net.half()
            file = io.BytesIO()
            data = {"dataset_kwargs": {"path": "x.zip", "use_labels": label > 0}, **beside}
            pickle.dump({key: net, **data}, file)
            return net.float(), file.getvalue()
        return f"edm {name}", make, ("denoiser", label if told else 0), []

    song = dict(model_channels=32, channel_mult=[1, 2, 2], num_blocks=1, attn_resolutions=[8])
    for precond in ("EDMPrecond", "VPPrecond", "VEPrecond"):
        yield case(f"{precond} DDPM++ labels", precond, "SongUNet", 10, **song)
        yield case(f"{precond} NCSN++", precond, "SongUNet", embedding_type="fourier",
                   channel_mult_noise=2, encoder_type="residual", resample_filter=[1, 3, 3, 1],
                   **song)
    for encoder in ("standard", "skip", "residual"):
        for decoder in ("standard", "skip"):
            for taps in ([1, 1], [1, 3, 3, 1], [1, 2, 3, 3, 2, 1]):
                yield case(f"SongUNet {encoder}/{decoder} filter {taps}", "EDMPrecond", "SongUNet",
                           encoder_type=encoder, decoder_type=decoder, resample_filter=taps, **song)
    adm = dict(model_channels=64, channel_mult=[1, 2], num_blocks=1, attn_resolutions=[8, 16])
    for precond in ("EDMPrecond", "iDDPMPrecond", "VPPrecond"):
        yield case(f"{precond} ADM", precond, "DhariwalUNet", **adm)
        yield case(f"{precond} ADM labels", precond, "DhariwalUNet", 7, **adm)
    yield case("iDDPM SongUNet", "iDDPMPrecond", "SongUNet", **song)
    yield case("ADM labels, none given", "EDMPrecond", "DhariwalUNet", 7, told=False, **adm)
    yield case("DDPM++ labels, none given", "EDMPrecond", "SongUNet", 7, told=False, **song)
    yield case("augment labels", "EDMPrecond", "SongUNet", augment_dim=9, **song)
    yield case("ADM augment labels", "EDMPrecond", "DhariwalUNet", 5, augment_dim=9, **adm)
    yield case("fp16 weights", "EDMPrecond", "SongUNet", 10, half=True, use_fp16=True, **song)
    yield case("ADM fp16 weights", "iDDPMPrecond", "DhariwalUNet", 7, half=True, **adm)
    yield case("label dropout", "EDMPrecond", "SongUNet", 10, label_dropout=0.1, dropout=0.2, **song)
    yield case("VP beta", "VPPrecond", "SongUNet", beta_d=10.0, beta_min=0.2, M=500, **song)
    yield case("iDDPM C", "iDDPMPrecond", "DhariwalUNet", C_1=0.002, C_2=0.01, M=500, **adm)
    yield case("sigma_data", "EDMPrecond", "SongUNet", sigma_data=0.25, sigma_max=80, **song)
    yield case("mult_emb 2", "EDMPrecond", "SongUNet", channel_mult_emb=2, **song)


def inputs(kind):
    torch.manual_seed(1)
    if isinstance(kind, int):
        return {"x": torch.rand(3, 3, kind, kind)}
    sigma = torch.tensor([0.05, 1.5, 30.0])
    given = {"x": torch.rand(3, 3, 16, 16) * 2 - 1 + torch.randn(3, 3, 16, 16) * sigma.view(-1, 1, 1, 1),
             "sigma": sigma}
    if kind[1]:
        given["label"] = torch.eye(kind[1])[[0, 1, kind[1] - 1]]
    return given


def compare(gauntlet, folder, name, make, kind, extra, file="x.pt"):
    net, saved = make()
    given, path, out = inputs(kind), folder / file, folder / "out.safetensors"
    path.write_bytes(saved) if isinstance(saved, bytes) else torch.save(saved, path)
    save_file(given, folder / "in.safetensors")
    with torch.no_grad():
        expected = net(given["x"], *([given["sigma"], given.get("label")] if "sigma" in given else []))
    done = subprocess.run([gauntlet, "forward", path, "--input", folder / "in.safetensors", "--out",
                           out, *extra], capture_output=True, text=True)
    if done.returncode:
        return None, done.stderr.strip()
    found, = load_file(out).values()
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    return error, done.stderr.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sources = {"dm": of_dm, "robustbench": of_robustbench, "edm": of_edm}
    for source in sources:
        parser.add_argument(f"--{source}")
    parser.add_argument("--gauntlet", default="target/debug/gauntlet")
    parser.add_argument("--only", default="")
    parser.add_argument("--keep")
    given = parser.parse_args()
    torch.set_num_threads(1)
    bad = total = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(given.keep or folder)
        cases = [c for s, of in sources.items() if getattr(given, s) for c in of(getattr(given, s))]
        cases += beside_formats.cases()
        for name, *rest in cases:
            if given.only not in name:
                continue
            error, said = compare(given.gauntlet, folder, name, *rest)
            good = error is not None and error <= TOLERANCE
            bad, total = bad + (not good), total + 1
            print(f"{'ok  ' if good else 'FAIL'} {'' if error is None else f'{error:.1e}':>8} {name}"
                  + (f"\n     {said[:600]}" if said else ""), flush=True)
        for name, data, reason in beside_formats.refused():
            if given.only not in f"refused {name}":
                continue
            (folder / "bad.pt").write_bytes(data)
            done = subprocess.run([given.gauntlet, "inspect", folder / "bad.pt"],
                                  capture_output=True, text=True)
            good = done.returncode == 2 and reason in done.stderr and "bad.pt" in done.stderr
            bad, total = bad + (not good), total + 1
            print(f"{'ok  ' if good else 'FAIL'} {'':>8} refused {name}\n     {done.stderr.strip()[:300]}")
    print(f"{total} cases, {bad} failures")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
