"""Digests, leaves and root of a transcript: sections 1, 3 and 4 of the proof."""

import struct

from blake3 import blake3

STOP_LENGTH = 2


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def hashed(tag, message, key=None):
    return blake3(tag.encode() + b"\0" + message, key=key).digest()


def row_digest(offer, tag, row):
    """`row` is an int64 array whose values fit 32 bits."""
    own = hashed(tag, u64(len(row)), key=offer)
    return blake3(row.astype("<i4").tobytes(), key=own).digest()


def state_digest(offer, row):
    return row_digest(offer, "peerproof state v1", row)


def logits_digest(offer, row):
    return row_digest(offer, "peerproof logits v1", row)


def layers_digest(row):
    """Of the residual rows that enter the layers, one after the other."""
    return blake3(row.astype("<i4").tobytes(), key=hashed("peerproof layers v1", b"")).digest()


def kv_root(layers):
    """`layers` has an int64 array a layer: positions × what a row of section 3 holds."""
    key, ends = hashed("peerproof keys and values v1", b""), []
    for index, rows in enumerate(layers):
        cuts = [rows[at : at + 64] for at in range(0, len(rows), 64)]
        pages = [blake3(cut.astype("<i2").tobytes(), key=key).digest() for cut in cuts]
        message = u32(index) + u32(len(rows)) + b"".join(pages)
        ends.append(hashed("peerproof kv layer v1", message))
    return hashed("peerproof kv root v1", u32(len(ends)) + b"".join(ends))


def leaf(position, token, state, layers, drawn=None):
    """`drawn` is the digest of the logits, the random number and the next token."""
    fields = u32(position) + u32(token) + state + layers
    if drawn is None:
        return hashed("peerproof leaf v2", fields + b"\0")
    logits, number, following = drawn
    return hashed("peerproof leaf v2", fields + b"\1" + logits + u64(number) + u32(following))


def closing(stop, tokens, text, kv_root):
    text = text.encode()
    inner = hashed("peerproof text v1", u64(len(text)) + text)
    return hashed("peerproof closing v2", bytes([stop]) + u32(tokens) + inner + kv_root)


def root(leaves):
    """Level by level: neighbours are joined, a last one without neighbour moves up."""
    level = leaves
    while len(level) > 1:
        pairs = [
            hashed("peerproof node v1", a + b) for a, b in zip(level[::2], level[1::2])
        ]
        level = pairs + level[len(pairs) * 2 :]
    return hashed("peerproof root v1", u32(len(leaves)) + (level[0] if level else bytes(32)))
