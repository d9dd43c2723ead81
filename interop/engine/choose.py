"""Choosing a token: section 8 of the arithmetic."""

import numpy as np
from blake3 import blake3

from tables import WIDE

LOG2E = 0x171547652B830


def draw(seed, step):
    return int.from_bytes(blake3(seed + step.to_bytes(8, "little")).digest()[:8], "little")


def weights(logits, temperature):
    """w_i of every token, as int64."""
    gap = int(logits.max()) - logits
    scale = LOG2E // temperature
    # gap · scale may need more than 64 bits, but beyond 2^15 + 2^32 it does not matter.
    gap = np.minimum(gap, (2**47 + 2**32) // max(scale, 1))
    delta = np.minimum(gap * scale >> 32, 32768)
    return np.where(delta < 32768, WIDE[delta & 1023] >> np.minimum(delta >> 10, 62), 0)


def choose(logits, sampling, drawn):
    """The token for one row of logits; `sampling` is a dict of the parameters."""
    temperature, top_k, top_p = (sampling[k] for k in ("temperature_q16", "top_k", "top_p_q16"))
    if temperature == 0:
        return int(logits.argmax())
    weight = weights(logits, temperature)
    # A stable sort keeps equals by number, lowest first.
    ranked = np.argsort(-logits, kind="stable")
    ranked = ranked[weight[ranked] > 0]
    if top_k > 0:
        ranked = ranked[:top_k]
    if 0 < top_p < 65536:
        sums = np.cumsum(weight[ranked])
        whole = int(sums[-1])
        enough = -(-top_p * whole // 65536)
        ranked = ranked[: int(np.searchsorted(sums, enough)) + 1]
    left = np.sort(ranked)
    sums = np.cumsum(weight[left])
    x = drawn * int(sums[-1]) >> 64
    return int(left[int(np.searchsorted(sums, x, side="right"))])
