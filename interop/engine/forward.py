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
from families import Shape, half_up
from tables import EXP, SIG
from weights import Matrix, Vector


def square_sums(rows):
    """Σ x² of each row, as Python integers: x² may need 64 bits, the sum 78."""
    high, low = rows >> 16, rows & 0xFFFF
    parts = ((high * high).sum(axis=1), (high * low).sum(axis=1), (low * low).sum(axis=1))
    return [(int(a) << 32) + (int(b) << 17) + int(c) for a, b, c in zip(*parts)]


def unit(rows, exponents, epsilon):
    """UNIT of section 5, for each row with its exponent."""
    n = rows.shape[1]
    roots, powers = [], []
    for total, e in zip(square_sums(rows), exponents.tolist()):
        total += min(2**100, max(1, half_up(epsilon * n * Fraction(4) ** e)))
        k = max(0, (60 + total.bit_length() - n.bit_length() - 3) // 2)
        while n * 4**k // total < 2**60:
            k += 1
        if not n * 4**k // total < 2**62:
            raise Overflow(f"no k for a sum of {total}")
        roots.append(math.isqrt(n * 4**k // total))
        powers.append(k)
    if largest(rows) * max(roots) >= 2**62:
        raise Overflow("x · R")
    u = shift(rows * np.array(roots)[:, None], np.array(powers)[:, None] - 20)
    if largest(u) >= 2**29:
        raise Overflow("u")
    return u


def norm(rows, gain, epsilon):
    """`norm` of section 5, for each residual row: 16-bit integers and exponents."""
    u = unit(rows, np.full(len(rows), 12), epsilon)
    return canonical(u * gain.values, 20 + gain.exponent)


def wide_norm(rows, exponents, gain, epsilon):
    """WIDE_NORM of section 5 over the last axis; exponents as the other axes."""
    flat, e = rows.reshape(-1, rows.shape[-1]), exponents.reshape(-1)
    by = np.maximum(bits(np.abs(flat).max(axis=1)) - 30, 0)
    u = unit(shift(flat, by[:, None]), e - by, epsilon)
    return (u * gain.values).reshape(rows.shape), np.full_like(exponents, 20 + gain.exponent)


def curve(table, size):
    """The table between its entries; 0 beyond them."""
    i = np.minimum(size >> 12, 1024)
    r = np.where(i < 1024, size & 4095, 0)
    return np.where(i < 1024, table[i] - shift((table[i] - table[i + 1]) * r, 12), 0)


def gated(gate, table):
    """shift(G · T', 24) of section 6."""
    t = curve(table, np.abs(gate))
    return shift(gate * np.where(gate < 0, t, 2**24 - t), 24)


def soft(values, limit):
    """SOFT of section 6; a limit of 0 is none."""
    if limit == 0:
        return values
    t = curve(SIG, shift(np.abs(values) * (2**43 // limit), 24))
    return np.sign(values) * shift(limit * (2**24 - 2 * t), 24)


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

    def rows(self):
        """What the transcript commits to: an array a layer, with a row a position."""
        out = []
        for keys, key_exponents, values, value_exponents in self.layers:
            parts = (keys, key_exponents[..., None], values, value_exponents[..., None])
            out.append(np.concatenate(parts, axis=2).reshape(len(keys), -1))
        return out

    def key_digests(self, position):
        """A line a layer: what the keys of a position are, to find where two runs part."""
        lines = []
        for index, (keys, exponents, _, _) in enumerate(self.layers):
            row = np.concatenate([keys[position].reshape(-1), exponents[position]])
            lines.append(f"keys of layer {index} {blake3(row.astype('<i2').tobytes()).hexdigest()}")
        return lines


class Layer:
    def __init__(self, shape, index):
        family, tensors = shape.family, shape.tensors

        def vector(part, present=True):
            return Vector(tensors[f"blk.{index}.{part}"]) if present else None

        def matrices(part, *rows):
            tensor, first, out = tensors[f"blk.{index}.{part}.weight"], 0, []
            for count in rows:
                out.append(Matrix(tensor, first, count))
                first += count
            return out

        self.window = shape.window if shape.has_window(index) else 0
        self.attn_norm, self.ffn_norm = vector("attn_norm.weight"), vector("ffn_norm.weight")
        self.biases = [vector(f"attn_{part}.bias", family.biases) for part in "qkv"]
        self.head_norms = [vector(f"attn_{part}_norm.weight", family.head_norms) for part in "qk"]
        self.post_attention = vector("post_attention_norm.weight", family.post_norms)
        self.post_feed = vector("post_ffw_norm.weight", family.post_norms)
        self.out, self.down = (
            Matrix(tensors[f"blk.{index}.{part}.weight"]) for part in ("attn_output", "ffn_down")
        )
        if family.fused:
            kv, feed = shape.kv_heads * shape.head, shape.key("feed_forward_length")
            self.qkv = matrices("attn_qkv", shape.heads * shape.head, kv, kv)
            self.gate, self.up = matrices("ffn_up", feed, feed)
        else:
            self.qkv = [Matrix(tensors[f"blk.{index}.attn_{part}.weight"]) for part in "qkv"]
            self.gate, self.up = (
                Matrix(tensors[f"blk.{index}.ffn_{part}.weight"]) for part in ("gate", "up")
            )


class Model:
    def __init__(self, gguf, positions):
        self.shape = shape = Shape(gguf)
        self.whole_turns, self.window_turns = shape.rotations(positions)
        self.embedding = Matrix(gguf.tensors["token_embd.weight"])
        self.output_norm = Vector(gguf.tensors["output_norm.weight"])
        head = gguf.tensors.get("output.weight")
        self.output = Matrix(head) if head else self.embedding
        self.layers = [Layer(shape, i) for i in range(shape.layers)]

    def forward(self, parts):
        """Runs `parts`, pairs of a sequence and its next tokens.

        States in their order, and beside each the rows that entered the layers.
        """
        tokens = np.concatenate([np.array(tokens, dtype=np.int64) for _, tokens in parts])
        places = [(s, s.position + np.arange(len(tokens))) for s, tokens in parts]
        x, entered = self.embed(tokens), []
        for index, layer in enumerate(self.layers):
            entered.append(x)
            x = self.attend(x, layer, index, places)
            x = self.feed(x, layer)
        for sequence, positions in places:
            sequence.position += len(positions)
        return x, np.concatenate(entered, axis=1)

    def embed(self, tokens):
        rows, exponent = self.embedding.take(tokens), self.embedding.exponent
        if not self.shape.family.scaled:
            return narrow(rows, exponent - 12)
        root = (math.isqrt(self.shape.width << 42) + 1) // 2
        return narrow(rows * root, exponent + 8)

    def logits(self, states):
        y, exponents = norm(states, self.output_norm, self.shape.epsilon)
        out = narrow(product(y, self.output), (self.output.exponent + exponents - 10)[:, None])
        return soft(out, self.shape.logit_cap)

    def add(self, x, rows, exponents, matrix, post):
        out, exponents = product(rows, matrix), matrix.exponent + exponents
        if post:
            out, exponents = wide_norm(out, exponents, post, self.shape.epsilon)
        return clamp(x + narrow(out, (exponents - 12)[:, None]), LIMIT31)

    def heads_of(self, y, exponents, matrix, bias, gain):
        """A product cut into heads, their exponents, and the P of section 6."""
        out, exponents = product(y, matrix), exponents + matrix.exponent
        power = (self.shape.width - 1).bit_length() + matrix.keeps_below + 15
        if bias:
            common = np.minimum(exponents, bias.exponent + power - 20)
            out = shift(out, (exponents - common)[:, None])
            out = out + shift(bias.values[None, :], (bias.exponent - common)[:, None])
            exponents, power = common, power + 1
        out = out.reshape(len(y), -1, self.shape.head)
        exponents = np.repeat(exponents[:, None], out.shape[1], axis=1)
        if gain:
            out, exponents = wide_norm(out, exponents, gain, self.shape.epsilon)
            power = 0
        return out, exponents, power

    def rotate(self, heads, exponents, power, turns, positions):
        narrower = max(0, power - 46)
        heads = shift(heads, narrower)
        if largest(heads) >= 2**47:
            raise Overflow("a head before its rotation")
        turned = self.shape.turned
        if self.shape.family.halves:
            first, second = slice(0, turned // 2), slice(turned // 2, turned)
        else:
            first, second = slice(0, turned, 2), slice(1, turned, 2)
        cos, sin = (table[positions][:, None, :] for table in turns)
        a, b = heads[..., first], heads[..., second]
        out = heads * 2**14
        out[..., first] = a * cos - b * sin
        out[..., second] = a * sin + b * cos
        return canonical(out, exponents - narrower + 14)

    def attend(self, x, layer, index, places):
        y, exponents = norm(x, layer.attn_norm, self.shape.epsilon)
        positions = np.concatenate([positions for _, positions in places])
        turns = self.window_turns if layer.window else self.whole_turns
        q, k, v = (
            self.heads_of(y, exponents, *parts)
            for parts in zip(layer.qkv, layer.biases, [*layer.head_norms, None])
        )
        q, k = self.rotate(*q, turns, positions), self.rotate(*k, turns, positions)
        v = canonical(*v[:2])
        rows, row_exponents, at = [], [], 0
        for sequence, own in places:
            part = slice(at, at + len(own))
            at += len(own)
            past = sequence.extend(index, k[0][part], k[1][part], v[0][part], v[1][part])
            out, out_exponents = self.mix(q[0][part], q[1][part], own, past, layer.window)
            least = out_exponents.min(axis=1)
            out = shift(out, (out_exponents - least[:, None])[..., None])
            rows.append(out.reshape(len(own), -1))
            row_exponents.append(least)
        y, exponents = canonical(np.concatenate(rows), np.concatenate(row_exponents))
        return self.add(x, y, exponents, layer.out, layer.post_attention)

    def mix(self, q, q_exponents, positions, past, window):
        """Scores and outputs of the heads of one sequence: queries × heads × dimensions."""
        k, k_exponents, v, v_exponents = past
        group = self.shape.heads // self.shape.kv_heads
        # By query head: heads × queries or positions × dimensions.
        q, q_exponents = q.transpose(1, 0, 2), q_exponents.T[:, :, None]
        k, k_exponents = (np.repeat(a.swapaxes(0, 1), group, axis=0) for a in (k, k_exponents))
        v, v_exponents = (np.repeat(a.swapaxes(0, 1), group, axis=0) for a in (v, v_exponents))
        inner = dot(q, k.transpose(0, 2, 1))
        if largest(inner) * self.shape.factor >= 2**62:
            raise Overflow("a score")
        scores = shift(inner * self.shape.factor, q_exponents + k_exponents[:, None, :] + 14)
        scores = soft(clamp(scores, 2**30), self.shape.score_cap)
        read = np.arange(k.shape[1])[None, None, :]
        seen = read <= positions[None, :, None]
        if window:
            seen &= read > positions[None, :, None] - window
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
        y, exponents = norm(x, layer.ffn_norm, self.shape.epsilon)
        gate, up = (
            narrow(product(y, m), (m.exponent + exponents - 18)[:, None])
            for m in (layer.gate, layer.up)
        )
        rows = gated(gate, self.shape.family.curve) * up
        y, exponents = canonical(rows, np.full(len(x), 36))
        return self.add(x, y, exponents, layer.down, layer.post_feed)
