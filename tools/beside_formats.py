"""Files as Python writes them, for `beside_classes.py`: one network saved in every format, element
type, memory layout and wrapping, and files that gauntlet has to refuse with a reason."""

import io
import pickle
import zipfile

import numpy as np
import torch
from safetensors.torch import save as safetensors

MEAN, DEVIATION = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


class Network(torch.nn.Module):
    """CNN-A behind its normalisation."""

    def __init__(self, body):
        super().__init__()
        self.body = body
        for name, values in (("mean", MEAN), ("std", DEVIATION)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, x):
        return self.body((x - self.mean) / self.std)


def body():
    torch.manual_seed(3)
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
                         nn.Flatten(), nn.Linear(2048, 100), nn.ReLU(), nn.Linear(100, 10)).eval()


def saved(value, **options):
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def big_endian(file):
    """The checkpoint as a big-endian machine would have written it (float32 only)."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(file)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith("/byteorder"):
                data = b"big"
            elif "/data/" in entry.filename:
                data = np.frombuffer(data, "<f4").astype(">f4").tobytes()
            new.writestr(entry.filename, data)
    return out.getvalue()


def deflated(file):
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(file)) as old, zipfile.ZipFile(out, "w", 8) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return out.getvalue()


def one_buffer(state):
    """All tensors as windows of one storage, out of order."""
    flat = torch.zeros(7 + sum(v.numel() for v in state.values()))
    views, at = {}, 7
    for name, value in reversed(state.items()):
        views[name] = flat[at:at + value.numel()].view(value.shape).copy_(value)
        at += value.numel()
    return views


def strided(state):
    """Every second element of a storage, the last axes turned."""
    def turned(value):
        wide = torch.zeros(*value.shape, 2)
        wide[..., 1] = value
        inner = wide[..., 1]
        return inner.transpose(0, -1).contiguous().transpose(0, -1) if value.dim() > 1 else inner
    return {name: turned(value) for name, value in state.items()}


def without_checksums(value):
    torch.serialization.set_crc32_options(False)
    file = saved(value)
    torch.serialization.set_crc32_options(True)
    return file


def numpy_file(state, write, **change):
    file = io.BytesIO()
    write(file, **{n: v.numpy().astype(change.get("kind", "<f4")) for n, v in state.items()})
    return file.getvalue()


def cases():
    def case(name, write, change=lambda net: net, file="x.pt"):
        def make():
            net = change(body())
            return Network(net.float()), write(net, {n: v.detach() for n, v in net.state_dict().items()})
        return f"formats {name}", make, 32, [], file

    def rounded(kind):
        return lambda net: net.to(kind)

    for kind in (torch.float64, torch.float16, torch.bfloat16):
        name = str(kind).removeprefix("torch.")
        for legacy in (False, True):
            yield case(f"{name}{' legacy' if legacy else ''}", lambda net, s, legacy=legacy: saved(
                s, _use_new_zipfile_serialization=not legacy), rounded(kind))
        yield case(f"{name} safetensors", lambda net, s: safetensors(s), rounded(kind))
    for protocol in (2, 3, 4, 5):
        yield case(f"pickle protocol {protocol}", lambda net, s, p=protocol: saved(s, pickle_protocol=p))
        yield case(f"legacy, pickle protocol {protocol}", lambda net, s, p=protocol: saved(
            s, pickle_protocol=p, _use_new_zipfile_serialization=False))
    for name, layout in (("one storage", one_buffer), ("strided", strided)):
        yield case(name, lambda net, s, layout=layout: saved(layout(s)))
        yield case(f"{name}, legacy", lambda net, s, layout=layout: saved(
            layout(s), _use_new_zipfile_serialization=False))

    def constant(net):
        for layer in net:
            if getattr(layer, "bias", None) is not None:
                layer.bias.data.fill_(0.25)
        return net
    yield case("expanded", lambda net, s: saved({n: torch.tensor(0.25).expand(v.shape)
                                                 if n.endswith("bias") else v for n, v in s.items()}), constant)
    yield case("channels last", lambda net, s: saved(
        {n: v.to(memory_format=torch.channels_last) if v.dim() == 4 else v for n, v in s.items()}))
    yield case("big-endian", lambda net, s: big_endian(saved(s)))
    yield case("deflated", lambda net, s: deflated(saved(s)))
    yield case("without checksums", lambda net, s: without_checksums(s))
    yield case("parameters", lambda net, s: saved(dict(net.named_parameters())))
    yield case("whole module", lambda net, s: saved(net))
    yield case("whole module in parallel", lambda net, s: saved(torch.nn.DataParallel(net)))
    prefixed = lambda s, p: {p + n: v for n, v in s.items()}
    for prefix in ("module.", "module.module.", "model.", "module.model.", "net.", "_orig_mod.module."):
        yield case(f"prefix {prefix}", lambda net, s, p=prefix: saved({"state_dict": prefixed(s, p)}))
    zeros = lambda s: {n: v * 0 for n, v in s.items()}
    optimiser = lambda net: torch.optim.Adam(net.parameters()).state_dict()
    wrappings = {
        "model + optimizer": lambda net, s: {"epoch": 3, "model": s, "optimizer": optimiser(net)},
        "ema before state_dict": lambda net, s: {"state_dict": zeros(s), "ema": s},
        "list, averaged first": lambda net, s: [s, zeros(s)],
        "ema list": lambda net, s: {"ema": [s], "step": torch.tensor(7)},
        "state_dict in model": lambda net, s: {"model": {"state_dict": prefixed(s, "module.")}},
        "last and best": lambda net, s: {"last": s, "best": zeros(s)},
        "unheard-of name": lambda net, s: {"my_student": s, "acc": 0.5, "sched": {"x": torch.ones(2)}},
    }
    for name, wrap in wrappings.items():
        yield case(name, lambda net, s, wrap=wrap: saved(wrap(net, s)))

    def scripted(net, s):
        file = io.BytesIO()
        torch.jit.save(torch.jit.script(Network(net)), file)
        return file.getvalue()
    yield case("TorchScript", scripted)
    yield case("npz", lambda net, s: numpy_file(s, np.savez), file="x.npz")
    yield case("npz, compressed", lambda net, s: numpy_file(s, np.savez_compressed), file="x.npz")
    yield case("npz, big-endian", lambda net, s: numpy_file(s, np.savez, kind=">f4"), file="x.npz")
    yield case("npz, float64", lambda net, s: numpy_file(s, np.savez, kind="<f8"), file="x.npz")
    yield case("npz, Fortran order", lambda net, s: numpy_file(
        {n: v for n, v in s.items()}, lambda file, **a: np.savez(file, **{
            n: np.asfortranarray(v) for n, v in a.items()})), file="x.npz")
    for protocol in (2, 4, 5):
        yield case(f"pickled numpy, protocol {protocol}", lambda net, s, p=protocol: pickle.dumps(
            {n: v.numpy() for n, v in s.items()}, p), file="x.pkl")


def refused():
    """Files that must be refused: name, bytes and a word of the reason."""
    good = saved(body().state_dict())

    class Evil:
        def __reduce__(self):
            import os
            return os.system, ("touch gauntlet-was-here",)
    yield "os.system in a pickle", saved({"a": Evil()}), "system"
    yield "a class of somebody's code", saved(Network(body())), "state_dict()"
    yield "whole module, legacy", saved(body(), _use_new_zipfile_serialization=False), "refused"
    yield "complex numbers", saved({"a": torch.ones(2, dtype=torch.complex64)}), "Complex"
    sparse = torch.eye(3).to_sparse()
    yield "a sparse tensor", saved({"a": sparse}), "sparse"
    quantised = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
    yield "a quantised tensor", saved({"a": quantised}), "q"
    yield "float8", saved({"a": torch.ones(3).to(torch.float8_e4m3fn)}), "loat8"
    yield "cut short", good[:len(good) // 2], "cut short"
    yield "a flipped bit", flipped(good), "damaged"
    yield "an HTML page", b"<!DOCTYPE html><html>Too many requests</html>", "not a format"
    yield "empty", b"", "empty"


def flipped(file):
    entry = max(zipfile.ZipFile(io.BytesIO(file)).infolist(), key=lambda entry: entry.file_size)
    file = bytearray(file)
    file[entry.header_offset + 200 + entry.file_size // 2] ^= 4
    return bytes(file)
