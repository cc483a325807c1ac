#!/usr/bin/env python3
"""Writes a stand-in for a vast generated set: `tools/sparse_set.py set.npz 50000000`.

The file is a stored zip64 .npz laid out as numpy.savez does it, but its pixels are a hole that takes
no room on the disk (and its checksums are zero). Needs numpy.
"""

import struct
import sys

import numpy as np

LOCAL, CENTRAL, END64, LOCATOR, END = 0x04034B50, 0x02014B50, 0x06064B50, 0x07064B50, 0x06054B50
MANY = 0xFFFFFFFF  # "see the zip64 field"


def npy_header(dtype, shape):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * (-(10 + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def write(path, images):
    labels = np.arange(images, dtype=np.int64) * 10 // images  # sorted by class, as published
    members = [
        (b"image.npy", npy_header("|u1", (images, 32, 32, 3)), images * 3072),
        (b"label.npy", npy_header("<i8", (images,)), images * 8),
    ]
    directory = b""
    with open(path, "wb") as file:
        for name, header, length in members:
            at, size = file.tell(), len(header) + length
            extra = struct.pack("<HHQQ", 1, 16, size, size)
            fields = (LOCAL, 45, 0, 0, 0, 0x21, 0, MANY, MANY, len(name), len(extra))
            file.write(struct.pack("<IHHHHHIIIHH", *fields) + name + extra + header)
            start = file.tell()
            if name == b"label.npy":
                file.write(labels.tobytes())
            file.seek(start + length)
            extra = struct.pack("<HHQQQ", 1, 24, size, size, at)
            fields = (CENTRAL, 45, 45, 0, 0, 0, 0x21, 0, MANY, MANY, len(name), len(extra))
            directory += struct.pack("<IHHHHHHIIIHHHHHII", *fields, 0, 0, 0, 0, MANY) + name + extra
        at = file.tell()
        file.write(directory)
        end, size = file.tell(), len(directory)
        file.write(struct.pack("<IQHHIIQQQQ", END64, 44, 45, 45, 0, 0, 2, 2, size, at))
        file.write(struct.pack("<IIQI", LOCATOR, 0, end, 1))
        file.write(struct.pack("<IHHHHIIH", END, 0, 0, 2, 2, MANY, MANY, 0))


write(sys.argv[1], int(sys.argv[2]))
