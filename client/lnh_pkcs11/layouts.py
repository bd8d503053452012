"""The parameters of mechanisms and the values of attributes: how what C has in structs travels in a frame.

Parameters of a mechanism are structs with pointers. A `Layout` is one such struct: its members in C's order, and the
fields that travel, in the order in which they do. `python -m lnh_pkcs11.generate` writes the layouts as C for the
module, whose one marshaller reads pointers and lengths by them; the gateway reads the same fields from the frame into a
dict by the names below. Where p11-kit's client passes a mechanism at all, its fields are the same.

After a mechanism's type follows a byte: 0 for no parameters, N for the fields of the Nth layout of its row, `RAW` for
what has none of their sizes, whose bytes travel as `ay` does. Parameters of a message (`P`) begin with that byte alone.
p11-kit before its version 2 has no byte there: the fields of the first layout follow; of a mechanism without parameters
0xffffffff. From version 2 on it has the byte, and nothing at all for a mechanism without parameters.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from lnh_common.pkcs11.attributes import ATTRIBUTES, Attribute, Kind
from lnh_common.pkcs11.mechanisms import Mechanism

RAW: Final = 0xFF
NO_MECHANISM: Final = 0xFFFF_FFFF
"""The type of a mechanism that is NULL, by which an Init cancels."""
DEPTH: Final = 4
"""Of structs within structs, and of templates within templates."""


class FieldKind(enum.Enum):
    """How one field of a struct travels."""

    ULONG = "CK_ULONG, 8 bytes"
    BOOL = "CK_BBOOL, 1 byte"
    INLINE = "an array in the struct: length (4), bytes"
    BYTES = "a pointer, and a length in bytes: length (4; 0xffffffff for NULL), bytes"
    BITS = "a pointer, and a length in bits: as bytes"
    FIXED = "a pointer to `size` bytes: as bytes"
    STRUCT = "a pointer to one struct: 1 and its fields, or 0 for NULL"
    ARRAY = "a pointer to structs, and their count: count (4), and the fields of each"


@dataclass(frozen=True)
class Field:
    """One field that travels.

    Args:
        name: of the member that holds the value, or the pointer to it.
        length: the member that holds the length or count, of `BYTES`, `BITS` and `ARRAY`.
        size: in bytes, of `INLINE` and `FIXED`.
        layout: of what is pointed to, of `STRUCT` and `ARRAY`.
        comes_back: whether a reply's value is written where the pointer points, if it has that length.
    """

    name: str
    kind: FieldKind
    length: str = ""
    size: int = 0
    layout: Layout | None = None
    comes_back: bool = False


@dataclass(frozen=True)
class Layout:
    """One struct.

    Args:
        name: of the struct.
        members: as C declares them, in order: type and name.
        fields: what travels.
    """

    name: str
    members: tuple[tuple[str, str], ...]
    fields: tuple[Field, ...]


_U: Final = "CK_ULONG"
_P: Final = "CK_BYTE_PTR"
_B: Final = "CK_BBOOL"


def _members(text: str) -> tuple[tuple[str, str], ...]:
    """Read members as `u name`, `p name`, `b name` or `type name`, separated by commas."""
    short = {"u": _U, "p": _P, "b": _B}
    pairs = (each.strip().rsplit(" ", 1) for each in text.split(","))
    return tuple((short.get(kind, kind), name) for kind, name in pairs)


def _u(name: str) -> Field:
    return Field(name, FieldKind.ULONG)


def _b(name: str) -> Field:
    return Field(name, FieldKind.BOOL)


def _p(name: str, length: str, *, comes_back: bool = False) -> Field:
    return Field(name, FieldKind.BYTES, length, comes_back=comes_back)


_IV: Final = Layout("IV", (("CK_BYTE", "iv[16]"),), (Field("iv", FieldKind.INLINE, size=16),))
_LENGTH: Final = Layout("CK_MAC_GENERAL_PARAMS", _members("u value"), (_u("value"),))
_CTR: Final = Layout(
    "CK_AES_CTR_PARAMS",
    (("CK_ULONG", "ulCounterBits"), ("CK_BYTE", "cb[16]")),
    (_u("ulCounterBits"), Field("cb", FieldKind.INLINE, size=16)),
)
_GCM: Final = Layout(
    "CK_GCM_PARAMS",
    _members("p pIv, u ulIvLen, u ulIvBits, p pAAD, u ulAADLen, u ulTagBits"),
    (_p("pIv", "ulIvLen"), _u("ulIvBits"), _p("pAAD", "ulAADLen"), _u("ulTagBits")),
)
# As PKCS#11 v2.20's amendment 5 had it, by whose header some applications are still built.
_GCM_2_20: Final = Layout(
    "CK_GCM_PARAMS_2_20",
    _members("p pIv, u ulIvLen, p pAAD, u ulAADLen, u ulTagBits"),
    (_p("pIv", "ulIvLen"), _p("pAAD", "ulAADLen"), _u("ulTagBits")),
)
_GCM_MESSAGE: Final = Layout(
    "CK_GCM_MESSAGE_PARAMS",
    _members("p pIv, u ulIvLen, u ulIvFixedBits, u ivGenerator, p pTag, u ulTagBits"),
    (
        _p("pIv", "ulIvLen", comes_back=True),
        _u("ulIvFixedBits"),
        _u("ivGenerator"),
        Field("pTag", FieldKind.BITS, "ulTagBits", comes_back=True),
    ),
)
_CHACHA: Final = Layout(
    "CK_SALSA20_CHACHA20_POLY1305_PARAMS",
    _members("p pNonce, u ulNonceLen, p pAAD, u ulAADLen"),
    (_p("pNonce", "ulNonceLen"), _p("pAAD", "ulAADLen")),
)
_CHACHA_MESSAGE: Final = Layout(
    "CK_SALSA20_CHACHA20_POLY1305_MSG_PARAMS",
    _members("p pNonce, u ulNonceLen, p pTag"),
    (_p("pNonce", "ulNonceLen", comes_back=True), Field("pTag", FieldKind.FIXED, size=16, comes_back=True)),
)
_PSS: Final = Layout(
    "CK_RSA_PKCS_PSS_PARAMS", _members("u hashAlg, u mgf, u sLen"), (_u("hashAlg"), _u("mgf"), _u("sLen"))
)
_OAEP: Final = Layout(
    "CK_RSA_PKCS_OAEP_PARAMS",
    _members("u hashAlg, u mgf, u source, p pSourceData, u ulSourceDataLen"),
    (_u("hashAlg"), _u("mgf"), _u("source"), _p("pSourceData", "ulSourceDataLen")),
)
_RSA_AES: Final = Layout(
    "CK_RSA_AES_KEY_WRAP_PARAMS",
    _members("u ulAESKeyBits, void * pOAEPParams"),
    (_u("ulAESKeyBits"), Field("pOAEPParams", FieldKind.STRUCT, layout=_OAEP)),
)
_ECDH: Final = Layout(
    "CK_ECDH1_DERIVE_PARAMS",
    _members("u kdf, u ulSharedDataLen, p pSharedData, u ulPublicDataLen, p pPublicData"),
    (_u("kdf"), _p("pSharedData", "ulSharedDataLen"), _p("pPublicData", "ulPublicDataLen")),
)
_HKDF: Final = Layout(
    "CK_HKDF_PARAMS",
    _members(
        "b bExtract, b bExpand, u prfHashMechanism, u ulSaltType, p pSalt, u ulSaltLen, u hSaltKey, p pInfo,u ulInfoLen"
    ),
    (
        _b("bExtract"),
        _b("bExpand"),
        _u("prfHashMechanism"),
        _u("ulSaltType"),
        _p("pSalt", "ulSaltLen"),
        _u("hSaltKey"),
        _p("pInfo", "ulInfoLen"),
    ),
)
_EDDSA: Final = Layout(
    "CK_EDDSA_PARAMS",
    _members("b phFlag, u ulContextDataLen, p pContextData"),
    (_b("phFlag"), _p("pContextData", "ulContextDataLen")),
)
_CONTEXT: Final = Layout(
    "CK_SIGN_ADDITIONAL_CONTEXT",
    _members("u hedgeVariant, p pContext, u ulContextLen"),
    (_u("hedgeVariant"), _p("pContext", "ulContextLen")),
)
_PRF_DATA: Final = Layout(
    "CK_PRF_DATA_PARAM", _members("u type, p pValue, u ulValueLen"), (_u("type"), _p("pValue", "ulValueLen"))
)
_COUNTER_KDF: Final = Layout(
    "CK_SP800_108_KDF_PARAMS",
    _members(
        "u prfType, u ulNumberOfDataParams, void * pDataParams, u ulAdditionalDerivedKeys,void * pAdditionalDerivedKeys"
    ),
    (
        _u("prfType"),
        Field("pDataParams", FieldKind.ARRAY, "ulNumberOfDataParams", layout=_PRF_DATA),
        _u("ulAdditionalDerivedKeys"),
    ),
)

_M = Mechanism
LAYOUTS: Final[dict[Mechanism, tuple[Layout, ...]]] = {
    _M.RSA_PKCS_PSS: (_PSS,),
    _M.SHA256_RSA_PKCS_PSS: (_PSS,),
    _M.SHA384_RSA_PKCS_PSS: (_PSS,),
    _M.SHA512_RSA_PKCS_PSS: (_PSS,),
    _M.RSA_PKCS_OAEP: (_OAEP,),
    _M.RSA_AES_KEY_WRAP: (_RSA_AES,),
    _M.SHA256_HMAC_GENERAL: (_LENGTH,),
    _M.SHA384_HMAC_GENERAL: (_LENGTH,),
    _M.SHA512_HMAC_GENERAL: (_LENGTH,),
    _M.AES_CBC: (_IV,),
    _M.AES_CBC_PAD: (_IV,),
    _M.AES_CTR: (_CTR,),
    _M.AES_GCM: (_GCM, _GCM_2_20),
    _M.CHACHA20_POLY1305: (_CHACHA,),
    _M.ECDH1_DERIVE: (_ECDH,),
    _M.HKDF_DERIVE: (_HKDF,),
    _M.SP800_108_COUNTER_KDF: (_COUNTER_KDF,),
    _M.EDDSA: (_EDDSA,),
    _M.ML_DSA: (_CONTEXT,),
}
"""The structs that a mechanism's parameters may be, told apart by size; a mechanism without a row takes none."""
MESSAGE_LAYOUTS: Final[tuple[Layout, ...]] = (_GCM_MESSAGE, _CHACHA_MESSAGE)
"""The structs that a message's parameters may be, told apart by size."""


class ValueKind(enum.Enum):
    """How the value of an attribute travels; its length is sent before it, and is exact."""

    BYTES = "length (4; 0xffffffff where only the length is told), bytes; numbers as the machine has them"
    BYTE = "1 byte"
    ULONG = "8 bytes"
    DATE = "CK_DATE, or nothing: as bytes"
    MECHANISMS = "count (4), 8 bytes each"
    TEMPLATE = "attributes: as aA"


# Attributes that the product has no objects with, whose values p11-kit passes by their kind.
_OTHERS: Final[dict[int, ValueKind]] = {
    **dict.fromkeys((0x109, 0x10B, 0x200, 0x202, 0x301, 0x302, 0x405), ValueKind.BYTE),
    **dict.fromkeys((0x080, 0x087, 0x088, 0x133, 0x134, 0x160, 0x201, 0x300), ValueKind.ULONG),
    **dict.fromkeys((0x400, 0x401, 0x402, 0x403, 0x404, 0x406, 0x500), ValueKind.ULONG),
}
_KINDS: Final = {
    Kind.BOOL: ValueKind.BYTE,
    Kind.INT: ValueKind.ULONG,
    Kind.DATE: ValueKind.DATE,
    Kind.MECHANISMS: ValueKind.MECHANISMS,
    Kind.TEMPLATE: ValueKind.TEMPLATE,
}
# Attributes newer than p11-kit's table, so that their values travel as bytes.
_NEWER: Final = {Attribute.PARAMETER_SET, Attribute.DESTROYABLE, Attribute.ENCAPSULATE, Attribute.DECAPSULATE}
VALUE_KINDS: Final[dict[int, ValueKind]] = {
    **{
        attribute.value: _KINDS[rule.kind]
        for attribute, rule in ATTRIBUTES.items()
        if rule.kind in _KINDS and attribute not in _NEWER
    },
    **_OTHERS,
}
"""The kinds of attributes' values; what has no row is bytes."""
TEMPLATES: Final = frozenset(number for number, kind in VALUE_KINDS.items() if kind is ValueKind.TEMPLATE)
