"""Turns attributes as applications give and ask for them into the product's, and back. Pure."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from lnh_common.pkcs11.attributes import (
    ATTRIBUTES,
    SENSITIVE_KEYS,
    Attribute,
    Attributes,
    AttributeValue,
    Kind,
    ObjectClass,
)
from lnh_pkcs11 import layouts
from lnh_pkcs11.fields import Attribute as Given
from lnh_pkcs11.layouts import ValueKind
from lnh_pkcs11.numbers import CKR
from lnh_pkcs11.refusals import Refused

if TYPE_CHECKING:
    from lnh.aio import StoredObject

_O = ObjectClass
_CERTIFICATE_TYPE: Final = 0x080
_PRIVATE_EXPONENT, _PRIME_1, _COEFFICIENT = 0x123, 0x124, 0x128
# Attributes that objects of the product do not keep, since there is one value for all of a class.
CONSTANT: Final[dict[int, dict[ObjectClass, int]]] = {
    _CERTIFICATE_TYPE: {_O.CERTIFICATE: 0},  # X.509
    0x087: {_O.CERTIFICATE: 0},  # CERTIFICATE_CATEGORY: unspecified
    0x088: {_O.CERTIFICATE: 0},  # JAVA_MIDP_SECURITY_DOMAIN: unspecified
    0x109: {_O.PRIVATE_KEY: 0},  # SIGN_RECOVER
    0x10B: {_O.PUBLIC_KEY: 0},  # VERIFY_RECOVER
    0x202: {_O.PRIVATE_KEY: 0},  # ALWAYS_AUTHENTICATE
}
# Parts of a private key's value, which are as sensitive as all of it.
PRIVATE_PARTS: Final = frozenset({Attribute.VALUE.value, *range(_PRIVATE_EXPONENT, _COEFFICIENT + 1)})


def template(given: Iterable[Given]) -> Attributes:
    """Read a template by which an object is made or changed; what is constant may be repeated. Raises Refused."""
    read: Attributes = {}
    for each in given:
        if each.type in CONSTANT and each.value in CONSTANT[each.type].values():
            continue
        name = _known(each.type)
        if name is None:
            raise Refused(CKR.ATTRIBUTE_TYPE_INVALID, f"attribute {each.type:#x}")
        if name in read:
            raise Refused(CKR.TEMPLATE_INCONSISTENT, f"{name.name} twice")
        read[name] = _value(name, each.value)
    return read


def wanted(given: Iterable[Given]) -> Attributes | None:
    """Read a template by which objects are searched; None where no object can match."""
    read: Attributes = {}
    for each in given:
        if each.type in CONSTANT:
            if each.value not in CONSTANT[each.type].values():
                return None
            classes = list(CONSTANT[each.type])
            if read.setdefault(Attribute.CLASS, classes[0].value) != classes[0].value:
                return None
            continue
        name = _known(each.type)
        if name is None:
            return None
        try:
            value = _value(name, each.value)
        except Refused:
            return None
        if read.setdefault(name, value) != value:
            return None
    return read


def _known(number: int) -> Attribute | None:
    return Attribute(number) if number in Attribute._value2member_map_ else None


def _value(name: Attribute, value: Any) -> AttributeValue:
    if value is None:
        raise Refused(CKR.ATTRIBUTE_VALUE_INVALID, f"{name.name} has no value of its length")
    try:
        read: AttributeValue = _FROM[ATTRIBUTES[name].kind](value)
    except (ValueError, TypeError):
        raise Refused(CKR.ATTRIBUTE_VALUE_INVALID, name.name) from None
    return _serial_number(read) if name is Attribute.SERIAL_NUMBER and isinstance(read, bytes) else read


def _serial_number(value: bytes) -> bytes:
    """Return a certificate's number as a DER INTEGER (PKCS#11 v3.1, 4.6.3); Java gives what is within one."""
    is_der = value[:1] == b"\x02" and value[1:2] == bytes([len(value) - 2 & 0xFF])
    return value if is_der or not 0 < len(value) < 0x80 else b"\x02" + bytes([len(value)]) + value


def _bool(value: int | bytes) -> bool:
    number = _int(value, (1,))
    if number > 1:
        raise ValueError(number)
    return number == 1


def _int(value: int | bytes, sizes: tuple[int, ...] = (4, 8)) -> int:
    """Read a number, which a newer attribute's value has as the machine does."""
    if isinstance(value, bytes):
        if len(value) not in sizes:
            raise ValueError(len(value))
        return int.from_bytes(value, sys.byteorder)
    return int(value)


def _date(value: bytes) -> str:
    text = value.decode("ascii")
    if text and (len(text) != 8 or not text.isdigit()):
        raise ValueError(text)
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if text else ""


def _within(value: list[Given] | bytes) -> dict[int, Any]:
    return {name.value: each for name, each in template(value or []).items()}  # type: ignore[arg-type]  # empty bytes


_FROM: Final[dict[Kind, Any]] = {
    Kind.BOOL: _bool,
    Kind.INT: _int,
    Kind.BYTES: bytes,
    Kind.TEXT: lambda value: value.decode(),
    Kind.DATE: _date,
    Kind.MECHANISMS: list,
    Kind.TEMPLATE: _within,
}


def shown(found: StoredObject, number: int) -> Any:
    """Return the value of an attribute as it is answered; None where the object has none to be seen."""
    object_class = found.attributes.get(Attribute.CLASS)
    if number in CONSTANT:
        return CONSTANT[number].get(ObjectClass(object_class)) if isinstance(object_class, int) else None
    name = _known(number)
    if name is None or name not in found.attributes:
        return None
    return answered(name, found.attributes[name])


def answered(name: Attribute, value: Any) -> Any:
    """Return a value of the product's as it is answered."""
    kind = ATTRIBUTES[name].kind
    if kind is Kind.BOOL:
        return _sized(name, int(value), 1)
    if kind is Kind.INT:
        return _sized(name, value, 8)
    if kind is Kind.TEXT:
        return value.encode()
    if kind is Kind.DATE:
        return value.replace("-", "").encode()
    if kind is Kind.TEMPLATE:
        return [Given(number, answered(Attribute(number), each)) for number, each in value.items()]
    return value


def _sized(name: Attribute, value: int, size: int) -> int | bytes:
    """Return a number, or for an attribute whose value travels as bytes those that the machine has for it."""
    if layouts.VALUE_KINDS.get(name.value, ValueKind.BYTES) is ValueKind.BYTES:
        return value.to_bytes(size, sys.byteorder)
    return value


def is_part_of_value(found: StoredObject, number: int) -> bool:
    """Tell whether an attribute is a part of the value of a private or secret key, which is read apart."""
    return found.attributes.get(Attribute.CLASS) in {each.value for each in SENSITIVE_KEYS} and number in PRIVATE_PARTS


def may_be_read(found: StoredObject) -> bool:
    """Tell whether the value of a private or secret key may be seen."""
    return not found.attributes.get(Attribute.SENSITIVE) and bool(found.attributes.get(Attribute.EXTRACTABLE))
