"""ECDSA (FIPS 186-5, 6), answering r || s as PKCS#11 does (v3.1, 6.3.1)."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, utils

from lnh_common.errors import SignatureInvalid
from lnh_common.mechanisms import SIGNED_HASHES, HashedParameters, MechanismRule
from lnh_common.messages.base import Message
from lnh_services.hsm.mechanisms.base import HASHES, LoadedKey, Signer, Verifier, check_length

_DIGESTS: Final = {hash_.size: ec.ECDSA(utils.Prehashed(HASHES[hash_])) for hash_ in SIGNED_HASHES}


def _algorithms(parameters: Message, rule: MechanismRule) -> tuple[dict[int, ec.ECDSA], ec.ECDSA | None]:
    """The algorithms for digests by length, or the one that hashes the data itself."""
    if rule.hash is None:
        return _DIGESTS, None
    assert isinstance(parameters, HashedParameters), "the row names its parameters"
    if parameters.prehashed:
        return {rule.hash.size: _DIGESTS[rule.hash.size]}, None
    return {}, ec.ECDSA(HASHES[rule.hash])


def _size(curve: ec.EllipticCurve) -> int:
    return (curve.key_size + 7) // 8


def sign(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Signer:
    """ECDSA (of a digest of 32, 48 or 64 bytes) and ECDSA_SHAxxx."""
    private = key.material
    assert isinstance(private, ec.EllipticCurvePrivateKey), "the table pairs key types and mechanisms"
    size = _size(private.curve)
    digests, hashed = _algorithms(parameters, rule)
    if hashed is not None:
        algorithm = hashed

        def sign_data(data: bytes) -> bytes:
            r, s = utils.decode_dss_signature(private.sign(data, algorithm))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")

        return sign_data
    lengths = tuple(digests)

    def sign_digest(data: bytes) -> bytes:
        check_length(data, lengths, "a digest")
        r, s = utils.decode_dss_signature(private.sign(data, digests[len(data)]))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    return sign_digest


def verify(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Verifier:
    """ECDSA and ECDSA_SHAxxx; the signature is r || s."""
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
