"""Signs with EdDSA: Ed25519 and Ed448 over the message itself (RFC 8032, 5.1.6 and 5.2.6; no context or prehash)."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey, Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lnh_common.errors import SignatureInvalid
from lnh_common.messages.base import Message
from lnh_common.pkcs11.mechanisms import MechanismRule
from lnh_services.hsm.crypto.mechanisms.base import LoadedKey, Signer, Verifier


def sign(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Signer:
    """Sign with Ed25519 or Ed448, by the key's curve."""
    private = key.material
    assert isinstance(private, (Ed25519PrivateKey, Ed448PrivateKey)), "the table pairs key types and mechanisms"
    return private.sign


def verify(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Verifier:
    """Verify Ed25519 or Ed448, by the key's curve."""
    public = key.material
    assert isinstance(public, (Ed25519PublicKey, Ed448PublicKey)), "the table pairs key types and mechanisms"

    def check(data: bytes, signature: bytes) -> None:
        try:
            public.verify(signature, data)
        except InvalidSignature:
            raise SignatureInvalid from None

    return check
