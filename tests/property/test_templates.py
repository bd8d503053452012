"""Whatever a template says, it is carried out whole or refused with one of the product's own errors."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lnh_common.errors import ArgumentInvalid, LnhError, MechanismParameterInvalid
from lnh_common.messages.session import Role
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import (
    ATTRIBUTES,
    Attribute,
    Attributes,
    AttributeValue,
    Change,
    KeyType,
    Kind,
    ObjectClass,
    Source,
    from_wire,
    parse_template,
    to_wire,
)
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use, parse_parameters
from lnh_common.wire import codec
from lnh_services.hsm.objects import policy as rules
from lnh_services.hsm.objects.generate import generate_key, generate_key_pair
from lnh_services.hsm.objects.policy import KeyUses, Policy, effective, merge, policy_view
from models.keys import pair, secret
from sizes import sized

A = Attribute
FAST = settings(max_examples=sized(120), deadline=None, suppress_health_check=[HealthCheck.too_slow])

# What a CBOR map may hold, right or wrong.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.binary(max_size=80) | st.text(max_size=80) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
MECHANISM_LISTS = st.lists(st.sampled_from([name.value for name in Mechanism]), max_size=4)
BY_KIND: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.BOOL: st.booleans(),
    Kind.INT: st.sampled_from([0, 1, 2, 3, 4, 16, 24, 32, 48, 0x1F]),
    Kind.BYTES: st.sampled_from([b"", b"\x01\x00\x01", *(curve.oid for curve in CURVES.values())]),
    Kind.TEXT: st.text(max_size=5),
    Kind.DATE: st.dates().map(lambda day: day.isoformat()) | st.just(""),
    Kind.MECHANISMS: MECHANISM_LISTS,
    Kind.TEMPLATE: st.just({A.SENSITIVE.value: True}) | st.just({}),
}
ROLES = st.sampled_from([Role.KRSO, Role.KRCO])
POLICIES = st.builds(
    Policy,
    key_uses=st.sampled_from(KeyUses),
    fips=st.booleans(),
    weak_mechanisms=st.sampled_from([(), (Mechanism.AES_ECB,)]),
)


SETTABLE = [
    name
    for name, rule in ATTRIBUTES.items()
    if rule.source is Source.TEMPLATE and rule.kind in (Kind.BOOL, Kind.TEXT, Kind.DATE, Kind.MECHANISMS)
]
CHANGEABLE = [name for name, rule in ATTRIBUTES.items() if rule.change is not Change.NEVER]


@st.composite
def templates(draw: st.DrawFn, often: list[Attribute]) -> dict[int, Any]:
    """Attributes, some more often, with values of their own type, which may still not fit together."""
    likely = st.lists(st.sampled_from(often), max_size=3, unique=True)
    names = draw(likely | likely | st.lists(st.sampled_from(list(Attribute)), max_size=6, unique=True))
    return {name.value: draw(BY_KIND[ATTRIBUTES[name].kind]) for name in names}


def parsed(template: dict[int, Any]) -> Attributes | None:
    try:
        return parse_template(template)
    except LnhError:
        return None


@FAST
@given(st.dictionaries(st.sampled_from([name.value for name in Attribute]) | st.integers(), ANYTHING, max_size=5))
@example({A.ALLOWED_MECHANISMS.value: [2**64]})
def test_any_map_is_parsed_or_refused(template: dict[int, Any]) -> None:
    attributes = parsed(template)
    if attributes is not None:
        assert parse_template(to_wire(attributes)) == attributes
        assert from_wire(codec.decode(codec.encode(to_wire(attributes)))) == attributes


@FAST
@given(templates(SETTABLE), POLICIES, ROLES, st.sampled_from([16, 32]))
def test_a_secret_key_is_made_whole_or_refused(
    template: dict[int, Any], policy: Policy, role: Role, length: int
) -> None:
    attributes = parsed({A.VALUE_LEN.value: length} | template)
    if attributes is None:
        return
    for mechanism in (Mechanism.AES_KEY_GEN, Mechanism.GENERIC_SECRET_KEY_GEN, Mechanism.CHACHA20_KEY_GEN):
        try:
            made = generate_key(mechanism, attributes, policy, role)
        except LnhError:
            continue
        check_made(made.attributes, attributes, policy, role)
        assert len(made.value) == made.attributes[A.VALUE_LEN]


@FAST
@given(templates(SETTABLE), templates(SETTABLE), POLICIES, ROLES, st.sampled_from(["P-256", "Ed25519", "X25519"]))
def test_a_key_pair_is_made_whole_or_refused(
    public: dict[int, Any], private: dict[int, Any], policy: Policy, role: Role, curve: str
) -> None:
    parsed_public, parsed_private = parsed(public | {A.EC_PARAMS.value: CURVES[curve].oid}), parsed(private)
    if parsed_public is None or parsed_private is None:
        return
    mechanism = {
        KeyType.EC: Mechanism.EC_KEY_PAIR_GEN,
        KeyType.EC_EDWARDS: Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
        KeyType.EC_MONTGOMERY: Mechanism.EC_MONTGOMERY_KEY_PAIR_GEN,
    }[CURVES[curve].key_type]
    try:
        halves = generate_key_pair(mechanism, parsed_public, parsed_private, policy, role)
    except LnhError:
        return
    for half, template in zip(halves, (parsed_public, parsed_private), strict=True):
        check_made(half.attributes, template, policy, role)
    uses = rules.uses_of(halves[0].attributes) | rules.uses_of(halves[1].attributes)
    assert policy.key_uses is KeyUses.COMPATIBLE or not (uses & rules.WRAPPING and uses - rules.WRAPPING)
    assert halves[0].attributes[A.ID] == halves[1].attributes[A.ID]


def check_made(made: Attributes, template: Attributes, policy: Policy, role: Role) -> None:
    """What every new key must be."""
    assert made | template == made
    object_class, key_type = ObjectClass(made[A.CLASS]), KeyType(made[A.KEY_TYPE])  # type: ignore[arg-type]
    assert all(ATTRIBUTES[name].applies(object_class, key_type) for name in made)
    assert made[A.LOCAL] is True
    assert role is Role.KRSO or made[A.TRUSTED] is False
    if object_class is not ObjectClass.PUBLIC_KEY:
        assert made[A.ALWAYS_SENSITIVE] == made[A.SENSITIVE]
        assert made[A.NEVER_EXTRACTABLE] == (not made[A.EXTRACTABLE])
        assert not made[A.TRUSTED] or (made[A.SENSITIVE] and not made[A.EXTRACTABLE])
    if policy.key_uses is KeyUses.SEPARATED:
        assert rules.mixed_uses(made) == ""
    assert A.VALUE not in made
    assert parse_template(to_wire(made)) == made


STARTS: list[Attributes] = [
    secret("AES-256").attributes,
    generate_key(Mechanism.AES_KEY_GEN, {A.VALUE_LEN: 32}, Policy()).attributes,
    *(half.attributes for half in pair("P-256")),
]


@FAST
@given(st.sampled_from(STARTS), st.lists(templates(CHANGEABLE), max_size=6), ROLES)
def test_no_row_of_changes_and_copies_loosens_a_key(start: Attributes, steps: list[dict[int, Any]], role: Role) -> None:
    now = start
    for number, step in enumerate(steps):
        template = parsed(step)
        if template is None:
            continue
        before = dict(now)
        try:
            after = rules.copy(now, template, role, "copy") if number % 2 else rules.change(now, template, role)
        except LnhError:
            assert now == before
            continue
        assert set(after) == set(now)
        now = after
    for name, value in now.items():
        assert not loosened(name, start[name], value, role), name


def loosened(name: Attribute, old: AttributeValue, new: AttributeValue, role: Role) -> bool:
    match ATTRIBUTES[name].change:
        case Change.NEVER:
            return old != new and name is not A.UNIQUE_ID
        case Change.ONLY_TRUE:
            return old is True and new is not True
        case Change.ONLY_FALSE:
            return old is False and new is not False
        case Change.NARROWER:
            assert isinstance(old, list)
            assert isinstance(new, list)
            return not set(new) <= set(old)
        case Change.KRSO:
            return new is True and old is not True and role is not Role.KRSO
        case _:
            return False


@FAST
@given(st.sampled_from(STARTS), POLICIES)
def test_a_permitted_use_is_one_the_key_its_mechanisms_and_the_policy_all_name(
    attributes: Attributes, policy: Policy
) -> None:
    allowed = attributes[A.ALLOWED_MECHANISMS]
    assert isinstance(allowed, list)
    for use, mechanism in itertools.product(Use, Mechanism):
        try:
            rules.check_permitted(attributes, use, mechanism, policy)
        except LnhError:
            permitted = False
        else:
            permitted = True
        rule = MECHANISM_RULES[mechanism]
        named = use.name in Attribute.__members__ and attributes.get(Attribute[use.name]) is True
        weak = use in rule.weak and (mechanism not in policy.weak_mechanisms or policy.fips)
        mixed = policy.key_uses is KeyUses.SEPARATED and rules.mixed_uses(attributes) != ""
        wanted = named and mechanism in allowed and use in rule.uses and not weak and not mixed
        assert permitted == (wanted and (rule.approved or not policy.fips))


@FAST
@given(st.sampled_from(Mechanism), st.binary(max_size=40) | ANYTHING.map(codec.encode))
def test_any_parameters_are_parsed_or_refused(mechanism: Mechanism, parameters: bytes) -> None:
    try:
        found = parse_parameters(mechanism, parameters)
    except MechanismParameterInvalid:
        return
    assert isinstance(found, MECHANISM_RULES[mechanism].parameters)


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "allowed_mechanisms": st.none() | MECHANISM_LISTS,
        "weak_mechanisms": MECHANISM_LISTS,
        "minimum_rsa_bits": st.sampled_from([2048, 3072, 4096]),
        "import": st.booleans(),
        "export_wrapped": st.booleans(),
        "caller_ivs": st.booleans(),
        "key_uses": st.sampled_from(["separated", "compatible"]),
        "per_use_audit": st.booleans(),
        "objects_per_keyring": st.integers(1, 1000),
        "token_lifetime": st.integers(60, 3600),
        "read_only_max": st.integers(0, 3600),
        "fips": st.booleans(),
    },
)


@FAST
@given(FIELDS, FIELDS)
def test_a_keyrings_policy_never_permits_what_the_clusters_forbids(
    cluster_fields: dict[str, Any], keyring: dict[str, Any]
) -> None:
    cluster = rules.change_policy(Policy(), cluster_fields)
    both = effective(cluster, keyring)
    assert merge(cluster, policy_view(both)) == both
    for mechanism, rule in MECHANISM_RULES.items():
        for use in rule.uses:
            if permits(both, use, mechanism):
                assert permits(cluster, use, mechanism)
    assert cluster.allows_caller_ivs or not both.allows_caller_ivs


def permits(policy: Policy, use: Use, mechanism: Mechanism) -> bool:
    try:
        rules.check_mechanism(use, mechanism, policy)
    except LnhError:
        return False
    return True


@FAST
@given(st.dictionaries(st.sampled_from([*rules.STRICTER, "other"]), ANYTHING, max_size=3))
def test_any_change_of_a_policy_is_made_or_refused(changes: dict[str, Any]) -> None:
    try:
        policy = rules.change_policy(Policy(), changes)
    except ArgumentInvalid:
        return
    assert rules.change_policy(Policy(), policy_view(policy)) == policy
