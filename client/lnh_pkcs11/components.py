"""Turns values between PKCS#11's components of a key and the encodings that the product takes.

PKCS#11 has a private key as numbers, the product as PKCS #8; a public one as numbers or a point, the product as
SubjectPublicKeyInfo. Whether a key is sound the HSM finds out that takes it in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, cast

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, mlkem, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from lnh.migration import spki
from lnh_common.pkcs11.algorithms import CURVES_BY_PARAMS
from lnh_common.pkcs11.attributes import Attribute, Attributes, KeyType, ObjectClass
from lnh_pkcs11 import values
from lnh_pkcs11.fields import Attribute as Given
from lnh_pkcs11.numbers import CKR
from lnh_pkcs11.refusals import Refused

if TYPE_CHECKING:
    from lnh.aio import Key, StoredObject

_A = Attribute
_K = KeyType
_PRIVATE_EXPONENT, _PRIME_1, _PRIME_2, _EXPONENT_1, _EXPONENT_2, _COEFFICIENT = range(0x123, 0x129)
_RSA_PARTS: Final = (_PRIVATE_EXPONENT, _PRIME_1, _PRIME_2, _EXPONENT_1, _EXPONENT_2, _COEFFICIENT)
_LOADERS: Final[dict[str, Callable[[bytes], Any]]] = {
    "Ed25519": ed25519.Ed25519PrivateKey.from_private_bytes,
    "Ed448": ed448.Ed448PrivateKey.from_private_bytes,
    "X25519": x25519.X25519PrivateKey.from_private_bytes,
    "X448": x448.X448PrivateKey.from_private_bytes,
}
# By KEY_TYPE and PARAMETER_SET.
_LATTICE: Final[dict[tuple[int, int], Any]] = {
    (_K.ML_DSA, 1): mldsa.MLDSA44PublicKey,
    (_K.ML_DSA, 2): mldsa.MLDSA65PublicKey,
    (_K.ML_DSA, 3): mldsa.MLDSA87PublicKey,
    (_K.ML_KEM, 2): mlkem.MLKEM768PublicKey,
    (_K.ML_KEM, 3): mlkem.MLKEM1024PublicKey,
}
_NIST: Final[dict[str, type[ec.EllipticCurve]]] = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
    "secp256k1": ec.SECP256K1,
    "brainpoolP256r1": ec.BrainpoolP256R1,
    "brainpoolP384r1": ec.BrainpoolP384R1,
    "brainpoolP512r1": ec.BrainpoolP512R1,
}


def read(given: Iterable[Given]) -> tuple[Attributes, bytes]:
    """Read the template of an object that is made of its value: what is left of it, and the value. Raises Refused."""
    parts = {each.type: each.value for each in given if each.type in _RSA_PARTS}
    template = values.template(each for each in given if each.type not in _RSA_PARTS)
    object_class = template.get(_A.CLASS)
    if object_class is None:
        raise Refused(CKR.TEMPLATE_INCOMPLETE, "CLASS is missing")
    if object_class not in _VALUES:
        raise Refused(CKR.ATTRIBUTE_VALUE_INVALID, f"CLASS {object_class!r}")
    try:
        return template, _VALUES[ObjectClass(object_class)](template, parts)
    except KeyError as error:
        missing: Any = error.args[0]
        if isinstance(missing, bytes | tuple):
            raise Refused(
                CKR.ATTRIBUTE_VALUE_INVALID, "a curve or parameter set that the product does not have"
            ) from None
        raise Refused(CKR.TEMPLATE_INCOMPLETE, f"{missing!r} is missing") from None
    except (ValueError, TypeError):
        raise Refused(CKR.ATTRIBUTE_VALUE_INVALID, "the parts of the key do not go together") from None


_Parts = dict[int, Any]


def _itself(template: Attributes, parts: _Parts) -> bytes:
    """Leave the VALUE of a certificate or data where it is."""
    return b""


def _secret(template: Attributes, parts: _Parts) -> bytes:
    template.pop(_A.VALUE_LEN, None)
    return cast("bytes", template.pop(_A.VALUE))


def _public(template: Attributes, parts: _Parts) -> bytes:
    key_type = template[_A.KEY_TYPE]
    if key_type == _K.RSA:
        template.pop(_A.MODULUS_BITS, None)
        modulus, exponent = template.pop(_A.MODULUS), template.pop(_A.PUBLIC_EXPONENT)
        return spki.of_rsa(cast("bytes", modulus), cast("bytes", exponent))
    if _A.EC_PARAMS in template:
        curve = CURVES_BY_PARAMS[cast("bytes", template.pop(_A.EC_PARAMS))]
        return spki.of_curve(curve, cast("bytes", template.pop(_A.EC_POINT)))
    kind = _LATTICE[cast("int", key_type), cast("int", template.pop(_A.PARAMETER_SET))]
    key = kind.from_public_bytes(cast("bytes", template.pop(_A.VALUE)))
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def _private(template: Attributes, parts: _Parts) -> bytes:
    key: Any
    if template[_A.KEY_TYPE] == _K.RSA:
        n, e = _number(template.pop(_A.MODULUS)), _number(template.pop(_A.PUBLIC_EXPONENT))
        d = _number(parts[_PRIVATE_EXPONENT])
        p, q = (
            (_number(parts[_PRIME_1]), _number(parts[_PRIME_2]))
            if _PRIME_1 in parts and _PRIME_2 in parts
            else rsa.rsa_recover_prime_factors(n, e, d)
        )
        whole = rsa.RSAPrivateNumbers(
            p, q, d, rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q), rsa.RSAPublicNumbers(e, n)
        )
        key = whole.private_key()
    else:
        curve = CURVES_BY_PARAMS[cast("bytes", template.pop(_A.EC_PARAMS))]
        value = cast("bytes", template.pop(_A.VALUE))
        if curve.name in _NIST:
            key = ec.derive_private_key(_number(value), _NIST[curve.name]())
        else:
            key = _LOADERS[curve.name](value)
    encoded: bytes = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return encoded


def _number(value: Any) -> int:
    return int.from_bytes(value, "big")


_VALUES: Final[dict[ObjectClass, Callable[[Attributes, _Parts], bytes]]] = {
    ObjectClass.SECRET_KEY: _secret,
    ObjectClass.PUBLIC_KEY: _public,
    ObjectClass.PRIVATE_KEY: _private,
    ObjectClass.CERTIFICATE: _itself,
    ObjectClass.DATA: _itself,
}


async def parts_of(found: StoredObject) -> dict[int, bytes]:
    """Read the value of a private or secret key that may be seen, as the attributes that PKCS#11 has for it."""
    value = await cast("Key", found).read_value()
    if found.attributes[_A.CLASS] == ObjectClass.SECRET_KEY:
        return {_A.VALUE.value: value}
    key = load_der_private_key(value, None)
    if isinstance(key, rsa.RSAPrivateKey):
        whole = key.private_numbers()
        numbers = (whole.d, whole.p, whole.q, whole.dmp1, whole.dmq1, whole.iqmp)
        return {name: _bytes(number) for name, number in zip(_RSA_PARTS, numbers, strict=True)}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = (key.key_size + 7) // 8
        return {_A.VALUE.value: key.private_numbers().private_value.to_bytes(size, "big")}
    if hasattr(key, "private_bytes_raw"):
        return {_A.VALUE.value: key.private_bytes_raw()}
    return {}


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
