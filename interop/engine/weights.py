"""Integer weights from the blocks of a tensor: section 2 of the specification.

A real weight is `d · q + m`; `d` and `m` are kept as integers at a power of two,
so the tensor's exponent and every rounding are exact.
"""

import numpy as np

from exact import Overflow, largest, shift

F32, F16, Q4_0, Q4_1, Q8_0 = 0, 1, 2, 3, 8


def half(bits16):
    """16-bit floats as integers at 2^-24."""
    bits16 = bits16.astype(np.int64)
    exponent, fraction = bits16 >> 10 & 31, bits16 & 1023
    if (exponent == 31).any():
        raise ValueError("an infinity or NaN")
    value = np.where(exponent == 0, fraction, (fraction + 1024) << np.maximum(exponent - 1, 0))
    return np.where(bits16 >> 15 == 1, -value, value)


def blocks(tensor, count, size):
    return np.frombuffer(tensor.data[: count * size], dtype=np.uint8).reshape(count, size)


def field16(block, at):
    return block[:, at].astype(np.int64) | block[:, at + 1].astype(np.int64) << 8


def nibbles(packed):
    return np.concatenate([packed & 15, packed >> 4], axis=1)


def read_f16(tensor, elements):
    bits16 = np.frombuffer(tensor.data[: elements * 2], dtype="<u2")
    return np.ones((elements, 1), dtype=np.int8), half(bits16)[:, None], None


def read_q4_0(tensor, elements):
    block = blocks(tensor, elements // 32, 18)
    return nibbles(block[:, 2:]).astype(np.int8) - np.int8(8), half(field16(block, 0))[:, None], None


def read_q4_1(tensor, elements):
    block = blocks(tensor, elements // 32, 20)
    scale, minimum = half(field16(block, 0))[:, None], half(field16(block, 2))[:, None]
    return nibbles(block[:, 4:]).astype(np.int8), scale, minimum


def read_q8_0(tensor, elements):
    block = blocks(tensor, elements // 32, 34)
    return block[:, 2:].view(np.int8), half(field16(block, 0))[:, None], None


READERS = {F16: read_f16, Q4_0: read_q4_0, Q4_1: read_q4_1, Q8_0: read_q8_0}
QUANTISED = set(READERS) - {F16}


def integers(tensor):
    """The integer weights in file order as whole float64 numbers, and their exponent."""
    elements = int(np.prod(tensor.dims))
    if tensor.kind == F32:
        return floats(np.frombuffer(tensor.data[: elements * 4], dtype="<f4"))
    if tensor.kind not in READERS:
        raise ValueError(f"{tensor.name}: format {tensor.kind}")
    q, scale, minimum = READERS[tensor.kind](tensor, elements)
    # One group of columns shares a scale: q is groups × columns.
    extremes = [scale[:, 0] * q.max(axis=1), scale[:, 0] * q.min(axis=1)]
    if minimum is not None:
        extremes = [extreme + minimum[:, 0] for extreme in extremes]
    top = max(largest(extreme) for extreme in extremes)
    exponent = 18 - (top.bit_length() - 1 - 24) if top else 0
    scale = shift(scale, 24 - exponent)
    minimum = None if minimum is None else shift(minimum, 24 - exponent)
    for part in (scale, minimum):
        if tensor.kind in QUANTISED and part is not None and largest(part) >= 2**22:
            raise Overflow(f"{tensor.name}: a scale or minimum of {largest(part)}")
    weights = np.multiply(q, scale, dtype=np.float64)
    if minimum is not None:
        weights += minimum
    return weights.reshape(-1), exponent


def floats(values):
    if not np.isfinite(values).all():
        raise ValueError("an infinity or NaN")
    mantissa, power = np.frexp(values.astype(np.float64))
    mantissa = np.ldexp(mantissa, 24).astype(np.int64)
    if not mantissa.any():
        return np.zeros(len(values)), 0
    exponent = 18 - (int(power[mantissa != 0].max()) - 1)
    by = 24 - power.astype(np.int64) - exponent
    return shift(mantissa, by).astype(np.float64), exponent


class Matrix:
    """Rows of integer weights, ready for exact products."""

    def __init__(self, tensor):
        weights, self.exponent = integers(tensor)
        self.rows = weights.reshape(-1, tensor.dims[0])
        self.bound = 0
        for part in np.array_split(self.rows, -(-len(self.rows) // 4096)):
            size = np.abs(part)
            self.bound = max(self.bound, int(size.sum(axis=1).max()))
            if size.max() >= 2**19 + 65:
                raise Overflow(f"{tensor.name}: a weight of {int(size.max())}")

    def take(self, indices):
        return self.rows[indices].astype(np.int64)


class Gain:
    """The gain of a norm: a vector of integers and its exponent."""

    def __init__(self, tensor):
        weights, self.exponent = integers(tensor)
        self.values = weights.astype(np.int64)
