"""Seals with AES-256-GCM and an associated-data array that says exactly what is sealed.

    sealed = CBOR [nonce, ciphertext with tag]
    associated data = CBOR [format, algorithm, SMK generation, kind, cluster, keyring, handle, version] (+ [extra])

So a store that moves a sealed thing to another place, version, keyring or cluster, or pairs a value with other
attributes, gets `SealBroken` and nothing else. Nonces are 96 random bits: a key seals far fewer than 2^32 things (NIST
SP 800-38D, 8.3).
"""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass, replace
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lnh_common.errors import MalformedMessage, SealBroken
from lnh_common.wire import codec

FORMAT: Final = "lnh-sealed-1"
ALGORITHM: Final = "AES-256-GCM"
_NONCE: Final = 12


class Kind(str, enum.Enum):
    """The kind of a sealed thing."""

    ATTRIBUTES = "attributes"
    VALUE = "value"
    KEYRING_KEY = "keyring-key"
    KEYRING_KEY_BEFORE = "keyring-key-before"
    VERIFIER = "verifier"
    TOKEN = "token"
    SESSION_OBJECT = "session-object"
    STATE = "state"
    JOINING = "joining"
    ARCHIVE_KEY = "archive-key"
    ARCHIVE_MANIFEST = "archive-manifest"
    SMK_BACKUP = "smk-backup"
    SHARED_SECRET = "shared-secret"


@dataclass(frozen=True)
class Place:
    """The place that a sealed thing belongs to.

    Args:
        generation: of the SMK; 0 where no SMK is involved.
        cluster, keyring, handle: 16-byte ids, or empty.
        version: of the item that holds it.
        extra: what else it is bound to, such as the hash of an object's sealed attributes.
    """

    kind: Kind
    generation: int = 0
    cluster: bytes = b""
    keyring: bytes = b""
    handle: bytes = b""
    version: int = 0
    extra: bytes = b""

    def associated(self) -> bytes:
        """Encode the place as the seal's associated data."""
        fields: list[object] = [
            FORMAT, ALGORITHM, self.generation, self.kind.value, self.cluster, self.keyring, self.handle, self.version,
        ]  # fmt: skip
        if self.extra:
            fields.append(self.extra)
        return codec.encode(fields)

    def of(self, kind: Kind, extra: bytes = b"") -> Place:
        """Return the place of another part of the same item."""
        return replace(self, kind=kind, extra=extra)


def seal(key: bytes, plaintext: bytes, place: Place) -> bytes:
    """Seal `plaintext` under a 32-byte key for exactly this place."""
    nonce = os.urandom(_NONCE)
    return codec.encode([nonce, AESGCM(key).encrypt(nonce, plaintext, place.associated())])


def unseal(key: bytes, sealed: bytes, place: Place) -> bytes:
    """Open what `seal` made for this place; raises SealBroken, naming the kind and the place."""
    try:
        match codec.decode(sealed):
            case [bytes(nonce), bytes(ciphertext)] if len(nonce) == _NONCE:
                return AESGCM(key).decrypt(nonce, ciphertext, place.associated())
    except (InvalidTag, MalformedMessage):
        pass
    where = f" of {place.handle.hex()}" if place.handle else ""
    raise SealBroken(f"the stored {place.kind.value}{where} (version {place.version}) does not open")
