"""Writes docs/mechanisms.md from the tables: `python -m lnh_services.hsm.objects.document > docs/mechanisms.md`.

A test holds that the page is what this renders.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import ATTRIBUTES, USES, Attribute, AttributeRule, Kind, ObjectClass
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, MechanismRule, Use, parameters_of
from lnh_common.pkcs11.parameters import Parameter, ParameterKind
from lnh_services.hsm.crypto.mechanisms import served
from lnh_services.hsm.objects.generate import generated

_ORDER: Final = tuple(Use)

# What the library does not do, so that the product does not either: it writes no primitive of its own.
LACKING: Final = (
    ("Ed25519ctx, Ed25519ph, and Ed448 with a context or prehashed", "`EDDSA` is pure and without a context"),
    ("RSA key pairs with a public exponent other than 3 and 65537", "imported keys may have any that OpenSSL takes"),
    ("AES-CTR with a counter of fewer than 128 bits", "the counter is the whole block"),
    ("ML-DSA without hedging; HASH_ML_DSA", "`ML_DSA` is hedged and signs the message itself"),
)


def _served(mechanism: Mechanism) -> frozenset[Use]:
    return served(mechanism) | generated(mechanism)


def not_served() -> dict[Mechanism, list[Use]]:
    """List the uses that a row names and no scheme carries out: there are none, and a test holds it."""
    missing = {mechanism: rule.uses - _served(mechanism) for mechanism, rule in MECHANISM_RULES.items()}
    return {mechanism: _sorted(uses) for mechanism, uses in missing.items() if uses}


def _sorted(uses: Iterable[Use]) -> list[Use]:
    return sorted(uses, key=_ORDER.index)


def _uses(uses: Iterable[Use]) -> str:
    return ", ".join(use.value for use in _sorted(uses))


def _parameters(mechanism: Mechanism) -> str:
    return ", ".join(each.name for each in parameters_of(mechanism))


def _parameter_rows() -> Iterator[str]:
    """Render each parameter once, with the mechanisms that take it within the same bounds."""
    takers: dict[Parameter, list[str]] = {}
    for mechanism in sorted(MECHANISM_RULES):
        for each in parameters_of(mechanism):
            takers.setdefault(each, []).append(f"`{mechanism.name}`")
    for each, names in sorted(takers.items(), key=lambda row: row[0].name):
        cells = (
            f"`{each.name}`",
            ", ".join(names),
            each.kind.value,
            _bounds(each),
            _parameter_default(each),
            each.help,
        )
        yield f"| {' | '.join(cells)} |"


def _bounds(parameter: Parameter) -> str:
    if parameter.range is None:
        return ", ".join(str(each.value) for each in parameter.choices)
    return f"{parameter.range} bytes" if parameter.kind is ParameterKind.BYTES else str(parameter.range)


def _parameter_default(parameter: Parameter) -> str:
    if parameter.is_required:
        return "must be given"
    default = parameter.default
    if default is None:
        return "the mechanism's"
    if isinstance(default, enum.Enum):
        return str(default.value)
    return str(default) if default else _NO_DEFAULT[parameter.kind]


_NO_DEFAULT: Final = {ParameterKind.BYTES: "empty", ParameterKind.FLAG: "no", ParameterKind.NUMBER: "0"}


def _notes(rule: MechanismRule) -> str:
    notes = []
    if rule.streams:
        notes.append("any length")
    if rule.iv_bytes:
        notes.append("the HSM draws the IV")
    if rule.weak:
        notes.append(f"{_uses(rule.weak)} only with policy weak_mechanisms")
    if not rule.approved:
        notes.append("not under policy fips")
    return "; ".join(notes)


def _mechanism_rows() -> Iterator[str]:
    order = {use: number for number, use in enumerate(_ORDER)}
    served = [mechanism for mechanism in MECHANISM_RULES if _served(mechanism)]
    for mechanism in sorted(served, key=lambda name: (min(order[use] for use in _served(name)), name.value)):
        rule = MECHANISM_RULES[mechanism]
        cells = (
            f"`{mechanism.name}`",
            f"0x{mechanism.value:04x}",
            _uses(_served(mechanism)),
            ", ".join(sorted(key_type.name for key_type in rule.key_types)),
            _parameters(mechanism),
            rule.output.value.replace("|", "\\|"),
            rule.family.value if rule.family else "",
            _notes(rule),
        )
        yield f"| {' | '.join(cells)} |"


def _attribute_rows() -> Iterator[str]:
    for attribute in sorted(Attribute, key=lambda name: name.value):
        rule = ATTRIBUTES[attribute]
        cells = (
            f"`{attribute.name}`",
            f"0x{attribute.value:x}",
            rule.kind.value,
            ", ".join(object_class.name for object_class in sorted(rule.classes)),
            _with_exceptions(rule.source, rule.sources),
            _default(attribute, rule),
            _with_exceptions(rule.change, rule.changes),
        )
        yield f"| {' | '.join(cells)} |"


def _with_exceptions(usual: enum.Enum, exceptions: Mapping[ObjectClass, enum.Enum]) -> str:
    others = [f"{object_class.name}: {exception.value}" for object_class, exception in sorted(exceptions.items())]
    return "; ".join([str(usual.value), *others])


def _default(attribute: Attribute, rule: AttributeRule) -> str:
    if attribute in USES:
        return "the natural use"
    if rule.kind is Kind.MECHANISMS:
        return "the family's"
    if rule.kind is Kind.BOOL:
        by_value = {
            value: [object_class.name for object_class in sorted(rule.defaults) if rule.defaults[object_class] is value]
            for value in (True, False)
        }
        parts = [(str(value).lower(), names) for value, names in by_value.items() if names]
        if len(parts) == 1:
            return parts[0][0]
        return "; ".join(f"{value}: {', '.join(names)}" for value, names in parts)
    if rule.kind is Kind.TEMPLATE:
        first = next(iter(rule.defaults.values()))
        assert isinstance(first, dict), "a template's default is one"
        return ", ".join(f"{Attribute(number).name} {str(value).lower()}" for number, value in first.items())
    return "empty" if rule.defaults else ""


def render() -> str:
    """Render the page."""
    lines = [
        "# Mechanisms, curves and attributes",
        "",
        "Written from the code by `python -m lnh_services.hsm.objects.document`; change the tables, not this page.",
        "",
        "## Mechanisms",
        "",
        "| mechanism | number | use | keys | parameters | answers | family | notes |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *_mechanism_rows(),
        "",
        "A secret key serves the mechanisms of one family for life (policy `key_uses = separated`).",
        "",
        "## Parameters",
        "",
        "By `prehashed` a file of any length is signed with one small message. A caller's `iv` to encrypt needs",
        "policy `caller_ivs`.",
        "",
        "| parameter | of | type | bounds | default | meaning |",
        "| --- | --- | --- | --- | --- | --- |",
        *_parameter_rows(),
        "",
        "## What the library lacks",
        "",
        "The product writes no primitive of its own.",
        "",
        "| left out | instead |",
        "| --- | --- |",
        *(f"| {what} | {instead} |" for what, instead in LACKING),
        "",
        "## Curves",
        "",
        "| curve | key type | EC_PARAMS | under policy fips |",
        "| --- | --- | --- | --- |",
        *(
            f"| {curve.name} | {curve.key_type.name} | `{curve.oid.hex()}` | {'yes' if curve.approved else 'no'} |"
            for curve in CURVES.values()
        ),
        "",
        "## Attributes",
        "",
        "| attribute | number | type | classes | set by | default | may change |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *_attribute_rows(),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(render())
