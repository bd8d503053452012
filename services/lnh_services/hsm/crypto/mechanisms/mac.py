"""Makes and checks HMAC (FIPS 198-1), whole and truncated, and AES-CMAC (SP 800-38B)."""

from __future__ import annotations

from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.cmac import CMAC
from cryptography.hazmat.primitives.hmac import HMAC

from lnh_common.errors import SignatureInvalid
from lnh_common.messages.base import Message
from lnh_common.pkcs11.mechanisms import MechanismRule
from lnh_common.pkcs11.parameters import MacParameters
from lnh_services.hsm.crypto.mechanisms.base import HASHES, LoadedKey, Signer, Verifier


def sign_hmac(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Signer:
    """Make a tag with SHAxxx_HMAC, or SHAxxx_HMAC_GENERAL with `length`."""
    assert rule.hash is not None, "the row names its hash"
    # The key's two blocks are hashed once; each message goes on from a copy.
    keyed = HMAC(key.secret, HASHES[rule.hash])
    length = parameters.length if isinstance(parameters, MacParameters) else rule.hash.size

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


def _verifier(sign: Signer) -> Verifier:
    def verify(data: bytes, signature: bytes) -> None:
        if not constant_time.bytes_eq(sign(data), signature):
            raise SignatureInvalid

    return verify
