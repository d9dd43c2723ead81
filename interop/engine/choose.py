"""Choosing a token: section 8 of the arithmetic.

`Rules` are the parameters of an offer, `History` what the penalties count. A step
is `draw` for its number, `Rules.choose` for its token, `report` for how likely
tokens were. Masks of constrained answers are not made here: whoever has one
passes it in.
"""

from collections import Counter
from dataclasses import dataclass, field, fields

import numpy as np
from blake3 import blake3

from exact import shift
from tables import LN, WIDE

LOG2E_48 = 0x171547652B830
LOG2E_32 = 0x171547652
WIDE_END = np.append(WIDE, 2**30)
# Beyond this δ nothing weighs; gaps are cut where they surely lead there.
FAR = 32768


def draw(seed, step):
    return int.from_bytes(blake3(seed + step.to_bytes(8, "little")).digest()[:8], "little")


class History:
    """The prompt's tokens, and how often each token stands in the answer so far."""

    def __init__(self, prompt):
        self.prompt, self.answer = set(prompt), Counter()

    def push(self, token):
        self.answer[token] += 1


@dataclass
class Rules:
    """The parameters; a rule left out is off."""

    temperature_q16: int = 0
    top_k: int = 0
    top_p_q16: int = 65536
    min_p_q16: int = 0
    repetition_q16: int = 0
    presence_q16: int = 0
    frequency_q16: int = 0
    bias: list = field(default_factory=list)

    @classmethod
    def of(cls, parameters):
        unknown = set(parameters) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"rules this implementation doesn't know: {sorted(unknown)}")
        return cls(**parameters)

    def adjusted(self, logits, history):
        """L_i of every token. The few that a rule touches need more than 64 bits on the way."""
        out = logits * 64
        touched = set(history.answer)
        if self.repetition_q16 > 0:
            touched |= history.prompt
        for token in touched:
            value = int(out[token])
            if self.repetition_q16 > 0 and value > 0:
                value = (value << 16) // self.repetition_q16
            elif self.repetition_q16 > 0:
                value = value * self.repetition_q16 >> 16
            count = history.answer[token]
            value -= count * self.frequency_q16 + (self.presence_q16 if count else 0)
            out[token] = value
        for token, bias in self.bias:
            if token < len(out):
                out[token] += bias
        return out

    def choose(self, logits, history, drawn, mask=None, ends=()):
        """The token; `mask` is a boolean for each one, `ends` are those that end an answer."""
        adjusted = self.adjusted(logits, history)
        tokens = np.arange(len(adjusted))
        if mask is not None:
            tokens = tokens[mask]
            if not len(tokens):
                return min(ends)
        # A stable sort keeps equals by number, lowest first.
        ranked = tokens[np.argsort(-adjusted[tokens], kind="stable")]
        if self.temperature_q16 == 0:
            return int(ranked[0])
        return self.drawn(ranked, self.weights(adjusted[ranked]), drawn)

    def weights(self, ranked):
        """w_i of tokens in rank."""
        scale = LOG2E_48 // self.temperature_q16
        enough = (FAR << 38) // max(scale, 1) + 1
        gaps = [min(gap, enough) for gap in (ranked[0] - ranked).tolist()]
        delta = np.array([min(gap * scale >> 38, FAR) for gap in gaps], dtype=np.int64)
        return np.where(delta < FAR, WIDE[delta & 1023] >> np.minimum(delta >> 10, 62), 0)

    def drawn(self, ranked, weights, number):
        count = int(np.count_nonzero(weights))
        if self.top_k > 0:
            count = min(count, self.top_k)
        ranked, weights = ranked[:count], weights[:count]
        if 0 < self.top_p_q16 < 65536:
            sums = np.cumsum(weights)
            enough = -(-self.top_p_q16 * int(sums[-1]) // 65536)
            count = int(np.searchsorted(sums, enough)) + 1
            ranked, weights = ranked[:count], weights[:count]
        kept = weights >= self.min_p_q16 << 15
        ranked, weights = ranked[kept], weights[kept]
        by_number = np.argsort(ranked)
        ranked, sums = ranked[by_number], np.cumsum(weights[by_number])
        x = number * int(sums[-1]) >> 64
        return int(ranked[int(np.searchsorted(sums, x, side="right"))])


def report(logits, chosen, count):
    """The chosen token's value, and the `count` likeliest tokens with theirs."""
    gap = int(logits.max()) - logits
    near = np.where(gap < 2**16, gap, 0)
    t = near * LOG2E_32 >> 20
    a, f, s = t >> 12 & 1023, t & 4095, t >> 22
    v = WIDE_END[a] - ((WIDE_END[a] - WIDE_END[a + 1]) * f >> 12)
    u = np.where(gap < 2**16, v << 12 >> np.minimum(s, 63), 0)
    # u is below 2^44, but there may be 2^24 tokens.
    total = (int((u >> 32).sum()) << 32) + int((u & 0xFFFFFFFF).sum())
    b = total.bit_length() - 1
    x = (total >> (b - 24)) - 2**24
    j, h = x >> 14, x & 16383
    # Entry j + 1 is there: j is at most 1023.
    start, end = int(LN[j]), int(LN[j + 1])
    whole = (b - 43) * int(LN[1024]) + start + ((end - start) * h >> 14)
    values = np.minimum(shift((gap << 14) + whole, 8), 2**32 - 1)
    ranked = np.argsort(-logits, kind="stable")[:count]
    return int(values[chosen]), [(int(i), int(values[i])) for i in ranked]
