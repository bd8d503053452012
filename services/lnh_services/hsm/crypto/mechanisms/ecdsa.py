"""Signs with ECDSA (FIPS 186-5, 6); signatures are r || s as in PKCS#11 (v3.1, 6.3.1)."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils

from lnh_common.errors import SignatureInvalid
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import SIGNED_HASHES
from lnh_common.pkcs11.mechanisms import MechanismRule
from lnh_common.pkcs11.parameters import HashedParameters
from lnh_services.hsm.crypto.mechanisms.base import HASHES, LoadedKey, Signer, Verifier, check_length

_DIGESTS: Final = {hash_.size: ec.ECDSA(utils.Prehashed(HASHES[hash_])) for hash_ in SIGNED_HASHES}


def _algorithms(parameters: Message, rule: MechanismRule) -> tuple[dict[int, ec.ECDSA], ec.ECDSA | None]:
    """Return the algorithms for digests by length, or the one that hashes the data itself."""
    if rule.hash is None:
        return _DIGESTS, None
    assert isinstance(parameters, HashedParameters), "the row names its parameters"
    if parameters.prehashed:
        return {rule.hash.size: _DIGESTS[rule.hash.size]}, None
    return {}, ec.ECDSA(HASHES[rule.hash])


def _size(curve: ec.EllipticCurve) -> int:
    return (curve.key_size + 7) // 8


def raw(der: bytes, size: int) -> bytes:
    """Decode the library's signature, an Ecdsa-Sig-Value (RFC 3279, 2.2.3) in DER, to r || s of `size` bytes each.

    `decode_dss_signature` makes numbers of both on the way, which takes a twelfth of the time of a P-256 signature.
    """
    at = 3 if der[1] & 0x80 else 2  # two integers of P-521 are too long for a length of one byte
    end = at + 2 + der[at + 1]
    r, s = der[at + 2 : end], der[end + 2 :]
    return r[-size:].rjust(size, b"\0") + s[-size:].rjust(size, b"\0")  # a zero before the first bit is DER's sign


def sign(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Signer:
    """Sign with ECDSA (a digest of 32, 48 or 64 bytes) or ECDSA_SHAxxx."""
    private = key.material
    assert isinstance(private, ec.EllipticCurvePrivateKey), "the table pairs key types and mechanisms"
    size = _size(private.curve)
    digests, hashed = _algorithms(parameters, rule)
    if hashed is not None:
        algorithm = hashed

        def sign_data(data: bytes) -> bytes:
            return raw(private.sign(data, algorithm), size)

        return sign_data
    lengths = tuple(digests)

    def sign_digest(data: bytes) -> bytes:
        check_length(data, lengths, "a digest")
        return raw(private.sign(data, digests[len(data)]), size)

    return sign_digest


def verify(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Verifier:
    """Verify ECDSA and ECDSA_SHAxxx; the signature is r || s."""
    public = key.material
    assert isinstance(public, ec.EllipticCurvePublicKey), "the table pairs key types and mechanisms"
    size = _size(public.curve)
    digests, hashed = _algorithms(parameters, rule)
    lengths = tuple(digests)

    def check(data: bytes, signature: bytes) -> None:
        if hashed is None:
            check_length(data, lengths, "a digest")
        algorithm = digests[len(data)] if hashed is None else hashed
        if len(signature) != 2 * size:
            raise SignatureInvalid(f"a signature of {len(signature)} bytes; {2 * size} for this curve")
        r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        try:
            public.verify(utils.encode_dss_signature(r, s), data, algorithm)
        except InvalidSignature:
            raise SignatureInvalid from None

    return check
