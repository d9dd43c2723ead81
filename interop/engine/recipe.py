"""Makes the small model files of `vectors/engine/golden/small.json`.

The README beside that file says how a recipe becomes bytes: the container of
`docs/spec/gguf.md`, and blocks of pseudo-random bytes in which the floats are
held to a useful size.
"""

import struct
from math import prod

import numpy as np
from blake3 import blake3

from weights import FORMATS, PLAIN

NUMBERS = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10,
    "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "IQ4_NL": 20, "BF16": 30,
}
# Where a block has its 16-bit floats, and the exponents they get.
SCALES = {
    "Q4_0": [(0, 8)], "Q4_1": [(0, 8), (2, 11)], "Q5_0": [(0, 7)], "Q5_1": [(0, 7), (2, 11)],
    "Q8_0": [(0, 4)], "IQ4_NL": [(0, 4)], "Q2_K": [(80, 7), (82, 7)], "Q3_K": [(108, 5)],
    "Q4_K": [(0, 3), (2, 6)], "Q5_K": [(0, 2), (2, 6)], "Q6_K": [(208, 1)],
}
ALIGNMENT = 32


def string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def value(told):
    ((kind, content),) = told.items()
    if kind == "string":
        return struct.pack("<I", 8) + string(content)
    if kind == "u32":
        return struct.pack("<II", 4, content)
    return struct.pack("<If", 6, content)


def padded(data):
    return data + bytes(-len(data) % ALIGNMENT)


def file_of(recipe):
    """The bytes of the file."""
    tensors = [(tensor["name"], tensor) for tensor in recipe["tensors"]]
    for layer in range(recipe["layers"]):
        tensors += [(f"blk.{layer}.{tensor['name']}", tensor) for tensor in recipe["layer"]]
    infos, data = b"", b""
    for name, tensor in tensors:
        data = padded(data)
        dims = tensor["dims"]
        infos += string(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        infos += struct.pack("<IQ", NUMBERS[tensor["format"]], len(data))
        data += filling(recipe["name"], name, tensor)
    keys = b"".join(string(key) + value(told) for key, told in recipe["keys"])
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(recipe["keys"]))
    return padded(head + keys + infos) + data


def filling(file, name, tensor):
    kind = tensor["format"]
    number, elements = NUMBERS[kind], prod(tensor["dims"])
    columns, size = FORMATS[number][:2] if number in FORMATS else (1, np.dtype(PLAIN[number]).itemsize)
    count = elements // columns
    stream = blake3(file.encode() + b"\0" + name.encode()).digest(length=count * size)
    if kind == "F32":
        bits = np.frombuffer(stream, "<u4")
        if "around" not in tensor:
            return (bits & 0x81FFFFFF | 0x3C000000).astype("<u4").tobytes()
        middle, spread = tensor["around"]
        return (middle + spread * ((bits & 0x1FFF) / 4096 - 1)).astype("<f4").tobytes()
    if kind in ("F16", "BF16"):
        kept, fixed = (0x8FFF, 0x2000) if kind == "F16" else (0x81FF, 0x3C00)
        return (np.frombuffer(stream, "<u2") & kept | fixed).astype("<u2").tobytes()
    blocks = np.frombuffer(stream, np.uint8).reshape(count, size).copy()
    for at, exponent in SCALES[kind]:
        field = np.ascontiguousarray(blocks[:, at : at + 2]).view("<u2")
        field = np.where(field & 0x7C00, field & 0x83FF | exponent << 10, field).astype("<u2")
        blocks[:, at : at + 2] = field.view(np.uint8)
    return blocks.tobytes()
