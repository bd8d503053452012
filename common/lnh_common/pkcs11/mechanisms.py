"""Mechanisms, curves and parameters: what a client and an HSM must agree on, one row a mechanism.

Names and numbers are PKCS#11's (v3.1; ML-DSA and ML-KEM v3.2) without CKM_. `MECHANISM_RULES` says
what a mechanism is for, with which keys and parameters, and what comes out. How it is carried out
is in the HSM's table (`lnh_services/hsm/crypto/mechanisms`); a rule without a row there is not served yet.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from lnh_common import limits
from lnh_common.errors import MalformedMessage, MechanismInvalid, MechanismParameterInvalid
from lnh_common.messages.base import Message
from lnh_common.pkcs11.attributes import CURVE_NAMES, Attribute, KeyType
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


class Hash(str, enum.Enum):
    """A hash as a parameter."""

    SHA1 = "SHA-1"  # OAEP only
    SHA224 = "SHA-224"
    SHA256 = "SHA-256"
    SHA384 = "SHA-384"
    SHA512 = "SHA-512"
    SHA3_224 = "SHA3-224"
    SHA3_256 = "SHA3-256"
    SHA3_384 = "SHA3-384"
    SHA3_512 = "SHA3-512"

    @property
    def size(self) -> int:
        """Bytes of the digest."""
        return _HASH_SIZES[self]


_HASH_SIZES: Final[dict[Hash, int]] = {
    Hash.SHA1: 20,
    Hash.SHA224: 28,
    Hash.SHA256: 32,
    Hash.SHA384: 48,
    Hash.SHA512: 64,
    Hash.SHA3_224: 28,
    Hash.SHA3_256: 32,
    Hash.SHA3_384: 48,
    Hash.SHA3_512: 64,
}

# What RSA and ECDSA sign: SHA-2 of at least 256 bits.
SIGNED_HASHES: Final = (Hash.SHA256, Hash.SHA384, Hash.SHA512)
OAEP_HASHES: Final = (Hash.SHA1, Hash.SHA256, Hash.SHA384, Hash.SHA512)


@dataclass(frozen=True)
class Curve:
    """A named curve.

    Args:
        name: as people say it.
        oid: the DER object identifier that EC_PARAMS holds.
        bits: of the field; a coordinate takes `size` bytes.
        approved: by NIST SP 800-186 for what the product does with it.
    """

    name: str
    oid: bytes
    bits: int
    key_type: KeyType
    approved: bool = False

    @property
    def aliases(self) -> tuple[bytes, ...]:
        """Other DER that names the curve in EC_PARAMS."""
        return tuple(name for name, oid in CURVE_NAMES.items() if oid == self.oid)

    @property
    def size(self) -> int:
        """Bytes of a coordinate."""
        return (self.bits + 7) // 8


_K = KeyType
CURVES: Final[dict[str, Curve]] = {
    curve.name: curve
    for curve in (
        Curve("P-256", bytes.fromhex("06082a8648ce3d030107"), 256, _K.EC, approved=True),
        Curve("P-384", bytes.fromhex("06052b81040022"), 384, _K.EC, approved=True),
        Curve("P-521", bytes.fromhex("06052b81040023"), 521, _K.EC, approved=True),
        Curve("secp256k1", bytes.fromhex("06052b8104000a"), 256, _K.EC),
        Curve("brainpoolP256r1", bytes.fromhex("06092b2403030208010107"), 256, _K.EC),
        Curve("brainpoolP384r1", bytes.fromhex("06092b240303020801010b"), 384, _K.EC),
        Curve("brainpoolP512r1", bytes.fromhex("06092b240303020801010d"), 512, _K.EC),
        Curve("Ed25519", bytes.fromhex("06032b6570"), 256, _K.EC_EDWARDS, approved=True),
        Curve("Ed448", bytes.fromhex("06032b6571"), 456, _K.EC_EDWARDS, approved=True),
        Curve("X25519", bytes.fromhex("06032b656e"), 256, _K.EC_MONTGOMERY),
        Curve("X448", bytes.fromhex("06032b656f"), 448, _K.EC_MONTGOMERY),
    )
}
CURVES_BY_PARAMS: Final[dict[bytes, Curve]] = {
    params: curve for curve in CURVES.values() for params in (curve.oid, *curve.aliases)
}

RSA_BITS: Final = (2048, 3072, 4096, 8192)
AES_BYTES: Final = (16, 24, 32)
CHACHA20_BYTES: Final = 32
GENERIC_SECRET_BYTES: Final = (16, 512)  # least and most
# PARAMETER_SET (CKP_, PKCS#11 v3.2) of each lattice scheme.
ML_DSA_SETS: Final[dict[int, str]] = {1: "ML-DSA-44", 2: "ML-DSA-65", 3: "ML-DSA-87"}
ML_DSA_SIGNATURES: Final[dict[int, int]] = {1: 2420, 2: 3309, 3: 4627}  # bytes (FIPS 204, table 2)
ML_KEM_SETS: Final[dict[int, str]] = {2: "ML-KEM-768", 3: "ML-KEM-1024"}

AES_BLOCK: Final = 16
GCM_IV_BYTES: Final = 12
GCM_TAG_BITS: Final = 128


class NoParameters(Message):
    """The parameters of a mechanism that takes none."""


class HashedParameters(Message):
    """Parameters of a mechanism that hashes; `prehashed` says that the data is already the digest.

    The SDK signs a file of any length by it.
    """

    prehashed: bool = False


class PssParameters(HashedParameters):
    """RSASSA-PSS (RFC 8017, 8.1), with MGF1 over the same hash.

    Args:
        hash: None for the mechanism's own; RSA_PKCS_PSS has none and takes SHA-256.
        salt_length: in bytes; None for the hash's size.
    """

    hash: Hash | None = None
    salt_length: Annotated[int, msgspec.Meta(ge=0, le=1024)] | None = None


class MldsaParameters(Message):
    """ML-DSA's context string (FIPS 204, 5.2)."""

    context: Annotated[bytes, msgspec.Meta(max_length=255)] = b""


class MacParameters(Message):
    """Parameters of a truncated tag; `length` is in bytes, at least half the hash and 16."""

    length: Annotated[int, msgspec.Meta(ge=16, le=64)]


class IvParameters(Message):
    """CBC's IV or CTR's first counter block, 16 bytes; to encrypt, empty lets the HSM draw it."""

    iv: Annotated[bytes, msgspec.Meta(max_length=AES_BLOCK)] = b""


class AeadParameters(Message):
    """ChaCha20-Poly1305 (RFC 8439): a nonce of 12 bytes, empty to let the HSM draw it, and associated data."""

    iv: Annotated[bytes, msgspec.Meta(max_length=AES_BLOCK)] = b""
    aad: Annotated[bytes, msgspec.Meta(max_length=limits.AAD_BYTES)] = b""


class GcmParameters(AeadParameters):
    """AES-GCM (SP 800-38D): as AeadParameters; only tags of 128 bits."""

    tag_bits: int = GCM_TAG_BITS


class OaepParameters(Message):
    """RSAES-OAEP (RFC 8017, 7.1), with MGF1 over the same hash."""

    hash: Hash = Hash.SHA256
    label: Annotated[bytes, msgspec.Meta(max_length=1024)] = b""


class Output(enum.Enum):
    """The kind of a mechanism's result."""

    KEY = "a new object"
    SIGNATURE = "the signature"
    R_S = "r || s, each of the curve's size"
    TAG = "the tag"
    CIPHERTEXT = "the ciphertext"
    CIPHERTEXT_TAG = "ciphertext || tag of 16 bytes"
    DIGEST = "the digest"


@dataclass(frozen=True)
class MechanismRule:
    """One mechanism.

    Args:
        uses: what it is for.
        key_types: of the keys it works with, or makes.
        output: what comes out.
        parameters: their type; the wire carries its CBOR, or nothing for its defaults.
        family: of secret keys' mechanisms.
        hash: built in, if any.
        streams: whether the SDK may feed data of any length in parts.
        weak: uses that are off unless a policy's `weak_mechanisms` names the mechanism.
        approved: by FIPS 140-3's lists; the `fips` preset allows no other.
        has_iv: whether encryption draws, and answers, an IV.
    """

    uses: frozenset[Use]
    key_types: frozenset[KeyType]
    output: Output
    parameters: type[Message] = NoParameters
    family: Family | None = None
    hash: Hash | None = None
    streams: bool = False
    weak: frozenset[Use] = frozenset()
    approved: bool = True
    has_iv: bool = False


_U = Use
_M = Mechanism
_SIGN: Final = frozenset({_U.SIGN, _U.VERIFY})
_ENCRYPT: Final = frozenset({_U.ENCRYPT, _U.DECRYPT})
_WRAP: Final = frozenset({_U.WRAP, _U.UNWRAP})
_DERIVE: Final = frozenset({_U.DERIVE})
_RSA: Final = frozenset({_K.RSA})
_EC: Final = frozenset({_K.EC})
_AES: Final = frozenset({_K.AES})
_SECRET: Final = frozenset({_K.GENERIC_SECRET})


def _generate(key_type: KeyType, use: Use, *, approved: bool = True) -> MechanismRule:
    return MechanismRule(frozenset({use}), frozenset({key_type}), Output.KEY, approved=approved)


def _rsa(hash_: Hash | None, parameters: type[Message]) -> MechanismRule:
    return MechanismRule(_SIGN, _RSA, Output.SIGNATURE, parameters, hash=hash_, streams=hash_ is not None)


def _ecdsa(hash_: Hash) -> MechanismRule:
    return MechanismRule(_SIGN, _EC, Output.R_S, HashedParameters, hash=hash_, streams=True)


def _hmac(hash_: Hash, parameters: type[Message] = NoParameters) -> MechanismRule:
    return MechanismRule(_SIGN, _SECRET, Output.TAG, parameters, Family.HMAC, hash_, streams=True)


def _digest(hash_: Hash) -> MechanismRule:
    return MechanismRule(frozenset({_U.DIGEST}), frozenset(), Output.DIGEST, hash=hash_, streams=True)


def _aes(family: Family, parameters: type[Message]) -> MechanismRule:
    return MechanismRule(_ENCRYPT, _AES, Output.CIPHERTEXT, parameters, family, streams=True, has_iv=True)


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
    _M.RSA_PKCS: MechanismRule(_SIGN | _ENCRYPT, _RSA, Output.SIGNATURE, weak=_ENCRYPT),
    _M.SHA256_RSA_PKCS: _rsa(Hash.SHA256, HashedParameters),
    _M.SHA384_RSA_PKCS: _rsa(Hash.SHA384, HashedParameters),
    _M.SHA512_RSA_PKCS: _rsa(Hash.SHA512, HashedParameters),
    _M.RSA_PKCS_PSS: _rsa(None, PssParameters),
    _M.SHA256_RSA_PKCS_PSS: _rsa(Hash.SHA256, PssParameters),
    _M.SHA384_RSA_PKCS_PSS: _rsa(Hash.SHA384, PssParameters),
    _M.SHA512_RSA_PKCS_PSS: _rsa(Hash.SHA512, PssParameters),
    _M.ECDSA: MechanismRule(_SIGN, _EC, Output.R_S),
    _M.ECDSA_SHA256: _ecdsa(Hash.SHA256),
    _M.ECDSA_SHA384: _ecdsa(Hash.SHA384),
    _M.ECDSA_SHA512: _ecdsa(Hash.SHA512),
    _M.EDDSA: MechanismRule(_SIGN, frozenset({_K.EC_EDWARDS}), Output.SIGNATURE),
    _M.ML_DSA: MechanismRule(_SIGN, frozenset({_K.ML_DSA}), Output.SIGNATURE, MldsaParameters),
    _M.SHA256_HMAC: _hmac(Hash.SHA256),
    _M.SHA384_HMAC: _hmac(Hash.SHA384),
    _M.SHA512_HMAC: _hmac(Hash.SHA512),
    _M.SHA256_HMAC_GENERAL: _hmac(Hash.SHA256, MacParameters),
    _M.SHA384_HMAC_GENERAL: _hmac(Hash.SHA384, MacParameters),
    _M.SHA512_HMAC_GENERAL: _hmac(Hash.SHA512, MacParameters),
    _M.AES_CMAC: MechanismRule(_SIGN, _AES, Output.TAG, family=Family.CMAC),
    _M.AES_GCM: MechanismRule(
        _ENCRYPT, _AES, Output.CIPHERTEXT_TAG, GcmParameters, Family.GCM, streams=True, has_iv=True
    ),
    _M.AES_CBC_PAD: _aes(Family.CBC, IvParameters),
    _M.AES_CBC: _aes(Family.CBC, IvParameters),
    _M.AES_CTR: _aes(Family.CTR, IvParameters),
    _M.AES_ECB: MechanismRule(_ENCRYPT, _AES, Output.CIPHERTEXT, family=Family.ECB, streams=True, weak=_ENCRYPT),
    _M.CHACHA20_POLY1305: MechanismRule(
        _ENCRYPT,
        frozenset({_K.CHACHA20}),
        Output.CIPHERTEXT_TAG,
        AeadParameters,
        Family.CHACHA20,
        approved=False,
        has_iv=True,
    ),
    _M.RSA_PKCS_OAEP: MechanismRule(_ENCRYPT | _WRAP, _RSA, Output.CIPHERTEXT, OaepParameters),
    _M.AES_KEY_WRAP: MechanismRule(_WRAP, _AES, Output.CIPHERTEXT, family=Family.KEY_WRAP),
    _M.AES_KEY_WRAP_PAD: MechanismRule(_WRAP, _AES, Output.CIPHERTEXT, family=Family.KEY_WRAP),
    _M.RSA_AES_KEY_WRAP: MechanismRule(_WRAP, _RSA, Output.CIPHERTEXT, OaepParameters),
    _M.ECDH1_DERIVE: MechanismRule(_DERIVE, frozenset({_K.EC, _K.EC_MONTGOMERY}), Output.KEY),
    _M.HKDF_DERIVE: MechanismRule(_DERIVE, _SECRET, Output.KEY, family=Family.KDF),
    _M.SP800_108_COUNTER_KDF: MechanismRule(_DERIVE, _SECRET | _AES, Output.KEY, family=Family.KDF),
    _M.ML_KEM: MechanismRule(frozenset({_U.ENCAPSULATE, _U.DECAPSULATE}), frozenset({_K.ML_KEM}), Output.KEY),
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


def parse_parameters(mechanism: Mechanism, parameters: bytes) -> Message:
    """Decode the parameters of a mechanism from their CBOR; no bytes at all are the defaults.

    Raises MechanismParameterInvalid naming the field.
    """
    kind = MECHANISM_RULES[mechanism].parameters
    try:
        if not parameters:
            return codec.convert({}, kind)
        return codec.decode_as(parameters, kind)
    except MalformedMessage as error:
        raise MechanismParameterInvalid(f"{mechanism.name}: {error}") from None


def pack_parameters(parameters: Message | None) -> bytes:
    """Encode parameters as the wire carries them; None and a type's defaults are empty."""
    if parameters is None:
        return b""
    fields = {
        name: value
        for name in parameters.__struct_fields__
        if (value := getattr(parameters, name)) != _default(parameters, name)
    }
    return codec.encode(msgspec.to_builtins(fields, builtin_types=(bytes,))) if fields else b""


def _default(parameters: Message, name: str) -> object:
    names = parameters.__struct_fields__
    defaults = parameters.__struct_defaults__
    index = names.index(name) - (len(names) - len(defaults))
    return defaults[index] if index >= 0 else msgspec.UNSET
