"""What a file says about its model: section 3 of the specification.

`Family` is a column of the table of families, `Shape` the sizes and rules of one
model, `rotations` the tables of its positions.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from tables import GELU, SIG, context, exact, frequencies, rope_table, score_factor, yarn
from weights import plain


@dataclass
class Family:
    halves: bool = True
    biases: bool = False
    head_norms: bool = False
    post_norms: bool = False
    curve: np.ndarray = None
    scaled: bool = False
    fused: bool = False
    window: int = 0
    period: int = 0
    own_base: bool = False
    caps: tuple = (0.0, 0.0)
    odd_layers: int = -1


FAMILIES = {
    "llama": Family(halves=False, curve=SIG),
    "qwen2": Family(biases=True, curve=SIG),
    "qwen3": Family(head_norms=True, curve=SIG),
    "gemma2": Family(
        post_norms=True, curve=GELU, scaled=True, window=4096, period=2, caps=(50.0, 30.0),
        odd_layers=46,
    ),
    "gemma3": Family(
        head_norms=True, post_norms=True, curve=GELU, scaled=True, period=6, own_base=True,
        odd_layers=62,
    ),
    "phi3": Family(fused=True, curve=SIG),
}


class Shape:
    def __init__(self, gguf):
        self.name = gguf.keys["general.architecture"]
        self.keys, self.tensors = gguf.keys, gguf.tensors
        self.family = family = FAMILIES[self.name]
        self.layers, self.width = self.key("block_count"), self.key("embedding_length")
        self.heads = self.key("attention.head_count")
        self.kv_heads = self.key("attention.head_count_kv", self.heads)
        self.head = self.key("attention.key_length", self.width // self.heads)
        self.turned = self.key("rope.dimension_count", self.head)
        self.epsilon = Fraction(self.key("attention.layer_norm_rms_epsilon"))
        self.window = self.key("attention.sliding_window", family.window)
        self.period = self.key("attention.sliding_window_pattern", family.period)
        odd = self.layers == family.odd_layers
        self.factor = score_factor(self.width // self.heads if odd else self.head)
        score, logit = family.caps
        score = Fraction(self.key("attn_logit_softcapping", score))
        logit = Fraction(self.key("final_logit_softcapping", logit))
        # The caps of scores and logits at 2^-10; scores count in powers of two.
        self.score_cap = half_up(score * 0x5C551D94AE0BF85E / 2**52)
        self.logit_cap = half_up(logit * 2**10)

    def key(self, name, *default):
        value = self.keys.get(f"{self.name}.{name}", *default)
        if value is None:
            raise ValueError(f"no {name} in the file")
        return value

    def has_window(self, layer):
        if self.window == 0:
            return False
        return self.period == 0 or layer % self.period != self.period - 1

    def rotations(self, positions):
        """COS and SIN of layers without a window, and of those with one."""
        base = self.key("rope.freq_base", 10000.0)
        turns, magnitude = self.scaled(base)
        whole = rope_table(turns, positions, magnitude)
        if not self.family.own_base:
            return whole, whole
        own = self.key("rope.freq_base_swa", 10000.0)
        return whole, rope_table(frequencies(own, self.turned), positions)

    def scaled(self, base):
        turns = frequencies(base, self.turned)
        kind = self.key("rope.scaling.type", "")
        if kind == "longrope" or (not kind and "rope_factors_long.weight" in self.tensors):
            context_length = self.key("context_length")
            original = self.key("rope.scaling.original_context_length", context_length)
            name = "long" if context_length > original else "short"
            magnitude = exact(self.key("rope.scaling.attn_factor", 1.0))
            return self.divided(turns, f"rope_factors_{name}.weight"), magnitude
        if kind == "linear":
            factor = self.key("rope.scaling.factor")
        else:
            factor = 1.0 if kind == "none" else self.key("rope.scaling.factor", 1.0)
        turns = self.divided(turns, "rope_freqs.weight")
        if kind == "yarn":
            return self.yarn(turns, base, factor)
        if kind not in ("", "none", "linear"):
            raise ValueError(f"rope scaling {kind}")
        return [turn / exact(factor) for turn in turns], 1

    def yarn(self, turns, base, factor):
        original = self.key(
            "rope.scaling.original_context_length", self.key("context_length")
        )
        fast = self.key("rope.scaling.yarn_beta_fast", 32.0)
        slow = self.key("rope.scaling.yarn_beta_slow", 1.0)
        turns = yarn(turns, base, self.turned, factor, original, fast, slow)
        grown = 1 + context.ln(exact(factor)) / 10 if factor >= 1 else context.mpf(1)
        given = self.keys.get(f"{self.name}.rope.scaling.yarn_attn_factor")
        magnitude = grown if given is None else exact(given)
        return turns, magnitude * exact(self.key("rope.scaling.attn_factor", 1.0))

    def divided(self, turns, name):
        if name not in self.tensors:
            return turns
        factors = plain(self.tensors[name])[: len(turns)].tolist()
        return [turn / exact(factor) for turn, factor in zip(turns, factors)]


def half_up(value):
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)
