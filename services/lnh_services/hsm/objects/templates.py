"""Completes a caller's template to an object's attributes, or refuses it naming the attribute.

Pure. The rows of `attributes.ATTRIBUTES` and `NATURAL_USES` are filled in here, and nowhere else; `policy.check_new`
then decides whether the result may exist under a policy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from lnh_common.errors import AttributeInvalid, AttributeReadOnly, PermissionDenied, TemplateInconsistent
from lnh_common.messages.session import Role
from lnh_common.pkcs11.attributes import (
    ATTRIBUTES,
    COUNTERPARTS,
    NATURAL_USES,
    USES,
    Attribute,
    AttributeRule,
    Attributes,
    AttributeValue,
    KeyType,
    Kind,
    ObjectClass,
    Source,
)
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, NATURAL_FAMILIES, USE_ATTRIBUTES, Family, Mechanism, Use
from lnh_services.hsm.objects.policy import WRAPPING, KeyUses, uses_named, uses_of

_A = Attribute
_MIRRORED: Final = (_A.WRAP_TEMPLATE, _A.UNWRAP_TEMPLATE)
# How an RSA pair wraps that names no mechanism: whatever key, of whatever length.
NATURAL_WRAPPING: Final = Mechanism.RSA_AES_KEY_WRAP
_USE_OF: Final[dict[Attribute, Use]] = {attribute: use for use, attribute in USE_ATTRIBUTES.items()}


@dataclass(frozen=True)
class History:
    """What the HSM alone says of where a key comes from.

    Args:
        local: LOCAL: it was generated here.
        mechanism: KEY_GEN_MECHANISM, which only a local key has.
        always_sensitive, never_extractable: whether a key that is SENSITIVE, or not EXTRACTABLE, always was, and never.
    """

    local: bool
    mechanism: Mechanism | None
    always_sensitive: bool
    never_extractable: bool

    @classmethod
    def generated(cls, mechanism: Mechanism) -> History:
        """Return that of a key that this mechanism generates here."""
        return cls(local=True, mechanism=mechanism, always_sensitive=True, never_extractable=True)


IMPORTED: Final = History(local=False, mechanism=None, always_sensitive=False, never_extractable=False)


def check_template(
    template: Attributes, object_class: ObjectClass, key_type: KeyType | None, role: Role, maker: str
) -> None:
    """Check whether the template of a new object may say all this.

    Args:
        template: as `attributes.parse_template` gives it.
        object_class, key_type: of the object; None for what is no key.
        role: of the session.
        maker: what makes the object, for messages.

    Raises TemplateInconsistent for an attribute the object does not have or that contradicts the mechanism, or a use
    that no mechanism has for a key of this type, AttributeInvalid for a template that names an unknown mechanism,
    AttributeReadOnly for one only the HSM sets, PermissionDenied for TRUSTED.
    """
    kind = object_class.name if key_type is None else f"{key_type.name} {object_class.name}"
    for name, value in template.items():
        rule = ATTRIBUTES[name]
        if not rule.applies(object_class, key_type):
            raise TemplateInconsistent(f"{name.name} is no attribute of {kind}")
        match rule.source_for(object_class):
            case Source.HSM:
                raise AttributeReadOnly(f"{name.name} is set by the HSM")
            case Source.KRSO if role is not Role.KRSO and value:
                raise PermissionDenied(f"{name.name} is set by the KRSO only")
            case _:
                pass
        if isinstance(value, dict):
            _check_mechanisms_known(name, value)
    for use in uses_of(template):
        if _USE_OF[use] not in _uses_served(key_type):
            raise TemplateInconsistent(f"{use.name}: no mechanism does that with {kind}")
    for name, wanted in ((_A.CLASS, object_class), (_A.KEY_TYPE, key_type)):
        if name in template and template[name] != wanted:
            raise TemplateInconsistent(f"{name.name} {template[name]!r}: {maker} makes {kind}")


def _check_mechanisms_known(name: Attribute, inner: dict[int, Any]) -> None:
    """Raise AttributeInvalid for a template that asks for mechanisms that no key can have."""
    if strange := set(inner.get(_A.ALLOWED_MECHANISMS, ())) - set(Mechanism):
        raise AttributeInvalid(f"{name.name}: ALLOWED_MECHANISMS: {_mechanism_name(min(strange))} is not supported")


def mirror_uses(public: Attributes, private: Attributes) -> tuple[Attributes, Attributes]:
    """Complete two templates of a key pair: the one that names no use gets those that go with the other's."""
    return _mirrored(public, private, ObjectClass.PUBLIC_KEY), _mirrored(private, public, ObjectClass.PRIVATE_KEY)


def _mirrored(template: Attributes, other: Attributes, object_class: ObjectClass) -> Attributes:
    if uses_of(template) or not uses_of(other):
        return template
    counterparts = {COUNTERPARTS[use] for use in uses_of(other) if use in COUNTERPARTS}
    named = {use: use in counterparts for use in USES if object_class in ATTRIBUTES[use].classes}
    return dict(named) | template


def mirror_templates(wrapping: Attributes, unwrapping: Attributes) -> tuple[Attributes, Attributes]:
    """Complete the templates of what wraps and of what unwraps it: where one names uses alone, both do.

    Both may be the template of one secret key, or those of the two halves of a pair.
    """
    return (
        wrapping | _template_like(wrapping, _A.WRAP_TEMPLATE, uses_named(unwrapping, _A.UNWRAP_TEMPLATE)),
        unwrapping | _template_like(unwrapping, _A.UNWRAP_TEMPLATE, uses_named(wrapping, _A.WRAP_TEMPLATE)),
    )


def _template_like(template: Attributes, name: Attribute, named: dict[int, Any]) -> Attributes:
    rule = ATTRIBUTES[name]
    if not named or name in template or (rule.needs is not None and template.get(rule.needs) is not True):
        return {}
    default = next(iter(rule.defaults.values()))
    assert isinstance(default, dict), "a template's default is one"
    return {name: default | named}


def share_id(public: Attributes, private: Attributes) -> tuple[Attributes, Attributes]:
    """Give two templates of a key pair one ID; raises TemplateInconsistent when they name two."""
    ids = [template[_A.ID] for template in (public, private) if _A.ID in template]
    if len(ids) == 2 and ids[0] != ids[1]:
        raise TemplateInconsistent("ID: the halves of a key pair share it, and the templates name two")
    return (public | {_A.ID: ids[0]}, private | {_A.ID: ids[0]}) if ids else (public, private)


def complete(
    template: Attributes,
    object_class: ObjectClass,
    key_type: KeyType,
    history: History,
    unique_id: str,
    key_uses: KeyUses,
) -> Attributes:
    """Complete the attributes of a new key, but for those that describe its value.

    Args:
        template: one that passed `check_template`.
        object_class, key_type: of the key.
        history: where it comes from.
        unique_id: of the object.
        key_uses: whether it serves one family of mechanisms, or all that fit.

    Raises TemplateInconsistent naming the attribute.
    """
    made: Attributes = {_A.CLASS: object_class.value, _A.KEY_TYPE: key_type.value, _A.UNIQUE_ID: unique_id}
    made |= _uses(template, object_class, key_type)
    if key_uses is KeyUses.SEPARATED and object_class is ObjectClass.SECRET_KEY:
        wrapping, unwrapping = mirror_templates(template | made, template | made)
        mirrored = {**wrapping, **unwrapping}
        template = template | {name: mirrored[name] for name in _MIRRORED if name in mirrored}
    for name, rule in _rules(object_class, key_type):
        if name in made:
            continue
        if rule.needs is not None and made.get(rule.needs) is not True:
            if name in template:
                raise TemplateInconsistent(f"{name.name} is only for keys with {rule.needs.name}")
        elif name in template:
            made[name] = template[name]
        elif object_class in rule.defaults:
            default = rule.defaults[object_class]
            made[name] = list(default) if isinstance(default, list) else default
    made[_A.ALLOWED_MECHANISMS] = _allowed(template, made, key_type, key_uses)
    made[_A.LOCAL] = history.local
    if history.mechanism is not None:
        made[_A.KEY_GEN_MECHANISM] = history.mechanism.value
    if _A.SENSITIVE in made:
        made[_A.ALWAYS_SENSITIVE] = made[_A.SENSITIVE] is True and history.always_sensitive
        made[_A.NEVER_EXTRACTABLE] = made[_A.EXTRACTABLE] is False and history.never_extractable
    return made


def complete_other(template: Attributes, object_class: ObjectClass, unique_id: str) -> Attributes:
    """Complete the attributes of a certificate or of data; the template passed `check_template`."""
    made: Attributes = {_A.CLASS: object_class.value, _A.UNIQUE_ID: unique_id}
    for name, rule in ATTRIBUTES.items():
        if (
            rule.applies(object_class, None)
            and name not in made
            and (name in template or object_class in rule.defaults)
        ):
            made[name] = template.get(name, rule.defaults.get(object_class, b""))
    return made


@cache
def _rules(object_class: ObjectClass, key_type: KeyType) -> tuple[tuple[Attribute, AttributeRule], ...]:
    """Return the rows of the attributes that an object of this class and type has."""
    return tuple((name, rule) for name, rule in ATTRIBUTES.items() if rule.applies(object_class, key_type))


@cache
def _fitting(key_type: KeyType, uses: frozenset[Use]) -> tuple[int, ...]:
    """Return the mechanisms that serve one of these uses with a key of this type."""
    rules = MECHANISM_RULES.items()
    return tuple(mechanism.value for mechanism, rule in rules if key_type in rule.key_types and rule.uses & uses)


@cache
def _uses_served(key_type: KeyType | None) -> frozenset[Use]:
    """Return the uses that some mechanism has for a key of this type."""
    return frozenset(use for rule in MECHANISM_RULES.values() if key_type in rule.key_types for use in rule.uses)


def _uses(template: Attributes, object_class: ObjectClass, key_type: KeyType) -> Attributes:
    """Return every use, true or false: those that the template names, or else the natural ones that it did not deny."""
    wanted = uses_of(template)
    if not wanted:
        denied = {use for use in USES if template.get(use) is False}
        wanted = NATURAL_USES[object_class, key_type] - denied
    return {use: use in wanted for use in USES if ATTRIBUTES[use].applies(object_class, key_type)}


def _allowed(template: Attributes, made: Attributes, key_type: KeyType, key_uses: KeyUses) -> list[int]:
    object_class = ObjectClass(made[_A.CLASS])  # type: ignore[arg-type]  # its rule says that it is an int
    named = template.get(_A.ALLOWED_MECHANISMS)
    if named is not None:
        assert isinstance(named, list), "ALLOWED_MECHANISMS is a list; its rule says so"
        fitting = natural_mechanisms(object_class, key_type, uses_of(made), KeyUses.COMPATIBLE)
        if strange := set(named) - set(fitting):
            name = _mechanism_name(min(strange))
            raise TemplateInconsistent(
                f"ALLOWED_MECHANISMS: {name} does not go with {key_type.name} and the key's uses"
            )
        return named
    return natural_mechanisms(object_class, key_type, uses_of(made), key_uses)


def natural_mechanisms(
    object_class: ObjectClass, key_type: KeyType, attributes: frozenset[Attribute], key_uses: KeyUses
) -> list[int]:
    """Return the mechanisms of a key that names none: all that fit its uses, or those of the natural family alone."""
    uses = frozenset(_USE_OF[use] for use in attributes)
    fitting = _fitting(key_type, uses)
    if key_uses is KeyUses.SEPARATED and object_class is ObjectClass.SECRET_KEY:
        families = _natural_families(key_type, uses)
        fitting = tuple(number for number in fitting if MECHANISM_RULES[Mechanism(number)].family in families)
    elif key_uses is KeyUses.SEPARATED and attributes & WRAPPING:
        fitting = tuple(number for number in fitting if number == NATURAL_WRAPPING)
    return sorted(fitting)


@cache
def default_templates(object_class: ObjectClass, key_type: KeyType) -> dict[Attribute, AttributeValue]:
    """Return the templates that a key of this class and type has where it names none, whatever its uses."""
    return {
        name: rule.defaults[object_class]
        for name, rule in _rules(object_class, key_type)
        if rule.kind is Kind.TEMPLATE and object_class in rule.defaults
    }


def _natural_families(key_type: KeyType, uses: Iterable[Use]) -> set[Family]:
    return {NATURAL_FAMILIES[key_type, use] for use in uses if (key_type, use) in NATURAL_FAMILIES}


def _mechanism_name(number: int) -> str:
    try:
        return Mechanism(number).name
    except ValueError:
        return f"0x{number:x}"
