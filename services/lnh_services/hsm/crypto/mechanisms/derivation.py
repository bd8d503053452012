"""Derives keys: ECDH with a key derivation, HKDF, SP 800-108, and agrees by ML-KEM (FIPS 203)."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, x448, x25519
from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
    MLKEM1024PrivateKey,
    MLKEM1024PublicKey,
)
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.hashes import HashAlgorithm
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFCMAC, KBKDFHMAC, CounterLocation, Mode
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF

from lnh_common.errors import EncryptedDataInvalid, KeySizeRange, MechanismParameterInvalid
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import Hash
from lnh_common.pkcs11.attributes import KeyType
from lnh_common.pkcs11.mechanisms import MechanismRule
from lnh_common.pkcs11.parameters import CounterParameters, EcdhParameters, HkdfParameters, Kdf
from lnh_services.hsm.crypto.mechanisms.base import HASHES, Decapsulator, Deriver, Encapsulator, LoadedKey

_COUNTER_BYTES: Final = 4
_OCTET_STRING: Final = 0x04
_LONG_FORM: Final = 0x81


def derive_ecdh(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Deriver:
    """Derive with ECDH1_DERIVE; raises MechanismParameterInvalid for a public key that is none of this curve."""
    assert isinstance(parameters, EcdhParameters), "the row names its parameters"
    if parameters.salt and parameters.kdf is not Kdf.HKDF:
        raise MechanismParameterInvalid(f"salt: {parameters.kdf.value} takes none")
    agreed = _agree(key, parameters.public_key)
    if parameters.kdf is Kdf.HKDF:
        return _hkdf(agreed, parameters.hash, parameters.salt, parameters.info)
    return lambda length: X963KDF(HASHES[parameters.hash], length, parameters.info).derive(agreed)


def _agree(key: LoadedKey, public: bytes) -> bytes:
    private = key.material
    try:
        if isinstance(private, ec.EllipticCurvePrivateKey):
            point = ec.EllipticCurvePublicKey.from_encoded_point(private.curve, _bare(public, private.key_size))
            return private.exchange(ec.ECDH(), point)
        if isinstance(private, x25519.X25519PrivateKey):
            return private.exchange(x25519.X25519PublicKey.from_public_bytes(public))
        assert isinstance(private, x448.X448PrivateKey), "the table pairs key types and mechanisms"
        return private.exchange(x448.X448PublicKey.from_public_bytes(public))
    except ValueError:
        # Also for a point of small order, of which the result would be zero (RFC 7748, 6).
        raise MechanismParameterInvalid("public_key is no public key of the key's curve") from None


def _bare(public: bytes, bits: int) -> bytes:
    """Return the point within the DER OCTET STRING of an EC_POINT, or the point as it is."""
    size = 1 + 2 * ((bits + 7) // 8)
    head = bytes([_OCTET_STRING, size]) if size < 0x80 else bytes([_OCTET_STRING, _LONG_FORM, size])
    return public[len(head) :] if len(public) == len(head) + size and public.startswith(head) else public


def derive_hkdf(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Deriver:
    """Derive with HKDF_DERIVE."""
    assert isinstance(parameters, HkdfParameters), "the row names its parameters"
    if not parameters.expand_only:
        return _hkdf(key.secret, parameters.hash, parameters.salt, parameters.info)
    if parameters.salt:
        raise MechanismParameterInvalid("salt: expand_only takes none")
    secret = key.secret
    return lambda length: HKDFExpand(_fitting(parameters.hash, length), length, parameters.info).derive(secret)


def _hkdf(secret: bytes, hash_: Hash, salt: bytes, info: bytes) -> Deriver:
    return lambda length: HKDF(_fitting(hash_, length), length, salt or None, info).derive(secret)


def _fitting(hash_: Hash, length: int) -> HashAlgorithm:
    most = 255 * hash_.size  # RFC 5869, 2.3
    if length > most:
        raise KeySizeRange(f"{length} bytes; HKDF with {hash_.value} gives {most}")
    return HASHES[hash_]


def derive_counter(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Deriver:
    """Derive with SP800_108_COUNTER_KDF: counter || label || 0 || context || length, each of 32 bits."""
    assert isinstance(parameters, CounterParameters), "the row names its parameters"
    secret, label, context = key.secret, parameters.label, parameters.context
    if key.key_type is KeyType.AES:
        if parameters.hash is not None:
            raise MechanismParameterInvalid("hash: an AES key derives with CMAC, which has none")
        return lambda length: KBKDFCMAC(
            algorithms.AES, Mode.CounterMode, length, _COUNTER_BYTES, _COUNTER_BYTES, CounterLocation.BeforeFixed,
            label, context, None,
        ).derive(secret)  # fmt: skip
    algorithm = HASHES[parameters.hash or Hash.SHA256]
    return lambda length: KBKDFHMAC(
        algorithm, Mode.CounterMode, length, _COUNTER_BYTES, _COUNTER_BYTES, CounterLocation.BeforeFixed,
        label, context, None,
    ).derive(secret)  # fmt: skip


def encapsulate(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Encapsulator:
    """Encapsulate with ML_KEM."""
    public = key.material
    assert isinstance(public, MLKEM768PublicKey | MLKEM1024PublicKey), "the table pairs key types and mechanisms"
    return public.encapsulate


def decapsulate(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Decapsulator:
    """Decapsulate with ML_KEM; a ciphertext that nobody made gives a secret that nobody else has (FIPS 203, 6.3)."""
    private = key.material
    assert isinstance(private, MLKEM768PrivateKey | MLKEM1024PrivateKey), "the table pairs key types and mechanisms"

    def decapsulate_one(ciphertext: bytes) -> bytes:
        try:
            return private.decapsulate(ciphertext)
        except ValueError:
            raise EncryptedDataInvalid("the ciphertext has not the length of the key's parameter set") from None

    return decapsulate_one
