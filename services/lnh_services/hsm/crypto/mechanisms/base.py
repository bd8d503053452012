"""The parts of every mechanism: a loaded key, the prepared callables, and the HSM's own IVs.

A mechanism is prepared once for (key, parameters) and then called for each item, so whatever can be built beforehand
(hash, padding, key schedule) is built when it is prepared.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias, TypeVar

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, mlkem, rsa, x448, x25519

from lnh_common.errors import DataLength, EncryptedDataInvalid
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import GCM_IV_BYTES, Hash
from lnh_common.pkcs11.attributes import KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import MechanismRule

MldsaPrivateKey: TypeAlias = mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey
MldsaPublicKey: TypeAlias = mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey | mldsa.MLDSA87PublicKey
MlkemPrivateKey: TypeAlias = mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey
MlkemPublicKey: TypeAlias = mlkem.MLKEM768PublicKey | mlkem.MLKEM1024PublicKey
PrivateKey: TypeAlias = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | x25519.X25519PrivateKey
    | x448.X448PrivateKey
    | MldsaPrivateKey
    | MlkemPrivateKey
)
PublicKey: TypeAlias = (
    rsa.RSAPublicKey
    | ec.EllipticCurvePublicKey
    | ed25519.Ed25519PublicKey
    | ed448.Ed448PublicKey
    | x25519.X25519PublicKey
    | x448.X448PublicKey
    | MldsaPublicKey
    | MlkemPublicKey
)

T = TypeVar("T")

HASHES: Final[dict[Hash, hashes.HashAlgorithm]] = {
    Hash.SHA1: hashes.SHA1(),  # noqa: S303  # OAEP's mask and label only
    Hash.SHA224: hashes.SHA224(),
    Hash.SHA256: hashes.SHA256(),
    Hash.SHA384: hashes.SHA384(),
    Hash.SHA512: hashes.SHA512(),
    Hash.SHA3_224: hashes.SHA3_224(),
    Hash.SHA3_256: hashes.SHA3_256(),
    Hash.SHA3_384: hashes.SHA3_384(),
    Hash.SHA3_512: hashes.SHA3_512(),
}


class LoadedKey:
    """A key ready for use: parsed once, never shown.

    `material` is the library's key object, or the bytes of a secret key.
    """

    __slots__ = ("_built", "key_type", "material", "object_class")

    def __init__(self, object_class: ObjectClass, key_type: KeyType, material: PrivateKey | PublicKey | bytes) -> None:
        self.object_class = object_class
        self.key_type = key_type
        self.material = material
        self._built: dict[object, object] = {}

    @property
    def secret(self) -> bytes:
        """Return the bytes of a secret key."""
        assert isinstance(self.material, bytes), "only a secret key is bytes"
        return self.material

    def once(self, build: Callable[[bytes], T]) -> T:
        """Build something of a secret key, once for this key."""
        if build not in self._built:
            self._built[build] = build(self.secret)
        return self._built[build]  # type: ignore[return-value]  # stored under the callable that returned it

    def __repr__(self) -> str:
        return f"LoadedKey({self.key_type.name} {self.object_class.name}, redacted)"


class Encrypted(NamedTuple):
    """A ciphertext (with its tag, if any) and the IV; `iv` is empty where the mechanism has none."""

    data: bytes
    iv: bytes


class IvSource:
    """Draws IVs that never repeat (SP 800-38D, 8.2): a random 64-bit prefix, then a 32-bit counter.

    The prefix is drawn when a worker starts and again whenever the counter wraps. One worker has one source and one
    thread.
    """

    __slots__ = ("_counter", "_prefix")

    _PREFIX_BYTES: Final = 8
    _LAST: Final = 0xFFFF_FFFF

    def __init__(self) -> None:
        self._prefix = os.urandom(self._PREFIX_BYTES)
        self._counter = 0

    def next(self) -> bytes:
        """Draw 12 bytes for GCM and ChaCha20-Poly1305."""
        iv = self._prefix + self._counter.to_bytes(4, "big")
        if self._counter == self._LAST:
            self._prefix = os.urandom(self._PREFIX_BYTES)
            self._counter = 0
        else:
            self._counter += 1
        return iv


assert len(IvSource().next()) == GCM_IV_BYTES, "prefix and counter make one IV"

Signer: TypeAlias = Callable[[bytes], bytes]
Verifier: TypeAlias = Callable[[bytes, bytes], None]
Encrypter: TypeAlias = Callable[[bytes], Encrypted]
Decrypter: TypeAlias = Callable[[bytes], bytes]
Digester: TypeAlias = Callable[[bytes], bytes]
Wrapper: TypeAlias = Callable[[bytes], bytes]  # a key's value to what leaves
Unwrapper: TypeAlias = Callable[[bytes], bytes]
Deriver: TypeAlias = Callable[[int], bytes]  # a length to so many bytes of a key
Encapsulator: TypeAlias = Callable[[], tuple[bytes, bytes]]  # a secret, and the ciphertext that carries it
Decapsulator: TypeAlias = Callable[[bytes], bytes]


class Running(Protocol):
    """A use of a key, or a hash, that takes its data in parts."""

    def update(self, data: bytes) -> bytes:
        """Take a part; returns what of the result is known by it."""

    def finish(self) -> bytes:
        """Return the rest of the result; raises EncryptedDataInvalid, DataLength."""


@dataclass(frozen=True)
class Implementation:
    """The functions of a scheme: each prepares a callable for one key and its parameters.

    Each column is named for a `Use`; one that the scheme does not serve is None. Parameters are within the bounds of
    the mechanism's row; what depends on the key is for the function to check.

    Args:
        sign, verify, decrypt: of (key, parameters, rule).
        encrypt: of (key, parameters, rule, ivs); a caller's IV was checked against the policy.
        digest: of (rule).
        wrap, unwrap, derive, encapsulate, decapsulate: of (key, parameters, rule).
        accumulate: of (key, parameters, rule), for tags and hashes over parts; a hash has no key.
        cipher: of (key, parameters with their IV, encrypts), for parts.
    """

    sign: Callable[[LoadedKey, Message, MechanismRule], Signer] | None = None
    verify: Callable[[LoadedKey, Message, MechanismRule], Verifier] | None = None
    encrypt: Callable[[LoadedKey, Message, MechanismRule, IvSource], Encrypter] | None = None
    decrypt: Callable[[LoadedKey, Message, MechanismRule], Decrypter] | None = None
    digest: Callable[[MechanismRule], Digester] | None = None
    wrap: Callable[[LoadedKey, Message, MechanismRule], Wrapper] | None = None
    unwrap: Callable[[LoadedKey, Message, MechanismRule], Unwrapper] | None = None
    derive: Callable[[LoadedKey, Message, MechanismRule], Deriver] | None = None
    encapsulate: Callable[[LoadedKey, Message, MechanismRule], Encapsulator] | None = None
    decapsulate: Callable[[LoadedKey, Message, MechanismRule], Decapsulator] | None = None
    accumulate: Callable[[LoadedKey | None, Message, MechanismRule], Running] | None = None
    cipher: Callable[[LoadedKey, Message, bool], Running] | None = None


def undecryptable() -> EncryptedDataInvalid:
    """Make the one error that answers every decryption that fails."""
    return EncryptedDataInvalid("the data does not decrypt")


def check_length(data: bytes, wanted: tuple[int, ...], what: str) -> None:
    """Raise DataLength unless the data has one of the wanted lengths."""
    if len(data) not in wanted:
        raise DataLength(f"{what} of {len(data)} bytes; {' or '.join(map(str, wanted))} wanted")
