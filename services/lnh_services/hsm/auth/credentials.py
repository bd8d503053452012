"""Credentials: derive from one Argon2id a stored verifier and a key pair that keyring keys are sealed to.

    password -Argon2id(own salt)-> 32 bytes -HKDF-> verifier        (stored, sealed under the SMK)
                                            '-HKDF-> HPKE key pair  (only the public half is stored)

So a keyring key can be sealed to a role that is not logged in, and the stored credential opens nothing: a guess needs
the SMK and an Argon2id each. Argon2id itself runs in its own process (`crypto/argon2.py`).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from msgspec.structs import replace

from lnh_common import limits
from lnh_common.errors import PasswordInvalid, SealBroken
from lnh_common.messages.hsm import Derive, SmkGeneration
from lnh_common.messages.session import Role
from lnh_common.wire import channel, codec
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.crypto.sealing import Kind, Place, seal, unseal
from lnh_services.hsm.records import FIRST_GENERATION, CredentialRecord, Records, record_id

SALT_BYTES: Final = 16
CREDENTIAL_ID_BYTES: Final = 16
KEYRING_KEY_BYTES: Final = 32
_SUITE: Final = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


@dataclass(frozen=True)
class Smk:
    """One generation of the SMK, and the keys that credentials need of it."""

    generation: int
    key: bytes = field(repr=False)

    def verifier_key(self) -> bytes:
        """Derive the key that seals verifiers."""
        return Purpose.VERIFIER.derive(self.key)

    def keyring_key(self) -> bytes:
        """Derive the key of the outer seal of keyring keys."""
        return Purpose.KEYRING.derive(self.key)


def find_smk(held: Sequence[SmkGeneration], generation: int) -> Smk:
    """Return a generation of the SMK; raises SealBroken for one that is not held."""
    for each in held:
        if each.generation == generation:
            return Smk(each.generation, each.key)
    raise SealBroken(f"sealed under SMK generation {generation}, which this HSM does not hold")


def record_means(smk: Sequence[SmkGeneration], cluster: bytes, lookup: bytes) -> Records:
    """Make the means to read and write records under the newest generation, as yet of no instance.

    Args:
        smk: the generations that are held, oldest first.
        lookup: the record key of the first generation; empty while that one is held.
    """
    keys = {each.generation: Purpose.RECORD.derive(each.key) for each in smk}
    newest = smk[-1].generation
    others = {generation: key for generation, key in keys.items() if generation != newest}
    first = FIRST_GENERATION if lookup else smk[0].generation
    return Records(keys[newest], cluster, b"", 0, newest, others, lookup or keys[first], first)


@dataclass(frozen=True)
class Material:
    """The part of a password that is kept; it cannot be turned back, and opens by the password alone."""

    argon2: tuple[int, int, int]
    salt: bytes
    verifier: bytes = field(repr=False)
    public: bytes


def check_password(password: str) -> None:
    """Raise PasswordInvalid unless it has 8 to 255 characters."""
    low, high = limits.PASSWORD_CHARACTERS
    if not low <= len(password) <= high:
        raise PasswordInvalid(f"a password of {len(password)} characters; it must have {low} to {high}")


def derivation(password: str, salt: bytes = b"", argon2: tuple[int, int, int] = limits.CREDENTIAL_ARGON2) -> Derive:
    """Make the Argon2id request for a password, with a fresh salt for a new credential."""
    memory, passes, lanes = argon2
    return Derive(
        password=password.encode(), salt=salt or os.urandom(SALT_BYTES), memory=memory, passes=passes, lanes=lanes
    )


def material(derive: Derive, derived: bytes) -> Material:
    """Compute what to keep of a new password, from the Argon2id request and its 32-byte result."""
    return Material(
        (derive.memory, derive.passes, derive.lanes),
        derive.salt,
        Purpose.VERIFY.derive(derived),
        channel.channel_public_bytes(Purpose.CREDENTIAL.derive(derived)),
    )


def credential_id(role: Role, name: str = "", keyring: bytes = b"") -> bytes:
    """Return the id of the record that keeps a role holder's credential."""
    return record_id("credential", role.value, name, keyring)


def _place(kind: Kind, generation: int, cluster: bytes, keyring: bytes, credential: bytes) -> Place:
    return Place(kind, generation=generation, cluster=cluster, keyring=keyring, handle=credential)


def _info(cluster: bytes, keyring: bytes, credential: bytes) -> bytes:
    return codec.encode(["lnh-keyring-key-1", cluster, keyring, credential])


def new_record(
    kept: Material,
    *,
    role: Role,
    smk: Smk,
    cluster: bytes,
    now: int,
    name: str = "",
    keyring: bytes = b"",
    keyring_key: bytes = b"",
    must_change: bool = False,
    born: int = 0,
) -> CredentialRecord:
    """Make a new credential with a new id.

    Args:
        keyring_key: 32 bytes to seal to it, or empty where it opens none (yet).
        now: UTC seconds.
    """
    credential = os.urandom(CREDENTIAL_ID_BYTES)
    sealed = b""
    if keyring_key:
        inner = _SUITE.encrypt(
            keyring_key, channel.channel_public_key(kept.public), _info(cluster, keyring, credential)
        )
        sealed = seal(smk.keyring_key(), inner, _place(Kind.KEYRING_KEY, smk.generation, cluster, keyring, credential))
    return CredentialRecord(
        role=role,
        name=name,
        keyring=keyring,
        id=credential,
        argon2=kept.argon2,
        salt=kept.salt,
        verifier=seal(
            smk.verifier_key(), kept.verifier, _place(Kind.VERIFIER, smk.generation, cluster, keyring, credential)
        ),
        public=kept.public,
        must_change=must_change,
        keyring_key=sealed,
        generation=smk.generation,
        changed_at=now,
        born=born,
    )


def resealed(record: CredentialRecord, old: Smk, new: Smk, cluster: bytes) -> CredentialRecord:
    """Seal what is in a credential under another generation of the SMK; it stays the same credential.

    Raises SealBroken.
    """

    def anew(kind: Kind, sealed: bytes, opens: bytes, seals: bytes) -> bytes:
        before, after = (_place(kind, each.generation, cluster, record.keyring, record.id) for each in (old, new))
        return seal(seals, unseal(opens, sealed, before), after) if sealed else b""

    return replace(
        record,
        verifier=anew(Kind.VERIFIER, record.verifier, old.verifier_key(), new.verifier_key()),
        keyring_key=anew(Kind.KEYRING_KEY, record.keyring_key, old.keyring_key(), new.keyring_key()),
        generation=new.generation,
    )


def kept_of(record: CredentialRecord, smk: Smk, cluster: bytes) -> Material:
    """Return what is kept of an existing credential's password, to give it a new id; raises SealBroken."""
    place = _place(Kind.VERIFIER, smk.generation, cluster, record.keyring, record.id)
    verifier = unseal(smk.verifier_key(), record.verifier, place)
    return Material(record.argon2, record.salt, verifier, record.public)


def is_correct(record: CredentialRecord, derived: bytes, smk: Smk, cluster: bytes) -> bool:
    """Tell whether the Argon2id result is that of the credential's password; raises SealBroken."""
    return hmac.compare_digest(kept_of(record, smk, cluster).verifier, Purpose.VERIFY.derive(derived))


def keyring_key(record: CredentialRecord, derived: bytes, smk: Smk, cluster: bytes) -> bytes:
    """Open the keyring key that is sealed to a credential; empty where none is. Raises SealBroken."""
    if not record.keyring_key:
        return b""
    place = _place(Kind.KEYRING_KEY, smk.generation, cluster, record.keyring, record.id)
    inner = unseal(smk.keyring_key(), record.keyring_key, place)
    private = channel.channel_private_key(Purpose.CREDENTIAL.derive(derived))
    try:
        return _SUITE.decrypt(inner, private, _info(cluster, record.keyring, record.id))
    except InvalidTag:
        raise SealBroken("the stored keyring key does not open with its own credential") from None
