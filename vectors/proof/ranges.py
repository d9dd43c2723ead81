"""Openings of byte ranges, from docs/spec/proof.md section 12.

Python's BLAKE3 package does not show chaining values, so the compression
function is here, as the BLAKE3 paper (section 2) describes it.
"""

import struct

from blake3 import blake3

IV = struct.unpack("<8I", bytes.fromhex(
    "67e6096a85ae67bb72f36e3c3af54fa57f520e518c68059babd9831f19cde05b"))
PERMUTED = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT, KEYED = 1, 2, 4, 8, 16
MASK = 0xFFFFFFFF


def turned(value, by):
    return (value >> by | value << (32 - by)) & MASK


def mix(state, a, b, c, d, x, y):
    for message, one, two in ((x, 16, 12), (y, 8, 7)):
        state[a] = (state[a] + state[b] + message) & MASK
        state[d] = turned(state[d] ^ state[a], one)
        state[c] = (state[c] + state[d]) & MASK
        state[b] = turned(state[b] ^ state[c], two)


def compress(chain, block, counter, flags):
    words = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    state = [*chain, *IV[:4], counter & MASK, counter >> 32, len(block), flags]
    for _ in range(7):
        for i in range(4):
            mix(state, i, 4 + i, 8 + i, 12 + i, words[2 * i], words[2 * i + 1])
        for i in range(4):
            places = i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4
            mix(state, *places, words[8 + 2 * i], words[9 + 2 * i])
        words = [words[place] for place in PERMUTED]
    return tuple(state[i] ^ state[i + 8] for i in range(8))


class Blake3:
    """Values of subtrees, in hash mode or under a key."""

    def __init__(self, key=None):
        self.key = struct.unpack("<8I", key) if key else IV
        self.flags = KEYED if key else 0

    def chunk(self, data, counter, top):
        chain = self.key
        blocks = [data[i : i + 64] for i in range(0, len(data), 64)] or [b""]
        for i, block in enumerate(blocks):
            last = i == len(blocks) - 1
            flags = self.flags | (CHUNK_START if i == 0 else 0) | (CHUNK_END if last else 0)
            chain = compress(chain, block, counter, flags | (ROOT if last and top else 0))
        return struct.pack("<8I", *chain)

    def parent(self, left, right, top):
        flags = self.flags | PARENT | (ROOT if top else 0)
        return struct.pack("<8I", *compress(self.key, left + right, 0, flags))

    def subtree(self, data, counter, top):
        """Value of the subtree over `data`, which begins with chunk `counter`."""
        chunks = max(1, -(-len(data) // 1024))
        if chunks == 1:
            return self.chunk(data, counter, top)
        split = half(chunks)
        left = self.subtree(data[: split * 1024], counter, False)
        right = self.subtree(data[split * 1024 :], counter + split, False)
        return self.parent(left, right, top)


def half(count):
    """The largest power of two below count."""
    return 1 << (count - 1).bit_length() - 1


def open_range(tree, data, group, covered):
    """The hashes beside the covered groups, and the hash they lead to."""
    hashes = []
    groups = max(1, -(-len(data) // group))

    def value(first, count, top):
        part = data[first * group : (first + count) * group]
        if first >= covered.stop or first + count <= covered.start:
            hashes.append(tree.subtree(part, first * group // 1024, top))
            return hashes[-1]
        if count == 1:
            return tree.subtree(part, first * group // 1024, top)
        split = half(count)
        left = value(first, split, False)
        right = value(first + split, count - split, False)
        return tree.parent(left, right, top)

    return hashes, value(0, groups, True)


def check_ranges(vectors, same):
    key = bytes.fromhex(vectors["key"])
    for one in vectors["openings"]:
        place = f"range {one['start']}..{one['end']} of {one['length']}, g {one['g']}"
        data = bytes(index % 251 for index in range(one["length"]))
        tree = Blake3(key if one["keyed"] else None)
        group = 1024 << one["g"]
        covered = range(one["start"] // group, max(1, -(-one["end"] // group)))
        same(f"{place}: cover", one["cover"],
             [covered.start * group, min(len(data), covered.stop * group)])
        hashes, root = open_range(tree, data, group, covered)
        same(f"{place}: root", one["root"], root)
        expected = blake3(data, key=key) if one["keyed"] else blake3(data)
        same(f"{place}: whole hash", expected.hexdigest(), root)
        same(f"{place}: hashes", one["hashes"], [value.hex() for value in hashes])
        groups = range(max(1, -(-len(data) // group)))
        values = [
            tree.subtree(data[i * group : (i + 1) * group], i * group // 1024, len(groups) == 1)
            for i in groups
        ]
        same(f"{place}: values", one["values"],
             [values[i].hex() for i in covered])
        header = b"PPTREE01" + bytes([one["keyed"], one["g"]]) + struct.pack("<Q", len(data))
        same(f"{place}: stored tree", one["stored_tree"], header + root + b"".join(values))
