"""Judges the proof of a dispute: section 15 of the specification of proofs, in plain integers.

    python interop/disputes/verify.py FILE…

prints for each file who is convicted and by what, or why it proves nothing; exit status 1 if
any proves nothing. Shares no code with the Rust implementation; tables and the reading of
weight blocks are those of `interop/engine`.
"""

import json
import struct
import sys
from fractions import Fraction
from math import isqrt
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "engine"))

import numpy as np  # noqa: E402
import tables  # noqa: E402
import weights  # noqa: E402
from blake3tree import Mode, Refused, open_slice  # noqa: E402
from messages import PROOF, RECEIPT, TRACE, decode, open_envelope  # noqa: E402

MAGIC = b"peerproof dispute proof v1\n"
EXP, SIG, GELU = ([int(v) for v in table] for table in (tables.EXP, tables.SIG, tables.GELU))
LIMIT = 2**31 - 1
NAMES = (
    "norm before attention", "query product", "key product", "value product", "query head",
    "key head", "value head", "attention score", "largest score", "sum of weights",
    "smallest exponent of values", "weighted sum", "attention output", "joined heads",
    "attention output product", "residual after attention", "norm before feed-forward",
    "gate product", "up product", "gated row", "gated row at 16 bits", "down product",
    "residual that leaves", "last norm", "logit", "embedding",
)
PRODUCTS = {2: (1, 0, 1), 3: (2, 0, 2), 4: (3, 0, 3), 15: (4, 6, 7), 18: (5, 9, 10), 19: (6, 9, 11), 22: (7, 13, 14)}
PLAIN = Mode()


def tagged(tag, data):
    return PLAIN.hash(tag + b"\0" + data)


def u32(value):
    return value.to_bytes(4, "little")


# Section 1 of the arithmetic.


def shift(v, s):
    return (v + (1 << s - 1)) >> s if s > 0 else v << -s


def narrow(v, s):
    return max(-LIMIT, min(LIMIT, shift(v, s)))


def short_shift(top):
    t = top.bit_length() - 15
    return t + 1 if t > 0 and shift(top, t) == 32768 else t


def short(row, exponent):
    top = max(map(abs, row))
    if top == 0:
        return [0] * len(row), 127
    t = short_shift(top)
    return [shift(v, t) for v in row], exponent - t


# Sections 5 and 6.


def unit(row, exponent, epsilon):
    n = len(row)
    added = Fraction(n) * epsilon * Fraction(4) ** exponent
    total = sum(v * v for v in row)
    total += min(2**100, max(1, (added + Fraction(1, 2)).__floor__()))
    k = 0
    while (n << 2 * k) // total < 2**60:
        k += 1
    root = isqrt((n << 2 * k) // total)
    return [shift(v * root, k - 20) for v in row]


def wide_norm(row, exponent, gain, epsilon):
    t = max(0, max(map(abs, row)).bit_length() - 30)
    u = unit([shift(v, t) for v in row], exponent - t, epsilon)
    return [v * g for v, g in zip(u, gain[0])], 20 + gain[1]


def curve(table, size):
    i, r = size >> 12, size & 4095
    return table[i] - shift((table[i] - table[i + 1]) * r, 12) if i < 1024 else 0


def soft(v, limit):
    if limit == 0:
        return v
    t = curve(SIG, shift(abs(v) * (2**43 // limit), 24))
    capped = shift(limit * (2**24 - 2 * t), 24)
    return -capped if v < 0 else capped


def weight(score, largest):
    return EXP[min(max(largest - score, 0), 16384)]


def integers(tensor, data):
    """The integers of whole blocks at the exponent that was signed."""
    if tensor.format in weights.PLAIN:
        kind = type("Tensor", (), {"kind": tensor.format})
        out = []
        for value in weights.plain(kind, data):
            if not np.isfinite(value):
                raise Refused("an infinity or NaN among the weights")
            scaled = Fraction(float(value)) * Fraction(2) ** tensor.exponent
            out.append((scaled + Fraction(1, 2)).__floor__())
        return out
    columns, size, reader = weights.FORMATS[tensor.format]
    try:
        parts = reader(np.frombuffer(data, dtype=np.uint8).reshape(-1, size))
    except ValueError as error:
        raise Refused(str(error)) from None
    out = []
    for q, d, s, m, t in zip(*(part.tolist() for part in parts)):
        d, m = (shift(v[0], 24 - tensor.exponent) for v in (d, m))
        out.extend(d * s[0] * v + m * t[0] for v in q)
    return out


class Judge:
    def __init__(self, proof):
        self.proof = proof
        self.receipt = open_envelope(proof.receipt, b"peerproof receipt v1", RECEIPT)
        self.trace = open_envelope(proof.trace, b"peerproof trace v1", TRACE)
        self.part = None
        if proof.part is not None:
            self.part = open_envelope(proof.part, b"peerproof trace v1", TRACE)
        self.operation, self.index = proof.operation, proof.index
        if not 1 <= self.operation <= len(NAMES):
            raise Refused(f"operation {self.operation}: there is none")
        self.check_leaf()
        self.check_layout()
        self.check_statements()

    def check_leaf(self):
        leaf, receipt = self.proof.leaf, self.receipt
        n = receipt.leaves
        if leaf is None or leaf.position >= n:
            raise Refused("no leaf, or none of the receipt's")
        drawn = b"\0"
        if leaf.drawn is not None:
            draw = leaf.drawn.draw.to_bytes(8, "little")
            drawn = b"\1" + leaf.drawn.logits + draw + u32(leaf.drawn.next)
        body = u32(leaf.position) + u32(leaf.token) + leaf.state + leaf.layers + drawn
        value, i, width, path = tagged(b"peerproof leaf v2", body), leaf.position, n, list(self.proof.path)
        while width > 1:
            if i ^ 1 < width:
                if not path:
                    raise Refused("the leaf's path is too short")
                pair = (value, path.pop(0)) if i % 2 == 0 else (path.pop(0), value)
                value = tagged(b"peerproof node v1", pair[0] + pair[1])
            i, width = i // 2, -(-width // 2)
        if path or tagged(b"peerproof root v1", u32(n) + value) != receipt.transcript_root:
            raise Refused("the leaf does not lead to the receipt")

    def check_layout(self):
        it = self.trace.layout
        if it is None:
            raise Refused("no layout")
        sizes = it.width, it.heads, it.kv_heads, it.head_dims, it.feed
        if not all(1 <= size <= 2**16 for size in sizes) or not 1 <= it.vocabulary <= 2**24:
            raise Refused("a size in the layout")
        if it.head_dims > 256 or it.heads % it.kv_heads or it.heads * it.head_dims > 2**16:
            raise Refused("heads in the layout")
        if not 1 <= it.layers <= 1024 or it.first > self.trace.cell.position:
            raise Refused("layers in the layout")
        if len(it.angles) % 4 or len(it.angles) // 2 > it.head_dims:
            raise Refused("angles in the layout")
        for cap in (it.score_cap, it.logit_cap):
            if cap and not 2**12 <= cap <= 2**30:
                raise Refused("a cap in the layout")
        exponent, mantissa = it.epsilon >> 23 & 255, it.epsilon & (2**23 - 1)
        if it.epsilon >> 31 and it.epsilon != 2**31 or exponent == 255:
            raise Refused("epsilon in the layout")
        mantissa = mantissa + 2**23 if exponent else mantissa
        self.epsilon = Fraction(mantissa) * Fraction(2) ** (max(exponent, 1) - 150)
        if self.epsilon >= 1:
            raise Refused("epsilon in the layout")
        self.n, self.d, self.f = it.width, it.head_dims, it.feed
        self.heads, self.kv_heads = it.heads, it.kv_heads
        self.reads = self.trace.cell.position + 1 - it.first
        self.layout, self.cell = it, self.trace.cell
        self.is_head = self.cell.layer == it.layers
        if self.cell.layer > it.layers:
            raise Refused("the model has no such layer")

    def check_statements(self):
        for it in (self.trace, self.part):
            if it is None:
                continue
            if it.key != self.receipt.key or it.receipt_id != self.receipt.id:
                raise Refused("a trace is another's, or of another receipt")
        if self.trace.part is not None or self.cell.position != self.proof.leaf.position:
            raise Refused("the trace is not of the leaf's cell")
        if self.cell.position >= self.receipt.leaves - 1:
            raise Refused("the transcript has no such position")
        if len(self.trace.rows) != (1 if self.is_head else 15):
            raise Refused("another number of rows in the trace")
        wants_part = 8 <= self.operation <= 13
        if (self.part is not None) != wants_part or (self.operation in (24, 25)) != self.is_head:
            raise Refused("the operation is none of this trace")
        if self.operation == 26 and self.cell.layer:
            raise Refused("embeddings enter the first layer only")
        if self.part is not None:
            it = self.part
            same = vars(it.cell) == vars(self.cell) and plain(it.layout) == plain(self.layout)
            if not same or it.part is None or len(it.rows) != 3:
                raise Refused("the part is of another cell")
            self.head, self.dim = it.part.head, it.part.dim
            if self.head >= self.heads or self.dim >= self.d:
                raise Refused("the part is of no head")

    # What strings there are: mode, digest, length.

    def row_length(self, row):
        n, d, f, h, k = self.n, self.d, self.f, self.heads, self.kv_heads
        if self.is_head:
            return 2 * n
        return (2 * n, 8 * h * d, 8 * k * d, 8 * k * d, 2 * h * (d + 1), 4 * h * (d + 1),
                2 * h * d, 8 * n, 4 * n, 2 * n, 8 * f, 8 * f, 8 * f, 2 * f, 8 * n)[row]

    def string(self, source):
        kind, *which = source
        leaf, offer = self.proof.leaf, self.receipt.offer_id
        rows = Mode(PLAIN.hash(b"peerproof trace row v1\0"))

        def row_key(tag, count):
            return Mode(Mode(offer).hash(tag + b"\0" + count.to_bytes(8, "little")))

        if kind == "row":
            return rows, self.trace.rows[which[0]].digest, self.row_length(which[0])
        if kind == "part":
            blocks = -(-self.reads // 8)
            return rows, self.part.rows[which[0]].digest, (4 * self.reads, 8 * blocks, 8 * blocks)[which[0]]
        if kind == "rows":
            return Mode(tagged(b"peerproof layers v1", b"")), leaf.layers, 4 * self.n * self.layout.layers
        if kind == "state":
            return row_key(b"peerproof state v1", self.n), leaf.state, 4 * self.n
        if kind == "logits":
            if leaf.drawn is None:
                raise Refused("no token is drawn at this position")
            count = self.layout.vocabulary
            return row_key(b"peerproof logits v1", count), leaf.drawn.logits, 4 * count
        if kind == "page":
            count = min(64, self.receipt.leaves - 1 - 64 * which[0])
            mode = Mode(tagged(b"peerproof keys and values v1", b""))
            return mode, self.proof.kv_pages[which[0]], count * 4 * self.kv_heads * (self.d + 1)
        return PLAIN, self.receipt.model_id, self.layout.file_bytes

    def check_pages(self, needs):
        layers, pages = self.proof.kv_layers, self.proof.kv_pages
        if not any(need[0][0] == "page" for need in needs):
            if layers or pages:
                raise Refused("digests of keys and values that nothing reads")
            return
        m = self.receipt.leaves - 1
        if len(layers) != self.layout.layers or len(pages) != -(-m // 64):
            raise Refused("another number of digests of keys and values")
        root = tagged(b"peerproof kv root v1", u32(len(layers)) + b"".join(layers))
        own = tagged(b"peerproof kv layer v1", u32(self.cell.layer) + u32(m) + b"".join(pages))
        if root != self.receipt.kv_root or own != layers[self.cell.layer]:
            raise Refused("keys and values do not lead to the receipt")

    # What operations read.

    def tensor(self, name, missing=False):
        found = next((it for it in self.layout.tensors if it.name == name), None)
        if found is None and not missing:
            raise Refused(f"tensor {name} is not in the layout")
        if found and found.format not in weights.PLAIN and found.format not in weights.FORMATS:
            raise Refused(f"format {found.format}")
        return found

    def file(self, name, start, count):
        it = self.tensor(name)
        if it.format in weights.PLAIN:
            columns, size = 1, np.dtype(weights.PLAIN[it.format]).itemsize
        else:
            columns, size, _ = weights.FORMATS[it.format]
        if start % columns or count % columns:
            raise Refused("a row that is no whole number of blocks")
        begin = it.start + start // columns * size
        return ("file",), begin, begin + count // columns * size

    def number_of(self, row, index, size):
        return ("row", row), size * index, size * (index + 1)

    def whole(self, row):
        return ("row", row), 0, self.row_length(row)

    def entering(self, start, count):
        start += self.cell.layer * self.n
        return ("rows",), 4 * start, 4 * (start + count)

    def kv(self, position, head, is_value, first, end):
        start = position % 64 * 4 * self.kv_heads * (self.d + 1) + (2 * head + is_value) * 2 * (self.d + 1)
        return ("page", position // 64), start + 2 * first, start + 2 * end

    def of_part(self, row, first, end):
        size = 4 if row == 0 else 8
        return ("part", row), size * first, size * end

    def outputs(self):
        op, h, k, d = self.operation, self.heads, self.kv_heads, self.d
        if op in (1, 14, 17, 24):
            return 1
        return {2: h * d, 3: k * d, 4: k * d, 5: h * (d + 1), 6: k * (d + 1), 7: k * (d + 1),
                8: self.reads, 9: self.reads, 10: -(-self.reads // 8), 11: self.reads,
                12: -(-self.reads // 8), 13: h * (d + 1), 18: self.f, 19: self.f, 20: self.f,
                21: self.f, 25: self.layout.vocabulary}.get(op, self.n)

    def needs(self):
        op, k, n, d = self.operation, self.index, self.n, self.d
        if k >= self.outputs():
            raise Refused("the operation has no such output")
        if op in PRODUCTS:
            matrix, read, gives = PRODUCTS[op]
            columns = {4: self.heads * d, 7: self.f}.get(matrix, n)
            return [self.whole(read), self.file(matrix, k * columns, columns), self.number_of(gives, k, 8)]
        if op in (5, 6, 7):
            which, head = op - 5, k // (d + 1)
            needs = [(("row", 1 + which), 8 * head * d, 8 * (head + 1) * d)]
            if self.tensor(10 + which, missing=True):
                needs.append(self.file(10 + which, head * d, d))
            if which < 2 and self.tensor(13 + which, missing=True):
                needs.append(self.file(13 + which, 0, d))
            place = k % (d + 1)
            own = self.kv(self.cell.position, head, which == 2, place, place + 1)
            return needs + [self.number_of(4, k, 2) if which == 0 else own]
        if op in (16, 23):
            product, post = (7, 15) if op == 16 else (14, 16)
            needs = [self.entering(k, 1) if op == 16 else self.number_of(8, k, 4)]
            if self.tensor(post, missing=True):
                needs += [self.whole(product), self.file(post, k, 1)]
            else:
                needs.append(self.number_of(product, k, 8))
            if op == 16:
                return needs + [self.number_of(8, k, 4)]
            if self.cell.layer + 1 == self.layout.layers:
                return needs + [(("state",), 4 * k, 4 * k + 4)]
            return needs + [self.entering(n + k, 1)]
        if 8 <= op <= 13:
            return self.part_needs()
        largest = self.trace.rows[13].index if op == 21 else 0
        largest = largest if largest < self.f else k
        return {
            1: lambda: [self.entering(0, n), self.file(8, 0, n)],
            14: lambda: [self.whole(5)],
            17: lambda: [self.whole(8), self.file(9, 0, n)],
            20: lambda: [self.number_of(row, k, 8) for row in (10, 11, 12)],
            21: lambda: [self.number_of(12, k, 8), self.number_of(12, largest, 8), self.number_of(13, k, 2)],
            24: lambda: [(("state",), 0, 4 * n), self.file(18, 0, n)],
            25: lambda: [self.whole(0), self.file(17, k * n, n), (("logits",), 4 * k, 4 * k + 4)],
            26: lambda: [self.file(19, self.proof.leaf.token * n, n), self.entering(k, 1)],
        }[op]()

    def part_needs(self):
        op, k, d = self.operation, self.index, self.d
        head = self.head // (self.heads // self.kv_heads)
        largest = self.part.rows[0].index
        largest = largest if largest < self.reads else 0
        largest = self.of_part(0, largest, largest + 1)
        first, own = self.layout.first, self.of_part(0, k, k + 1)
        if op == 8:
            size = 2 * (d + 1)
            query = ("row", 4), size * self.head, size * (self.head + 1)
            return [query, self.kv(first + k, head, 0, 0, d + 1), own]
        if op == 9:
            return [own, largest]
        if op == 11:
            return [own, largest, self.kv(first + k, head, 1, d, d + 1)]
        if op in (10, 12):
            row, block = (1 if op == 10 else 2), range(8 * k, min(8 * k + 8, self.reads))
            needs = [self.of_part(0, block.start, block.stop), largest]
            if op == 12:
                needs += [self.kv(first + at, head, 1, self.dim, d + 1) for at in block]
            if k:
                needs.append(self.of_part(row, k - 1, k))
            return needs + [self.of_part(row, k, k + 1)]
        last, gives = -(-self.reads // 8) - 1, self.number_of(5, k, 4)
        if k % (d + 1) == d:
            return [gives]
        return [self.of_part(1, last, last + 1), self.of_part(2, last, last + 1), gives]

    # What they give.

    def gain(self, name, data):
        tensor = self.tensor(name)
        return [max(-(2**30), min(2**30, v)) for v in integers(tensor, data)], tensor.exponent

    def row_exponent(self, row):
        return self.trace.rows[row].exponent

    def product(self, matrix, data, row):
        return sum(w * v for w, v in zip(integers(self.tensor(matrix), data), row, strict=True))

    def judge(self):
        """What the operation gives and what was signed; None if they agree."""
        needs = self.needs()
        self.check_pages(needs)
        stretches = self.proof.stretches
        if len(needs) != len(stretches):
            raise Refused(f"{len(stretches)} stretches, expected {len(needs)}")
        data = []
        for (source, start, end), stretch in zip(needs, stretches):
            mode, digest, length = self.string(source)
            data.append(open_slice(mode, digest, length, start, end, stretch.bytes, stretch.hashes))
        op = self.operation
        if op in PRODUCTS:
            return differ(self.product(PRODUCTS[op][0], data[1], shorts(data[0])), longs(data[-1])[0])
        if op in (1, 14, 17, 24):
            return self.whole_row(data)
        if op in (5, 6, 7):
            return self.turned(data)
        if op in (16, 23):
            return self.added(data)
        if 8 <= op <= 13:
            return self.attention(data)
        return {20: self.hidden, 21: self.fed, 25: self.logit, 26: self.embedded}[op](data)

    def whole_row(self, data):
        if self.operation == 14:
            numbers, d, aligned = words(data[0]), self.d, []
            heads = [numbers[at : at + d + 1] for at in range(0, len(numbers), d + 1)]
            smallest = min(head[d] for head in heads)
            for head in heads:
                # Beyond 63 places nothing is left of an integer of 32 bits.
                aligned += [shift(v, min(head[d] - smallest, 63)) for v in head[:d]]
            at, (row, exponent) = 6, short(aligned, smallest)
        else:
            name, at = {1: (8, 0), 17: (9, 9), 24: (18, 0)}[self.operation]
            gain, exponent = self.gain(name, data[1])
            u = unit(words(data[0]), 12, self.epsilon)
            row, exponent = short([v * g for v, g in zip(u, gain)], 20 + exponent)
        digest = self.string(("row", at))[0].hash(struct.pack(f"<{len(row)}h", *row))
        signed = self.trace.rows[at]
        return differ((digest.hex(), exponent), (signed.digest.hex(), signed.exponent))

    def turned(self, data):
        which, d = self.operation - 5, self.d
        tensor = self.tensor(1 + which)
        two_levels = tensor.format in weights.FORMATS and weights.FORMATS[tensor.format][0] == 256
        p = (self.n - 1).bit_length() + (25 if two_levels else 19) + 15
        row, exponent, rest = wide(data[0], 58), tensor.exponent + self.row_exponent(0), data[1:-1]
        if self.tensor(10 + which, missing=True):
            bias, own = self.gain(10 + which, rest.pop(0))
            common = min(exponent, own + p - 20)
            limit = 2 ** min(max(p, 0), 60)
            moved = (max(-limit, min(limit, shift(v, own - common))) for v in bias)
            row = [shift(v, exponent - common) + b for v, b in zip(row, moved)]
            exponent, p = common, p + 1
        if which < 2 and self.tensor(13 + which, missing=True):
            row, exponent = wide_norm(row, exponent, self.gain(13 + which, rest.pop(0)), self.epsilon)
            p = 0
        if which < 2:
            w, angles = max(0, p - 46), shorts(self.layout.angles)
            row, pairs = [shift(v, w) for v in row], len(angles) // 2
            for i in range(pairs):
                at = (i, i + pairs) if self.layout.halves else (2 * i, 2 * i + 1)
                (a, b), (cos, sin) = (row[at[0]], row[at[1]]), angles[2 * i : 2 * i + 2]
                row[at[0]], row[at[1]] = a * cos - b * sin, a * sin + b * cos
            row[2 * pairs :] = [v << 14 for v in row[2 * pairs :]]
            exponent += 14 - w
        values, exponent = short(row, exponent)
        return differ((values + [exponent])[self.index % (d + 1)], shorts(data[-1])[0])

    def added(self, data):
        matrix, read, post = (4, 6, 15) if self.operation == 16 else (7, 13, 16)
        exponent = self.tensor(matrix).exponent + self.row_exponent(read)
        product, at = wide(data[1], 58), 0
        if self.tensor(post, missing=True):
            (gain,), own = self.gain(post, data[2])
            gains = [0] * self.n
            gains[self.index], at = gain, self.index
            product, exponent = wide_norm(product, exponent, (gains, own), self.epsilon)
        total = words(data[0])[0] + narrow(product[at], exponent - 12)
        return differ(max(-LIMIT, min(LIMIT, total)), signed_words(data[-1])[0])

    def attention(self, data):
        op, k, part = self.operation, self.index, self.part.rows
        largest, (smallest, coarsest) = part[0].index, (part[2].exponent, part[2].index)
        if op != 8 and largest >= self.reads:
            return f"a position below {self.reads}", largest
        if op == 8:
            (*query, qe), (*key, ke) = shorts(data[0]), shorts(data[1])
            dot = sum(q * v for q, v in zip(query, key)) * self.layout.score_scale
            t = max(-(2**30), min(2**30, shift(dot, qe + ke + 14)))
            return differ(soft(t, self.layout.score_cap), signed_words(data[-1])[0])
        scores, most = signed_words(data[0]), None
        if op != 13:
            most = signed_words(data[1])[0]
        if op == 9:
            return (f"at most {most}", scores[0]) if scores[0] > most else None
        if op == 11:
            if coarsest >= self.reads:
                return f"a position below {self.reads}", coarsest
            e, own = shorts(data[2])[0], weight(scores[0], most)
            wrong = own > 0 and e < smallest or k == coarsest and (own == 0 or e != smallest)
            return (f"{e} at {k}", f"{smallest} at {coarsest}") if wrong else None
        if op in (10, 12):
            total = longs(data[-2])[0] if k else 0
            for at, score in enumerate(scores):
                own = weight(score, most)
                if op == 12 and own:
                    value = shorts(data[2 + at])
                    own = shift(own << 9, max(0, min(63, value[-1] - smallest))) * value[0]
                total += own
            return differ(total, longs(data[-1])[0])
        if k % (self.d + 1) == self.d:
            return differ(smallest + 9, signed_words(data[0])[0])
        (z,), (total,) = wide(data[0], 62), wide(data[1], 62)
        if z <= 0 or z.bit_length() < 7:
            raise Refused("no sum of weights is so small")
        b = z.bit_length()
        a = shift(total, b - 7)
        return differ(shift(a * (2 ** (b + 30) // z), 37), signed_words(data[2])[0])

    def hidden(self, data):
        gate, up = (
            narrow(wide(data[at], 58)[0], self.tensor(5 + at).exponent + self.row_exponent(9) - 18)
            for at in (0, 1)
        )
        t = curve(GELU if self.layout.gelu else SIG, abs(gate))
        t = t if gate < 0 else 2**24 - t
        return differ(shift(gate * t, 24) * up, longs(data[2])[0])

    def fed(self, data):
        (v,), (top,), signed = wide(data[0], 62), wide(data[1], 62), self.trace.rows[13]
        if signed.index >= self.f or abs(v) > abs(top):
            return f"at least {v}", f"{signed.index} as the largest"
        t = short_shift(abs(top)) if top else 0
        exponent = 36 - t if top else 127
        return differ(exponent, signed.exponent) or differ(shift(v, t) if top else 0, shorts(data[2])[0])

    def logit(self, data):
        out = self.product(17, data[1], shorts(data[0]))
        if abs(out) >= 2**62:
            raise Refused("numbers beyond all bounds")
        out = narrow(out, self.tensor(17).exponent + self.row_exponent(0) - 10)
        return differ(soft(out, self.layout.logit_cap), signed_words(data[2])[0])

    def embedded(self, data):
        tensor, scale = self.tensor(19), self.layout.embedding_scale
        own = max(-(2**30), min(2**30, integers(tensor, data[0])[self.index]))
        own, by = (own * scale, tensor.exponent + 8) if scale else (own, tensor.exponent - 12)
        return differ(narrow(own, by), signed_words(data[1])[0])


def differ(expected, got):
    return None if expected == got else (expected, got)


def plain(message):
    """A message as values that can be compared."""
    if isinstance(message, list):
        return [plain(it) for it in message]
    return {k: plain(v) for k, v in vars(message).items()} if hasattr(message, "__dict__") else message


def shorts(data):
    return list(struct.unpack(f"<{len(data) // 2}h", data))


def signed_words(data):
    return list(struct.unpack(f"<{len(data) // 4}i", data))


def words(data):
    """Residual integers, of which none is the least."""
    out = signed_words(data)
    if -(2**31) in out:
        raise Refused("numbers beyond all bounds")
    return out


def longs(data):
    return list(struct.unpack(f"<{len(data) // 8}q", data))


def wide(data, bits):
    out = longs(data)
    if any(abs(v) >= 2**bits for v in out):
        raise Refused("numbers beyond all bounds")
    return out


def verify(file):
    """What a proof shows; `Refused` if it proves nothing."""
    if not file.startswith(MAGIC) or len(file) > len(MAGIC) + 65536:
        raise Refused("this is no proof of a dispute")
    judge = Judge(decode(PROOF, file[len(MAGIC) :]))
    found = judge.judge()
    if found is None:
        raise Refused(f"the operation holds: {NAMES[judge.operation - 1]}, index {judge.index}")
    return {
        "accused": judge.receipt.key.hex(),
        "position": judge.cell.position,
        "layer": judge.cell.layer,
        "operation": NAMES[judge.operation - 1],
        "index": judge.index,
        "expected": str(found[0]),
        "got": str(found[1]),
    }


def main(paths):
    failed = False
    for path in paths:
        try:
            print(json.dumps({"file": path, **verify(Path(path).read_bytes())}))
        except Refused as why:
            failed = True
            print(json.dumps({"file": path, "refused": str(why)}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
