"""Object classes, key types and attributes: PKCS#11's numbers, and one row a rule for each attribute.

Names are those of PKCS#11 v3.1 (v3.2 where it is newer) without their prefix, so that a front end translates and
nothing more. `ATTRIBUTES` says what an attribute's value looks like, which objects have it, who sets it, its default,
and how it may change; code that enforces a rule reads the row and has no list of its own.

On the wire and in store an attribute set is a CBOR map {number: value}: a date is text (`2026-11-24`, empty for none),
a list is of mechanism numbers, a template is another map of this kind.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from lnh_common import limits
from lnh_common.errors import AttributeInvalid, LimitReached

MECHANISM_MAX: Final = 0xFFFF_FFFF  # CKM_ is a CK_ULONG, which has 32 bits at least


class ObjectClass(enum.IntEnum):
    """CKO_ (PKCS#11 v3.1, 4.1)."""

    DATA = 0x00
    CERTIFICATE = 0x01
    PUBLIC_KEY = 0x02
    PRIVATE_KEY = 0x03
    SECRET_KEY = 0x04


class KeyType(enum.IntEnum):
    """CKK_ (PKCS#11 v3.1, 4.7; ML-KEM and ML-DSA v3.2)."""

    RSA = 0x00
    EC = 0x03
    GENERIC_SECRET = 0x10
    AES = 0x1F
    CHACHA20 = 0x33
    EC_EDWARDS = 0x40
    EC_MONTGOMERY = 0x41
    ML_KEM = 0x49
    ML_DSA = 0x4A


class Attribute(enum.IntEnum):
    """CKA_ (PKCS#11 v3.1, 4.2; PARAMETER_SET, ENCAPSULATE and DECAPSULATE v3.2)."""

    CLASS = 0x000
    TOKEN = 0x001
    PRIVATE = 0x002
    LABEL = 0x003
    UNIQUE_ID = 0x004
    APPLICATION = 0x010
    VALUE = 0x011
    OBJECT_ID = 0x012
    ISSUER = 0x081
    SERIAL_NUMBER = 0x082
    TRUSTED = 0x086
    CHECK_VALUE = 0x090
    KEY_TYPE = 0x100
    SUBJECT = 0x101
    ID = 0x102
    SENSITIVE = 0x103
    ENCRYPT = 0x104
    DECRYPT = 0x105
    WRAP = 0x106
    UNWRAP = 0x107
    SIGN = 0x108
    VERIFY = 0x10A
    DERIVE = 0x10C
    START_DATE = 0x110
    END_DATE = 0x111
    MODULUS = 0x120
    MODULUS_BITS = 0x121
    PUBLIC_EXPONENT = 0x122
    PUBLIC_KEY_INFO = 0x129
    VALUE_LEN = 0x161
    EXTRACTABLE = 0x162
    LOCAL = 0x163
    NEVER_EXTRACTABLE = 0x164
    ALWAYS_SENSITIVE = 0x165
    KEY_GEN_MECHANISM = 0x166
    MODIFIABLE = 0x170
    COPYABLE = 0x171
    DESTROYABLE = 0x172
    EC_PARAMS = 0x180
    EC_POINT = 0x181
    WRAP_WITH_TRUSTED = 0x210
    PARAMETER_SET = 0x61D
    ENCAPSULATE = 0x633
    DECAPSULATE = 0x634
    WRAP_TEMPLATE = 0x4000_0211
    UNWRAP_TEMPLATE = 0x4000_0212
    DERIVE_TEMPLATE = 0x4000_0213
    ALLOWED_MECHANISMS = 0x4000_0600


AttributeValue: TypeAlias = bool | int | bytes | str | list[int] | dict[int, Any]
Template: TypeAlias = dict[int, AttributeValue]
Attributes: TypeAlias = dict[Attribute, AttributeValue]


class Kind(enum.Enum):
    """The kind of an attribute's value, in Python and in CBOR."""

    BOOL = "bool"
    INT = "int"
    BYTES = "bytes"
    TEXT = "str"
    DATE = "date"
    MECHANISMS = "list"
    TEMPLATE = "template"


class Source(enum.Enum):
    """The side that sets an attribute when an object is made."""

    TEMPLATE = "template"
    PARAMETER = "template, as what to generate"  # afterwards it describes the value
    HSM = "the HSM"
    KRSO = "the KRSO"


class Change(enum.Enum):
    """The rule by which an attribute may change once the object exists."""

    NEVER = "never"
    MODIFIABLE = "while MODIFIABLE"
    ONLY_TRUE = "only to true"
    ONLY_FALSE = "only to false"
    NARROWER = "only narrower"
    KRSO = "by the KRSO"


@dataclass(frozen=True)
class AttributeRule:
    """One attribute.

    Args:
        kind: type of the value.
        classes: the classes that have it.
        source: who sets it at creation.
        change: how it may change later.
        defaults: value at creation for each class that has one; a use's default is `NATURAL_USES`.
        key_types: of keys, the types that have it; None for all.
        size: least and most: of an int its value, of bytes and text its length in bytes.
        needs: an object has it only when this one is true.
        sources, changes: exceptions to `source` and `change` for some classes.
    """

    kind: Kind
    classes: frozenset[ObjectClass]
    source: Source
    change: Change
    defaults: Mapping[ObjectClass, AttributeValue] = field(default_factory=dict)
    key_types: frozenset[KeyType] | None = None
    size: tuple[int, int] = (0, 0xFFFF_FFFF)
    needs: Attribute | None = None
    sources: Mapping[ObjectClass, Source] = field(default_factory=dict)
    changes: Mapping[ObjectClass, Change] = field(default_factory=dict)

    def source_for(self, object_class: ObjectClass) -> Source:
        """Return who sets the attribute when an object of this class is made."""
        return self.sources.get(object_class, self.source)

    def change_for(self, object_class: ObjectClass) -> Change:
        """Return how the attribute of an object of this class may change."""
        return self.changes.get(object_class, self.change)

    def applies(self, object_class: ObjectClass, key_type: KeyType | None) -> bool:
        """Tell whether objects of this class (and, for keys, type) have the attribute."""
        if object_class not in self.classes:
            return False
        return self.key_types is None or object_class not in KEYS or key_type in self.key_types


_O = ObjectClass
_K = KeyType
PUBLIC: Final = frozenset({_O.PUBLIC_KEY})
PRIVATE: Final = frozenset({_O.PRIVATE_KEY})
SECRET: Final = frozenset({_O.SECRET_KEY})
KEYS: Final = PUBLIC | PRIVATE | SECRET
SENSITIVE_KEYS: Final = PRIVATE | SECRET
CERTIFICATE: Final = frozenset({_O.CERTIFICATE})
DATA: Final = frozenset({_O.DATA})
ALL: Final = KEYS | CERTIFICATE | DATA
_EC_TYPES: Final = frozenset({_K.EC, _K.EC_EDWARDS, _K.EC_MONTGOMERY})
_LATTICE: Final = frozenset({_K.ML_DSA, _K.ML_KEM})


def _same(classes: frozenset[ObjectClass], value: AttributeValue) -> dict[ObjectClass, AttributeValue]:
    return dict.fromkeys(classes, value)


def _rule(kind: Kind, classes: frozenset[ObjectClass], change: Change, **more: Any) -> AttributeRule:
    return AttributeRule(kind, classes, Source.TEMPLATE, change, **more)


def _flag(classes: frozenset[ObjectClass], value: bool, change: Change, **more: Any) -> AttributeRule:
    return _rule(Kind.BOOL, classes, change, defaults=_same(classes, value), **more)


def _use(classes: frozenset[ObjectClass]) -> AttributeRule:
    return _rule(Kind.BOOL, classes, Change.ONLY_FALSE)


def _by_hsm(kind: Kind, classes: frozenset[ObjectClass], **more: Any) -> AttributeRule:
    return AttributeRule(kind, classes, Source.HSM, Change.NEVER, **more)


def _parameter(kind: Kind, classes: frozenset[ObjectClass], *key_types: KeyType, **more: Any) -> AttributeRule:
    return AttributeRule(kind, classes, Source.PARAMETER, Change.NEVER, key_types=frozenset(key_types), **more)


def _template(classes: frozenset[ObjectClass], needs: Attribute, strictest: dict[int, Any]) -> AttributeRule:
    return _rule(Kind.TEMPLATE, classes, Change.NEVER, defaults=_same(classes, strictest), needs=needs)


# What comes out of a key's use stays in the HSM unless the template says otherwise.
_STAYS_INSIDE: Final[dict[int, Any]] = {Attribute.SENSITIVE.value: True, Attribute.EXTRACTABLE.value: False}
_DER: Final = (0, 4096)

_A = Attribute
ATTRIBUTES: Final[dict[Attribute, AttributeRule]] = {
    _A.CLASS: _rule(Kind.INT, ALL, Change.NEVER),
    _A.KEY_TYPE: _rule(Kind.INT, KEYS, Change.NEVER),
    _A.TOKEN: _flag(ALL, True, Change.NEVER),
    _A.PRIVATE: _rule(Kind.BOOL, ALL, Change.NEVER, defaults=_same(ALL, True) | _same(PUBLIC | CERTIFICATE, False)),
    _A.LABEL: _rule(Kind.TEXT, ALL, Change.MODIFIABLE, defaults=_same(ALL, ""), size=(0, limits.LABEL_BYTES)),
    _A.ID: _rule(
        Kind.BYTES,
        KEYS | CERTIFICATE,
        Change.MODIFIABLE,
        defaults=_same(KEYS | CERTIFICATE, b""),
        size=(0, limits.ID_BYTES),
    ),
    _A.MODIFIABLE: _flag(ALL, True, Change.ONLY_FALSE),
    _A.COPYABLE: _flag(ALL, True, Change.ONLY_FALSE),
    _A.DESTROYABLE: _flag(ALL, True, Change.ONLY_FALSE),
    _A.SENSITIVE: _flag(SENSITIVE_KEYS, True, Change.ONLY_TRUE),
    _A.EXTRACTABLE: _flag(SENSITIVE_KEYS, False, Change.ONLY_FALSE),
    _A.ALWAYS_SENSITIVE: _by_hsm(Kind.BOOL, SENSITIVE_KEYS),
    _A.NEVER_EXTRACTABLE: _by_hsm(Kind.BOOL, SENSITIVE_KEYS),
    _A.LOCAL: _by_hsm(Kind.BOOL, KEYS),
    _A.KEY_GEN_MECHANISM: _by_hsm(Kind.INT, KEYS),
    _A.UNIQUE_ID: _by_hsm(Kind.TEXT, ALL, size=(0, 64)),
    _A.ENCRYPT: _use(PUBLIC | SECRET),
    _A.DECRYPT: _use(PRIVATE | SECRET),
    _A.SIGN: _use(PRIVATE | SECRET),
    _A.VERIFY: _use(PUBLIC | SECRET),
    _A.WRAP: _use(PUBLIC | SECRET),
    _A.UNWRAP: _use(PRIVATE | SECRET),
    _A.DERIVE: _use(KEYS),
    _A.ENCAPSULATE: _use(PUBLIC),
    _A.DECAPSULATE: _use(PRIVATE),
    _A.WRAP_WITH_TRUSTED: _flag(SENSITIVE_KEYS, False, Change.ONLY_TRUE),
    _A.TRUSTED: AttributeRule(
        Kind.BOOL, KEYS | CERTIFICATE, Source.KRSO, Change.KRSO, defaults=_same(KEYS | CERTIFICATE, False)
    ),
    _A.ALLOWED_MECHANISMS: _rule(Kind.MECHANISMS, KEYS, Change.NARROWER),
    _A.WRAP_TEMPLATE: _template(PUBLIC | SECRET, _A.WRAP, {_A.SENSITIVE.value: True}),
    _A.UNWRAP_TEMPLATE: _template(SENSITIVE_KEYS, _A.UNWRAP, _STAYS_INSIDE),
    _A.DERIVE_TEMPLATE: _template(SENSITIVE_KEYS, _A.DERIVE, _STAYS_INSIDE),
    _A.START_DATE: _rule(Kind.DATE, KEYS | CERTIFICATE, Change.MODIFIABLE, defaults=_same(KEYS | CERTIFICATE, "")),
    _A.END_DATE: _rule(Kind.DATE, KEYS | CERTIFICATE, Change.MODIFIABLE, defaults=_same(KEYS | CERTIFICATE, "")),
    _A.MODULUS: _by_hsm(Kind.BYTES, PUBLIC | PRIVATE, key_types=frozenset({_K.RSA}), size=(1, 2048)),
    _A.MODULUS_BITS: _parameter(Kind.INT, PUBLIC, _K.RSA),
    _A.PUBLIC_EXPONENT: _parameter(Kind.BYTES, PUBLIC | PRIVATE, _K.RSA, size=(1, 32)),
    _A.EC_PARAMS: _parameter(Kind.BYTES, PUBLIC | PRIVATE, *_EC_TYPES, size=(1, 64)),
    _A.EC_POINT: _by_hsm(Kind.BYTES, PUBLIC, key_types=_EC_TYPES, size=(1, 256)),
    _A.VALUE_LEN: _parameter(Kind.INT, SECRET, _K.AES, _K.GENERIC_SECRET, _K.CHACHA20),
    _A.PARAMETER_SET: _parameter(Kind.INT, PUBLIC | PRIVATE, *_LATTICE),
    _A.CHECK_VALUE: _by_hsm(Kind.BYTES, SECRET | CERTIFICATE, size=(3, 3)),
    _A.PUBLIC_KEY_INFO: _by_hsm(Kind.BYTES, PUBLIC | PRIVATE | CERTIFICATE, size=(0, 8192)),
    # The value of a private or secret key is sealed apart and never among the attributes.
    _A.VALUE: AttributeRule(
        Kind.BYTES,
        PUBLIC | CERTIFICATE | DATA,
        Source.TEMPLATE,
        Change.MODIFIABLE,
        defaults=_same(DATA, b""),
        key_types=_LATTICE,
        size=(0, limits.DATA_BYTES),
        sources=dict.fromkeys(PUBLIC, Source.HSM),
        changes=dict.fromkeys(PUBLIC, Change.NEVER),
    ),
    _A.SUBJECT: _rule(Kind.BYTES, CERTIFICATE, Change.MODIFIABLE, defaults=_same(CERTIFICATE, b""), size=_DER),
    _A.ISSUER: _rule(Kind.BYTES, CERTIFICATE, Change.MODIFIABLE, defaults=_same(CERTIFICATE, b""), size=_DER),
    _A.SERIAL_NUMBER: _rule(Kind.BYTES, CERTIFICATE, Change.MODIFIABLE, defaults=_same(CERTIFICATE, b""), size=(0, 64)),
    _A.APPLICATION: _rule(Kind.TEXT, DATA, Change.MODIFIABLE, defaults=_same(DATA, ""), size=(0, limits.LABEL_BYTES)),
    _A.OBJECT_ID: _rule(Kind.BYTES, DATA, Change.MODIFIABLE, defaults=_same(DATA, b""), size=(0, limits.ID_BYTES)),
}

# The attributes that say what a key is for, and the other half's attribute in a key pair.
USES: Final[tuple[Attribute, ...]] = (
    _A.ENCRYPT,
    _A.DECRYPT,
    _A.SIGN,
    _A.VERIFY,
    _A.WRAP,
    _A.UNWRAP,
    _A.DERIVE,
    _A.ENCAPSULATE,
    _A.DECAPSULATE,
)
COUNTERPARTS: Final[dict[Attribute, Attribute]] = {
    _A.SIGN: _A.VERIFY,
    _A.VERIFY: _A.SIGN,
    _A.DECRYPT: _A.ENCRYPT,
    _A.ENCRYPT: _A.DECRYPT,
    _A.UNWRAP: _A.WRAP,
    _A.WRAP: _A.UNWRAP,
    _A.DECAPSULATE: _A.ENCAPSULATE,
    _A.ENCAPSULATE: _A.DECAPSULATE,
}

# What a key is for: the groups of which a secret key has one for life.
SECRET_USE_GROUPS: Final[dict[Attribute, str]] = {
    _A.ENCRYPT: "ENCRYPT/DECRYPT",
    _A.DECRYPT: "ENCRYPT/DECRYPT",
    _A.SIGN: "SIGN/VERIFY",
    _A.VERIFY: "SIGN/VERIFY",
    _A.WRAP: "WRAP/UNWRAP",
    _A.UNWRAP: "WRAP/UNWRAP",
    _A.DERIVE: "DERIVE",
}

# What a key is for when its template names no use. A secret key has one use for life.
NATURAL_USES: Final[dict[tuple[ObjectClass, KeyType], frozenset[Attribute]]] = {
    (_O.SECRET_KEY, _K.AES): frozenset({_A.ENCRYPT, _A.DECRYPT}),
    (_O.SECRET_KEY, _K.CHACHA20): frozenset({_A.ENCRYPT, _A.DECRYPT}),
    (_O.SECRET_KEY, _K.GENERIC_SECRET): frozenset({_A.SIGN, _A.VERIFY}),
    (_O.PRIVATE_KEY, _K.RSA): frozenset({_A.SIGN, _A.DECRYPT}),
    (_O.PUBLIC_KEY, _K.RSA): frozenset({_A.VERIFY, _A.ENCRYPT}),
    (_O.PRIVATE_KEY, _K.EC): frozenset({_A.SIGN}),
    (_O.PUBLIC_KEY, _K.EC): frozenset({_A.VERIFY}),
    (_O.PRIVATE_KEY, _K.EC_EDWARDS): frozenset({_A.SIGN}),
    (_O.PUBLIC_KEY, _K.EC_EDWARDS): frozenset({_A.VERIFY}),
    (_O.PRIVATE_KEY, _K.EC_MONTGOMERY): frozenset({_A.DERIVE}),
    (_O.PUBLIC_KEY, _K.EC_MONTGOMERY): frozenset(),
    (_O.PRIVATE_KEY, _K.ML_DSA): frozenset({_A.SIGN}),
    (_O.PUBLIC_KEY, _K.ML_DSA): frozenset({_A.VERIFY}),
    (_O.PRIVATE_KEY, _K.ML_KEM): frozenset({_A.DECAPSULATE}),
    (_O.PUBLIC_KEY, _K.ML_KEM): frozenset({_A.ENCAPSULATE}),
}

# Other DER than its OID by which EC_PARAMS may name a curve: its PrintableString (PKCS#11 v3.1, 6.3.4).
CURVE_NAMES: Final[dict[bytes, bytes]] = {
    b"\x13\x0cedwards25519": bytes.fromhex("06032b6570"),
    b"\x13\x0aedwards448": bytes.fromhex("06032b6571"),
    b"\x13\x0acurve25519": bytes.fromhex("06032b656e"),
    b"\x13\x08curve448": bytes.fromhex("06032b656f"),
}


def _big_integer(value: bytes) -> bytes:
    """Encode a number as PKCS#11 has a Big integer: most significant byte first, without zeros in front."""
    return value.lstrip(b"\0")


# What of several encodings of one value is kept, compared and shown. Text is compared byte by byte, as PKCS#11 does.
_NORMAL_FORMS: Final[dict[Attribute, Callable[[bytes], bytes]]] = {
    _A.PUBLIC_EXPONENT: _big_integer,
    _A.MODULUS: _big_integer,
    _A.EC_PARAMS: lambda value: CURVE_NAMES.get(value, value),
}

_ENUMS: Final[dict[Attribute, type[enum.IntEnum]]] = {_A.CLASS: ObjectClass, _A.KEY_TYPE: KeyType}
_TYPES: Final[dict[Kind, type]] = {
    Kind.BOOL: bool,
    Kind.INT: int,
    Kind.BYTES: bytes,
    Kind.TEXT: str,
    Kind.DATE: str,
    Kind.MECHANISMS: list,
    Kind.TEMPLATE: dict,
}


def parse_template(template: Mapping[int, Any]) -> Attributes:
    """Check every attribute and value of a template by itself.

    Whether the attributes go together, and with the object, is checked where an object is made or changed.

    Raises AttributeInvalid naming the attribute (never a value that may be secret), LimitReached for more than
    `limits.TEMPLATE_ATTRIBUTES`.
    """
    if len(template) > limits.TEMPLATE_ATTRIBUTES:
        raise LimitReached(f"{len(template)} attributes in a template; at most {limits.TEMPLATE_ATTRIBUTES}")
    return {attribute: _parse(attribute, value) for attribute, value in map(_known, template.items())}


def to_wire(attributes: Mapping[Attribute, AttributeValue]) -> Template:
    """Turn an attribute set into plain numbers and values, for `codec.encode`."""
    return {attribute.value: value for attribute, value in attributes.items()}


def from_wire(template: Mapping[int, AttributeValue]) -> Attributes:
    """Read an attribute set that this product wrote (and sealed); one from outside goes through `parse_template`.

    Raises AttributeInvalid for an attribute of a newer version.
    """
    return dict(map(_known, template.items()))


def _known(item: tuple[Any, Any]) -> tuple[Attribute, Any]:
    number, value = item
    try:
        return Attribute(number), value
    except ValueError:
        name = f"0x{number:08x}" if type(number) is int else "not a number"
        raise AttributeInvalid(f"unknown attribute: {name}") from None


def _parse(attribute: Attribute, value: Any) -> AttributeValue:
    rule = ATTRIBUTES[attribute]
    name = attribute.name
    if isinstance(value, enum.IntEnum):
        value = value.value
    if rule.kind is Kind.MECHANISMS and isinstance(value, (tuple, set, frozenset)):
        value = list(value)
    # Exactly the type: to Python a bool is an int, to PKCS#11 it is not.
    if type(value) is not _TYPES[rule.kind]:
        raise AttributeInvalid(f"{name} is {type(value).__name__}; {rule.kind.value} is wanted")
    return _PARSERS[rule.kind](attribute, rule, value)


def _parse_bool(attribute: Attribute, rule: AttributeRule, value: bool) -> AttributeValue:
    return value


def _parse_int(attribute: Attribute, rule: AttributeRule, value: int) -> AttributeValue:
    _check_size(attribute, rule, value, "")
    numbers = _ENUMS.get(attribute)
    if numbers is not None and value not in numbers._value2member_map_:
        raise AttributeInvalid(f"{attribute.name} 0x{value:x} is not supported")
    return value


def _parse_bytes(attribute: Attribute, rule: AttributeRule, value: bytes) -> AttributeValue:
    normal_form = _NORMAL_FORMS.get(attribute)
    if normal_form is not None:
        value = normal_form(value)
    _check_size(attribute, rule, len(value), " bytes")
    return value


def _parse_text(attribute: Attribute, rule: AttributeRule, value: str) -> AttributeValue:
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise AttributeInvalid(f"{attribute.name} is not UTF-8") from None
    _check_size(attribute, rule, size, " bytes of UTF-8")
    return value


def _parse_date(attribute: Attribute, rule: AttributeRule, value: str) -> AttributeValue:
    if value:
        try:
            good = dt.date.fromisoformat(value).isoformat() == value
        except ValueError:
            good = False
        if not good:
            raise AttributeInvalid(f"{attribute.name} is not a date such as 2026-11-24")
    return value


def _parse_mechanisms(attribute: Attribute, rule: AttributeRule, value: list[Any]) -> AttributeValue:
    if any(type(number) is not int and not isinstance(number, enum.IntEnum) for number in value):
        raise AttributeInvalid(f"{attribute.name} is a list of mechanism numbers")
    if any(not 0 <= number <= MECHANISM_MAX for number in value):
        raise AttributeInvalid(f"{attribute.name}: a mechanism's number has 32 bits")
    return sorted({int(number) for number in value})


def _parse_nested(attribute: Attribute, rule: AttributeRule, value: dict[Any, Any]) -> AttributeValue:
    inner = parse_template(value)
    for name in inner:
        if ATTRIBUTES[name].kind is Kind.TEMPLATE:
            raise AttributeInvalid(f"{attribute.name} holds {name.name}; a template in a template holds no third")
    return dict(to_wire(inner))


def _check_size(attribute: Attribute, rule: AttributeRule, size: int, unit: str) -> None:
    least, most = rule.size
    if not least <= size <= most:
        raise AttributeInvalid(f"{attribute.name}: {size}{unit}; from {least} to {most}")


_PARSERS: Final[dict[Kind, Callable[[Attribute, AttributeRule, Any], AttributeValue]]] = {
    Kind.BOOL: _parse_bool,
    Kind.INT: _parse_int,
    Kind.BYTES: _parse_bytes,
    Kind.TEXT: _parse_text,
    Kind.DATE: _parse_date,
    Kind.MECHANISMS: _parse_mechanisms,
    Kind.TEMPLATE: _parse_nested,
}
