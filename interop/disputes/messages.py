"""Messages of a proof, field by field: the wire specification's page.

A schema lists a message's fields by number: name and kind. What is not in the schema,
out of order, or not in its shortest form is refused."""

from blake3tree import Mode, Refused
from ed25519 import is_signed

NUMBER, SIGNED, BYTES, HASHES = "number", "sint", "bytes", "hashes"

ENVELOPE = {1: ("payload", BYTES), 2: ("key", BYTES), 3: ("signature", BYTES)}
RECEIPT = {
    1: ("protocol", NUMBER), 2: ("arithmetic", NUMBER), 3: ("offer_id", BYTES),
    4: ("model_id", BYTES), 5: ("number", NUMBER), 6: ("previous", BYTES),
    7: ("prompt_tokens", NUMBER), 8: ("output_tokens", NUMBER), 9: ("stop", NUMBER),
    10: ("output_hash", BYTES), 11: ("text_hash", BYTES), 12: ("transcript_root", BYTES),
    13: ("leaves", NUMBER), 14: ("issued_unix_ms", NUMBER), 15: ("kv_root", BYTES),
    16: ("class", NUMBER),
}
DRAWN = {1: ("logits", BYTES), 2: ("draw", NUMBER), 3: ("next", NUMBER)}
LEAF = {
    1: ("position", NUMBER), 2: ("token", NUMBER), 3: ("state", BYTES), 4: ("drawn", DRAWN),
    5: ("layers", BYTES),
}
CELL = {1: ("position", NUMBER), 2: ("layer", NUMBER)}
PART = {1: ("head", NUMBER), 2: ("dim", NUMBER)}
TENSOR = {1: ("name", NUMBER), 2: ("start", NUMBER), 3: ("format", NUMBER), 4: ("exponent", SIGNED)}
LAYOUT = dict(enumerate((
    ("file_bytes", NUMBER), ("layers", NUMBER), ("width", NUMBER), ("heads", NUMBER),
    ("kv_heads", NUMBER), ("head_dims", NUMBER), ("feed", NUMBER), ("vocabulary", NUMBER),
    ("epsilon", NUMBER), ("halves", NUMBER), ("gelu", NUMBER), ("score_scale", NUMBER),
    ("score_cap", NUMBER), ("logit_cap", NUMBER), ("embedding_scale", NUMBER), ("first", NUMBER),
    ("angles", BYTES), ("tensors", [TENSOR]),
), 1))
ROW = {1: ("digest", BYTES), 2: ("exponent", SIGNED), 3: ("index", NUMBER)}
TRACE = {
    1: ("protocol", NUMBER), 2: ("arithmetic", NUMBER), 3: ("receipt_id", BYTES),
    4: ("cell", CELL), 5: ("part", PART), 6: ("layout", LAYOUT), 7: ("rows", [ROW]),
}
STRETCH = {1: ("bytes", BYTES), 2: ("hashes", HASHES)}
PROOF = {
    1: ("receipt", ENVELOPE), 2: ("leaf", LEAF), 3: ("path", HASHES), 4: ("trace", ENVELOPE),
    5: ("part", ENVELOPE), 6: ("operation", NUMBER), 7: ("index", NUMBER),
    8: ("kv_layers", HASHES), 9: ("kv_pages", HASHES), 10: ("stretches", [STRETCH]),
}


class Message:
    """Fields by name; those that are absent are 0, empty or None."""


def number(data, at):
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Refused("a number that does not end")
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            if byte == 0 and shift > 7 or value >= 2**64:
                raise Refused("a number that is not in its shortest form")
            return value, at


def decode(schema, data):
    message, at, last = Message(), 0, 0
    for name, kind in schema.values():
        empty = {NUMBER: 0, SIGNED: 0, BYTES: b""}
        absent = [] if kind == HASHES or isinstance(kind, list) else None
        setattr(message, name, empty.get(kind, absent) if isinstance(kind, str) else absent)
    while at < len(data):
        key, at = number(data, at)
        field, wire = key >> 3, key & 7
        name, kind = schema.get(field, (None, None))
        repeated = isinstance(kind, list)
        if name is None or field < last or field == last and not repeated:
            raise Refused(f"field {field} is none of the message's, or out of order")
        if wire != (0 if kind in (NUMBER, SIGNED) else 2):
            raise Refused(f"{name}: another wire type")
        last = field
        value, at = number(data, at)
        if wire == 2:
            value, at = data[at : at + value], at + value
            if at > len(data):
                raise Refused(f"{name}: cut off")
        if value in (0, b"") and isinstance(kind, str):
            raise Refused(f"{name}: a default that is written out")
        if kind == SIGNED:
            value = value >> 1 ^ -(value & 1)
        elif kind == HASHES:
            if len(value) % 32:
                raise Refused(f"{name}: no whole number of hashes")
            value = [value[i : i + 32] for i in range(0, len(value), 32)]
        elif isinstance(kind, dict):
            value = decode(kind, value)
        elif repeated:
            value = getattr(message, name) + [decode(kind[0], value)]
        setattr(message, name, value)
    return message


def open_envelope(envelope, tag, schema):
    """The statement in an envelope whose signature holds; its key and id beside it."""
    if envelope is None:
        raise Refused(f"{tag}: missing")
    length = len(envelope.payload).to_bytes(8, "little")
    if not is_signed(envelope.key, tag + b"\0" + length + envelope.payload, envelope.signature):
        raise Refused(f"{tag}: the signature does not hold")
    statement = decode(schema, envelope.payload)
    if (statement.protocol, statement.arithmetic) != (1, 1):
        raise Refused(f"{tag}: another version")
    statement.key = envelope.key
    statement.id = Mode().hash(tag + b" id\0" + envelope.key + length + envelope.payload)
    return statement
