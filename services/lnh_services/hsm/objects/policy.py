"""Decides what may be made, changed, copied and used, so that keys cannot be talked out of the HSM.

Pure: attribute sets and a policy in, a refusal or a new attribute set out. The rules are those of PKCS#11 made stricter
(Clulow 2003; Bortolozzo et al., CCS 2010). With `key_uses = separated`, the default:

- a secret key has one of the use groups below for life, and mechanisms of one family;
- in a key pair WRAP and UNWRAP exclude every other use;
- changes only tighten (`attributes.ATTRIBUTES`, column `change`), and a copy is no way back.

`key_uses = compatible` drops the first two for applications that need PKCS#11's plain rules.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec

from lnh_common import limits, shapes
from lnh_common.errors import (
    ActionProhibited,
    ArgumentInvalid,
    AttributeReadOnly,
    AttributeSensitive,
    KeyExpired,
    KeyFunctionNotPermitted,
    KeyTypeInconsistent,
    MechanismInvalid,
    PermissionDenied,
    PolicyForbids,
    TemplateInconsistent,
    VersionConflict,
)
from lnh_common.messages.base import Message
from lnh_common.messages.session import Role
from lnh_common.pkcs11.algorithms import CURVES_BY_PARAMS, RSA_BITS, WRAPPING_RSA_BITS
from lnh_common.pkcs11.attributes import (
    ATTRIBUTES,
    KEYS,
    SECRET_USE_GROUPS,
    SENSITIVE_KEYS,
    USES,
    Attribute,
    Attributes,
    AttributeValue,
    Change,
    KeyType,
    ObjectClass,
)
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, USE_ATTRIBUTES, Family, Mechanism, Use, mechanism_called
from lnh_common.pkcs11.mechanisms import POLICY_FIELDS as MECHANISM_FIELDS

_A = Attribute

_SMALL_EXPONENT: Final = 1 << 16


class KeyUses(str, enum.Enum):
    """The rule for a key's uses: one use for life, or what PKCS#11 allows."""

    SEPARATED = "separated"
    COMPATIBLE = "compatible"

    @classmethod
    def _missing_(cls, value: object) -> KeyUses | None:
        return cls.SEPARATED if value == SEPARATED_BEFORE else None


SEPARATED_BEFORE: Final = "one"  # as 0.1 calls it, in records too


class Policy(Message):
    """A cluster's policy, or the one in force in a keyring.

    Args:
        allowed_mechanisms: None allows every mechanism but the weak uses.
        weak_mechanisms: turns on a mechanism's weak uses (AES_ECB; RSA_PKCS to encrypt).
        minimum_rsa_bits: to make, import or use an RSA key.
        import_keys: plaintext keys may come in (`import` on the wire).
        export_wrapped: EXTRACTABLE keys may leave, wrapped.
        caller_ivs: a caller may choose the IV of an encryption.
        key_uses: see the module.
        per_use_audit: each use of a key is a record of its own.
        objects_per_keyring: at most.
        token_lifetime: of a session token, in seconds.
        read_only_max: how long a read-only member honours tokens, in seconds.
        fips: only approved mechanisms and curves, and no callers' IVs.
        session_lifetime: after its login, in seconds; a token is renewed no longer than that.
        dual_control: operations that wait for a second person (the cluster's alone).
        lock_after: failed logins of a holder, without a right one between, after which it stays locked; 0: never.
    """

    allowed_mechanisms: tuple[Mechanism, ...] | None = None
    weak_mechanisms: tuple[Mechanism, ...] = ()
    minimum_rsa_bits: Annotated[int, msgspec.Meta(ge=RSA_BITS[0], le=RSA_BITS[-1])] = RSA_BITS[0]
    import_keys: bool = msgspec.field(default=False, name="import")
    export_wrapped: bool = True
    caller_ivs: bool = False
    key_uses: KeyUses = KeyUses.SEPARATED
    per_use_audit: bool = False
    objects_per_keyring: Annotated[int, msgspec.Meta(ge=1, le=limits.OBJECTS_AT_MOST)] = limits.OBJECTS_PER_KEYRING
    token_lifetime: Annotated[int, msgspec.Meta(ge=60, le=limits.TOKEN_LIFETIME_MAX)] = limits.TOKEN_LIFETIME
    read_only_max: Annotated[int, msgspec.Meta(ge=0, le=limits.SESSION_LIFETIME)] = limits.SESSION_LIFETIME
    fips: bool = False
    session_lifetime: Annotated[int, msgspec.Meta(ge=60, le=limits.SESSION_LIFETIME)] = limits.SESSION_LIFETIME
    dual_control: tuple[str, ...] = ()
    lock_after: Annotated[int, msgspec.Meta(ge=0, le=limits.FAILURES_BEFORE_LOCK_MAX)] = 0

    @property
    def allows_caller_ivs(self) -> bool:
        """Tell whether a caller may choose the IV of an encryption."""
        return self.caller_ivs and not self.fips


def _sorted(mechanisms: tuple[Mechanism, ...] | None) -> tuple[Mechanism, ...] | None:
    return None if mechanisms is None else tuple(sorted(set(mechanisms)))


def _stricter_mechanisms(
    one: tuple[Mechanism, ...] | None, other: tuple[Mechanism, ...] | None
) -> tuple[Mechanism, ...] | None:
    if one is None or other is None:
        return other if one is None else one
    return _sorted(tuple(set(one) & set(other)))


def _stricter_uses(one: KeyUses, other: KeyUses) -> KeyUses:
    return KeyUses.SEPARATED if KeyUses.SEPARATED in (one, other) else KeyUses.COMPATIBLE


def _both(one: bool, other: bool) -> bool:
    return one and other


def _either(one: bool, other: bool) -> bool:
    return one or other


def _all_of(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*one, *other}))


def _fewer(one: int, other: int) -> int:
    return min(one or other, other or one)


# For each field the stricter of two values. A field without a row does not exist (a test holds it).
STRICTER: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "allowed_mechanisms": _stricter_mechanisms,
    "weak_mechanisms": _stricter_mechanisms,
    "minimum_rsa_bits": max,
    "import": _both,
    "export_wrapped": _both,
    "caller_ivs": _both,
    "key_uses": _stricter_uses,
    "per_use_audit": _either,
    "objects_per_keyring": min,
    "token_lifetime": min,
    "read_only_max": min,
    "fips": _either,
    "session_lifetime": min,
    "dual_control": _all_of,
    "lock_after": _fewer,
}
# Fields that say nothing of one keyring.
OF_THE_CLUSTER: Final = frozenset({"dual_control"})


def check_names(changes: Mapping[str, Any], also: tuple[str, ...] = ()) -> None:
    """Raise ArgumentInvalid for a field that a policy does not have.

    Args:
        also: other fields that are allowed.
    """
    for name in changes:
        if name not in STRICTER and name not in also:
            raise ArgumentInvalid(f"policy has no field {name}; it has {', '.join((*STRICTER, *also))}")


def with_numbers(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Turn changes into the form that is kept: mechanisms by number, and words that the version before knows.

    Raises MechanismInvalid.
    """
    kept = dict(changes)
    for name in MECHANISM_FIELDS:
        given = kept.get(name)
        if isinstance(given, list | tuple):
            kept[name] = [int(mechanism_called(each)) if isinstance(each, str) else each for each in given]
    if kept.get("key_uses") == KeyUses.SEPARATED.value:
        kept["key_uses"] = SEPARATED_BEFORE  # a member of the version before knows no other word
    return kept


def change_policy(policy: Policy, changes: Mapping[str, Any]) -> Policy:
    """Change some fields of the cluster's policy; raises ArgumentInvalid naming the field."""
    check_names(changes)
    try:
        changed = msgspec.convert(policy_view(policy) | dict(changes), Policy)
    except msgspec.ValidationError as error:
        raise ArgumentInvalid(f"policy: {shapes.problem(error, Policy)}") from None
    # A set of mechanisms has one spelling, so that equal policies compare equal.
    return msgspec.structs.replace(
        changed,
        allowed_mechanisms=_sorted(changed.allowed_mechanisms),
        weak_mechanisms=_sorted(changed.weak_mechanisms),
        dual_control=tuple(sorted(set(changed.dual_control))),
    )


def policy_view(policy: Policy) -> dict[str, Any]:
    """Turn a policy into plain values by the names of its fields on the wire."""
    view: dict[str, Any] = msgspec.to_builtins(policy)
    return view


def merge(cluster: Policy, keyring: Mapping[str, Any]) -> Policy:
    """Compute the policy in force in a keyring whose own policy sets these fields.

    Raises PolicyForbids naming a field that would be looser than the cluster's, ArgumentInvalid for one that is not a
    policy's.
    """
    wanted = change_policy(cluster, keyring)
    merged = effective(cluster, keyring)
    wanted_view, merged_view, cluster_view = policy_view(wanted), policy_view(merged), policy_view(cluster)
    for name in keyring:
        if wanted_view[name] != merged_view[name]:
            looser, allowed = _told(name, wanted_view[name]), _told(name, cluster_view[name])
            raise PolicyForbids(f"{name} = {looser}: looser than the cluster's {allowed}")
    return merged


def _told(name: str, value: Any) -> str:
    """Tell a field's value to people: mechanisms by name, and what None means."""
    if name in MECHANISM_FIELDS and value is not None:
        return ", ".join(Mechanism(number).name for number in value) or "none"
    return "every mechanism" if value is None else str(value)


def effective(cluster: Policy, keyring: Mapping[str, Any]) -> Policy:
    """Compute the stricter of both policies in every field, even if the cluster's changed since."""
    wanted = change_policy(cluster, keyring)
    fields = {
        field: STRICTER[name](getattr(cluster, field), getattr(wanted, field))
        for field, name in zip(Policy.__struct_fields__, Policy.__struct_encode_fields__, strict=True)
    }
    return Policy(**fields)


WRAPPING: Final = frozenset({_A.WRAP, _A.UNWRAP})
_NAMING: Final = frozenset({*USES, _A.ALLOWED_MECHANISMS})
_WRAPPING_MECHANISMS: Final = frozenset(
    mechanism for mechanism, rule in MECHANISM_RULES.items() if rule.uses & {Use.WRAP, Use.UNWRAP}
)


def uses_of(attributes: Attributes) -> frozenset[Attribute]:
    """Return the uses that are true."""
    return frozenset([use for use in USES if attributes.get(use) is True])


def families_of(attributes: Attributes) -> frozenset[Family]:
    """Return the families of the mechanisms that a secret key may serve."""
    allowed = attributes[_A.ALLOWED_MECHANISMS]
    assert isinstance(allowed, list), "ALLOWED_MECHANISMS is a list; its rule says so"
    named = set(allowed)
    rules = (rule for mechanism, rule in MECHANISM_RULES.items() if mechanism in named)
    return frozenset(rule.family for rule in rules if rule.family is not None)


def uses_named(attributes: Attributes, name: Attribute) -> dict[int, Any]:
    """Return what this template of a key says of the use of what is wrapped, or comes out."""
    template = attributes.get(name, {})
    assert isinstance(template, dict), f"{name.name} is a template; its rule says so"
    return {number: value for number, value in template.items() if number in _NAMING and value is not False}


def wrapping_mechanisms(attributes: Attributes) -> frozenset[Mechanism]:
    """Return the mechanisms that a key may WRAP or UNWRAP with."""
    allowed = attributes[_A.ALLOWED_MECHANISMS]
    assert isinstance(allowed, list), "ALLOWED_MECHANISMS is a list; its rule says so"
    return frozenset(mechanism for mechanism in _WRAPPING_MECHANISMS if mechanism in allowed)


def mixed_uses(attributes: Attributes) -> str:
    """Say why a key has more than one use for life; empty when it has one."""
    uses = uses_of(attributes)
    if attributes[_A.CLASS] == ObjectClass.SECRET_KEY:
        groups = sorted({SECRET_USE_GROUPS[use] for use in uses})
        if len(groups) > 1:
            return f"a secret key is for one of {' and '.join(groups)}"
        families = sorted(family.value for family in families_of(attributes))
        if len(families) > 1:
            return f"ALLOWED_MECHANISMS: a secret key serves one family, not {' and '.join(families)}"
        return ""
    if uses & WRAPPING and uses - WRAPPING:
        return f"{_names(uses & WRAPPING)} excludes {_names(uses - WRAPPING)}"
    return _mixed_wrapping(wrapping_mechanisms(attributes)) if uses & WRAPPING else ""


def _mixed_wrapping(mechanisms: frozenset[Mechanism]) -> str:
    """Say why a pair may not wrap by these; empty for one mechanism, or none."""
    names = sorted(mechanism.name for mechanism in mechanisms)
    return f"ALLOWED_MECHANISMS: a key pair wraps by one mechanism, not {' and '.join(names)}" if len(names) > 1 else ""


def check_new(attributes: Attributes, policy: Policy, role: Role) -> None:
    """Check whether an object with these complete attributes may come to be.

    Raises TemplateInconsistent naming the attribute, PolicyForbids naming the field, PermissionDenied for TRUSTED.
    """
    _check_dates_in_order(attributes)
    if attributes.get(_A.TRUSTED) is True:
        _check_trusted(attributes, role)
    if attributes[_A.CLASS] not in KEYS:
        return
    _check_size(attributes, uses_of(attributes), policy)
    if policy.key_uses is KeyUses.COMPATIBLE:
        return
    if problem := mixed_uses(attributes):
        raise TemplateInconsistent(f"{problem} (policy key_uses = separated)")
    check_templates_agree(attributes, attributes)
    if attributes[_A.CLASS] == ObjectClass.SECRET_KEY and not uses_of(attributes):
        raise TemplateInconsistent("no use is true; a secret key has one")


def check_new_pair(public: Attributes, private: Attributes, policy: Policy, role: Role) -> None:
    """Check both halves of a pair as `check_new` does, and what they are together."""
    check_new(public, policy, role)
    check_new(private, policy, role)
    if public.get(_A.WRAP) is True and private[_A.SENSITIVE] is not True:
        raise TemplateInconsistent("SENSITIVE: what a public key wraps is no safer than its private key")
    uses = uses_of(public) | uses_of(private)
    if policy.key_uses is KeyUses.SEPARATED and uses & WRAPPING and uses - WRAPPING:
        raise TemplateInconsistent(
            f"{_names(uses & WRAPPING)} excludes {_names(uses - WRAPPING)} in a key pair (policy key_uses = separated)"
        )
    if policy.key_uses is KeyUses.SEPARATED and uses & WRAPPING:
        both = wrapping_mechanisms(public) | wrapping_mechanisms(private)
        if problem := _mixed_wrapping(both):
            raise TemplateInconsistent(f"{problem} (policy key_uses = separated)")
        check_templates_agree(public, private)


def check_templates_agree(wrapping: Attributes, unwrapping: Attributes) -> None:
    """Raise TemplateInconsistent where a key wraps for other uses than those with which it unwraps."""
    if _A.WRAP_TEMPLATE not in wrapping or _A.UNWRAP_TEMPLATE not in unwrapping:
        return
    if uses_named(wrapping, _A.WRAP_TEMPLATE) != uses_named(unwrapping, _A.UNWRAP_TEMPLATE):
        raise TemplateInconsistent(
            "WRAP_TEMPLATE and UNWRAP_TEMPLATE name different uses or mechanisms (policy key_uses = separated)"
        )


def check_mechanism(use: Use, mechanism: Mechanism, policy: Policy) -> None:
    """Check whether the policy lets anybody use this mechanism so.

    Raises MechanismInvalid when it is not for that use, PolicyForbids naming the field.
    """
    rule = MECHANISM_RULES[mechanism]
    if use not in rule.uses:
        raise MechanismInvalid(f"{mechanism.name} does not {use.value}")
    if policy.allowed_mechanisms is not None and mechanism not in policy.allowed_mechanisms:
        raise PolicyForbids(f"{mechanism.name} is not among the policy's allowed_mechanisms")
    if use in rule.weak and mechanism not in policy.weak_mechanisms:
        raise PolicyForbids(f"{mechanism.name} to {use.value} is off; the policy's weak_mechanisms can allow it")
    if policy.fips and (not rule.approved or use in rule.weak):
        raise PolicyForbids(f"{mechanism.name} to {use.value} is not approved; the policy says fips")


def check_use(attributes: Attributes, use: Use, mechanism: Mechanism, policy: Policy, today: dt.date) -> None:
    """Check whether a key may be used so today, as `check_permitted` and `check_dates` do."""
    check_permitted(attributes, use, mechanism, policy)
    check_dates(attributes, today)


def check_permitted(attributes: Attributes, use: Use, mechanism: Mechanism, policy: Policy) -> None:
    """Check whether a key may be used so, dates apart. The answer holds for this version of the key and the policy.

    Raises MechanismInvalid, KeyTypeInconsistent, KeyFunctionNotPermitted, PolicyForbids.
    """
    check_mechanism(use, mechanism, policy)
    rule = MECHANISM_RULES[mechanism]
    key_type = attributes.get(_A.KEY_TYPE)
    if key_type not in rule.key_types:
        raise KeyTypeInconsistent(f"{mechanism.name} is not for {_type_name(attributes)}")
    needed = USE_ATTRIBUTES.get(use)
    if needed is None:
        raise KeyFunctionNotPermitted(f"no key is used to {use.value}")
    if attributes.get(needed) is not True:
        raise KeyFunctionNotPermitted(f"{needed.name} is not true for this key")
    allowed = attributes[_A.ALLOWED_MECHANISMS]
    assert isinstance(allowed, list), "ALLOWED_MECHANISMS is a list; its rule says so"
    if mechanism not in allowed:
        raise MechanismInvalid(f"{mechanism.name} is not among the key's ALLOWED_MECHANISMS")
    _check_size(attributes, frozenset({needed}), policy)
    if policy.key_uses is KeyUses.SEPARATED and (problem := mixed_uses(attributes)):
        raise PolicyForbids(f"{problem}; the policy says key_uses = separated")
    if use is Use.WRAP and attributes[_A.LOCAL] is not True and attributes[_A.TRUSTED] is not True:
        raise KeyFunctionNotPermitted("WRAP: the key was not generated here and is not TRUSTED")


def check_dates(attributes: Attributes, today: dt.date) -> None:
    """Check that today is within START_DATE and END_DATE, both inclusive; raises KeyExpired."""
    start, end = _dates(attributes)
    if not start and not end:
        return
    day = today.isoformat()
    if start and day < start:
        raise KeyExpired(f"not valid before {start}; today is {day}")
    if end and day > end:
        raise KeyExpired(f"not valid after {end}; today is {day}")


def check_destroy(attributes: Attributes) -> None:
    """Raise ActionProhibited when the object may not be destroyed."""
    if attributes.get(_A.DESTROYABLE) is False:
        raise ActionProhibited("DESTROYABLE is false")


def check_version(version: int, wanted: int) -> None:
    """Raise VersionConflict when an object has another version than is wanted; 0 wants none."""
    if wanted and wanted != version:
        raise VersionConflict(f"the object has version {version}, not {wanted}", {"version": version})


def change(attributes: Attributes, template: Attributes, role: Role) -> Attributes:
    """Change attributes (C_SetAttributeValue, PKCS#11 v3.1, 5.7.6): all of the template or nothing.

    Raises AttributeReadOnly, TemplateInconsistent, AttributeInvalid, ActionProhibited, PermissionDenied, each naming
    the attribute.
    """
    if attributes[_A.TOKEN] is not True:
        raise ActionProhibited("TOKEN is false: an object of a session cannot be changed")
    frozen = _frozen_by(attributes)
    if frozen and any(ATTRIBUTES[name].change is not Change.KRSO for name in template):
        raise ActionProhibited(f"{frozen}: its attributes are frozen")
    return _changed(attributes, template, role)


def copy(attributes: Attributes, template: Attributes, role: Role, unique_id: str) -> Attributes:
    """Make the attributes of a copy (C_CopyObject, PKCS#11 v3.1, 5.7.2): history and one-way attributes go with it.

    The copy is a stored object; an object of a session has one where the template says TOKEN.

    Raises ActionProhibited when COPYABLE is false, else as `change`. The copy of a TRUSTED key is not TRUSTED, and as
    frozen as that is.
    """
    if attributes[_A.COPYABLE] is not True:
        raise ActionProhibited("COPYABLE is false")
    if template.get(_A.TOKEN, attributes[_A.TOKEN]) is not True:
        raise ActionProhibited("TOKEN is false: the copy of a session's object is a stored one, and says TOKEN true")
    template = {name: value for name, value in template.items() if name is not _A.TOKEN}
    copied = attributes | {_A.UNIQUE_ID: unique_id, _A.TOKEN: True}
    if copied.get(_A.TRUSTED) is True:
        copied |= {_A.TRUSTED: False, _A.MODIFIABLE: False}
    if (frozen := _frozen_by(attributes)) and (more := _modified(attributes, template) - NAMES):
        raise ActionProhibited(f"{frozen}: a copy has another {_names(frozenset(more))} only of what may be modified")
    return _changed(copied, template, role)


NAMES: Final = frozenset({_A.LABEL, _A.ID})
"""What may be said of any object, and decides nothing."""


def _modified(attributes: Attributes, template: Attributes) -> set[Attribute]:
    object_class = _class_and_type(attributes)[0]
    return {
        name
        for name, value in template.items()
        if ATTRIBUTES[name].change_for(object_class) is Change.MODIFIABLE and attributes.get(name) != value
    }


def visible(attributes: Attributes) -> Attributes:
    """Return the attributes that every session may read: all, for no sensitive value is ever among them."""
    assert attributes[_A.CLASS] not in SENSITIVE_KEYS or _A.VALUE not in attributes, "a key's value is sealed apart"
    return dict(attributes)


def check_readable(attributes: Attributes) -> None:
    """Raise AttributeSensitive unless the value of this object may be read in plaintext."""
    if attributes[_A.CLASS] not in SENSITIVE_KEYS:
        return
    if attributes[_A.SENSITIVE] is not False or attributes[_A.EXTRACTABLE] is not True:
        raise AttributeSensitive("VALUE: the key is SENSITIVE or not EXTRACTABLE")


def _changed(attributes: Attributes, template: Attributes, role: Role) -> Attributes:
    object_class, key_type = _class_and_type(attributes)
    for name, value in template.items():
        rule = ATTRIBUTES[name]
        if not rule.applies(object_class, key_type):
            raise TemplateInconsistent(f"{name.name} is no attribute of {_type_name(attributes)}")
        if rule.needs is not None and name not in attributes:
            raise TemplateInconsistent(f"{name.name} is only for keys with {rule.needs.name}")
        _CHANGES[rule.change_for(object_class)](name, attributes.get(name), value, role)
    changed = attributes | template
    _check_dates_in_order(changed)
    if changed.get(_A.TRUSTED) is True:
        _check_trusted(changed, role if _A.TRUSTED in template else Role.KRSO)
    return changed


def _never(name: Attribute, old: AttributeValue | None, new: AttributeValue, role: Role) -> None:
    raise AttributeReadOnly(f"{name.name} never changes")


def _freely(name: Attribute, old: AttributeValue | None, new: AttributeValue, role: Role) -> None:
    """Allow any change: MODIFIABLE was checked for the object as a whole."""


def _only_true(name: Attribute, old: AttributeValue | None, new: AttributeValue, role: Role) -> None:
    if old is True and new is False:
        raise AttributeReadOnly(f"{name.name} changes only to true")


def _only_false(name: Attribute, old: AttributeValue | None, new: AttributeValue, role: Role) -> None:
    if old is not True and new is True:
        raise AttributeReadOnly(f"{name.name} changes only to false")


def _only_narrower(name: Attribute, old: AttributeValue | None, new: AttributeValue, role: Role) -> None:
    assert isinstance(old, list) and isinstance(new, list), f"{name.name} is a list; its rule says so"  # noqa: PT018
    if more := set(new) - set(old):
        raise AttributeReadOnly(f"{name.name} only gets narrower; 0x{min(more):x} is not among the key's")


def _by_krso(name: Attribute, old: AttributeValue | None, new: AttributeValue, role: Role) -> None:
    if role is not Role.KRSO and old != new:
        raise PermissionDenied(f"{name.name} is set by the KRSO only")


_CHANGES: Final[dict[Change, Callable[[Attribute, AttributeValue | None, AttributeValue, Role], None]]] = {
    Change.NEVER: _never,
    Change.MODIFIABLE: _freely,
    Change.ONLY_TRUE: _only_true,
    Change.ONLY_FALSE: _only_false,
    Change.NARROWER: _only_narrower,
    Change.KRSO: _by_krso,
}


def _frozen_by(attributes: Attributes) -> str:
    if attributes.get(_A.TRUSTED) is True:
        return "TRUSTED is true"
    if attributes.get(_A.MODIFIABLE) is False:
        return "MODIFIABLE is false"
    return ""


def _check_trusted(attributes: Attributes, role: Role) -> None:
    if role is not Role.KRSO:
        raise PermissionDenied("TRUSTED is set by the KRSO only")
    if attributes[_A.CLASS] in SENSITIVE_KEYS and (
        attributes[_A.SENSITIVE] is not True or attributes[_A.EXTRACTABLE] is not False
    ):
        raise TemplateInconsistent("TRUSTED needs a key that is SENSITIVE and not EXTRACTABLE")


def _dates(attributes: Attributes) -> tuple[str, str]:
    start, end = attributes.get(_A.START_DATE, ""), attributes.get(_A.END_DATE, "")
    assert isinstance(start, str) and isinstance(end, str), "dates are text; their rules say so"  # noqa: PT018
    return start, end


def _check_dates_in_order(attributes: Attributes) -> None:
    start, end = _dates(attributes)
    if start and end and start > end:
        raise TemplateInconsistent(f"START_DATE {start} is after END_DATE {end}")


def _check_size(attributes: Attributes, uses: frozenset[Attribute], policy: Policy) -> None:
    key_type = attributes[_A.KEY_TYPE]
    if key_type == KeyType.RSA:
        modulus = attributes[_A.MODULUS]
        assert isinstance(modulus, bytes), "MODULUS is bytes; its rule says so"
        bits = int.from_bytes(modulus, "big").bit_length()
        if bits < policy.minimum_rsa_bits:
            raise PolicyForbids(f"RSA of {bits} bits; the policy's minimum_rsa_bits is {policy.minimum_rsa_bits}")
        if uses & WRAPPING and bits < WRAPPING_RSA_BITS:
            raise PolicyForbids(
                f"RSA of {bits} bits; {_names(uses & WRAPPING)} needs at least {WRAPPING_RSA_BITS}",
                {"advice": f"use an RSA key of {WRAPPING_RSA_BITS} bits or more: no policy allows fewer"},
            )
    exponent = attributes.get(_A.PUBLIC_EXPONENT)
    if policy.fips and isinstance(exponent, bytes) and int.from_bytes(exponent, "big") <= _SMALL_EXPONENT:
        raise PolicyForbids("PUBLIC_EXPONENT is not above 2^16, as FIPS 186-5 has it; the policy says fips")
    params = attributes.get(_A.EC_PARAMS)
    if policy.fips and isinstance(params, bytes) and not CURVES_BY_PARAMS[params].approved:
        raise PolicyForbids(f"{CURVES_BY_PARAMS[params].name} is not approved; the policy says fips")


def _names(uses: frozenset[Attribute]) -> str:
    return ", ".join(sorted(use.name for use in uses))


def _type_name(attributes: Attributes) -> str:
    object_class, key_type = _class_and_type(attributes)
    return object_class.name if key_type is None else f"{key_type.name} {object_class.name}"


def _class_and_type(attributes: Attributes) -> tuple[ObjectClass, KeyType | None]:
    object_class, key_type = attributes[_A.CLASS], attributes.get(_A.KEY_TYPE)
    assert isinstance(object_class, int), "CLASS is an int; its rule says so"
    assert key_type is None or isinstance(key_type, int), "KEY_TYPE is an int; its rule says so"
    return ObjectClass(object_class), None if key_type is None else KeyType(key_type)
