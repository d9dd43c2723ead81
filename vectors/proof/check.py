#!/usr/bin/env python3
"""Computes transcript.json, ranges.json and light.json again from docs/spec/proof.md.

Shares no code with the Rust crate. Needs the Python package `blake3`.
Prints one line per group and exits with 1 at the first difference.
"""

import json
import pathlib
import struct
import sys

from blake3 import blake3

from light import check_light
from ranges import check_ranges


def u8(value):
    return struct.pack("<B", value)


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def sized(data):
    return u64(len(data)) + data


def ids(tokens):
    return u64(len(tokens)) + b"".join(map(u32, tokens))


def tagged(tag, message, key=None, length=32):
    return blake3(tag.encode() + b"\0" + message, key=key).digest(length=length)


def row_digest(key, tag, values):
    subkey = tagged(tag, u64(len(values)), key=key)
    return blake3(struct.pack(f"<{len(values)}i", *values), key=subkey).digest()


def leaf_fields(leaf):
    fields = u32(leaf["position"]) + u32(leaf["token"])
    fields += bytes.fromhex(leaf["state"]) + bytes.fromhex(leaf["layers"])
    drawn = leaf["drawn"]
    if drawn is None:
        return fields + u8(0)
    logits = bytes.fromhex(drawn["logits"])
    return fields + u8(1) + logits + u64(int(drawn["draw"])) + u32(drawn["next"])


def leaf_hash(leaf):
    return tagged("peerproof leaf v2", leaf_fields(leaf))


def report(row):
    spellings = [sized(bytes.fromhex(spelling)) for spelling in row["spellings"]]
    message = u32(row["chosen_q16"]) + spellings[0] + u64(len(row["top"]))
    for (token, value), spelling in zip(row["top"], spellings[1:], strict=True):
        message += u32(token) + u32(value) + spelling
    return message


def text_hash(text, logprobs=()):
    return tagged("peerproof text v1", sized(text.encode()) + b"".join(map(report, logprobs)))


def closing_hash(stop, tokens, text, kv_root):
    message = u8(stop) + u32(tokens) + text_hash(text) + bytes.fromhex(kv_root)
    return tagged("peerproof closing v2", message)


def node(left, right):
    return tagged("peerproof node v1", left + right)


def top(hashes):
    """RFC 6962, section 2.1, as written there: split at the largest power of two."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node(top(hashes[:split]), top(hashes[split:]))


def root(hashes):
    return tagged("peerproof root v1", u32(len(hashes)) + (top(hashes) if hashes else bytes(32)))


def climb(index, leaves, leaf, path):
    """The root a path leads to; fails if the path is too short or too long."""
    path, width, result = list(path), leaves, leaf
    while width > 1:
        if index ^ 1 < width:
            sibling = path.pop(0)
            result = node(sibling, result) if index % 2 else node(result, sibling)
        index //= 2
        width = (width + 1) // 2
    assert not path, "path too long"
    return tagged("peerproof root v1", u32(leaves) + result)


def i32(value):
    return value.to_bytes(4, "little", signed=True)


def rules(rules):
    if rules is None:
        return b""
    message = bytes([1]) + u32(rules["min_p_q16"]) + u32(rules["repetition_q16"])
    message += i32(rules["presence_q16"]) + i32(rules["frequency_q16"])
    message += u64(len(rules["bias"]))
    message += b"".join(u32(token) + i32(bias) for token, bias in rules["bias"])
    if rules["constraint"] is None:
        return message + bytes([0])
    kind, text, maker = rules["constraint"]
    return message + bytes([kind]) + sized(text.encode()) + sized(maker.encode())


def sampling_seed(request):
    prompt = request["prompt"]
    if "chat" in prompt:
        body = u8(1) + u64(len(prompt["chat"]))
        for role, content in prompt["chat"]:
            body += sized(role.encode()) + sized(content.encode())
    elif "text" in prompt:
        body = u8(2) + sized(prompt["text"].encode())
    else:
        body = u8(3) + ids(prompt["tokens"])
    stops = b"".join(sized(stop.encode()) for stop in request["stop"])
    message = u32(request["arithmetic"]) + bytes.fromhex(request["model_id"]) + body
    for name in ("temperature_q16", "top_k", "top_p_q16", "max_tokens"):
        message += u32(request[name])
    message += u64(len(request["stop"])) + stops + bytes.fromhex(request["public_nonce"])
    message += rules(request.get("rules"))
    return tagged("peerproof sampling seed v1", message)


def positions(challenge):
    leaves = challenge["leaves"]
    message = bytes.fromhex(challenge["nonce"]) + bytes.fromhex(challenge["root"]) + u32(leaves)
    stream = tagged("peerproof challenge v1", message, length=8 * 16)
    drawn = set()
    for index, highest in enumerate(range(max(0, leaves - 1 - 16), leaves - 1)):
        word = int.from_bytes(stream[8 * index : 8 * index + 8], "little")
        candidate = word * (highest + 1) >> 64
        drawn.add(highest if candidate in drawn else candidate)
    return sorted(drawn | {leaves - 2})


def work(job):
    message = bytes.fromhex(job["offer_id"]) + u32(len(job["leaves"]))
    message += b"".join(map(leaf_fields, job["leaves"]))
    message += u8(job["stop"]) + u32(len(job["tokens"])) + text_hash(job["text"])
    message += bytes.fromhex(job["kv_root"])
    return tagged("peerproof audit work v2", message, key=bytes.fromhex(job["auditor"]))


def same(place, expected, got):
    got = got.hex() if isinstance(got, bytes) else got
    if expected != got:
        sys.exit(f"{place}: expected {expected}, got {got}")


def pattern(length):
    values = [index * 2654435761 % 2**32 for index in range(length)]
    return [value - 2**32 if value >= 2**31 else value for value in values]


def packed(values):
    return struct.pack(f"<{len(values)}i", *values)


def check_cells(vectors):
    """Two layers of rows of 576 integers; 100 positions of 780 bytes of keys and values."""
    one = vectors["cells"]
    layers = blake3(packed(pattern(2 * 576)), key=tagged("peerproof layers v1", b"")).digest()
    same("layers", one["layers"], layers)
    rows = packed(pattern(100 * 195))
    cuts = [rows[at : at + 64 * 780] for at in range(0, len(rows), 64 * 780)]
    pages = [blake3(cut, key=tagged("peerproof keys and values v1", b"")).digest() for cut in cuts]
    same("pages", one["pages"], [page.hex() for page in pages])
    ends = [
        tagged("peerproof kv layer v1", u32(layer) + u32(100) + b"".join(pages))
        for layer in range(2)
    ]
    same("layers of keys and values", one["kv_layers"], [end.hex() for end in ends])
    root = tagged("peerproof kv root v1", u32(2) + b"".join(ends))
    same("root of keys and values", one["kv_root"], root)


def check_rows(vectors):
    key = bytes.fromhex(vectors["key"])
    for row in vectors["rows"]:
        values = pattern(row["length"])
        for name in ("state", "logits"):
            got = row_digest(key, f"peerproof {name} v1", values)
            same(f"{name} row of {row['length']}", row[name], got)


def check_transcript(vectors):
    one = vectors["transcript"]
    hashes = []
    same("root without leaves", one["running_roots"][0], root([]))
    for index, leaf in enumerate(one["leaves"]):
        hashes.append(leaf_hash(leaf))
        same(f"leaf {index}", leaf["hash"], hashes[-1])
        same(f"root after leaf {index}", one["running_roots"][index + 1], root(hashes))
    same("text hash", one["text_hash"], text_hash(one["text"]))
    reported = one["reported"]
    same("reported", reported["text_hash"], text_hash(one["text"], reported["logprobs"]))
    hashes.append(closing_hash(one["stop"], one["tokens"], one["text"], one["kv_root"]))
    same("closing leaf", one["closing"], hashes[-1])
    same("root", one["root"], root(hashes))
    for index, path in enumerate(one["paths"]):
        path = [bytes.fromhex(step) for step in path]
        same(f"path {index}", one["root"], climb(index, len(hashes), hashes[index], path))
    # The closing leaf on the path of the last position, where section 4 says.
    closing = len(hashes) - 1
    place = (closing & -closing).bit_length() - 1
    same("closing leaf on a path", one["closing"], one["paths"][closing - 1][place])


def check_roots(vectors):
    for count, expected in enumerate(vectors["roots_of_leaf_hashes_0_1_2"], start=1):
        same(f"root of {count}", expected, root([bytes([index]) * 32 for index in range(count)]))


def check_seeds(vectors):
    for index, request in enumerate(vectors["seeds"]):
        seed = sampling_seed(request)
        same(f"seed {index}", request["seed"], seed)
        for step, draw in enumerate(request["draws"]):
            first = blake3(seed + u64(step)).digest()[:8]
            same(f"seed {index} draw {step}", draw, str(int.from_bytes(first, "little")))


def check_challenges(vectors):
    for challenge in vectors["challenges"]:
        same(f"challenge of {challenge['leaves']}", challenge["positions"], positions(challenge))


def check_job(vectors):
    job = vectors["job"]
    hashes = [leaf_hash(leaf) for leaf in job["leaves"]]
    hashes.append(closing_hash(job["stop"], len(job["tokens"]), job["text"], job["kv_root"]))
    same("job root", job["root"], root(hashes))
    same("output hash", job["output_hash"], tagged("peerproof output v1", ids(job["tokens"])))
    same("work digest", job["work"], work(job))
    for name in ("root", "kv_root", "output_hash", "offer_id"):
        if job[name] not in job["receipt"]:
            sys.exit(f"receipt: expected {name} {job[name]} in it")


def main():
    path = pathlib.Path(__file__).with_name("transcript.json")
    vectors = json.loads(path.read_text(encoding="utf-8"))
    for check in (check_rows, check_cells, check_transcript, check_roots, check_seeds, check_challenges, check_job):
        check(vectors)
        print(f"{check.__name__.removeprefix('check_')}: equal")
    path = path.with_name("ranges.json")
    check_ranges(json.loads(path.read_text(encoding="utf-8")), same)
    print("ranges: equal")
    path = path.with_name("light.json")
    check_light(json.loads(path.read_text(encoding="utf-8")), same)
    print("light: equal")


if __name__ == "__main__":
    main()
