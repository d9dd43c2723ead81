"""The forward pass in integers: sections 4 to 7 of the specification.

A `Model` holds the integer weights, a `Sequence` the keys and values of the
positions read so far. `Model.forward` takes any number of tokens of any number
of sequences and returns, for each, the state and (where asked for) the logits.
"""

import math
from fractions import Fraction

import numpy as np
from blake3 import blake3

from exact import LIMIT31, Overflow, bits, canonical, clamp, dot, largest, narrow, product, shift
from tables import EXP, SIG, frequencies, rope_table, score_factor
from weights import Gain, Matrix


def square_sums(rows):
    """Σ x² of each row, as Python integers: x² may need 64 bits, the sum 78."""
    high, low = rows >> 16, rows & 0xFFFF
    parts = ((high * high).sum(axis=1), (high * low).sum(axis=1), (low * low).sum(axis=1))
    return [(int(a) << 32) + (int(b) << 17) + int(c) for a, b, c in zip(*parts)]


def norm(rows, gain, epsilon):
    """Section 5, for each row: 16-bit integers and their exponents."""
    n = rows.shape[1]
    least = max(1, math.floor(epsilon * n * 2**24 + Fraction(1, 2)))
    roots, powers = [], []
    for total in square_sums(rows):
        total += least
        k = 0
        while n * 4**k // total < 2**60:
            k += 1
        if not n * 4**k // total < 2**62:
            raise Overflow(f"no k for a sum of {total}")
        roots.append(math.isqrt(n * 4**k // total))
        powers.append(k)
    if largest(rows) * max(roots) >= 2**62:
        raise Overflow("x · R")
    u = shift(rows * np.array(roots)[:, None], np.array(powers)[:, None] - 20)
    if largest(u) >= 2**29 or largest(gain.values) > 2**19:
        raise Overflow("u or g")
    return canonical(u * gain.values, 20 + gain.exponent)


def silu(gate):
    """shift(G · T', 24) of section 6."""
    size = np.abs(gate)
    i = np.minimum(size >> 12, 1024)
    r = np.where(i < 1024, size & 4095, 0)
    t = np.where(i < 1024, SIG[i] - shift((SIG[i] - SIG[i + 1]) * r, 12), 0)
    return shift(gate * np.where(gate < 0, t, 2**24 - t), 24)


class Sequence:
    """Keys and values of one text: one array and one list of exponents a layer."""

    def __init__(self, layers):
        self.position = 0
        self.layers = [None] * layers

    def extend(self, layer, keys, key_exponents, values, value_exponents):
        new = (keys, key_exponents, values, value_exponents)
        old = self.layers[layer]
        if old is not None:
            new = tuple(np.concatenate(pair) for pair in zip(old, new))
        self.layers[layer] = new
        return new

    def key_digests(self, position):
        """A line a layer: what the keys of a position are, to find where two runs part."""
        lines = []
        for index, (keys, exponents, _, _) in enumerate(self.layers):
            row = np.concatenate([keys[position].reshape(-1), exponents[position]])
            lines.append(f"keys of layer {index} {blake3(row.astype('<i2').tobytes()).hexdigest()}")
        return lines


class Layer:
    def __init__(self, tensors, index):
        def name(part):
            return tensors[f"blk.{index}.{part}.weight"]

        self.attn_norm, self.ffn_norm = Gain(name("attn_norm")), Gain(name("ffn_norm"))
        self.q, self.k, self.v = (Matrix(name(f"attn_{part}")) for part in "qkv")
        self.out = Matrix(name("attn_output"))
        self.gate, self.up = Matrix(name("ffn_gate")), Matrix(name("ffn_up"))
        self.down = Matrix(name("ffn_down"))


class Model:
    def __init__(self, gguf, positions):
        keys, tensors = gguf.keys, gguf.tensors
        self.architecture = keys["general.architecture"]
        if self.architecture != "llama":
            raise ValueError(f"architecture {self.architecture}")

        def key(name, default=None):
            value = keys.get(f"{self.architecture}.{name}", default)
            if value is None:
                raise ValueError(f"no {name} in the file")
            return value

        self.width = key("embedding_length")
        self.heads = key("attention.head_count")
        self.kv_heads = key("attention.head_count_kv", self.heads)
        self.head = key("attention.key_length", self.width // self.heads)
        self.epsilon = Fraction(key("attention.layer_norm_rms_epsilon"))
        self.factor = score_factor(self.head)
        self.turned = key("rope.dimension_count", self.head)
        self.cos, self.sin = self.rotations(key, tensors, positions)
        self.embedding = Matrix(tensors["token_embd.weight"])
        self.output_norm = Gain(tensors["output_norm.weight"])
        head = tensors.get("output.weight")
        self.output = Matrix(head) if head else self.embedding
        self.layers = [Layer(tensors, i) for i in range(key("block_count"))]

    def rotations(self, key, tensors, positions):
        kind = key("rope.scaling.type", "none")
        if kind not in ("none", "linear"):
            raise ValueError(f"rope scaling {kind}")
        divisors = [key("rope.scaling.factor")] if kind == "linear" else []
        if "rope_freqs.weight" in tensors:
            count = self.turned // 2 * 4
            divisors.append(np.frombuffer(tensors["rope_freqs.weight"].data[:count], "<f4").tolist())
        base = key("rope.freq_base", 10000.0)
        return rope_table(frequencies(base, self.turned, divisors), positions)

    def forward(self, parts):
        """Runs `parts`, pairs of a sequence and its next tokens; states in their order."""
        tokens = np.concatenate([np.array(tokens, dtype=np.int64) for _, tokens in parts])
        places = [(s, s.position + np.arange(len(tokens))) for s, tokens in parts]
        x = narrow(self.embedding.take(tokens), self.embedding.exponent - 12)
        for index, layer in enumerate(self.layers):
            x = self.attend(x, layer, index, places)
            x = self.feed(x, layer)
        for sequence, positions in places:
            sequence.position += len(positions)
        return x

    def logits(self, states):
        y, exponents = norm(states, self.output_norm, self.epsilon)
        out = product(y, self.output.rows, self.output.bound)
        return narrow(out, (self.output.exponent + exponents - 10)[:, None])

    def add(self, x, rows, exponents, matrix):
        out = product(rows, matrix.rows, matrix.bound)
        back = narrow(out, (matrix.exponent + exponents - 12)[:, None])
        return clamp(x + back, LIMIT31)

    def heads_of(self, y, exponents, matrix, heads):
        """A product cut into heads, and its exponents shaped like them."""
        out = product(y, matrix.rows, matrix.bound).reshape(len(y), heads, -1)
        return out, np.repeat((exponents + matrix.exponent)[:, None], heads, axis=1)

    def rotate(self, heads, exponents, positions):
        narrower = max(0, (self.width - 1).bit_length() - 12)
        heads = shift(heads, narrower)
        pairs = heads[..., : self.turned]
        a, b = pairs[..., 0::2], pairs[..., 1::2]
        cos, sin = self.cos[positions][:, None, :], self.sin[positions][:, None, :]
        if largest(heads) >= 2**47:
            raise Overflow("a head before its rotation")
        out = heads * 2**14
        out[..., 0 : self.turned : 2] = a * cos - b * sin
        out[..., 1 : self.turned : 2] = a * sin + b * cos
        return out, exponents - narrower + 14

    def attend(self, x, layer, index, places):
        y, exponents = norm(x, layer.attn_norm, self.epsilon)
        positions = np.concatenate([positions for _, positions in places])
        q = canonical(*self.rotate(*self.heads_of(y, exponents, layer.q, self.heads), positions))
        k = canonical(*self.rotate(*self.heads_of(y, exponents, layer.k, self.kv_heads), positions))
        v = canonical(*self.heads_of(y, exponents, layer.v, self.kv_heads))
        rows, row_exponents, at = [], [], 0
        for sequence, own in places:
            part = slice(at, at + len(own))
            at += len(own)
            past = sequence.extend(index, k[0][part], k[1][part], v[0][part], v[1][part])
            out, out_exponents = self.mix(q[0][part], q[1][part], own, past)
            least = out_exponents.min(axis=1)
            out = shift(out, (out_exponents - least[:, None])[..., None])
            rows.append(out.reshape(len(own), -1))
            row_exponents.append(least)
        y, exponents = canonical(np.concatenate(rows), np.concatenate(row_exponents))
        return self.add(x, y, exponents, layer.out)

    def mix(self, q, q_exponents, positions, past):
        """Scores and outputs of the heads of one sequence: queries × heads × dimensions."""
        k, k_exponents, v, v_exponents = past
        group = self.heads // self.kv_heads
        # By query head: heads × queries or positions × dimensions.
        q, q_exponents = q.transpose(1, 0, 2), q_exponents.T[:, :, None]
        k, k_exponents = (np.repeat(a.swapaxes(0, 1), group, axis=0) for a in (k, k_exponents))
        v, v_exponents = (np.repeat(a.swapaxes(0, 1), group, axis=0) for a in (v, v_exponents))
        inner = dot(q, k.transpose(0, 2, 1))
        if largest(inner) * self.factor >= 2**62:
            raise Overflow("a score")
        scores = shift(inner * self.factor, q_exponents + k_exponents[:, None, :] + 14)
        scores = clamp(scores, 2**30)
        seen = np.arange(k.shape[1])[None, None, :] <= positions[None, :, None]
        best = np.where(seen, scores, -(2**31)).max(axis=2, keepdims=True)
        e = np.where(seen, EXP[np.minimum(np.where(seen, best - scores, 0), 16384)], 0)
        z = e.sum(axis=2, keepdims=True)
        b = bits(z)
        inverse = (np.int64(1) << (b + 30)) // z
        live = e > 0
        least = np.where(live, v_exponents[:, None, :], 2**40).min(axis=2, keepdims=True)
        f = np.where(live, shift(e * 2**9, np.where(live, v_exponents[:, None, :] - least, 0)), 0)
        a = shift(dot(f, v), b - 7)
        if largest(a) > 2**31 or largest(inverse) > 2**31:
            raise Overflow("a head's output")
        out = shift(a * inverse, 37)
        return out.transpose(1, 0, 2), (least[:, :, 0] + 9).T

    def feed(self, x, layer):
        y, exponents = norm(x, layer.ffn_norm, self.epsilon)
        gate, up = (
            narrow(product(y, m.rows, m.bound), (m.exponent + exponents - 18)[:, None])
            for m in (layer.gate, layer.up)
        )
        rows, exponents = canonical(silu(gate) * up, np.full(len(x), 36))
        return self.add(x, rows, exponents, layer.down)
