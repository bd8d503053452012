"""docs/formats.md a second time, written from the page with none of the product's code, and the page's vectors.

`python tests/models/formats.py` writes the vectors of docs/formats/vectors.md anew, after a change of format. What is
sealed to a public key comes out differently each time, so such a vector is kept while it still opens.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import sys
from pathlib import Path
from typing import Any

import cbor2
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

PAGE = Path(__file__).parents[2] / "docs" / "formats" / "vectors.md"
SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)

REQUEST, REPLY = 0, 1
EPOCH, GENERATION, VERSION = 7, 1, 3
OPERATION, REQUEST_ID, DEADLINE_MS = "key.sign", 41, 10_000
LOGIN, LOGIN_ID = "session.login", 40
ISSUED_AT, LOGIN_AT, EXPIRES, END = 1_700_000_000_123, 1_700_000_000, 1_700_000_900, 1_700_086_400
SEQUENCE = 5
REQUEST_FIELDS = {"handle": b"h", "mechanism": 4164, "data": b"to be signed"}
REPLY_FIELDS = {"data": b"signature"}
ERROR = [41, "no such object", {}]
LOGIN_FIELDS: dict[str, Any] = {"credentials": []}
ATTRIBUTES = {0x0: 4, 0x100: 31, 0x3: "payments", 0x102: b"\x01"}  # CLASS, KEY_TYPE, LABEL, ID
TAGGED = {"LABEL": "payments", "ID": b"\x01", "CLASS": 4, "KEY_TYPE": 31}
RECORD: dict[str, Any] = {"session": b"s", "until": 1_700_000_000}

_VALUE = re.compile(r"^    (\S.*?)  +([0-9a-f]+)$")
_MORE = re.compile(r"^     +([0-9a-f]+)$")
_NAME_WIDTH, _HEX_WIDTH = 32, 80

Vectors = dict[str, bytes]


def read(text: str) -> Vectors:
    """The vectors of a page: each a name, two spaces, hexadecimal, which may go on in the lines below."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if match := _VALUE.match(line):
            name = match[1]
            assert name not in found, f"{name} is there twice"
            found[name] = match[2]
        elif match := _MORE.match(line):
            found[name] += match[1]
    return {name: bytes.fromhex(digits) for name, digits in found.items()}


def rewritten(text: str, vectors: Vectors) -> str:
    """The page with the values of `vectors` in place of its own."""
    lines = []
    for line in text.splitlines():
        if match := _VALUE.match(line):
            digits = vectors[match[1]].hex()
            for at in range(0, len(digits), _HEX_WIDTH):
                name = "" if at else match[1]
                lines.append(f"    {name:<{_NAME_WIDTH}}{digits[at : at + _HEX_WIDTH]}")
        elif not _MORE.match(line):
            lines.append(line)
    return "\n".join(lines) + "\n"


# --- docs/formats.md


def derived(secret: bytes, label: str, length: int = 32) -> bytes:
    return HKDF(SHA512(), length, None, label.encode()).derive(secret)


def expanded(key: bytes, info: bytes, length: int) -> bytes:
    return HKDFExpand(SHA512(), length, info).derive(key)


def key_pair(seed: bytes) -> tuple[hpke.MLKEM768X25519PrivateKey, bytes]:
    """A key pair from its 96 bytes, and its 1216 public bytes."""
    lattice, curve = MLKEM768PrivateKey.from_seed_bytes(seed[:64]), X25519PrivateKey.from_private_bytes(seed[64:])
    public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
    return hpke.MLKEM768X25519PrivateKey(lattice, curve), public


def public_key(seed: bytes) -> hpke.MLKEM768X25519PublicKey:
    lattice, curve = MLKEM768PrivateKey.from_seed_bytes(seed[:64]), X25519PrivateKey.from_private_bytes(seed[64:])
    return hpke.MLKEM768X25519PublicKey(lattice.public_key(), curve.public_key())


def header(kind: int, request_id: int, operation: str, route: bytes, deadline_ms: int) -> bytes:
    return cbor2.dumps([1, kind, request_id, operation, route, deadline_ms])


def associated(kind: int, request_id: int, operation: str, route: bytes, token: bytes) -> bytes:
    return cbor2.dumps([1, kind, request_id, operation, route, hashlib.sha256(token).digest()])


def message(direction: bytes, n: bytes, plaintext: bytes, data: bytes) -> bytes:
    material = expanded(direction, n, 44)
    return n + AESGCM(material[:32]).encrypt(material[32:], plaintext, data)


def opened_message(direction: bytes, body: bytes, data: bytes) -> bytes:
    material = expanded(direction, body[:32], 44)
    return AESGCM(material[:32]).decrypt(material[32:], body[32:], data)


def place(
    generation: int, kind: str, cluster: bytes, keyring: bytes, handle: bytes, version: int, *more: bytes
) -> bytes:
    return cbor2.dumps(["lnh-sealed-1", "AES-256-GCM", generation, kind, cluster, keyring, handle, version, *more])


def sealed(key: bytes, nonce: bytes, plaintext: bytes, where: bytes) -> bytes:
    return cbor2.dumps([nonce, AESGCM(key).encrypt(nonce, plaintext, where)])


def unsealed(key: bytes, thing: bytes, where: bytes) -> bytes:
    nonce, ciphertext = cbor2.loads(thing)
    return AESGCM(key).decrypt(nonce, ciphertext, where)


def tag(index_key: bytes, name: str, value: object) -> bytes:
    covered = len(name).to_bytes(2, "big") + name.encode() + cbor2.dumps(value)
    return hmac.digest(index_key, covered, "sha256")[:16]


def computed(given: Vectors) -> Vectors:
    """Every vector of the page, from its inputs (the names in capitals) and the two that are sealed to a public key."""
    v = dict(given)
    cluster, keyring, handle = v["CLUSTER"], v["KEYRING"], v["HANDLE"]

    # Keys
    for secret, label, length in (
        ("CHANNEL SEED", "lnh channel key pair", 96),
        ("CHANNEL SEED", "lnh session token", 32),
        ("SMK", "lnh record", 32),
        ("SMK", "lnh backup", 32),
        ("SMK", "lnh keyring", 32),
        ("SMK", "lnh verifier", 32),
        ("SMK", "lnh smk check", 32),
        ("KEYRING KEY", "lnh object attributes", 32),
        ("KEYRING KEY", "lnh object value", 32),
        ("KEYRING KEY", "lnh session object", 32),
        ("KEYRING KEY", "lnh index", 32),
        ("KEYRING KEY", "lnh keyring key before", 32),
        ("ARGON2ID", "lnh credential verify", 32),
        ("ARGON2ID", "lnh credential key pair", 96),
        ("HSM IDENTITY", "lnh hsm identity sign", 32),
        ("HSM IDENTITY", "lnh hsm identity receive", 96),
    ):
        v[label] = derived(v[secret], label, length)
    channel_private, channel_public = key_pair(v["lnh channel key pair"])
    v["SHA-256 of the channel key"] = hashlib.sha256(channel_public).digest()
    v["lnh channel request"] = expanded(v["S"], b"lnh channel request", 32)
    v["lnh channel reply"] = expanded(v["S"], b"lnh channel reply", 32)

    # Messages
    v["header"] = header(REQUEST, REQUEST_ID, OPERATION, keyring, DEADLINE_MS)
    grant = ["krco", "", keyring, v["CREDENTIAL"]]
    session = [v["S"], v["SESSION"], LOGIN_AT, EXPIRES, v["CLIENT"], [grant], v["KEYRING KEY"], v["INSTANCE"]]
    where = place(0, "token", cluster, b"", b"", EPOCH)
    v["token"] = cbor2.dumps([EPOCH, sealed(v["lnh session token"], v["NONCE"], cbor2.dumps(session), where)])
    v["request plaintext"] = cbor2.dumps([ISSUED_AT, DEADLINE_MS, v["CONNECTION"], 0, REQUEST_FIELDS])
    asked = associated(REQUEST, REQUEST_ID, OPERATION, keyring, v["token"])
    v["request associated data"] = asked
    v["request"] = message(v["lnh channel request"], v["N OF A REQUEST"], v["request plaintext"], asked)
    answers = associated(REPLY, REQUEST_ID, OPERATION, keyring, v["token"]) + hashlib.sha256(v["request"]).digest()
    v["reply associated data"] = answers
    v["reply"] = message(v["lnh channel reply"], v["N OF A REPLY"], cbor2.dumps([0, REPLY_FIELDS]), answers)
    v["error"] = message(v["lnh channel reply"], v["N OF A REPLY"], cbor2.dumps(ERROR), answers)

    # Statement and credential message
    identity = Ed25519PrivateKey.from_private_bytes(v["CLUSTER IDENTITY"])
    said = ["lnh-channel-1", cluster, "prod", EPOCH, channel_public, END, v["MEMBER"], v["MEMBER KEY"]]
    v["SHA-256 of the statement"] = hashlib.sha256(cbor2.dumps(said)).digest()
    v["statement signature"] = identity.sign(cbor2.dumps(said))
    v["credential info"] = cbor2.dumps(["lnh-channel-1", cluster, EPOCH, LOGIN, LOGIN_ID, b""])
    envelope = [ISSUED_AT, DEADLINE_MS, v["CONNECTION"], 0, LOGIN_FIELDS]
    v["credential plaintext"] = cbor2.dumps([v["S"], v["SESSION"], v["CLIENT"], envelope])
    client = Ed25519PrivateKey.from_private_bytes(v["CLIENT SIGNATURE KEY"])
    v["credential signature"] = client.sign(v["credential info"] + v["credential plaintext"])
    inner = cbor2.dumps([v["credential plaintext"], v["credential signature"]])
    epoch, info = EPOCH.to_bytes(8, "big"), v["credential info"]
    held = v["credential message"]
    if held[:8] != epoch or not opens(channel_private, held[8:], info, inner):
        v["credential message"] = epoch + SUITE.encrypt(inner, public_key(v["lnh channel key pair"]), info)

    # Sealed things
    where = place(GENERATION, "verifier", cluster, keyring, v["CREDENTIAL"], 0)
    v["verifier associated data"] = where
    v["sealed verifier"] = sealed(v["lnh verifier"], v["NONCE"], v["lnh credential verify"], where)
    holder, _ = key_pair(v["lnh credential key pair"])
    info = cbor2.dumps(["lnh-keyring-key-1", cluster, keyring, v["CREDENTIAL"]])
    v["keyring key info"] = info
    where = place(GENERATION, "keyring-key", cluster, keyring, v["CREDENTIAL"], 0)
    try:
        holds = opens(holder, unsealed(v["lnh keyring"], v["sealed keyring key"], where), info, v["KEYRING KEY"])
    except (InvalidTag, ValueError, TypeError, cbor2.CBORDecodeError):
        holds = False
    if not holds:
        inner = SUITE.encrypt(v["KEYRING KEY"], public_key(v["lnh credential key pair"]), info)
        v["sealed keyring key"] = sealed(v["lnh keyring"], v["NONCE"], inner, where)

    # Records
    v["record"] = cbor2.dumps(RECORD)
    covered = ["lnh-record-1", cluster, v["INSTANCE"], "logout", b"", v["SESSION"], VERSION, v["record"]]
    v["record MAC"] = hmac.digest(v["lnh record"], cbor2.dumps(covered), "sha256")
    v["name tag"] = hmac.digest(v["lnh record"], cbor2.dumps(["tag", "payments"]), "sha256")[:16]
    v["id of user admin"] = hashlib.sha256(cbor2.dumps(["user", "admin"])).digest()[:16]

    # Objects
    where = place(0, "attributes", cluster, keyring, handle, VERSION)
    v["object head"] = sealed(v["lnh object attributes"], v["NONCE"], cbor2.dumps(ATTRIBUTES), where)
    where = place(0, "value", cluster, keyring, handle, VERSION, hashlib.sha256(v["object head"]).digest())
    v["object body"] = sealed(v["lnh object value"], v["NONCE"], v["VALUE"], where)
    for name, value in TAGGED.items():
        v[f"tag {name}"] = tag(v["lnh index"], name, value)
    return v


def opens(private: hpke.MLKEM768X25519PrivateKey, body: bytes, info: bytes, plaintext: bytes) -> bool:
    try:
        return bool(SUITE.decrypt(body, private, info) == plaintext)
    except (InvalidTag, ValueError):
        return False


def main() -> int:
    text = PAGE.read_text()
    PAGE.write_text(rewritten(text, computed(read(text))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
