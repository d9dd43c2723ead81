"""BLAKE3 in plain Python, with the values within its tree: sections 3 and 12 of the
specification of proofs. Slow, and short enough to be read."""

import struct

CHUNK_START, CHUNK_END, PARENT, ROOT, KEYED = 1, 2, 4, 8, 16
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
MASK = 0xFFFFFFFF


def compress(value, words, counter, length, flags):
    state = list(value) + list(IV[:4]) + [counter & MASK, counter >> 32, length, flags]

    def turn(word, by):
        return (word >> by | word << (32 - by)) & MASK

    def mix(a, b, c, d, x, y):
        for message, (first, second) in ((x, (16, 12)), (y, (8, 7))):
            state[a] = (state[a] + state[b] + message) & MASK
            state[d] = turn(state[d] ^ state[a], first)
            state[c] = (state[c] + state[d]) & MASK
            state[b] = turn(state[b] ^ state[c], second)

    for _ in range(7):
        for at in range(4):
            mix(at, 4 + at, 8 + at, 12 + at, words[2 * at], words[2 * at + 1])
        for at in range(4):
            places = at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4
            mix(*places, words[8 + 2 * at], words[9 + 2 * at])
        words = [words[at] for at in ORDER]
    return tuple(state[at] ^ state[8 + at] for at in range(8))


class Mode:
    """Hash mode, or keyed mode."""

    def __init__(self, key=None):
        self.value = struct.unpack("<8I", key) if key else IV
        self.flags = KEYED if key else 0

    def chunk(self, data, counter, root=False):
        value = self.value
        blocks = [data[at : at + 64] for at in range(0, len(data), 64)] or [b""]
        for at, block in enumerate(blocks):
            flags = self.flags | (CHUNK_START if at == 0 else 0)
            if at == len(blocks) - 1:
                flags |= CHUNK_END | (ROOT if root else 0)
            words = struct.unpack("<16I", block.ljust(64, b"\0"))
            value = compress(value, words, counter, len(block), flags)
        return struct.pack("<8I", *value)

    def parent(self, left, right, root=False):
        flags = self.flags | PARENT | (ROOT if root else 0)
        return struct.pack("<8I", *compress(self.value, struct.unpack("<16I", left + right), 0, 64, flags))

    def hash(self, data):
        chunks = max(1, -(-len(data) // 1024))

        def value(first, count, root):
            if count == 1:
                return self.chunk(data[1024 * first : 1024 * (first + 1)], first, root)
            left = left_of(count)
            return self.parent(
                value(first, left, False), value(first + left, count - left, False), root
            )

        return value(0, chunks, True)


def left_of(count):
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


class Refused(Exception):
    """A file that proves nothing, and why."""


def open_slice(mode, digest, length, start, end, data, hashes):
    """The bytes `start … end-1` of the string with this hash and length (groups of 1 KiB)."""
    if not 0 <= start < end <= length:
        raise Refused(f"a range {start}..{end} of {length} bytes")
    chunks = max(1, -(-length // 1024))
    first, last = start // 1024, -(-end // 1024)
    cover = min(length, 1024 * last) - 1024 * first
    if len(data) != cover:
        raise Refused(f"a slice of {len(data)} bytes, expected {cover}")
    rest = iter(hashes)

    def value(at, count, root):
        if at >= last or at + count <= first:
            beside = next(rest, None)
            if beside is None:
                raise Refused("too few hashes beside a slice")
            return beside
        if count == 1:
            place = 1024 * (at - first)
            return mode.chunk(data[place : place + 1024], at, root)
        left = left_of(count)
        one = value(at, left, False)
        return mode.parent(one, value(at + left, count - left, False), root)

    if value(0, chunks, True) != digest:
        raise Refused("a slice does not lead to its digest")
    if next(rest, None) is not None:
        raise Refused("too many hashes beside a slice")
    return data[start - 1024 * first : end - 1024 * first]
