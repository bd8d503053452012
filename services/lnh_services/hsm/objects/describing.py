"""Describes a key by its material: the attributes that say what a public or private key is.

Pure, but for the process that tests the primes of a long RSA key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, mlkem, rsa, x448, x25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from lnh_common.errors import AttributeInvalid, KeySizeRange
from lnh_common.pkcs11.algorithms import CURVES, ML_DSA_SETS, ML_KEM_SETS, RSA_BITS
from lnh_common.pkcs11.attributes import Attribute, Attributes, KeyType
from lnh_services.hsm.crypto import rsa_primes
from lnh_services.hsm.crypto.mechanisms.base import PrivateKey, PublicKey

_A = Attribute
_K = KeyType
_TESTED_HERE_BITS: Final = 3072  # to test the primes of RSA up to here takes no longer than to start a process for it
_PRIME_BITS_APART: Final = 64  # by how much the longer prime of RSA may be longer than half of the modulus


class Described(NamedTuple):
    """What a key is.

    Args:
        key_type: KEY_TYPE.
        both: the attributes that both halves of its pair have.
        public: those that the public half has beside them.
    """

    key_type: KeyType
    both: Attributes
    public: Attributes


def describe(key: PublicKey) -> Described:
    """Describe a key pair by its public key; raises AttributeInvalid for a kind that the product does not have."""
    for kinds, describe_kind in _KINDS:
        if isinstance(key, kinds):
            described = describe_kind(key)
            info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            return described._replace(both=described.both | {_A.PUBLIC_KEY_INFO: info})
    raise _unsupported()


def read_private(value: bytes) -> tuple[PrivateKey, bytes]:
    """Read a private key that came from outside: the key, and its value as an object keeps it.

    The library tests the primes of an RSA key for as long as they are long, and lets nothing else of the process run
    meanwhile. So it tests only what may be a key of the product by all that is seen at once, and in a process of its
    own where that takes long.

    Args:
        value: DER of PKCS#8, not encrypted.

    Raises AttributeInvalid for anything else, for a key whose parts do not belong together, and for a kind that the
    product does not have; KeySizeRange for RSA of another size.
    """
    key = _loaded(value, is_tested=False)
    if not isinstance(key, _PRIVATE):
        raise _unsupported()
    if isinstance(key, rsa.RSAPrivateKey):
        check_rsa_size(key.key_size)
        _check_rsa_parts(key.private_numbers())
        if key.key_size <= _TESTED_HERE_BITS:
            _loaded(value, is_tested=True)
        elif not rsa_primes.is_sound(value):
            raise _no_private_key()
    return key, key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _loaded(value: bytes, *, is_tested: bool) -> PrivateKeyTypes:
    try:
        return load_der_private_key(value, None, unsafe_skip_rsa_key_validation=not is_tested)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _no_private_key() from None


def check_rsa_size(bits: int) -> None:
    """Raise KeySizeRange for an RSA key that the product does not have."""
    if not RSA_BITS[0] <= bits <= RSA_BITS[-1]:
        raise KeySizeRange(f"RSA of {bits} bits; from {RSA_BITS[0]} to {RSA_BITS[-1]}")


def _check_rsa_parts(numbers: rsa.RSAPrivateNumbers) -> None:
    """Raise AttributeInvalid for parts longer than those of a key: the modulus says nothing of their length."""
    modulus, most = numbers.public_numbers.n, numbers.public_numbers.n.bit_length()
    longest = max(numbers.p.bit_length(), numbers.q.bit_length())
    exponents = (numbers.d, numbers.dmp1, numbers.dmq1, numbers.iqmp, numbers.public_numbers.e)
    if longest > most // 2 + _PRIME_BITS_APART or any(each.bit_length() > most for each in exponents):
        raise _no_private_key()
    if numbers.p * numbers.q != modulus:
        raise _no_private_key()


def read_public(value: bytes) -> tuple[PublicKey, bytes]:
    """Read a public key that came from outside, as `read_private` does, from the DER of its SubjectPublicKeyInfo."""
    try:
        key = load_der_public_key(value)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise AttributeInvalid("VALUE is no SubjectPublicKeyInfo in DER") from None
    if not isinstance(key, _PUBLIC):
        raise _unsupported()
    return key, key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _no_private_key() -> AttributeInvalid:
    return AttributeInvalid("VALUE is no PKCS#8 private key in DER, or its parts do not belong together")


def _unsupported() -> AttributeInvalid:
    return AttributeInvalid("VALUE: a key of a kind, curve or parameter set that is not supported")


def _rsa(key: PublicKey) -> Described:
    assert isinstance(key, rsa.RSAPublicKey), "the table pairs types and functions"
    numbers = key.public_numbers()
    both: Attributes = {_A.MODULUS: _big_integer(numbers.n), _A.PUBLIC_EXPONENT: _big_integer(numbers.e)}
    return Described(_K.RSA, both, {_A.MODULUS_BITS: key.key_size})


def _big_integer(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


_CURVE_NAMES: Final[dict[str, str]] = {
    "secp256r1": "P-256",
    "secp384r1": "P-384",
    "secp521r1": "P-521",
    "secp256k1": "secp256k1",
    "brainpoolP256r1": "brainpoolP256r1",
    "brainpoolP384r1": "brainpoolP384r1",
    "brainpoolP512r1": "brainpoolP512r1",
}


def _ec(key: PublicKey) -> Described:
    assert isinstance(key, ec.EllipticCurvePublicKey), "the table pairs types and functions"
    if key.curve.name not in _CURVE_NAMES:
        raise _unsupported()
    # EC_POINT is a DER OCTET STRING of the uncompressed point (PKCS#11 v3.1, 6.3.3).
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    length = bytes([len(point)]) if len(point) < 0x80 else bytes([0x81, len(point)])
    oid = CURVES[_CURVE_NAMES[key.curve.name]].oid
    return Described(_K.EC, {_A.EC_PARAMS: oid}, {_A.EC_POINT: b"\x04" + length + point})


def _raw(key_type: KeyType, curve: str) -> Callable[[PublicKey], Described]:
    """Describe keys whose EC_POINT is their bytes (PKCS#11 v3.1, 6.3.5 and 6.3.7)."""

    def described(key: PublicKey) -> Described:
        point = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return Described(key_type, {_A.EC_PARAMS: CURVES[curve].oid}, {_A.EC_POINT: point})

    return described


def _lattice(key_type: KeyType, sets: dict[int, str], name: str) -> Callable[[PublicKey], Described]:
    """Describe keys whose VALUE is their bytes (PKCS#11 v3.2)."""
    number = next(number for number, known in sets.items() if known == name)

    def described(key: PublicKey) -> Described:
        value = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return Described(key_type, {_A.PARAMETER_SET: number}, {_A.VALUE: value})

    return described


_KINDS: Final[tuple[tuple[type[PublicKey], Callable[[PublicKey], Described]], ...]] = (
    (rsa.RSAPublicKey, _rsa),
    (ec.EllipticCurvePublicKey, _ec),
    (ed25519.Ed25519PublicKey, _raw(_K.EC_EDWARDS, "Ed25519")),
    (ed448.Ed448PublicKey, _raw(_K.EC_EDWARDS, "Ed448")),
    (x25519.X25519PublicKey, _raw(_K.EC_MONTGOMERY, "X25519")),
    (x448.X448PublicKey, _raw(_K.EC_MONTGOMERY, "X448")),
    (mldsa.MLDSA44PublicKey, _lattice(_K.ML_DSA, ML_DSA_SETS, "ML-DSA-44")),
    (mldsa.MLDSA65PublicKey, _lattice(_K.ML_DSA, ML_DSA_SETS, "ML-DSA-65")),
    (mldsa.MLDSA87PublicKey, _lattice(_K.ML_DSA, ML_DSA_SETS, "ML-DSA-87")),
    (mlkem.MLKEM768PublicKey, _lattice(_K.ML_KEM, ML_KEM_SETS, "ML-KEM-768")),
    (mlkem.MLKEM1024PublicKey, _lattice(_K.ML_KEM, ML_KEM_SETS, "ML-KEM-1024")),
)
_PUBLIC: Final = tuple(kind for kind, _ in _KINDS)
_PRIVATE: Final = (
    rsa.RSAPrivateKey,
    ec.EllipticCurvePrivateKey,
    ed25519.Ed25519PrivateKey,
    ed448.Ed448PrivateKey,
    x25519.X25519PrivateKey,
    x448.X448PrivateKey,
    mldsa.MLDSA44PrivateKey,
    mldsa.MLDSA65PrivateKey,
    mldsa.MLDSA87PrivateKey,
    mlkem.MLKEM768PrivateKey,
    mlkem.MLKEM1024PrivateKey,
)
