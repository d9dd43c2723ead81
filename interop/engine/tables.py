"""The tables of section 3, by exact rounding of values known to many digits.

Scalars come from mpmath at 200 bits. Sines and cosines of all positions come
from turning the one of position 1 again and again in 256-bit fixed point, whose
error after 2^20 turns is below 2^-200. A value whose fraction lies so near to
one half that this error decides is refused.
"""

import math
from fractions import Fraction

import mpmath
import numpy as np

FIXED = 256
DOUBT = 160  # Bits after the point that must not be 0.1000… or 0.0111…

context = mpmath.mp.clone()
context.prec = 320


def rounded(value):
    """round(x) of an mpmath number that is not near half an integer by chance."""
    return fixed_round(int(context.floor(context.ldexp(value, FIXED))), FIXED)


def fixed_round(value, point):
    """round(v / 2^point) for a value with an error; refuses one too close to call."""
    fraction = value & ((1 << point) - 1)
    if abs(fraction - (1 << (point - 1))) < 1 << (point - DOUBT) and fraction != 1 << (point - 1):
        raise ValueError("a table entry too close to call")
    return (value + (1 << (point - 1))) >> point


def exp_table():
    two = context.mpf(2)
    return [rounded(32767 * two ** (context.mpf(-i) / 1024)) for i in range(16384)]


def wide_table():
    two = context.mpf(2)
    return [rounded(2**31 * two ** (context.mpf(-i) / 1024)) for i in range(1024)]


def sig_table():
    return [rounded(2**24 / (1 + context.exp(context.mpf(i) / 64))) for i in range(1025)]


def gelu_table():
    slope, cubic = 2 * context.sqrt(2 / context.pi), context.mpf(44715) / 1000000
    xs = (context.mpf(i) / 64 for i in range(1025))
    return [rounded(2**24 / (1 + context.exp(slope * (x + cubic * x**3)))) for x in xs]


def ln_table():
    return [rounded(2**24 * context.log1p(context.mpf(i) / 1024)) for i in range(1025)]


def exact(value):
    """A float as the mpmath number it is."""
    fraction = Fraction(value)
    return context.mpf(fraction.numerator) / fraction.denominator


def frequencies(base, dimensions):
    """F_i of each rotated pair, as mpmath numbers."""
    powers = (context.mpf(-2 * i) / dimensions for i in range(dimensions // 2))
    return [exact(base) ** power for power in powers]


def yarn(turns, base, dimensions, factor, original, fast, slow):
    """What `yarn` makes of the frequencies."""
    def turn(beta):
        ratio = original / (2 * context.pi * exact(beta))
        return dimensions * context.ln(ratio) / (2 * context.ln(exact(base)))

    low = max(0, int(context.floor(turn(fast))))
    high = min(dimensions - 1, int(context.ceil(turn(slow))))
    d = max(1, high - low)
    out = []
    for i, f in enumerate(turns):
        j = min(d, max(0, i - low))
        out.append(f * (context.mpf(d - j) / d + j / (d * exact(factor))))
    return out


def rope_table(turns, positions, magnitude=1):
    """COS and SIN as int64 arrays of positions × pairs."""
    size = to_fixed(context.mpf(magnitude))
    cos, sin = [], []
    for turn in turns:
        one = (to_fixed(context.cos(turn)), to_fixed(context.sin(turn)))
        a, b = 1 << FIXED, 0
        column = []
        for _ in range(positions):
            column.append(tuple(fixed_round(part * size >> FIXED, FIXED - 14) for part in (a, b)))
            a, b = (a * one[0] - b * one[1]) >> FIXED, (a * one[1] + b * one[0]) >> FIXED
        cos.append([c for c, _ in column])
        sin.append([s for _, s in column])
    return np.array(cos, dtype=np.int64).T, np.array(sin, dtype=np.int64).T


def to_fixed(value):
    return int(context.nint(context.ldexp(value, FIXED)))


def score_factor(head):
    """C of section 3: log2(e) / sqrt(head) at 2^-24."""
    log2e = 0x5C551D94AE0BF85E
    root = math.isqrt(log2e * log2e // head)
    return (root + (1 << 37)) >> 38


EXP = np.array(exp_table() + [0], dtype=np.int64)
WIDE = np.array(wide_table(), dtype=np.int64)
SIG = np.array(sig_table() + [0], dtype=np.int64)
GELU = np.array(gelu_table() + [0], dtype=np.int64)
LN = np.array(ln_table(), dtype=np.int64)
