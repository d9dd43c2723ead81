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


def leaf(position, token, state, drawn=None):
    """`drawn` is the digest of the logits, the random number and the next token."""
    fields = u32(position) + u32(token) + state
    if drawn is None:
        return hashed("peerproof leaf v1", fields + b"\0")
    logits, number, following = drawn
    return hashed("peerproof leaf v1", fields + b"\1" + logits + u64(number) + u32(following))


def closing(stop, tokens, text):
    text = text.encode()
    inner = hashed("peerproof text v1", u64(len(text)) + text)
    return hashed("peerproof closing v1", bytes([stop]) + u32(tokens) + inner)


def root(leaves):
    """Level by level: neighbours are joined, a last one without neighbour moves up."""
    level = leaves
    while len(level) > 1:
        pairs = [
            hashed("peerproof node v1", a + b) for a, b in zip(level[::2], level[1::2])
        ]
        level = pairs + level[len(pairs) * 2 :]
    return hashed("peerproof root v1", u32(len(leaves)) + (level[0] if level else bytes(32)))
