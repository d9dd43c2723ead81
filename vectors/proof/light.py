"""Light audits, section 14 of docs/spec/proof.md: sketches, and the check of products."""

import struct

from blake3 import blake3

P = 2**61 - 1
LIMIT = 2**57


def coefficients(secret, model, layer, matrix, count):
    message = b"peerproof secret coefficients v1\0" + model + struct.pack("<IB", layer, matrix)
    stream, drawn = blake3(message, key=secret), []
    at = 0
    while len(drawn) < count:
        (word,) = struct.unpack("<Q", stream.digest(length=8, seek=at))
        at += 8
        if word >> 3 != P:
            drawn.append(word >> 3)
    return drawn


def product(weights, row):
    return [sum(w * a for w, a in zip(line, row)) for line in weights]


def holds(coefficients_, sketch, row, products):
    if len(products) != len(coefficients_) or any(abs(out) > LIMIT for out in products):
        return False
    left = sum(c * out for c, out in zip(coefficients_, products))
    return (left - sum(s * a for s, a in zip(sketch, row))) % P == 0


def check_light(vectors, same):
    for index, one in enumerate(vectors["matrices"]):
        secret, model = bytes.fromhex(one["secret"]), bytes.fromhex(one["model"])
        weights, row = one["weights"], one["row"]
        drawn = coefficients(secret, model, one["layer"], one["matrix"], len(weights))
        same(f"coefficients {index}", one["coefficients"], drawn)
        sketch = [sum(c * w for c, w in zip(drawn, column)) % P for column in zip(*weights)]
        same(f"sketch {index}", one["sketch"], sketch)
        same(f"products {index}", one["products"], product(weights, row))
        same(f"check {index}", True, holds(drawn, sketch, row, one["products"]))
        for wrong in one["refused"]:
            same(f"refusal {index}", False, holds(drawn, sketch, row, wrong))
