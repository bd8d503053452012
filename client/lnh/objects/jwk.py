"""Reads and writes keys as JSON Web Keys (RFC 7517, 7518, 8037, 8812). Pure.

A JWK has a key's numbers in JSON; `cryptography` checks that they are a key. The forms that are registered for a kind
of key are read and written, and no others: a brainpool key, for one, has none.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from lnh_common.errors import KeyFileInvalid, KeyTypeInconsistent

PrivateJwk: TypeAlias = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | ed448.Ed448PrivateKey
    | x25519.X25519PrivateKey
    | x448.X448PrivateKey
)
PublicJwk: TypeAlias = (
    rsa.RSAPublicKey
    | ec.EllipticCurvePublicKey
    | ed25519.Ed25519PublicKey
    | ed448.Ed448PublicKey
    | x25519.X25519PublicKey
    | x448.X448PublicKey
)

_CURVES: Final[dict[str, type[ec.EllipticCurve]]] = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
    "secp256k1": ec.SECP256K1,
}
_OCTET_PAIRS: Final[dict[str, tuple[type[Any], type[Any]]]] = {
    "Ed25519": (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey),
    "Ed448": (ed448.Ed448PrivateKey, ed448.Ed448PublicKey),
    "X25519": (x25519.X25519PrivateKey, x25519.X25519PublicKey),
    "X448": (x448.X448PrivateKey, x448.X448PublicKey),
}
_URL_ALPHABET: Final = re.compile("[A-Za-z0-9_-]*")
_RSA_PRIMES: Final = ("p", "q", "dp", "dq", "qi")


class Jwk(msgspec.Struct, omit_defaults=True, repr_omit_defaults=True):
    """The members of a JWK that say what the key is; others are not looked at."""

    kty: str
    crv: str = ""
    alg: str = ""
    kid: str = ""
    n: str = ""
    e: str = ""
    d: str = ""
    p: str = ""
    q: str = ""
    dp: str = ""
    dq: str = ""
    qi: str = ""
    x: str = ""
    y: str = ""
    k: str = ""
    oth: Any = None

    def __repr__(self) -> str:
        return f"Jwk(kty={self.kty!r})"  # the rest may be secret

    def octets(self, name: str) -> bytes:
        """Decode a member that is octets; raises KeyFileInvalid where it is missing or no base64url."""
        text: str = getattr(self, name)
        if not text:
            raise KeyFileInvalid(f"JWK: a {self.kty} key has the member {name!r}, and this one lacks it")
        if not _URL_ALPHABET.fullmatch(text):
            raise KeyFileInvalid(f"JWK: the member {name!r} is no base64url")
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise KeyFileInvalid(f"JWK: the member {name!r} is no base64url") from None

    def number(self, name: str) -> int:
        """Decode a member that is a number; raises as `octets`."""
        return int.from_bytes(self.octets(name), "big")


class _Set(msgspec.Struct):
    keys: list[Jwk]


def parse(data: bytes) -> list[Jwk]:
    """Parse a JWK, or the keys of a JWK set; raises KeyFileInvalid."""
    try:
        members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        return msgspec.json.decode(data, type=_Set).keys if "keys" in members else [msgspec.json.decode(data, type=Jwk)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise KeyFileInvalid("no JSON Web Key, and no set of them: JSON with the member 'kty', or 'keys'") from None


def key_of(jwk: Jwk) -> PrivateJwk | PublicJwk | bytes:
    """Make the key that a JWK says; of `kty` oct the secret itself.

    Raises KeyFileInvalid for what is no key, or of a kind that is not read.
    """
    if jwk.kty not in _READERS:
        raise KeyFileInvalid(f"JWK: a key of kty {jwk.kty[:20]!r}; there are {', '.join(_READERS)}")
    try:
        return _READERS[jwk.kty](jwk)
    except (ValueError, TypeError, OverflowError):
        raise KeyFileInvalid(f"JWK: the numbers are those of no {jwk.kty} key") from None


def _rsa(jwk: Jwk) -> PrivateJwk | PublicJwk:
    public = rsa.RSAPublicNumbers(jwk.number("e"), jwk.number("n"))
    if not jwk.d:
        return public.public_key()
    if jwk.oth is not None:
        raise KeyFileInvalid("JWK: an RSA key of more than two primes, which is not read")
    if any(getattr(jwk, name) for name in _RSA_PRIMES):
        p, q, dp, dq, qi = map(jwk.number, _RSA_PRIMES)
    else:
        d = jwk.number("d")
        p, q = rsa.rsa_recover_prime_factors(public.n, public.e, d)
        dp, dq, qi = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    return rsa.RSAPrivateNumbers(p, q, jwk.number("d"), dp, dq, qi, public).private_key()


def _elliptic(jwk: Jwk) -> PrivateJwk | PublicJwk:
    curve = _curve(jwk, _CURVES)()
    public = ec.EllipticCurvePublicNumbers(jwk.number("x"), jwk.number("y"), curve)
    return ec.EllipticCurvePrivateNumbers(jwk.number("d"), public).private_key() if jwk.d else public.public_key()


def _octet_pair(jwk: Jwk) -> PrivateJwk | PublicJwk:
    of_private, of_public = _curve(jwk, _OCTET_PAIRS)
    public: PublicJwk = of_public.from_public_bytes(jwk.octets("x"))
    if not jwk.d:
        return public
    private: PrivateJwk = of_private.from_private_bytes(jwk.octets("d"))
    if private.public_key() != public:
        raise KeyFileInvalid("JWK: 'x' is not the public half of 'd'")
    return private


def _secret(jwk: Jwk) -> bytes:
    return jwk.octets("k")


def _curve(jwk: Jwk, curves: Mapping[str, Any]) -> Any:
    if jwk.crv not in curves:
        raise KeyFileInvalid(f"JWK: curve {jwk.crv[:20]!r}; of kty {jwk.kty} there are {', '.join(curves)}")
    return curves[jwk.crv]


_READERS: Final[dict[str, Callable[[Jwk], PrivateJwk | PublicJwk | bytes]]] = {
    "RSA": _rsa,
    "EC": _elliptic,
    "OKP": _octet_pair,
    "oct": _secret,
}


def of_public_key(der: bytes) -> str:
    """Write a public key, given as SubjectPublicKeyInfo, as a JWK; raises KeyTypeInconsistent where it has no form."""
    public: Any = load_der_public_key(der)
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        jwk = Jwk("RSA", n=_written(numbers.n), e=_written(numbers.e))
    elif isinstance(public, ec.EllipticCurvePublicKey):
        names = [name for name, curve in _CURVES.items() if isinstance(public.curve, curve)]
        if not names:
            raise KeyTypeInconsistent(f"JWK has no form for keys on {public.curve.name}; write PEM or DER")
        size = (public.curve.key_size + 7) // 8
        point = public.public_numbers()
        jwk = Jwk("EC", crv=names[0], x=_written(point.x, size), y=_written(point.y, size))
    else:
        names = [name for name, (_, kind) in _OCTET_PAIRS.items() if isinstance(public, kind)]
        if not names:
            raise KeyTypeInconsistent("JWK has no registered form for keys of this type; write PEM or DER")
        jwk = Jwk("OKP", crv=names[0], x=_url(public.public_bytes(Encoding.Raw, PublicFormat.Raw)))
    return msgspec.json.format(msgspec.json.encode(jwk), indent=2).decode()


def _written(number: int, size: int | None = None) -> str:
    return _url(number.to_bytes((number.bit_length() + 7) // 8 if size is None else size, "big"))


def _url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
