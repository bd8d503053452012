"""Encodes public keys as SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) of what a token says of them. Pure.

Whether a key is sound, the HSM finds out that takes it in.
"""

from __future__ import annotations

from typing import Final

from lnh_common.pkcs11.algorithms import Curve
from lnh_common.pkcs11.attributes import KeyType

_SEQUENCE: Final = 0x30
_INTEGER: Final = 0x02
_BIT_STRING: Final = 0x03
_OCTET_STRING: Final = 0x04
_NULL: Final = b"\x05\x00"
_RSA_ENCRYPTION: Final = bytes.fromhex("06092a864886f70d010101")  # RFC 8017, appendix C
_EC_PUBLIC_KEY: Final = bytes.fromhex("06072a8648ce3d0201")  # RFC 5480, 2.1.1


def of_rsa(modulus: bytes, exponent: bytes) -> bytes:
    """Encode an RSA key of its MODULUS and its PUBLIC_EXPONENT."""
    return _info(_RSA_ENCRYPTION + _NULL, _der(_SEQUENCE, _integer(modulus) + _integer(exponent)))


def of_curve(curve: Curve, point: bytes) -> bytes:
    """Encode a key of a named curve.

    Args:
        point: EC_POINT, within the OCTET STRING that most tokens put around it, or bare.

    The curves of X9.62 share one algorithm (RFC 5480); the others name their own (RFC 8410).
    """
    is_x962 = curve.key_type is KeyType.EC
    return _info(_EC_PUBLIC_KEY + curve.oid if is_x962 else curve.oid, _bare(point, curve))


def _bare(point: bytes, curve: Curve) -> bytes:
    """Return an EC_POINT without an OCTET STRING around it. Its length tells: either may begin with the same byte."""
    sizes = (2 * curve.size + 1, curve.size + 1) if curve.key_type is KeyType.EC else (curve.size,)
    return next((point[-size:] for size in sizes if point == _der(_OCTET_STRING, point[-size:])), point)


def _info(algorithm: bytes, key: bytes) -> bytes:
    return _der(_SEQUENCE, _der(_SEQUENCE, algorithm) + _der(_BIT_STRING, b"\0" + key))


def _integer(value: bytes) -> bytes:
    number = int.from_bytes(value, "big")
    return _der(_INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
