"""The table of mechanisms: one row a mechanism says all that is to be said of it.

Names and numbers are PKCS#11's (v3.1; ML-DSA and ML-KEM v3.2) without CKM_. A row of `MECHANISM_RULES` says what a
mechanism is for, with which keys and parameters, what comes out, and by which `Scheme` it is carried out; the HSM has
functions for each scheme (`lnh_services/hsm/crypto/mechanisms/schemes.py`). SDK, command line, policy, worker and
docs/mechanisms.md read it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final

from lnh_common.errors import MalformedMessage, MechanismInvalid, MechanismParameterInvalid
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import AES_BLOCK, GCM_IV_BYTES, OAEP_HASHES, SIGNED_HASHES, Hash
from lnh_common.pkcs11.attributes import Attribute, KeyType
from lnh_common.pkcs11.parameters import (
    AeadParameters,
    CounterParameters,
    EcdhParameters,
    GcmParameters,
    HashedParameters,
    HkdfParameters,
    IvParameters,
    MacParameters,
    MldsaParameters,
    Narrowed,
    NoParameters,
    OaepParameters,
    Parameter,
    PssParameters,
    Range,
    declared,
)
from lnh_common.wire import codec


class Mechanism(enum.IntEnum):
    """CKM_ (PKCS#11 v3.1, 6; v3.2 for ML_DSA and ML_KEM)."""

    RSA_PKCS_KEY_PAIR_GEN = 0x0000
    RSA_PKCS = 0x0001
    RSA_PKCS_OAEP = 0x0009
    RSA_PKCS_PSS = 0x000D
    ML_KEM_KEY_PAIR_GEN = 0x000F
    ML_KEM = 0x0017
    ML_DSA_KEY_PAIR_GEN = 0x001C
    ML_DSA = 0x001D
    SHA256_RSA_PKCS = 0x0040
    SHA384_RSA_PKCS = 0x0041
    SHA512_RSA_PKCS = 0x0042
    SHA256_RSA_PKCS_PSS = 0x0043
    SHA384_RSA_PKCS_PSS = 0x0044
    SHA512_RSA_PKCS_PSS = 0x0045
    SHA256 = 0x0250
    SHA256_HMAC = 0x0251
    SHA256_HMAC_GENERAL = 0x0252
    SHA224 = 0x0255
    SHA384 = 0x0260
    SHA384_HMAC = 0x0261
    SHA384_HMAC_GENERAL = 0x0262
    SHA512 = 0x0270
    SHA512_HMAC = 0x0271
    SHA512_HMAC_GENERAL = 0x0272
    SHA3_256 = 0x02B0
    SHA3_224 = 0x02B5
    SHA3_384 = 0x02C0
    SHA3_512 = 0x02D0
    GENERIC_SECRET_KEY_GEN = 0x0350
    SP800_108_COUNTER_KDF = 0x03AC
    EC_KEY_PAIR_GEN = 0x1040
    ECDSA = 0x1041
    ECDSA_SHA256 = 0x1044
    ECDSA_SHA384 = 0x1045
    ECDSA_SHA512 = 0x1046
    ECDH1_DERIVE = 0x1050
    RSA_AES_KEY_WRAP = 0x1054
    EC_EDWARDS_KEY_PAIR_GEN = 0x1055
    EC_MONTGOMERY_KEY_PAIR_GEN = 0x1056
    EDDSA = 0x1057
    AES_KEY_GEN = 0x1080
    AES_ECB = 0x1081
    AES_CBC = 0x1082
    AES_CBC_PAD = 0x1085
    AES_CTR = 0x1086
    AES_GCM = 0x1087
    AES_CMAC = 0x108A
    CHACHA20_KEY_GEN = 0x1225
    AES_KEY_WRAP = 0x2109
    AES_KEY_WRAP_PAD = 0x210A
    CHACHA20_POLY1305 = 0x4021
    HKDF_DERIVE = 0x402A


class Use(enum.Enum):
    """The use of a key that a mechanism serves."""

    GENERATE = "generate"
    GENERATE_PAIR = "generate pair"
    SIGN = "sign"
    VERIFY = "verify"
    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"
    WRAP = "wrap"
    UNWRAP = "unwrap"
    DERIVE = "derive"
    ENCAPSULATE = "encapsulate"
    DECAPSULATE = "decapsulate"
    DIGEST = "digest"


# The attribute that must be true for a key to be used so.
USE_ATTRIBUTES: Final[dict[Use, Attribute]] = {
    Use.SIGN: Attribute.SIGN,
    Use.VERIFY: Attribute.VERIFY,
    Use.ENCRYPT: Attribute.ENCRYPT,
    Use.DECRYPT: Attribute.DECRYPT,
    Use.WRAP: Attribute.WRAP,
    Use.UNWRAP: Attribute.UNWRAP,
    Use.DERIVE: Attribute.DERIVE,
    Use.ENCAPSULATE: Attribute.ENCAPSULATE,
    Use.DECAPSULATE: Attribute.DECAPSULATE,
}


class Family(enum.Enum):
    """A group of mechanisms; a secret key serves the mechanisms of one family for life (Clulow 2003)."""

    GCM = "GCM"
    CBC = "CBC"
    CTR = "CTR"
    ECB = "ECB"
    KEY_WRAP = "KEY_WRAP"
    CMAC = "CMAC"
    HMAC = "HMAC"
    CHACHA20 = "CHACHA20"
    KDF = "KDF"


class Output(enum.Enum):
    """The kind of a mechanism's result."""

    KEY = "a new object"
    SIGNATURE = "the signature"
    R_S = "r || s, each of the curve's size"
    TAG = "the tag"
    CIPHERTEXT = "the ciphertext"
    CIPHERTEXT_TAG = "ciphertext || tag of 16 bytes"
    DIGEST = "the digest"


class Scheme(enum.Enum):
    """The construction that carries a mechanism out; the HSM has functions for each."""

    GENERATION = "generation of a key of the row's type"
    RSA_PKCS1 = "PKCS #1 v1.5 without a hash"
    RSA_PKCS1_HASHED = "PKCS #1 v1.5 over a hash"
    RSA_PSS = "RSASSA-PSS"
    RSA_OAEP = "RSAES-OAEP"
    RSA_AES_KEY_WRAP = "RSA-OAEP around AES key wrap"
    ECDSA = "ECDSA"
    EDDSA = "EdDSA"
    ML_DSA = "ML-DSA"
    ML_KEM = "ML-KEM"
    ECDH = "ECDH"
    HKDF = "HKDF"
    COUNTER_KDF = "SP 800-108 in counter mode"
    HMAC = "HMAC"
    CMAC = "CMAC"
    GCM = "GCM"
    CBC = "CBC"
    CBC_PAD = "CBC with PKCS #7 padding"
    CTR = "CTR"
    ECB = "ECB"
    CHACHA20_POLY1305 = "ChaCha20-Poly1305"
    KEY_WRAP = "AES key wrap"
    KEY_WRAP_PAD = "AES key wrap with padding"
    DIGEST = "a hash"


@dataclass(frozen=True)
class MechanismRule:
    """One mechanism.

    Args:
        uses: what it is for.
        key_types: of the keys it works with, or makes.
        output: what comes out.
        scheme: by which it is carried out.
        parameters: their type; the wire carries its CBOR, or nothing for its defaults.
        narrows: bounds of single parameters that hold for this mechanism.
        family: of secret keys' mechanisms.
        hash: built in, if any.
        streams: whether data of any length is fed to it in parts.
        weak: uses that are off unless a policy's `weak_mechanisms` names the mechanism.
        approved: by FIPS 140-3's lists; the `fips` preset allows no other.
        iv_bytes: of the IV that encryption draws, and answers; 0 where there is none.
    """

    uses: frozenset[Use]
    key_types: frozenset[KeyType]
    output: Output
    scheme: Scheme
    parameters: type[Message] = NoParameters
    narrows: Mapping[str, Narrowed] = field(default_factory=dict)
    family: Family | None = None
    hash: Hash | None = None
    streams: bool = False
    weak: frozenset[Use] = frozenset()
    approved: bool = True
    iv_bytes: int = 0


_K = KeyType
_U = Use
_M = Mechanism
_S = Scheme
_SIGN: Final = frozenset({_U.SIGN, _U.VERIFY})
_ENCRYPT: Final = frozenset({_U.ENCRYPT, _U.DECRYPT})
_WRAP: Final = frozenset({_U.WRAP, _U.UNWRAP})
_DERIVE: Final = frozenset({_U.DERIVE})
_ENCAPSULATE: Final = frozenset({_U.ENCAPSULATE, _U.DECAPSULATE})
_RSA: Final = frozenset({_K.RSA})
_EC: Final = frozenset({_K.EC})
_AES: Final = frozenset({_K.AES})
_SECRET: Final = frozenset({_K.GENERIC_SECRET})
_LEAST_TAG: Final = 16


def _generate(key_type: KeyType, use: Use, *, approved: bool = True) -> MechanismRule:
    return MechanismRule(frozenset({use}), frozenset({key_type}), Output.KEY, _S.GENERATION, approved=approved)


def _pkcs1(hash_: Hash) -> MechanismRule:
    return MechanismRule(_SIGN, _RSA, Output.SIGNATURE, _S.RSA_PKCS1_HASHED, HashedParameters, hash=hash_, streams=True)


def _pss(hash_: Hash | None) -> MechanismRule:
    return MechanismRule(
        _SIGN,
        _RSA,
        Output.SIGNATURE,
        _S.RSA_PSS,
        PssParameters,
        narrows={"hash": SIGNED_HASHES if hash_ is None else (hash_,)},
        hash=hash_,
        streams=hash_ is not None,
    )


def _ecdsa(hash_: Hash) -> MechanismRule:
    return MechanismRule(_SIGN, _EC, Output.R_S, _S.ECDSA, HashedParameters, hash=hash_, streams=True)


def _hmac(hash_: Hash) -> MechanismRule:
    return MechanismRule(_SIGN, _SECRET, Output.TAG, _S.HMAC, family=Family.HMAC, hash=hash_, streams=True)


def _hmac_general(hash_: Hash) -> MechanismRule:
    return MechanismRule(
        _SIGN,
        _SECRET,
        Output.TAG,
        _S.HMAC,
        MacParameters,
        narrows={"length": Range(max(_LEAST_TAG, hash_.size // 2), hash_.size)},
        family=Family.HMAC,
        hash=hash_,
        streams=True,
    )


def _digest(hash_: Hash) -> MechanismRule:
    return MechanismRule(frozenset({_U.DIGEST}), frozenset(), Output.DIGEST, _S.DIGEST, hash=hash_, streams=True)


def _blocks(scheme: Scheme, family: Family) -> MechanismRule:
    return MechanismRule(
        _ENCRYPT,
        _AES,
        Output.CIPHERTEXT,
        scheme,
        IvParameters,
        narrows={"iv": Range(AES_BLOCK, AES_BLOCK)},
        family=family,
        streams=True,
        iv_bytes=AES_BLOCK,
    )


def _aead(
    scheme: Scheme, key_type: KeyType, parameters: type[Message], family: Family, *, approved: bool
) -> MechanismRule:
    return MechanismRule(
        _ENCRYPT,
        frozenset({key_type}),
        Output.CIPHERTEXT_TAG,
        scheme,
        parameters,
        narrows={"iv": Range(GCM_IV_BYTES, GCM_IV_BYTES)},
        family=family,
        streams=scheme is Scheme.GCM,  # the library takes all of the other's data at once
        approved=approved,
        iv_bytes=GCM_IV_BYTES,
    )


def _oaep(scheme: Scheme, uses: frozenset[Use]) -> MechanismRule:
    narrows = {"hash": OAEP_HASHES, "mgf": OAEP_HASHES}
    return MechanismRule(uses, _RSA, Output.CIPHERTEXT, scheme, OaepParameters, narrows=narrows)


def _derive(
    key_types: frozenset[KeyType], scheme: Scheme, parameters: type[Message], family: Family | None
) -> MechanismRule:
    narrows = {"hash": SIGNED_HASHES}
    return MechanismRule(_DERIVE, key_types, Output.KEY, scheme, parameters, narrows=narrows, family=family)


MECHANISM_RULES: Final[dict[Mechanism, MechanismRule]] = {
    _M.AES_KEY_GEN: _generate(_K.AES, _U.GENERATE),
    _M.CHACHA20_KEY_GEN: _generate(_K.CHACHA20, _U.GENERATE, approved=False),
    _M.GENERIC_SECRET_KEY_GEN: _generate(_K.GENERIC_SECRET, _U.GENERATE),
    _M.RSA_PKCS_KEY_PAIR_GEN: _generate(_K.RSA, _U.GENERATE_PAIR),
    _M.EC_KEY_PAIR_GEN: _generate(_K.EC, _U.GENERATE_PAIR),
    _M.EC_EDWARDS_KEY_PAIR_GEN: _generate(_K.EC_EDWARDS, _U.GENERATE_PAIR),
    _M.EC_MONTGOMERY_KEY_PAIR_GEN: _generate(_K.EC_MONTGOMERY, _U.GENERATE_PAIR, approved=False),
    _M.ML_DSA_KEY_PAIR_GEN: _generate(_K.ML_DSA, _U.GENERATE_PAIR),
    _M.ML_KEM_KEY_PAIR_GEN: _generate(_K.ML_KEM, _U.GENERATE_PAIR),
    _M.RSA_PKCS: MechanismRule(_SIGN | _ENCRYPT, _RSA, Output.SIGNATURE, _S.RSA_PKCS1, weak=_ENCRYPT),
    _M.SHA256_RSA_PKCS: _pkcs1(Hash.SHA256),
    _M.SHA384_RSA_PKCS: _pkcs1(Hash.SHA384),
    _M.SHA512_RSA_PKCS: _pkcs1(Hash.SHA512),
    _M.RSA_PKCS_PSS: _pss(None),
    _M.SHA256_RSA_PKCS_PSS: _pss(Hash.SHA256),
    _M.SHA384_RSA_PKCS_PSS: _pss(Hash.SHA384),
    _M.SHA512_RSA_PKCS_PSS: _pss(Hash.SHA512),
    _M.ECDSA: MechanismRule(_SIGN, _EC, Output.R_S, _S.ECDSA),
    _M.ECDSA_SHA256: _ecdsa(Hash.SHA256),
    _M.ECDSA_SHA384: _ecdsa(Hash.SHA384),
    _M.ECDSA_SHA512: _ecdsa(Hash.SHA512),
    _M.EDDSA: MechanismRule(_SIGN, frozenset({_K.EC_EDWARDS}), Output.SIGNATURE, _S.EDDSA),
    _M.ML_DSA: MechanismRule(_SIGN, frozenset({_K.ML_DSA}), Output.SIGNATURE, _S.ML_DSA, MldsaParameters),
    _M.SHA256_HMAC: _hmac(Hash.SHA256),
    _M.SHA384_HMAC: _hmac(Hash.SHA384),
    _M.SHA512_HMAC: _hmac(Hash.SHA512),
    _M.SHA256_HMAC_GENERAL: _hmac_general(Hash.SHA256),
    _M.SHA384_HMAC_GENERAL: _hmac_general(Hash.SHA384),
    _M.SHA512_HMAC_GENERAL: _hmac_general(Hash.SHA512),
    _M.AES_CMAC: MechanismRule(_SIGN, _AES, Output.TAG, _S.CMAC, family=Family.CMAC, streams=True),
    _M.AES_GCM: _aead(_S.GCM, _K.AES, GcmParameters, Family.GCM, approved=True),
    _M.AES_CBC_PAD: _blocks(_S.CBC_PAD, Family.CBC),
    _M.AES_CBC: _blocks(_S.CBC, Family.CBC),
    _M.AES_CTR: _blocks(_S.CTR, Family.CTR),
    _M.AES_ECB: MechanismRule(
        _ENCRYPT, _AES, Output.CIPHERTEXT, _S.ECB, family=Family.ECB, streams=True, weak=_ENCRYPT
    ),
    _M.CHACHA20_POLY1305: _aead(_S.CHACHA20_POLY1305, _K.CHACHA20, AeadParameters, Family.CHACHA20, approved=False),
    _M.RSA_PKCS_OAEP: _oaep(_S.RSA_OAEP, _ENCRYPT | _WRAP),
    _M.AES_KEY_WRAP: MechanismRule(_WRAP, _AES, Output.CIPHERTEXT, _S.KEY_WRAP, family=Family.KEY_WRAP),
    _M.AES_KEY_WRAP_PAD: MechanismRule(_WRAP, _AES, Output.CIPHERTEXT, _S.KEY_WRAP_PAD, family=Family.KEY_WRAP),
    _M.RSA_AES_KEY_WRAP: _oaep(_S.RSA_AES_KEY_WRAP, _WRAP),
    _M.ECDH1_DERIVE: _derive(frozenset({_K.EC, _K.EC_MONTGOMERY}), _S.ECDH, EcdhParameters, None),
    _M.HKDF_DERIVE: _derive(_SECRET, _S.HKDF, HkdfParameters, Family.KDF),
    _M.SP800_108_COUNTER_KDF: _derive(_SECRET | _AES, _S.COUNTER_KDF, CounterParameters, Family.KDF),
    _M.ML_KEM: MechanismRule(_ENCAPSULATE, frozenset({_K.ML_KEM}), Output.KEY, _S.ML_KEM),
    _M.SHA224: _digest(Hash.SHA224),
    _M.SHA256: _digest(Hash.SHA256),
    _M.SHA384: _digest(Hash.SHA384),
    _M.SHA512: _digest(Hash.SHA512),
    _M.SHA3_224: _digest(Hash.SHA3_224),
    _M.SHA3_256: _digest(Hash.SHA3_256),
    _M.SHA3_384: _digest(Hash.SHA3_384),
    _M.SHA3_512: _digest(Hash.SHA3_512),
}

# The family a secret key gets when its template names a use and no mechanisms.
NATURAL_FAMILIES: Final[dict[tuple[KeyType, Use], Family]] = {
    (_K.AES, _U.ENCRYPT): Family.GCM,
    (_K.AES, _U.DECRYPT): Family.GCM,
    (_K.AES, _U.SIGN): Family.CMAC,
    (_K.AES, _U.VERIFY): Family.CMAC,
    (_K.AES, _U.WRAP): Family.KEY_WRAP,
    (_K.AES, _U.UNWRAP): Family.KEY_WRAP,
    (_K.AES, _U.DERIVE): Family.KDF,
    (_K.CHACHA20, _U.ENCRYPT): Family.CHACHA20,
    (_K.CHACHA20, _U.DECRYPT): Family.CHACHA20,
    (_K.GENERIC_SECRET, _U.SIGN): Family.HMAC,
    (_K.GENERIC_SECRET, _U.VERIFY): Family.HMAC,
    (_K.GENERIC_SECRET, _U.DERIVE): Family.KDF,
}

# What generates each type of key.
GENERATORS: Final[dict[KeyType, Mechanism]] = {
    key_type: mechanism
    for mechanism, rule in MECHANISM_RULES.items()
    if rule.uses & {_U.GENERATE, _U.GENERATE_PAIR}
    for key_type in rule.key_types
}


POLICY_FIELDS: Final = ("allowed_mechanisms", "weak_mechanisms")
"""Fields of a policy that are sets of mechanisms: numbers on the wire, names wherever somebody reads them."""


def mechanism(number: int) -> Mechanism:
    """Find the mechanism with this number; raises MechanismInvalid for a number that the product does not know."""
    try:
        return Mechanism(number)
    except ValueError:
        raise MechanismInvalid(f"mechanism 0x{number:x} is not supported") from None


def mechanism_called(name: str) -> Mechanism:
    """Find the mechanism of this name, with or without CKM_; raises MechanismInvalid."""
    wanted = name.upper().replace("-", "_").removeprefix("CKM_")
    if wanted not in Mechanism.__members__:
        raise MechanismInvalid(f"no mechanism {name!r}")
    return Mechanism[wanted]


def parameters_of(mechanism: Mechanism) -> tuple[Parameter, ...]:
    """List a mechanism's parameters, each within the bounds of this mechanism."""
    rule = MECHANISM_RULES[mechanism]
    return tuple(
        each.narrowed(rule.narrows[each.name]) if each.name in rule.narrows else each
        for each in declared(rule.parameters)
    )


def parse_parameters(mechanism: Mechanism, parameters: bytes) -> Message:
    """Decode the parameters of a mechanism from their CBOR; no bytes at all are the defaults.

    Raises MechanismParameterInvalid naming the parameter.
    """
    rule = MECHANISM_RULES[mechanism]
    try:
        if not parameters:
            return codec.convert({}, rule.parameters)
        parsed = codec.decode_as(parameters, rule.parameters)
    except MalformedMessage as error:
        raise MechanismParameterInvalid(f"{mechanism.name}: {error}") from None
    for each in _narrowed(mechanism):
        if problem := each.problem(getattr(parsed, each.name)):
            raise MechanismParameterInvalid(f"{mechanism.name}: {each.name} {problem}")
    return parsed


@cache
def _narrowed(mechanism: Mechanism) -> tuple[Parameter, ...]:
    """Return the parameters that the types of their fields do not check in full."""
    return tuple(each for each in parameters_of(mechanism) if each.name in MECHANISM_RULES[mechanism].narrows)
