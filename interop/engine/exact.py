"""Whole numbers in numpy that never wrap: sections 1 and 9 of the specification.

Everything is an int64 array, or a float64 array that holds whole numbers below
2^53 and is used for matrix products only. Each operation that could leave that
range looks at the largest value it has and fails loudly (`Overflow`) instead.
"""

import numpy as np

LIMIT31 = 2**31 - 1


class Overflow(Exception):
    """A value that the specification says cannot occur."""


def largest(values):
    """The largest magnitude in an array, as a Python integer."""
    if values.size == 0:
        return 0
    return max(int(values.max()), -int(values.min()))


def bits(values):
    """Number of binary digits of each element of a non-negative int64 array."""
    values = np.asarray(values, dtype=np.int64)
    high = np.frexp((values >> 32).astype(np.float64))[1].astype(np.int64)
    low = np.frexp((values & 0xFFFFFFFF).astype(np.float64))[1].astype(np.int64)
    return np.where(values >> 32 > 0, high + 32, low)


def shift(values, by):
    """round(v / 2^by), halves up; exact multiplication where `by` is negative.

    `by` is one integer or an array that broadcasts against `values`.
    """
    values = np.asarray(values, dtype=np.int64)
    by = np.asarray(by, dtype=np.int64)
    top = largest(values)
    if top >= 2**62:
        raise Overflow(f"shift of {top}")
    left = np.where(values == 0, 0, np.maximum(-by, 0))
    if left.any():
        digits = bits(np.abs(values)) + left
        if int(digits.max()) > 62:
            raise Overflow(f"left shift to {int(digits.max())} bits")
    # Below 2^62, everything shifted by 63 or more rounds to 0, as by 63.
    right = np.clip(by, 0, 63)
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    if right.size and int(right.max()) == 63:
        gone = right == 63
        half, right = np.where(gone, 0, half), np.where(gone, 0, right)
        values = np.where(gone, 0, values)
    return ((values + half) >> right) << left


def clamp(values, limit):
    return np.clip(values, -limit, limit)


def narrow(values, by):
    """clamp(shift(v, by), 2^31 - 1), also where a left shift would leave 64 bits."""
    values = np.asarray(values, dtype=np.int64)
    if isinstance(by, int) and by < 0:
        room = max(0, 62 + by)
        values = clamp(values, 2 ** max(room, 0))
        if room <= 32 and largest(values) != 0:
            raise Overflow(f"narrow by {by}")
    return clamp(shift(values, by), LIMIT31)


def canonical(rows, exponent):
    """Q16 over the last axis: int64 rows and exponents to 16-bit rows and exponents."""
    rows = np.asarray(rows, dtype=np.int64)
    if largest(rows) >= 2**62:
        raise Overflow("a row of Q16")
    top = np.abs(rows).max(axis=-1)
    by = bits(top) - 15
    by = by + ((by > 0) & (shift(top, by) == 32768))
    out = shift(rows, by[..., None])
    zero = top == 0
    return out, np.where(zero, 127, np.asarray(exponent, dtype=np.int64) - by)


def product(rows, matrix):
    """Rows times the transposed weights of a `Matrix`, exactly.

    `matrix.bound` is the largest sum of magnitudes over a row of it, so
    |row| · bound limits every partial sum in whatever order it is made.
    """
    if largest(rows) * matrix.bound < 2**53:
        return (rows.astype(np.float64) @ matrix.rows.T).astype(np.int64)
    if largest(rows) * matrix.bound >= 2**62 or matrix.bound >= 2**45:
        raise Overflow(f"a product may reach {largest(rows) * matrix.bound}")
    low = rows & 255
    high, low = ((part.astype(np.float64) @ matrix.rows.T) for part in (rows >> 8, low))
    return (high.astype(np.int64) << 8) + low.astype(np.int64)


def dot(left, right):
    """Batched matrix product of int64 arrays through float64, exactly."""
    bound = largest(left) * largest(right) * left.shape[-1]
    if bound >= 2**53:
        raise Overflow(f"a product may reach {bound}")
    return (left.astype(np.float64) @ right.astype(np.float64)).astype(np.int64)
