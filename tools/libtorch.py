#!/usr/bin/env python3
"""Provides libtorch 2.11 in `.libtorch/torch`, where the build looks for it.

usage: tools/libtorch.py [--cuda] [--from TORCH_FOLDER | --download] [--check]

  (nothing)        link the PyTorch 2.11 of this Python if it has one, else download
  --from FOLDER    link that PyTorch (the folder that holds `lib` and `include`)
  --download       download even where a PyTorch is installed
  --cuda           download all of CUDA too (about 3 GB instead of 0.55 GB)
  --check          say what is there; exit 1 if nothing usable is

Idempotent: does nothing, and touches no network, when `.libtorch` is complete.
Wheels are fetched by pip, hash-checked against the pins below, and unpacked beside
their place, so an interrupted call leaves nothing that looks complete.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

VERSION = "2.11.0"
PROJECT = Path(__file__).resolve().parent.parent
HOME = PROJECT / ".libtorch"
STAMP = HOME / "complete.json"

CPU = [
    "torch==2.11.0 --hash=sha256:7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
    "nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    "nvidia-cuda-cupti==13.0.85 --hash=sha256:4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
]
CUDA = [
    "nvidia-cublas==13.1.0.3 --hash=sha256:ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171",
    "nvidia-cuda-nvrtc==13.0.88 --hash=sha256:ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
    "nvidia-cudnn-cu13==9.19.0.56 --hash=sha256:d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf",
    "nvidia-cufft==12.0.0.61 --hash=sha256:6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
    "nvidia-cufile==1.15.1.6 --hash=sha256:08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44",
    "nvidia-curand==10.4.0.35 --hash=sha256:1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
    "nvidia-cusolver==12.0.4.66 --hash=sha256:0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112",
    "nvidia-cusparse==12.6.3.3 --hash=sha256:2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b",
    "nvidia-cusparselt-cu13==0.8.0 --hash=sha256:25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd",
    "nvidia-nccl-cu13==2.28.9 --hash=sha256:e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42",
    "nvidia-nvjitlink==13.0.88 --hash=sha256:13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b",
    "nvidia-nvshmem-cu13==3.4.5 --hash=sha256:290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80",
    "nvidia-nvtx==13.0.85 --hash=sha256:4936d1d6780fbe68db454f5e72a42ff64d1fd6397df9f363ae786930fd5c1cd4",
]
# Of the CPU wheels only these members are unpacked; libtorch_cpu.so needs no other library.
CPU_MEMBERS = (
    "torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp", "torch/include/",
    "nvidia/cu13/lib/libcudart.so.13", "nvidia/cu13/lib/libcupti.so.13",
)
# pip compares platform tags literally.
PLATFORMS = [f"manylinux_2_{n}_x86_64" for n in (28, 27, 25, 18, 17, 12, 5)] + [
    "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]


def fail(message, mend):
    sys.exit(f"error: {message}\n  mend: {mend}")


def installed():
    """The folder of this Python's PyTorch and its version, without importing it."""
    try:
        version = importlib.metadata.version("torch")
        spec = importlib.util.find_spec("torch")
    except (importlib.metadata.PackageNotFoundError, ImportError, ValueError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(list(spec.submodule_search_locations)[0]), version.split("+")[0]


def folder_version(folder):
    """The version that a torch folder states, or None."""
    for name, mark in (("version.py", "__version__"), ("build-version", "")):
        path = folder / name
        if path.is_file():
            for line in path.read_text().splitlines():
                if line.startswith(mark):
                    return line.split("=")[-1].strip(" '\"").split("+")[0]
    return None


def is_complete(cuda):
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return False
    libraries = HOME / "torch" / "lib"
    present = (libraries / "libtorch_cpu.so").exists() and (HOME / "torch" / "include").exists()
    return present and stamp.get("version") == VERSION and (stamp.get("cuda") or not cuda)


def replace_home(build):
    """Fills a folder beside `.libtorch` by `build`, then puts it in place."""
    beside = PROJECT / f".libtorch.{os.getpid()}.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        stamp = build(beside)
        (beside / STAMP.name).write_text(json.dumps(stamp, indent=1) + "\n")
        if HOME.exists():
            shutil.rmtree(HOME)
        beside.rename(HOME)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def link(folder):
    def build(beside):
        (beside / "torch").symlink_to(folder)
        cuda = (folder / "lib" / "libtorch_cuda.so").exists()
        return {"version": VERSION, "source": str(folder), "cuda": cuda}

    replace_home(build)
    print(f"libtorch {VERSION}: linked to the PyTorch in {folder}")


def link_given(folder):
    folder = folder.resolve()
    version = folder_version(folder)
    if not (folder / "lib" / "libtorch_cpu.so").exists():
        fail(f"{folder} holds no lib/libtorch_cpu.so",
             "give the folder of a PyTorch (`python3 -c 'import torch; print(torch.__path__[0])'`)")
    if version != VERSION:
        fail(f"{folder} is PyTorch {version}, gauntlet needs {VERSION}",
             f"`pip install torch=={VERSION}` there, or `tools/libtorch.py --download`")
    link(folder)


def check_room(bytes_needed):
    free = shutil.disk_usage(PROJECT).free
    if free < bytes_needed:
        fail(f"too little disk: {PROJECT} has {free / 1e9:.1f} GB free, libtorch needs "
             f"{bytes_needed / 1e9:.1f} GB while it is unpacked",
             "free some room, or link an installed PyTorch: `tools/libtorch.py --from FOLDER`")


def pip_download(pins, folder):
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        fail(f"{sys.executable} has no pip",
             "`apt-get install python3-pip` (Debian, Ubuntu) or `python3 -m ensurepip`")
    requirements = folder / "requirements.txt"
    requirements.write_text("\n".join(pins) + "\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--require-hashes", "--python-version", "3.11", "--implementation", "cp",
               "--abi", "cp311", "--abi", "none", "--dest", str(folder), "-r", str(requirements)]
    for tag in PLATFORMS:
        command += ["--platform", tag]
    if subprocess.run(command).returncode:
        fail("pip could not fetch libtorch (its own message stands above)",
             "check the network and pip's index or proxy (PIP_INDEX_URL, HTTPS_PROXY), then run "
             "this again; without a network, link a PyTorch: `tools/libtorch.py --from FOLDER`")


def download(cuda):
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        fail(f"no pinned libtorch for {platform.system()} on {platform.machine()}",
             f"`pip install torch=={VERSION}`, then `tools/libtorch.py --from FOLDER`")
    check_room(9e9 if cuda else 1.3e9)
    pins = CPU + (CUDA if cuda else [])
    print(f"libtorch {VERSION}: downloading {'3 GB (with CUDA)' if cuda else '0.55 GB (CPU)'} "
          f"into {HOME} ...", flush=True)

    def build(beside):
        wheels = beside / "wheels"
        wheels.mkdir()
        pip_download(pins, wheels)
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                members = [name for name in archive.namelist()
                           if cuda and name.startswith(("torch/lib/", "torch/include/", "nvidia/"))
                           or name.startswith(CPU_MEMBERS)]
                archive.extractall(beside, members)
        shutil.rmtree(wheels)
        if not cuda:
            # The wheel's libtorch.so asks for CUDA's libraries; the linker is content with this.
            (beside / "torch" / "lib" / "libtorch.so").write_text("INPUT(-ltorch_cpu)\n")
        (beside / "torch" / "build-version").write_text(VERSION + "\n")
        return {"version": VERSION, "source": "wheels", "cuda": cuda}

    replace_home(build)
    print(f"libtorch {VERSION}: ready")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--download", action="store_true")
    parser.add_argument("--from", dest="folder", type=Path)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()

    if arguments.check:
        if not is_complete(arguments.cuda):
            fail("no complete libtorch in .libtorch", "`make setup` (or `tools/libtorch.py`)")
        print(STAMP.read_text().strip())
    elif arguments.folder:
        link_given(arguments.folder)
    elif not is_complete(arguments.cuda):
        found = None if arguments.download else installed()
        if found and found[1] == VERSION and (found[0] / "lib" / "libtorch_cpu.so").exists():
            link(found[0])
            return
        if found:
            print(f"note: PyTorch {found[1]} in {found[0]} is not {VERSION}; leaving it alone")
        download(arguments.cuda)


if __name__ == "__main__":
    main()
