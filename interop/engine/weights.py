"""Integer weights from the blocks of a tensor: section 2 of the specification.

A reader takes a tensor's blocks apart into stretches of columns that share a
scale. In a stretch the real weight is `d · s · q + m · t`, where formats of one
level have s = t = 1; `d` and `m` are kept as integers at 2^-24, so the tensor's
exponent and every rounding are exact.
"""

from typing import NamedTuple

import numpy as np

from exact import Overflow, largest, shift

F32, F16, BF16 = 0, 1, 30


class Stretches(NamedTuple):
    """`q`: stretches × columns; the others: stretches × 1."""

    q: np.ndarray
    d: np.ndarray
    s: np.ndarray
    m: np.ndarray
    t: np.ndarray


def half(block, at):
    """The 16-bit floats at a place of every block, as integers at 2^-24."""
    bits16 = block[:, at].astype(np.int64) | block[:, at + 1].astype(np.int64) << 8
    exponent, fraction = bits16 >> 10 & 31, bits16 & 1023
    if (exponent == 31).any():
        raise ValueError("an infinity or NaN")
    value = np.where(exponent == 0, fraction, (fraction + 1024) << np.maximum(exponent - 1, 0))
    return np.where(bits16 >> 15 == 1, -value, value)[:, None]


def nibbles(packed):
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.int16)


def one_level(q, d, m=None):
    one, zero = np.ones_like(d), np.zeros_like(d)
    return Stretches(q, d, one, zero if m is None else m, one)


def q4_0(block):
    return one_level(nibbles(block[:, 2:]) - 8, half(block, 0))


def q4_1(block):
    return one_level(nibbles(block[:, 4:]), half(block, 0), half(block, 2))


def fifth(high):
    """16 times bit c of 32 bits, for column c."""
    return np.unpackbits(high, axis=1, bitorder="little").astype(np.int16) * 16


def q5_0(block):
    return one_level(nibbles(block[:, 6:]) + fifth(block[:, 2:6]) - 16, half(block, 0))


def q5_1(block):
    q = nibbles(block[:, 8:]) + fifth(block[:, 4:8])
    return one_level(q, half(block, 0), half(block, 2))


def q8_0(block):
    return one_level(np.ascontiguousarray(block[:, 2:]).view(np.int8), half(block, 0))


IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])


def iq4_nl(block):
    return one_level(IQ4.astype(np.int16)[nibbles(block[:, 2:])], half(block, 0))


def two_level(q, columns, d, s, n=None, t=None):
    """`q`: blocks × 256, `s` and `t`: blocks × stretches."""
    count = 256 // columns

    def flat(a):
        return np.repeat(a, count, axis=0) if a.shape[1] == 1 else a.reshape(-1, 1)

    d, s = flat(d), flat(s.astype(np.int64))
    # The minimum is taken off: rounding goes by the sign of n, so t has the minus.
    m = np.zeros_like(d) if n is None else flat(n)
    t = np.zeros_like(d) if t is None else -flat(t.astype(np.int64))
    return Stretches(q.astype(np.int16).reshape(-1, columns), d, s, m, t)


# Column c = 32 r + l of a block of 256.
C = np.arange(256)
R, L = C // 32, C % 32


def pairs(packed):
    """The two bits of Q2_K and Q3_K."""
    return packed[:, 32 * (R // 4) + L].astype(np.int16) >> 2 * (R % 4) & 3


def q2_k(block):
    f = block[:, :16]
    return two_level(pairs(block[:, 16:80]), 16, half(block, 80), f & 15, half(block, 82), f >> 4)


def q3_k(block):
    h, f = block[:, :32], block[:, 96:108].astype(np.int16)
    q = pairs(block[:, 32:96]) + 4 * (h[:, L].astype(np.int16) >> R & 1) - 4
    i = np.arange(16)
    low = np.where(i < 8, f[:, i % 8] & 15, f[:, i % 8] >> 4)
    s = low + 16 * (f[:, 8 + i % 4] >> 2 * (i // 4) & 3) - 32
    return two_level(q, 16, half(block, 108), s)


def sixes(f):
    """Scales and minimums of Q4_K and Q5_K."""
    a, b, c = f[:, :4], f[:, 4:8], f[:, 8:12]
    s = np.concatenate([a & 63, (c & 15) + 16 * (a >> 6)], axis=1)
    t = np.concatenate([b & 63, (c >> 4) + 16 * (b >> 6)], axis=1)
    return s, t


def alternate(packed):
    """The nibbles of Q4_K and Q5_K: low ones in even stretches, high ones in odd."""
    return packed[:, 32 * (R // 2) + L].astype(np.int16) >> 4 * (R % 2) & 15


def q4_k(block):
    s, t = sixes(block[:, 4:16])
    return two_level(alternate(block[:, 16:]), 32, half(block, 0), s, half(block, 2), t)


def q5_k(block):
    s, t = sixes(block[:, 4:16])
    q = alternate(block[:, 48:]) + 16 * (block[:, 16:48][:, L].astype(np.int16) >> R & 1)
    return two_level(q, 32, half(block, 0), s, half(block, 2), t)


def q6_k(block):
    b, h = block[:, :128].astype(np.int16), block[:, 128:192].astype(np.int16)
    low = b[:, 64 * (R // 4) + 32 * (R % 2) + L] >> 4 * (R % 4 // 2) & 15
    q = low + 16 * (h[:, 32 * (R // 4) + L] >> 2 * (R % 4) & 3) - 32
    f = np.ascontiguousarray(block[:, 192:208]).view(np.int8)
    return two_level(q, 16, half(block, 208), f)


# By the number of the format in a file: columns and bytes of a block, reader.
FORMATS = {
    2: (32, 18, q4_0),
    3: (32, 20, q4_1),
    6: (32, 22, q5_0),
    7: (32, 24, q5_1),
    8: (32, 34, q8_0),
    10: (256, 84, q2_k),
    11: (256, 110, q3_k),
    12: (256, 144, q4_k),
    13: (256, 176, q5_k),
    14: (256, 210, q6_k),
    20: (32, 18, iq4_nl),
}
PLAIN = {F32: "<f4", F16: "<f2", BF16: "<u2"}


def row_bytes(tensor):
    if tensor.kind in PLAIN:
        return tensor.dims[0] * np.dtype(PLAIN[tensor.kind]).itemsize
    columns, size, _ = FORMATS[tensor.kind]
    return tensor.dims[0] // columns * size


def keeps_below(tensor):
    """B: the exponent keeps weights below 2^B."""
    return 25 if tensor.kind in FORMATS and FORMATS[tensor.kind][0] == 256 else 19


def plain(tensor, data=None):
    """The floats of a tensor, or of a part of its bytes."""
    data = tensor.data[: int(np.prod(tensor.dims[1:])) * row_bytes(tensor)] if data is None else data
    values = np.frombuffer(data, dtype=PLAIN[tensor.kind])
    return (values.astype("<u4") << 16).view("<f4") if tensor.kind == BF16 else values


def integers(tensor, first=0, rows=None):
    """The integer weights of some rows as whole float64 numbers, and their exponent."""
    rows = int(np.prod(tensor.dims[1:])) if rows is None else rows
    stride = row_bytes(tensor)
    data = tensor.data[first * stride : (first + rows) * stride]
    if tensor.kind in PLAIN:
        return floats(plain(tensor, data))
    columns, size, reader = FORMATS[tensor.kind]
    parts = reader(np.frombuffer(data, dtype=np.uint8).reshape(-1, size))
    lows, highs = parts.q.min(axis=1), parts.q.max(axis=1)
    scale, minimum = (parts.d * parts.s)[:, 0], (parts.m * parts.t)[:, 0]
    top = max(largest(scale * end + minimum) for end in (lows, highs))
    wide = keeps_below(tensor)
    exponent = wide - 1 - (top.bit_length() - 1 - 24) if top else 0
    d, m = shift(parts.d, 24 - exponent), shift(parts.m, 24 - exponent)
    if columns == 32:
        limits = ((d, 22), (m, 22))
    else:
        limits = ((d, 26), (m, 26), (d * parts.s, 26), (m * parts.t, 30))
    for values, power in limits:
        if largest(values) >= 2**power:
            raise Overflow(f"{tensor.name}: a scale or minimum of {largest(values)}")
    weights = np.multiply(parts.q, d * parts.s, dtype=np.float64)
    weights += m * parts.t
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

    def __init__(self, tensor, first=0, rows=None):
        weights, self.exponent = integers(tensor, first, rows)
        self.rows = weights.reshape(-1, tensor.dims[0])
        self.keeps_below = keeps_below(tensor)
        limit = 2**19 + 65 if self.keeps_below == 19 else 2**25 + 2**12
        self.bound = 0
        for part in np.array_split(self.rows, -(-len(self.rows) // 4096)):
            size = np.abs(part)
            self.bound = max(self.bound, int(size.sum(axis=1).max()))
            if size.max() >= limit:
                raise Overflow(f"{tensor.name}: a weight of {int(size.max())}")

    def take(self, indices):
        return self.rows[indices].astype(np.int64)


class Vector:
    """The gain of a norm or a bias: integers and their exponent."""

    def __init__(self, tensor):
        weights, self.exponent = integers(tensor)
        self.values = weights.astype(np.int64)
