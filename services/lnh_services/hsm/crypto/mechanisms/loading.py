"""Loads a stored value as a key ready for use, once."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, mlkem, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_der_public_key

from lnh_common.errors import KeyTypeInconsistent
from lnh_common.pkcs11.algorithms import AES_BYTES, CHACHA20_BYTES
from lnh_common.pkcs11.attributes import Attribute, Attributes, KeyType, ObjectClass
from lnh_services.hsm.crypto.mechanisms.base import LoadedKey, PrivateKey, PublicKey

_PRIVATE: Final[dict[KeyType, tuple[type[PrivateKey], ...]]] = {
    KeyType.RSA: (rsa.RSAPrivateKey,),
    KeyType.EC: (ec.EllipticCurvePrivateKey,),
    KeyType.EC_EDWARDS: (ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey),
    KeyType.EC_MONTGOMERY: (x25519.X25519PrivateKey, x448.X448PrivateKey),
    KeyType.ML_DSA: (mldsa.MLDSA44PrivateKey, mldsa.MLDSA65PrivateKey, mldsa.MLDSA87PrivateKey),
    KeyType.ML_KEM: (mlkem.MLKEM768PrivateKey, mlkem.MLKEM1024PrivateKey),
}
_PUBLIC: Final[dict[KeyType, tuple[type[PublicKey], ...]]] = {
    KeyType.RSA: (rsa.RSAPublicKey,),
    KeyType.EC: (ec.EllipticCurvePublicKey,),
    KeyType.EC_EDWARDS: (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey),
    KeyType.EC_MONTGOMERY: (x25519.X25519PublicKey, x448.X448PublicKey),
    KeyType.ML_DSA: (mldsa.MLDSA44PublicKey, mldsa.MLDSA65PublicKey, mldsa.MLDSA87PublicKey),
    KeyType.ML_KEM: (mlkem.MLKEM768PublicKey, mlkem.MLKEM1024PublicKey),
}
_SECRET_BYTES: Final[dict[KeyType, tuple[int, ...] | range]] = {
    KeyType.AES: AES_BYTES,
    KeyType.CHACHA20: (CHACHA20_BYTES,),
    KeyType.GENERIC_SECRET: range(1, 2**16),
}


def load(key_type: KeyType, object_class: ObjectClass, value: bytes) -> LoadedKey:
    """Load a key.

    Args:
        key_type, object_class: of the object.
        value: PKCS#8 DER of a private key, SPKI DER of a public key, the bytes of a secret key. It comes from a seal of
            this HSM: an imported key is checked when it comes in.

    Raises KeyTypeInconsistent when the value is no key of that kind.
    """
    match object_class:
        case ObjectClass.SECRET_KEY:
            if len(value) not in _SECRET_BYTES.get(key_type, ()):
                raise _inconsistent(key_type, object_class)
            return LoadedKey(object_class, key_type, bytes(value))
        case ObjectClass.PRIVATE_KEY:
            return LoadedKey(object_class, key_type, _private(key_type, value))
        case ObjectClass.PUBLIC_KEY:
            return LoadedKey(object_class, key_type, _public(key_type, value))
        case _:
            raise KeyTypeInconsistent(f"{object_class.name} is no key")


def load_object(attributes: Attributes, value: bytes) -> LoadedKey:
    """Load a key by its object's attributes, as `load` does."""
    object_class, key_type = attributes[Attribute.CLASS], attributes.get(Attribute.KEY_TYPE)
    assert isinstance(object_class, int), "CLASS is an int; its rule says so"
    if not isinstance(key_type, int):
        raise KeyTypeInconsistent(f"{ObjectClass(object_class).name} is no key")
    return load(KeyType(key_type), ObjectClass(object_class), value)


def _private(key_type: KeyType, value: bytes) -> PrivateKey:
    try:
        # Testing an RSA key's primes costs a thousand signatures, and this key was made or tested here.
        key = load_der_private_key(value, None, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError):
        raise _inconsistent(key_type, ObjectClass.PRIVATE_KEY) from None
    for kind in _PRIVATE.get(key_type, ()):
        if isinstance(key, kind):
            return key
    raise _inconsistent(key_type, ObjectClass.PRIVATE_KEY)


def _public(key_type: KeyType, value: bytes) -> PublicKey:
    try:
        key = load_der_public_key(value)
    except (ValueError, TypeError):
        raise _inconsistent(key_type, ObjectClass.PUBLIC_KEY) from None
    for kind in _PUBLIC.get(key_type, ()):
        if isinstance(key, kind):
            return key
    raise _inconsistent(key_type, ObjectClass.PUBLIC_KEY)


def _inconsistent(key_type: KeyType, object_class: ObjectClass) -> KeyTypeInconsistent:
    return KeyTypeInconsistent(f"the value is no {key_type.name} {object_class.name}")
