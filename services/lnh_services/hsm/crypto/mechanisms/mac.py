"""Makes and checks HMAC (FIPS 198-1), whole and truncated, and AES-CMAC (SP 800-38B)."""

from __future__ import annotations

from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hmac import HMAC

from lnh_common.errors import MechanismParameterInvalid, SignatureInvalid
from lnh_common.messages.base import Message
from lnh_common.pkcs11.mechanisms import MacParameters, MechanismRule
from lnh_services.hsm.crypto.mechanisms.base import HASHES, LoadedKey, Signer, Verifier

_LEAST_TAG = 16


def sign_hmac(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Signer:
    """Make a tag with SHAxxx_HMAC, or SHAxxx_HMAC_GENERAL with `length`."""
    assert rule.hash is not None, "the row names its hash"
    # The key's two blocks are hashed once; each message goes on from a copy.
    keyed = HMAC(key.secret, HASHES[rule.hash])
    length = _tag_bytes(parameters, rule)

    def sign(data: bytes) -> bytes:
        context = keyed.copy()
        context.update(data)
        return context.finalize()[:length]

    return sign


def verify_hmac(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Verifier:
    """Verify a tag of SHAxxx_HMAC or SHAxxx_HMAC_GENERAL, in constant time."""
    return _verifier(sign_hmac(key, parameters, rule))


def sign_cmac(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Signer:
    """Make a tag with AES_CMAC, the whole 16 bytes."""
    keyed = CMAC(key.once(algorithms.AES))

    def sign(data: bytes) -> bytes:
        context = keyed.copy()
        context.update(data)
        return context.finalize()

    return sign


def verify_cmac(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Verifier:
    """Verify a tag of AES_CMAC, in constant time."""
    return _verifier(sign_cmac(key, parameters, rule))


def _tag_bytes(parameters: Message, rule: MechanismRule) -> int:
    assert rule.hash is not None, "the row names its hash"
    most = rule.hash.size
    if not isinstance(parameters, MacParameters):
        return most
    least = max(_LEAST_TAG, most // 2)
    if not least <= parameters.length <= most:
        raise MechanismParameterInvalid(f"length {parameters.length}; from {least} to {most} for {rule.hash.value}")
    return parameters.length


def _verifier(sign: Signer) -> Verifier:
    def verify(data: bytes, signature: bytes) -> None:
        if not constant_time.bytes_eq(sign(data), signature):
            raise SignatureInvalid

    return verify
