"""Signs with ML-DSA (FIPS 204), hedged, with a context string."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature

from lnh_common.errors import SignatureInvalid
from lnh_common.messages.base import Message
from lnh_common.pkcs11.mechanisms import MechanismRule
from lnh_common.pkcs11.parameters import MldsaParameters
from lnh_services.hsm.crypto.mechanisms.base import LoadedKey, MldsaPrivateKey, MldsaPublicKey, Signer, Verifier


def _context(parameters: Message) -> bytes:
    assert isinstance(parameters, MldsaParameters), "the row names its parameters"
    return parameters.context


def sign(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Signer:
    """Sign with the key's parameter set and the parameters' context."""
    private, context = key.material, _context(parameters)
    assert isinstance(private, MldsaPrivateKey), "the table pairs key types and mechanisms"
    return lambda data: private.sign(data, context)


def verify(key: LoadedKey, parameters: Message, rule: MechanismRule) -> Verifier:
    """Verify with the key's parameter set and the parameters' context."""
    public, context = key.material, _context(parameters)
    assert isinstance(public, MldsaPublicKey), "the table pairs key types and mechanisms"

    def check(data: bytes, signature: bytes) -> None:
        try:
            public.verify(signature, data, context)
        except InvalidSignature:
            raise SignatureInvalid from None

    return check
