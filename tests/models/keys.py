"""Keys for tests, generated through the product's own templates, each kind once a process."""

from __future__ import annotations

from functools import cache

from lnh.objects.encoding import ecdsa_to_der
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import CURVES, ML_DSA_SETS, ML_KEM_SETS
from lnh_common.pkcs11.attributes import Attribute, Attributes, AttributeValue, KeyType
from lnh_common.pkcs11.mechanisms import GENERATORS, Mechanism
from lnh_common.pkcs11.parameters import pack_parameters
from lnh_services.hsm.crypto.mechanisms import decrypter, load_object, signer
from lnh_services.hsm.objects.generate import Generated, generate_key, generate_key_pair
from lnh_services.hsm.objects.policy import KeyUses, Policy

A = Attribute
# Every mechanism on one key keeps the tests of mechanisms apart from those of policy.
COMPATIBLE = Policy(key_uses=KeyUses.COMPATIBLE, weak_mechanisms=(Mechanism.RSA_PKCS, Mechanism.AES_ECB))

KINDS: dict[str, tuple[KeyType, Attributes]] = {
    "RSA": (KeyType.RSA, {A.MODULUS_BITS: 2048}),
    **{name: (curve.key_type, {A.EC_PARAMS: curve.oid}) for name, curve in CURVES.items()},
    **{name: (KeyType.ML_DSA, {A.PARAMETER_SET: number}) for number, name in ML_DSA_SETS.items()},
    **{name: (KeyType.ML_KEM, {A.PARAMETER_SET: number}) for number, name in ML_KEM_SETS.items()},
    "AES-128": (KeyType.AES, {A.VALUE_LEN: 16}),
    "AES-192": (KeyType.AES, {A.VALUE_LEN: 24}),
    "AES-256": (KeyType.AES, {A.VALUE_LEN: 32}),
    "CHACHA20": (KeyType.CHACHA20, {}),
    "GENERIC_SECRET": (KeyType.GENERIC_SECRET, {A.VALUE_LEN: 48}),
}
SECRET_TYPES = frozenset({KeyType.AES, KeyType.CHACHA20, KeyType.GENERIC_SECRET})
PAIRS = tuple(name for name, (key_type, _) in KINDS.items() if key_type not in SECRET_TYPES)
SECRETS = tuple(name for name in KINDS if name not in PAIRS)


@cache
def pair(kind: str) -> tuple[Generated, Generated]:
    """(public, private) of that kind, for its natural uses."""
    key_type, template = KINDS[kind]
    return generate_key_pair(GENERATORS[key_type], template, {}, COMPATIBLE)


@cache
def secret(kind: str) -> Generated:
    """A secret key of that kind, for its natural use."""
    key_type, template = KINDS[kind]
    return generate_key(GENERATORS[key_type], template, COMPATIBLE)


class KeyInHsm:
    """A private key as the SDK's is, of which the mechanisms are the HSM's own; nothing lies between."""

    def __init__(self, kind: str, made: tuple[Generated, Generated] | None = None) -> None:
        self.public, self.private = made or pair(kind)

    @property
    def key_type(self) -> KeyType:
        return KeyType(self.private.attributes[A.KEY_TYPE])  # type: ignore[arg-type]

    def __getitem__(self, attribute: Attribute) -> AttributeValue:
        return self.private.attributes[attribute]

    def sign(
        self, data: bytes, mechanism: Mechanism | None = None, parameters: Message | None = None, *, der: bool = False
    ) -> bytes:
        assert mechanism is not None
        packed = b"" if parameters is None else pack_parameters(parameters)
        made = signer(mechanism, load_object(*self.private), packed)(data)
        return ecdsa_to_der(mechanism, made) if der else made

    def decrypt(self, data: bytes, mechanism: Mechanism | None = None, parameters: Message | None = None) -> bytes:
        assert mechanism is not None
        packed = b"" if parameters is None else pack_parameters(parameters)
        return decrypter(mechanism, load_object(*self.private), packed)(data)
