"""docs/formats/archive.md a second time, written from the page with none of the product's code, and the page's vector.

`python tests/models/archive_format.py` writes the vector anew, after a change of format.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import cbor2
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from models import formats
from models.formats import Vectors

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "archive.md"
GENERATION, CHUNK_BYTES, CREATED_AT, INDEX = 1, 64, 1_700_000_000_123, 41
ITEM: list[Any] = ["user", b"", b"id", 1, b"\x02ab", b"head", b"body"]


def framed(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


def place(kind: str, cluster: bytes, archive: bytes, *more: bytes) -> bytes:
    return cbor2.dumps(["lnh-sealed-1", "AES-256-GCM", GENERATION, kind, cluster, b"", archive, 0, *more])


def sealed(key: bytes, nonce: bytes, plaintext: bytes, where: bytes) -> bytes:
    return cbor2.dumps([nonce, AESGCM(key).encrypt(nonce, plaintext, where)])


def computed(given: Vectors) -> Vectors:
    """Every vector of the page from its inputs, which have names in capitals."""
    v = dict(given)
    key = HKDF(SHA512(), 32, None, b"lnh backup").derive(v["SMK"])
    cluster, archive = v["CLUSTER"], v["ARCHIVE"]
    v["wrapped data key"] = sealed(key, v["NONCE"], v["DATA KEY"], place("archive-key", cluster, archive))
    v["header"] = cbor2.dumps(
        [
            1, archive, cluster, "prod", v["INSTANCE"], GENERATION, v["wrapped data key"], v["PREFIX"], CHUNK_BYTES,
            CREATED_AT, INDEX, "member-a", "0.2.0",
        ]
    )  # fmt: skip
    records = [[1, cluster, []], ["items", [ITEM]], ["end", [1]]]
    v["plaintext"] = b"".join(framed(cbor2.dumps(record)) for record in records)
    before = b"LNHARCH1" + framed(v["header"])
    head = hashlib.sha256(before).digest()
    pieces = [v["plaintext"][at : at + CHUNK_BYTES] for at in range(0, len(v["plaintext"]), CHUNK_BYTES)]
    for number, piece in enumerate(pieces):
        nonce = v["PREFIX"] + number.to_bytes(4, "big") + bytes([number == len(pieces) - 1])
        before += framed(AESGCM(v["DATA KEY"]).encrypt(nonce, piece, head))
    v["manifest"] = cbor2.dumps(
        [1, archive, head, len(pieces), len(v["plaintext"]), hashlib.sha256(before).digest(), {"user": 1}]
    )
    where = place("archive-manifest", cluster, archive, hashlib.sha256(v["header"]).digest())
    v["seal"] = sealed(key, v["NONCE"], hashlib.sha256(v["manifest"]).digest(), where)
    end = framed(cbor2.dumps([v["manifest"], v["seal"]]))
    v["archive"] = before + end + len(end).to_bytes(4, "big") + b"LNHE"
    return v


def main() -> int:
    text = PAGE.read_text()
    PAGE.write_text(formats.rewritten(text, computed(formats.read(text))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
