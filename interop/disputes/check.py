"""The referee of disputes on the golden proofs: each convicts, and none does once a bit of it
is another.

    python interop/disputes/check.py
"""

import struct
import sys
from pathlib import Path

from blake3tree import Mode, Refused
from verify import MAGIC, NAMES, verify

VECTORS = Path(__file__).resolve().parent.parent.parent / "vectors" / "dispute"


def check_hash():
    """BLAKE3 over lengths around a chunk and a block, against the published test vectors."""
    data = bytes(at % 251 for at in range(2049))
    known = {
        0: "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        1024: "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
        1025: "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
        2049: "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030",
    }
    for length, digest in known.items():
        assert Mode().hash(data[:length]).hex() == digest, length


def main():
    check_hash()
    files = sorted(VECTORS.glob("*.proof"))
    seen, refused = set(), 0
    for path in files:
        proof = path.read_bytes()
        verdict = verify(proof)
        seen.add(verdict["operation"])
        # Every proof at a few places; which ones goes by the file.
        places = [len(MAGIC) + (at * 7919) % (len(proof) - len(MAGIC)) for at in range(3, 27, 4)]
        for at in [0, *places]:
            altered = bytearray(proof)
            altered[at] ^= 1 << at % 8
            try:
                same = verify(bytes(altered)) == verdict
            except (Refused, struct.error, ValueError):
                refused += 1
                continue
            assert same, f"{path.name}: another verdict with another byte {at}"
        try:
            verify(proof + b"\0")
        except Refused:
            continue
        raise AssertionError(f"{path.name}: bytes behind the proof")
    missing = set(NAMES) - seen
    assert not missing, f"no proof of: {sorted(missing)}"
    print(f"{len(files)} proofs convict, by {len(seen)} operations; {refused} altered ones refused")


if __name__ == "__main__":
    sys.exit(main())
