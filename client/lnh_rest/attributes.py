"""Attributes and parameters of mechanisms as JSON has them, by the rows of their tables. Pure.

An attribute goes by its name in lower case; bytes are hexadecimal; classes, types and mechanisms go by name.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from lnh.objects import encoding
from lnh_common import shapes
from lnh_common.errors import ArgumentInvalid, AttributeInvalid, MechanismParameterInvalid
from lnh_common.messages.base import Message
from lnh_common.pkcs11.attributes import (
    ATTRIBUTES,
    Attribute,
    AttributeRule,
    Attributes,
    AttributeValue,
    KeyType,
    Kind,
    ObjectClass,
)
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism
from lnh_common.pkcs11.parameters import Parameter, ParameterKind, declared
from lnh_rest.schemas import LARGEST, fields, hexadecimal

_NAMED: Final[dict[Attribute, type[enum.IntEnum]]] = {
    Attribute.CLASS: ObjectClass,
    Attribute.KEY_TYPE: KeyType,
    Attribute.KEY_GEN_MECHANISM: Mechanism,
}


def parse(given: Mapping[str, Any]) -> Attributes:
    """Read attributes; raises AttributeInvalid naming the attribute. Bounds are checked where they are used."""
    return {
        attribute: _READ[ATTRIBUTES[attribute].kind](attribute, value)
        for attribute, value in ((encoding.attribute(name), value) for name, value in given.items())
    }


def named(given: Mapping[str, Any]) -> dict[str, object]:
    """Read attributes as the SDK takes them by name; raises AttributeInvalid."""
    return {attribute.name.lower(): value for attribute, value in parse(given).items()}


def shown(attributes: Mapping[Attribute, AttributeValue]) -> dict[str, Any]:
    """Write attributes, in the order of their numbers."""
    return {attribute.name.lower(): _shown(attribute, attributes[attribute]) for attribute in sorted(attributes)}


def mechanism(name: str) -> Mechanism:
    """Find the mechanism of this name; raises ArgumentInvalid."""
    if name not in Mechanism.__members__:
        raise ArgumentInvalid(f"no mechanism {name!r}", {"advice": "docs/mechanisms.md lists them"})
    return Mechanism[name]


def key_type(name: str) -> KeyType:
    """Find the key type of this name; raises ArgumentInvalid."""
    if name not in KeyType.__members__:
        raise ArgumentInvalid(f"no key type {name!r}", {"advice": f"one of {', '.join(KeyType.__members__)}"})
    return KeyType[name]


def object_class(name: str) -> ObjectClass:
    """Find the class of this name; raises ArgumentInvalid."""
    if name not in ObjectClass.__members__:
        raise ArgumentInvalid(f"no class {name!r}", {"advice": f"one of {', '.join(ObjectClass.__members__)}"})
    return ObjectClass[name]


def parameters(which: Mechanism, given: Mapping[str, Any]) -> Message | None:
    """Read a mechanism's parameters, of which bytes are base64; none given are its defaults.

    Raises MechanismParameterInvalid naming the parameter.
    """
    if not given:
        return None
    kind = MECHANISM_RULES[which].parameters
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        said = f"{which.name}: {shapes.problem(error, kind)}"
        raise MechanismParameterInvalid(said, {"advice": "docs/mechanisms.md has what it takes"}) from None


def _exactly(kind: type[bool | int | str], words: str) -> Callable[[Attribute, Any], AttributeValue]:
    def read(attribute: Attribute, value: Any) -> AttributeValue:
        if type(value) is not kind or not isinstance(value, bool | int | str):
            raise AttributeInvalid(f"{attribute.name} is {words}")
        return value

    return read


def _number(attribute: Attribute, value: Any) -> AttributeValue:
    names = _NAMED.get(attribute)
    if names is None:
        return _exactly(int, "a whole number")(attribute, value)
    if not isinstance(value, str) or value not in names.__members__:
        raise AttributeInvalid(f"{attribute.name} is one of {', '.join(names.__members__)}")
    return names[value].value


def _bytes(attribute: Attribute, value: Any) -> AttributeValue:
    try:
        found = bytes.fromhex(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or found.hex() != value.lower():
        raise AttributeInvalid(f"{attribute.name} is bytes in hexadecimal")
    return found


def _mechanisms(attribute: Attribute, value: Any) -> AttributeValue:
    if not isinstance(value, list) or not all(each in Mechanism.__members__ for each in value if isinstance(each, str)):
        raise AttributeInvalid(f"{attribute.name} is a list of names of mechanisms")
    if not all(isinstance(each, str) for each in value):
        raise AttributeInvalid(f"{attribute.name} is a list of names of mechanisms")
    return [Mechanism[each].value for each in value]


def _template(attribute: Attribute, value: Any) -> AttributeValue:
    if not isinstance(value, dict):
        raise AttributeInvalid(f"{attribute.name} is an object of attributes")
    return {each.value: what for each, what in parse(value).items()}


_READ: Final[dict[Kind, Callable[[Attribute, Any], AttributeValue]]] = {
    Kind.BOOL: _exactly(bool, "true or false"),
    Kind.INT: _number,
    Kind.BYTES: _bytes,
    Kind.TEXT: _exactly(str, "text"),
    Kind.DATE: _exactly(str, "a date such as 2026-11-24"),
    Kind.MECHANISMS: _mechanisms,
    Kind.TEMPLATE: _template,
}


def _shown(attribute: Attribute, value: AttributeValue) -> Any:
    names = _NAMED.get(attribute)
    if names is not None and isinstance(value, int) and value in names._value2member_map_:
        return names(value).name
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        known = Mechanism._value2member_map_
        return [Mechanism(each).name if each in known else each for each in value]
    if isinstance(value, dict):
        inner = {Attribute(number): each for number, each in value.items() if number in Attribute._value2member_map_}
        return shown(inner)
    return value


def _schema(attribute: Attribute, rule: AttributeRule) -> dict[str, Any]:
    least, most = rule.size
    if attribute in _NAMED:
        return {"enum": list(_NAMED[attribute].__members__)}
    of_kind: dict[Kind, dict[str, Any]] = {
        Kind.BOOL: {"type": "boolean"},
        Kind.INT: {"type": "integer", "minimum": least, "maximum": most},
        Kind.BYTES: hexadecimal(),
        Kind.TEXT: {"type": "string"},
        Kind.DATE: {"type": "string", "description": "A date such as 2026-11-24; empty for none."},
        Kind.MECHANISMS: {"type": "array", "items": {"enum": list(Mechanism.__members__)}},
        Kind.TEMPLATE: {"type": "object", "description": "Attributes, none of which is a template."},
    }
    return of_kind[rule.kind]


def _parameter_schema(parameter: Parameter) -> dict[str, Any]:
    schema: dict[str, Any] = {"description": parameter.help}
    if parameter.kind is ParameterKind.BYTES:
        return schema | {"type": "string", "contentEncoding": "base64"}
    if parameter.kind is ParameterKind.NUMBER:
        return schema | {"type": "integer", "minimum": -LARGEST, "maximum": LARGEST}
    if parameter.kind is ParameterKind.FLAG:
        return schema | {"type": "boolean"}
    return schema | {"enum": [each.value for each in parameter.choices]}


def _parameters_schema() -> dict[str, Any]:
    kinds = {rule.parameters for rule in MECHANISM_RULES.values()}
    found = {each.name: _parameter_schema(each) for kind in kinds for each in declared(kind)}
    return dict(sorted(found.items()))


SCHEMA: Final = fields({each.name.lower(): _schema(each, rule) for each, rule in ATTRIBUTES.items()})
PARAMETERS: Final = fields(_parameters_schema())
