"""What NetHSM calls key types, mechanisms and modes, and what they are here: tables, a row each. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lnh_common.errors import ArgumentInvalid, MechanismInvalid
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import CURVES_BY_PARAMS, Hash
from lnh_common.pkcs11.attributes import Attribute, Attributes, KeyType
from lnh_common.pkcs11.mechanisms import Mechanism, Use
from lnh_common.pkcs11.parameters import IvParameters, OaepParameters, PssParameters


@dataclass(frozen=True)
class Kind:
    """A key type.

    Args:
        name: NetHSM's.
        curve: of a key type with curves.
    """

    name: str
    key_type: KeyType
    curve: str | None = None


@dataclass(frozen=True)
class Mode:
    """A mode in which a key is used.

    Args:
        mode: as a request names it.
        allows: the mechanism that a key of NetHSM's has to have for it.
        der: whether the signature is the DER of two numbers.
    """

    mode: str
    use: Use
    allows: str
    key_types: frozenset[KeyType]
    mechanism: Mechanism
    parameters: Message | None = None
    der: bool = False


KINDS: Final = (
    Kind("RSA", KeyType.RSA),
    Kind("Curve25519", KeyType.EC_EDWARDS, "Ed25519"),
    Kind("EC_P256", KeyType.EC, "P-256"),
    Kind("EC_P384", KeyType.EC, "P-384"),
    Kind("EC_P521", KeyType.EC, "P-521"),
    Kind("EC_P256K1", KeyType.EC, "secp256k1"),
    Kind("BrainpoolP256", KeyType.EC, "brainpoolP256r1"),
    Kind("BrainpoolP384", KeyType.EC, "brainpoolP384r1"),
    Kind("BrainpoolP512", KeyType.EC, "brainpoolP512r1"),
    Kind("Generic", KeyType.AES),
)

_RSA: Final = frozenset({KeyType.RSA})
_DIGEST: Final = PssParameters(prehashed=True)

MODES: Final = (
    Mode("PKCS1", Use.SIGN, "RSA_Signature_PKCS1", _RSA, Mechanism.RSA_PKCS),
    Mode("PSS_SHA256", Use.SIGN, "RSA_Signature_PSS_SHA256", _RSA, Mechanism.SHA256_RSA_PKCS_PSS, _DIGEST),
    Mode("PSS_SHA384", Use.SIGN, "RSA_Signature_PSS_SHA384", _RSA, Mechanism.SHA384_RSA_PKCS_PSS, _DIGEST),
    Mode("PSS_SHA512", Use.SIGN, "RSA_Signature_PSS_SHA512", _RSA, Mechanism.SHA512_RSA_PKCS_PSS, _DIGEST),
    Mode("EdDSA", Use.SIGN, "EdDSA_Signature", frozenset({KeyType.EC_EDWARDS}), Mechanism.EDDSA),
    Mode("ECDSA", Use.SIGN, "ECDSA_Signature", frozenset({KeyType.EC}), Mechanism.ECDSA, der=True),
    Mode("PKCS1", Use.DECRYPT, "RSA_Decryption_PKCS1", _RSA, Mechanism.RSA_PKCS),
    *(
        Mode(
            f"OAEP_{name}",
            Use.DECRYPT,
            f"RSA_Decryption_OAEP_{name}",
            _RSA,
            Mechanism.RSA_PKCS_OAEP,
            OaepParameters(hash=which),
        )
        for name, which in (
            ("SHA1", Hash.SHA1),
            ("SHA256", Hash.SHA256),
            ("SHA384", Hash.SHA384),
            ("SHA512", Hash.SHA512),
        )
    ),
    Mode("AES_CBC", Use.DECRYPT, "AES_Decryption_CBC", frozenset({KeyType.AES}), Mechanism.AES_CBC, IvParameters()),
    Mode("AES_CBC", Use.ENCRYPT, "AES_Encryption_CBC", frozenset({KeyType.AES}), Mechanism.AES_CBC, IvParameters()),
)


def kind_called(name: str) -> Kind:
    """Find a key type by NetHSM's name; raises ArgumentInvalid."""
    for each in KINDS:
        if each.name == name:
            return each
    raise ArgumentInvalid(f"no key type {name[:64]!r}", {"advice": f"one of {', '.join(each.name for each in KINDS)}"})


def modes_called(names: tuple[str, ...], kind: Kind) -> list[Mode]:
    """Find what a new key's mechanisms allow; raises MechanismInvalid for one that is not served."""
    found = [each for each in MODES if each.allows in names and kind.key_type in each.key_types]
    missing = [name for name in names if name not in {each.allows for each in found}]
    if missing:
        having = sorted({each.allows for each in MODES if kind.key_type in each.key_types})
        advice = {"advice": f"for {kind.name} there are {', '.join(having)}"}
        raise MechanismInvalid(f"{missing[0][:64]}: not served for {kind.name}", advice)
    return found


def mode_called(name: str, use: Use, key_type: KeyType) -> Mode:
    """Find a mode of a request; raises MechanismInvalid for one that is not served, or not by such a key."""
    for each in MODES:
        if each.mode == name and each.use is use and key_type in each.key_types:
            return each
    having = [each.mode for each in MODES if each.use is use and key_type in each.key_types]
    advice = {"advice": f"such a key has {', '.join(having) or 'none'}"}
    raise MechanismInvalid(f"mode {name[:64]}: not served to {use.value} with such a key", advice)


def kind_of(attributes: Attributes) -> Kind | None:
    """Say what NetHSM calls a key; None for what it has no name for."""
    key_type = attributes.get(Attribute.KEY_TYPE)
    params = attributes.get(Attribute.EC_PARAMS)
    curve = CURVES_BY_PARAMS[params].name if isinstance(params, bytes) and params in CURVES_BY_PARAMS else None
    for each in KINDS:
        if each.key_type.value == key_type and each.curve == curve:
            return each
    return None


def allowed(attributes: Attributes) -> list[str]:
    """List the mechanisms that a key has, by NetHSM's names."""
    among = attributes.get(Attribute.ALLOWED_MECHANISMS)
    uses = {Use.SIGN: Attribute.SIGN, Use.DECRYPT: Attribute.DECRYPT, Use.ENCRYPT: Attribute.ENCRYPT}
    return [
        each.allows
        for each in MODES
        if attributes.get(Attribute.KEY_TYPE) in {kind.value for kind in each.key_types}
        and attributes.get(uses[each.use]) is True
        and (not isinstance(among, list) or each.mechanism.value in among)
    ]
