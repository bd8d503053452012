"""The key hierarchy: says which key comes from which, by which label.

Every derivation is HKDF-SHA-512 (RFC 5869) with the label below as `info` and no salt: its input is already uniform.
`docs/formats.md` lists the same table with test vectors.

    activation secret -Argon2id-> seals the HSM's state (appliance/state.py)
    channel seed  -> the channel key pair, the key that seals session tokens
    SMK           -> record MACs, archives, the outer seal of keyring keys, the seal of verifiers, its check value
    keyring key   -> attributes and values of objects, session objects, search tags, the seal of the key before it
    credential    -> verifier, and the seed of the key pair a keyring key is sealed to
"""

from __future__ import annotations

import enum
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lnh_common.wire.channel import CHANNEL_SEED_BYTES

KEY_BYTES: Final = 32


class Purpose(enum.Enum):
    """The purpose of a derived key: `info` of its derivation, and its length in bytes."""

    # from a channel seed
    CHANNEL = ("lnh channel key pair", CHANNEL_SEED_BYTES)
    TOKEN = ("lnh session token", KEY_BYTES)
    # from the SMK
    RECORD = ("lnh record", KEY_BYTES)
    BACKUP = ("lnh backup", KEY_BYTES)
    KEYRING = ("lnh keyring", KEY_BYTES)
    VERIFIER = ("lnh verifier", KEY_BYTES)
    CHECK = ("lnh smk check", KEY_BYTES)
    # from a keyring key
    ATTRIBUTES = ("lnh object attributes", KEY_BYTES)
    VALUE = ("lnh object value", KEY_BYTES)
    SESSION_OBJECT = ("lnh session object", KEY_BYTES)
    INDEX = ("lnh index", KEY_BYTES)
    BEFORE = ("lnh keyring key before", KEY_BYTES)
    # from Argon2id over a password
    VERIFY = ("lnh credential verify", KEY_BYTES)
    CREDENTIAL = ("lnh credential key pair", CHANNEL_SEED_BYTES)
    # from the HSM identity's seed
    HSM_SIGN = ("lnh hsm identity sign", KEY_BYTES)
    HSM_RECEIVE = ("lnh hsm identity receive", CHANNEL_SEED_BYTES)

    def derive(self, secret: bytes) -> bytes:
        """Derive the key for this purpose from a 32-byte secret."""
        assert len(secret) == KEY_BYTES, "every secret of the hierarchy has 32 bytes"
        info, length = self.value
        return HKDF(hashes.SHA512(), length, None, info.encode()).derive(secret)
