"""Reads a GGUF file: its keys, and where each tensor lies.

Written from the public description of the container (version 3). It trusts the
file: refusing hostile ones is the Rust reader's job.
"""

import mmap
import struct

SCALARS = {
    0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i",
    6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d",
}
STRING, ARRAY = 8, 9


class Tensor:
    """A tensor's shape (rows last, as in the file) and its bytes."""

    def __init__(self, name, dims, kind, data):
        self.name, self.dims, self.kind, self.data = name, dims, kind, data


class Gguf:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.at = 0
        if self._take(4) != b"GGUF":
            raise ValueError(f"{path}: not a GGUF file")
        version, tensors, keys = self._scalar("<I"), self._scalar("<Q"), self._scalar("<Q")
        if version not in (2, 3):
            raise ValueError(f"{path}: GGUF version {version}")
        self.keys = {}
        for _ in range(keys):
            name = self._string().decode()
            self.keys[name] = self._value(self._scalar("<I"))
        infos = [self._info() for _ in range(tensors)]
        alignment = self.keys.get("general.alignment", 32)
        start = -(-self.at // alignment) * alignment
        self.tensors = {
            name: Tensor(name, dims, kind, memoryview(self.bytes)[start + offset :])
            for name, dims, kind, offset in infos
        }

    def _take(self, count):
        self.at += count
        return self.bytes[self.at - count : self.at]

    def _scalar(self, form):
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _string(self):
        return self._take(self._scalar("<Q"))

    def _value(self, kind):
        if kind == STRING:
            return self._string().decode("utf-8", "replace")
        if kind == ARRAY:
            element, count = self._scalar("<I"), self._scalar("<Q")
            if element in SCALARS:
                form = SCALARS[element]
                size = struct.calcsize(form)
                return [v for (v,) in struct.iter_unpack(form, self._take(count * size))]
            return [self._value(element) for _ in range(count)]
        return self._scalar(SCALARS[kind])

    def _info(self):
        name = self._string().decode()
        dims = [self._scalar("<Q") for _ in range(self._scalar("<I"))]
        return name, dims, self._scalar("<I"), self._scalar("<Q")
