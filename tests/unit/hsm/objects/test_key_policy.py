"""Keys cannot be talked out: what may be generated, used, changed and copied, and under which policy."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lnh_common.errors import (
    ActionProhibited,
    ArgumentInvalid,
    AttributeInvalid,
    AttributeReadOnly,
    AttributeSensitive,
    KeyExpired,
    KeyFunctionNotPermitted,
    KeySizeRange,
    KeyTypeInconsistent,
    LnhError,
    MechanismInvalid,
    PermissionDenied,
    PolicyForbids,
    TemplateIncomplete,
    TemplateInconsistent,
)
from lnh_common.messages.session import Role
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import (
    ATTRIBUTES,
    Attribute,
    Attributes,
    Change,
    KeyType,
    ObjectClass,
    Source,
    parse_template,
)
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use
from lnh_services.hsm.objects import generate
from lnh_services.hsm.objects import policy as rules
from lnh_services.hsm.objects.generate import Generated, generate_key, generate_key_pair
from lnh_services.hsm.objects.policy import STRICTER, KeyUses, Policy, effective, merge
from models.keys import COMPATIBLE, KINDS, pair, secret

A = Attribute
M = Mechanism
ONE = Policy()
KEY_TYPES = {kind: key_type for kind, (key_type, _) in KINDS.items()}
TODAY = dt.date(2026, 11, 24)
P256: Attributes = {A.EC_PARAMS: CURVES["P-256"].oid}


def aes(policy: Policy = ONE, role: Role = Role.KRCO, **template: Any) -> Attributes:
    named = parse_template({Attribute[name]: value for name, value in template.items()})
    return generate_key(M.AES_KEY_GEN, {A.VALUE_LEN: 32} | named, policy, role).attributes


def ec(
    public: Attributes | None = None, private: Attributes | None = None, policy: Policy = ONE, role: Role = Role.KRCO
) -> tuple[Generated, Generated]:
    return generate_key_pair(M.EC_KEY_PAIR_GEN, P256 | (public or {}), private or {}, policy, role)


def true_uses(attributes: Attributes) -> set[str]:
    return {use.name for use in rules.uses_of(attributes)}


# Generation


def test_pairs_of_one_kind_have_names_and_ids_of_their_own() -> None:
    named = ec({A.LABEL: "first", A.ID: b"1"}, {A.LABEL: "its private half"})
    other = ec({}, {A.ID: b"2"})
    assert [(half.attributes[A.LABEL], half.attributes[A.ID]) for half in (*named, *other)] == [
        ("first", b"1"),
        ("its private half", b"1"),
        ("", b"2"),
        ("", b"2"),
    ]
    assert len({half.attributes[A.UNIQUE_ID] for half in (*named, *other)}) == 4
    of_the_key = {A.LABEL, A.ID, A.UNIQUE_ID, A.EC_POINT, A.PUBLIC_KEY_INFO}
    for one, another in zip(named, other, strict=True):
        assert {k: v for k, v in one.attributes.items() if k not in of_the_key} == {
            k: v for k, v in another.attributes.items() if k not in of_the_key
        }


def test_a_large_template_is_planned_as_well_and_not_kept() -> None:
    kept = generate._planned.cache_info().currsize
    large: Attributes = {A.ALLOWED_MECHANISMS: [M.ECDSA.value] * 1000}
    _, private = ec(private=large)
    assert private.attributes[A.ALLOWED_MECHANISMS] == large[A.ALLOWED_MECHANISMS]
    assert generate._planned.cache_info().currsize == kept


@pytest.mark.parametrize("kind", ["RSA", "P-256", "Ed25519", "X25519", "ML-DSA-44", "ML-KEM-768"])
def test_a_key_pair_has_every_attribute_of_its_kind_and_no_other(kind: str) -> None:
    for half, object_class in zip(pair(kind), (ObjectClass.PUBLIC_KEY, ObjectClass.PRIVATE_KEY), strict=True):
        key_type = KEY_TYPES[kind]
        needed = {
            name
            for name, rule in ATTRIBUTES.items()
            if rule.applies(object_class, key_type) and (rule.needs is None or half.attributes[rule.needs] is True)
        }
        assert set(half.attributes) == needed
        for name, value in half.attributes.items():
            assert parse_template({name: value}) == {name: value}


def test_a_secret_key_has_every_attribute_of_its_kind_and_no_other() -> None:
    attributes = secret("AES-256").attributes
    wanted = {name for name, rule in ATTRIBUTES.items() if rule.applies(ObjectClass.SECRET_KEY, KeyType.AES)}
    assert set(attributes) == wanted - {A.WRAP_TEMPLATE, A.UNWRAP_TEMPLATE, A.DERIVE_TEMPLATE}


def test_what_is_generated_is_sensitive_and_stays_unless_the_template_says_no() -> None:
    made = aes()
    for name in (A.SENSITIVE, A.ALWAYS_SENSITIVE, A.NEVER_EXTRACTABLE, A.LOCAL, A.PRIVATE, A.TOKEN):
        assert made[name] is True
    assert made[A.EXTRACTABLE] is made[A.TRUSTED] is False
    assert made[A.KEY_GEN_MECHANISM] == M.AES_KEY_GEN
    looser = aes(SENSITIVE=False, EXTRACTABLE=True)
    assert looser[A.ALWAYS_SENSITIVE] is looser[A.NEVER_EXTRACTABLE] is False


def test_the_halves_of_a_pair_share_their_id() -> None:
    named: Attributes = {A.ID: b"1"}
    for public, private in ((named, None), (None, named), (named, named)):
        assert {half.attributes[A.ID] for half in ec(public, private)} == {b"1"}
    assert {half.attributes[A.ID] for half in ec()} == {b""}
    with pytest.raises(TemplateInconsistent, match="ID"):
        ec({A.ID: b"1"}, {A.ID: b"2"})


def test_what_describes_an_rsa_key_is_its_own() -> None:
    public, private = pair("RSA")
    modulus = public.attributes[A.MODULUS]
    assert isinstance(modulus, bytes)
    assert len(modulus) == 256
    assert private.attributes[A.MODULUS] == modulus
    assert int.from_bytes(modulus, "big").bit_length() == 2048
    assert modulus in private.value
    assert public.attributes[A.PUBLIC_EXPONENT] == b"\x01\x00\x01"


def test_an_ec_point_is_in_an_octet_string_and_an_edwards_point_is_not() -> None:
    point = pair("P-521")[0].attributes[A.EC_POINT]
    assert isinstance(point, bytes)
    assert point[:4] == b"\x04\x81\x85\x04"
    assert len(point) == 3 + 133
    assert len(bytes(pair("Ed25519")[0].attributes[A.EC_POINT])) == 32  # type: ignore[arg-type]


def test_a_curve_may_be_named_by_its_printable_string() -> None:
    public, _ = generate_key_pair(M.EC_EDWARDS_KEY_PAIR_GEN, {A.EC_PARAMS: b"\x13\x0cedwards25519"}, {}, ONE)
    assert public.attributes[A.EC_PARAMS] == CURVES["Ed25519"].oid


@pytest.mark.parametrize(
    ("template", "uses", "mechanisms"),
    [
        ({}, {"ENCRYPT", "DECRYPT"}, {M.AES_GCM}),
        ({"ENCRYPT": True}, {"ENCRYPT"}, {M.AES_GCM}),
        ({"ENCRYPT": False}, {"DECRYPT"}, {M.AES_GCM}),
        ({"SIGN": True, "VERIFY": True}, {"SIGN", "VERIFY"}, {M.AES_CMAC}),
        ({"WRAP": True}, {"WRAP"}, {M.AES_KEY_WRAP, M.AES_KEY_WRAP_PAD}),
        ({"DERIVE": True}, {"DERIVE"}, {M.SP800_108_COUNTER_KDF}),
        ({"ALLOWED_MECHANISMS": [M.AES_CBC, M.AES_CBC_PAD]}, {"ENCRYPT", "DECRYPT"}, {M.AES_CBC, M.AES_CBC_PAD}),
    ],
)
def test_a_secret_key_gets_one_use_and_one_family(
    template: dict[str, Any], uses: set[str], mechanisms: set[Mechanism]
) -> None:
    made = aes(**template)
    assert true_uses(made) == uses
    assert made[A.ALLOWED_MECHANISMS] == sorted(mechanisms)


@pytest.mark.parametrize(
    "template",
    [
        {"ENCRYPT": True, "WRAP": True},
        {"DECRYPT": True, "UNWRAP": True},
        {"DECRYPT": True, "WRAP": True},
        {"SIGN": True, "DERIVE": True},
        {"ENCRYPT": True, "SIGN": True},
        {"ALLOWED_MECHANISMS": [M.AES_CBC, M.AES_GCM]},
        {"ENCRYPT": False, "DECRYPT": False},
    ],
)
def test_a_secret_key_of_two_uses_or_families_needs_a_compatible_policy(
    template: dict[str, Any],
) -> None:
    with pytest.raises(TemplateInconsistent, match="one"):
        aes(**template)
    aes(COMPATIBLE, **template)


@pytest.mark.parametrize(
    ("public", "private"),
    [
        ({A.WRAP: True}, {A.SIGN: True}),
        ({A.WRAP: True, A.ENCRYPT: True}, {}),
        ({A.VERIFY: True}, {A.UNWRAP: True}),
        ({}, {A.UNWRAP: True, A.DECRYPT: True}),
    ],
)
def test_wrapping_excludes_every_other_use_of_a_key_pair(public: Attributes, private: Attributes) -> None:
    bits: Attributes = {A.MODULUS_BITS: 3072}
    with pytest.raises(TemplateInconsistent, match="excludes"):
        generate_key_pair(M.RSA_PKCS_KEY_PAIR_GEN, bits | public, private, ONE)


def test_a_wrapping_rsa_key_has_at_least_3072_bits() -> None:
    with pytest.raises(PolicyForbids, match="3072"):
        generate_key_pair(M.RSA_PKCS_KEY_PAIR_GEN, {A.MODULUS_BITS: 2048, A.WRAP: True}, {}, ONE)


def test_the_other_half_gets_the_uses_that_go_with_the_one_that_names_them() -> None:
    public, private = ec(private={A.DERIVE: True})
    assert true_uses(private.attributes) == {"DERIVE"}
    assert true_uses(public.attributes) == set()
    public, private = ec(private={A.SIGN: True, A.DERIVE: True})
    assert true_uses(public.attributes) == {"VERIFY"}


@pytest.mark.parametrize(
    ("template", "error", "name"),
    [
        ({"LOCAL": True}, AttributeReadOnly, "LOCAL"),
        ({"CHECK_VALUE": b"123"}, AttributeReadOnly, "CHECK_VALUE"),
        ({"ALWAYS_SENSITIVE": True}, AttributeReadOnly, "ALWAYS_SENSITIVE"),
        ({"UNIQUE_ID": "x"}, AttributeReadOnly, "UNIQUE_ID"),
        ({"TRUSTED": True}, PermissionDenied, "TRUSTED"),
        ({"CLASS": ObjectClass.PRIVATE_KEY}, TemplateInconsistent, "CLASS"),
        ({"KEY_TYPE": KeyType.CHACHA20}, TemplateInconsistent, "KEY_TYPE"),
        ({"EC_PARAMS": b"x"}, TemplateInconsistent, "EC_PARAMS"),
        ({"VALUE": b"x" * 32}, TemplateInconsistent, "VALUE"),
        ({"SUBJECT": b"x"}, TemplateInconsistent, "SUBJECT"),
        ({"UNWRAP_TEMPLATE": {}}, TemplateInconsistent, "UNWRAP_TEMPLATE"),
        ({"ALLOWED_MECHANISMS": [M.ECDSA]}, TemplateInconsistent, "ALLOWED_MECHANISMS: ECDSA"),
        ({"ALLOWED_MECHANISMS": [M.AES_CMAC]}, TemplateInconsistent, "ALLOWED_MECHANISMS: AES_CMAC"),
        ({"ALLOWED_MECHANISMS": [0x999]}, TemplateInconsistent, "ALLOWED_MECHANISMS: 0x999"),
        ({"START_DATE": "2026-12-01", "END_DATE": "2026-11-01"}, TemplateInconsistent, "START_DATE"),
        ({"VALUE_LEN": 17}, KeySizeRange, "VALUE_LEN"),
    ],
)
def test_a_wrong_template_is_refused_whole_naming_the_attribute(
    template: dict[str, Any], error: type[LnhError], name: str
) -> None:
    with pytest.raises(error, match=name):
        aes(**template)


@pytest.mark.parametrize(
    ("mechanism", "template", "error", "name"),
    [
        (M.AES_KEY_GEN, {}, TemplateIncomplete, "VALUE_LEN"),
        (M.GENERIC_SECRET_KEY_GEN, {A.VALUE_LEN: 15}, KeySizeRange, "VALUE_LEN"),
        (M.GENERIC_SECRET_KEY_GEN, {A.VALUE_LEN: 513}, KeySizeRange, "VALUE_LEN"),
        (M.CHACHA20_KEY_GEN, {A.VALUE_LEN: 16}, KeySizeRange, "VALUE_LEN"),
        (M.CHACHA20_KEY_GEN, {A.SIGN: True}, TemplateInconsistent, "SIGN"),
        (M.GENERIC_SECRET_KEY_GEN, {A.VALUE_LEN: 32, A.ENCRYPT: True}, TemplateInconsistent, "ENCRYPT"),
        (M.EC_KEY_PAIR_GEN, {}, MechanismInvalid, "EC_KEY_PAIR_GEN"),
        (M.AES_GCM, {}, MechanismInvalid, "AES_GCM"),
    ],
)
def test_a_secret_key_that_cannot_be_is_refused(
    mechanism: Mechanism, template: Attributes, error: type[LnhError], name: str
) -> None:
    with pytest.raises(error, match=name):
        generate_key(mechanism, template, ONE)


@pytest.mark.parametrize(
    ("mechanism", "public", "private", "error", "name"),
    [
        (M.RSA_PKCS_KEY_PAIR_GEN, {}, {}, TemplateIncomplete, "MODULUS_BITS"),
        (M.RSA_PKCS_KEY_PAIR_GEN, {A.MODULUS_BITS: 1024}, {}, KeySizeRange, "MODULUS_BITS"),
        (M.RSA_PKCS_KEY_PAIR_GEN, {A.MODULUS_BITS: 2048, A.PUBLIC_EXPONENT: b"\5"}, {}, AttributeInvalid, "EXPONENT"),
        (M.RSA_PKCS_KEY_PAIR_GEN, {A.MODULUS_BITS: 2048}, {A.DERIVE: True}, TemplateInconsistent, "DERIVE"),
        (M.EC_KEY_PAIR_GEN, {}, {}, TemplateIncomplete, "EC_PARAMS"),
        (M.EC_KEY_PAIR_GEN, {A.EC_PARAMS: CURVES["Ed25519"].oid}, {}, AttributeInvalid, "EC_PARAMS"),
        (M.EC_KEY_PAIR_GEN, {A.EC_PARAMS: b"\6\1\1"}, {}, AttributeInvalid, "EC_PARAMS"),
        (M.EC_KEY_PAIR_GEN, P256, {A.EC_PARAMS: CURVES["P-384"].oid}, TemplateInconsistent, "EC_PARAMS"),
        (M.EC_KEY_PAIR_GEN, P256, {A.ENCRYPT: True}, TemplateInconsistent, "ENCRYPT"),
        (M.EC_KEY_PAIR_GEN, P256, {A.DECRYPT: True}, TemplateInconsistent, "DECRYPT"),
        (M.ML_DSA_KEY_PAIR_GEN, {A.PARAMETER_SET: 4}, {}, AttributeInvalid, "PARAMETER_SET"),
        (M.ML_KEM_KEY_PAIR_GEN, {A.PARAMETER_SET: 1}, {}, AttributeInvalid, "PARAMETER_SET"),
        (M.AES_KEY_GEN, {}, {}, MechanismInvalid, "AES_KEY_GEN"),
    ],
)
def test_a_key_pair_that_cannot_be_is_refused(
    mechanism: Mechanism, public: Attributes, private: Attributes, error: type[LnhError], name: str
) -> None:
    with pytest.raises(error, match=name):
        generate_key_pair(mechanism, public, private, ONE)


def test_only_the_krso_makes_a_key_trusted_and_only_one_that_stays_here() -> None:
    assert aes(role=Role.KRSO, WRAP=True, TRUSTED=True)[A.TRUSTED] is True
    with pytest.raises(TemplateInconsistent, match="TRUSTED"):
        aes(role=Role.KRSO, WRAP=True, TRUSTED=True, EXTRACTABLE=True)


# Use


def test_a_key_is_used_as_its_attributes_say() -> None:
    key = aes()
    rules.check_use(key, Use.ENCRYPT, M.AES_GCM, ONE, TODAY)
    for use, mechanism, error in (
        (Use.ENCRYPT, M.AES_CBC, MechanismInvalid),
        (Use.SIGN, M.AES_CMAC, KeyFunctionNotPermitted),
        (Use.SIGN, M.AES_GCM, MechanismInvalid),
        (Use.ENCRYPT, M.CHACHA20_POLY1305, KeyTypeInconsistent),
        (Use.ENCRYPT, M.AES_ECB, PolicyForbids),
    ):
        with pytest.raises(error):
            rules.check_use(key, use, mechanism, ONE, TODAY)


def test_a_public_key_does_not_sign_and_a_private_key_does_not_verify() -> None:
    public, private = pair("P-256")
    with pytest.raises(KeyFunctionNotPermitted):
        rules.check_permitted(public.attributes, Use.SIGN, M.ECDSA, ONE)
    with pytest.raises(KeyFunctionNotPermitted):
        rules.check_permitted(private.attributes, Use.VERIFY, M.ECDSA, ONE)


def test_what_is_no_key_is_used_for_nothing() -> None:
    with pytest.raises(KeyTypeInconsistent, match="DATA"):
        rules.check_permitted({A.CLASS: ObjectClass.DATA.value}, Use.SIGN, M.ECDSA, ONE)


def test_a_key_is_used_within_its_dates_inclusive() -> None:
    key = aes(START_DATE="2026-11-24", END_DATE="2026-11-25")
    for day in (24, 25):
        rules.check_dates(key, dt.date(2026, 11, day))
    for day in (23, 26):
        with pytest.raises(KeyExpired, match=f"2026-11-{day}"):
            rules.check_dates(key, dt.date(2026, 11, day))
    rules.check_dates(aes(), dt.date.max)


def test_weak_uses_are_off_until_a_policy_names_the_mechanism() -> None:
    public, private = pair("RSA")
    weak = Policy(weak_mechanisms=(M.RSA_PKCS,))
    rules.check_permitted(private.attributes, Use.SIGN, M.RSA_PKCS, ONE)
    for attributes, use in ((public.attributes, Use.ENCRYPT), (private.attributes, Use.DECRYPT)):
        with pytest.raises(PolicyForbids, match="weak_mechanisms"):
            rules.check_permitted(attributes, use, M.RSA_PKCS, ONE)
        rules.check_permitted(attributes, use, M.RSA_PKCS, weak)


@pytest.mark.parametrize(
    ("policy", "word"),
    [
        (Policy(allowed_mechanisms=(M.AES_GCM,)), "allowed_mechanisms"),
        (Policy(minimum_rsa_bits=3072), "minimum_rsa_bits"),
    ],
)
def test_a_policy_forbids_naming_its_field(policy: Policy, word: str) -> None:
    with pytest.raises(PolicyForbids, match=word):
        rules.check_permitted(pair("RSA")[1].attributes, Use.SIGN, M.SHA256_RSA_PKCS, policy)


def test_fips_leaves_only_approved_mechanisms_and_curves_and_no_callers_ivs() -> None:
    fips = Policy(fips=True, caller_ivs=True, weak_mechanisms=(M.RSA_PKCS,))
    rules.check_permitted(pair("P-256")[1].attributes, Use.SIGN, M.ECDSA_SHA256, fips)
    for attributes, use, mechanism in (
        (secret("CHACHA20").attributes, Use.ENCRYPT, M.CHACHA20_POLY1305),
        (pair("secp256k1")[1].attributes, Use.SIGN, M.ECDSA_SHA256),
        (pair("RSA")[0].attributes, Use.ENCRYPT, M.RSA_PKCS),
    ):
        with pytest.raises(PolicyForbids, match="fips"):
            rules.check_permitted(attributes, use, mechanism, fips)
    with pytest.raises(PolicyForbids, match="fips"):
        generate_key_pair(M.EC_KEY_PAIR_GEN, {A.EC_PARAMS: CURVES["brainpoolP256r1"].oid}, {}, fips)
    assert not fips.allows_caller_ivs


def test_a_key_of_two_uses_made_under_a_compatible_policy_is_useless_under_a_strict() -> None:
    key = aes(COMPATIBLE, ENCRYPT=True, WRAP=True)
    rules.check_permitted(key, Use.ENCRYPT, M.AES_GCM, COMPATIBLE)
    with pytest.raises(PolicyForbids, match="key_uses"):
        rules.check_permitted(key, Use.ENCRYPT, M.AES_GCM, ONE)


def test_a_key_not_generated_here_wraps_only_when_trusted() -> None:
    imported = aes(WRAP=True) | {A.LOCAL: False}
    with pytest.raises(KeyFunctionNotPermitted, match="TRUSTED"):
        rules.check_permitted(imported, Use.WRAP, M.AES_KEY_WRAP, ONE)
    rules.check_permitted(imported | {A.TRUSTED: True}, Use.WRAP, M.AES_KEY_WRAP, ONE)
    rules.check_permitted(imported | {A.LOCAL: True}, Use.WRAP, M.AES_KEY_WRAP, ONE)


# Change and copy


@pytest.mark.parametrize(
    ("start", "template", "error"),
    [
        ({}, {A.LABEL: "new"}, None),
        ({}, {A.START_DATE: "2026-01-01"}, None),
        ({}, {A.SENSITIVE: True}, None),
        ({}, {A.SENSITIVE: False}, AttributeReadOnly),
        ({}, {A.EXTRACTABLE: True}, AttributeReadOnly),
        ({"EXTRACTABLE": True}, {A.EXTRACTABLE: False}, None),
        ({"SENSITIVE": False}, {A.SENSITIVE: True}, None),
        ({}, {A.DECRYPT: False}, None),
        ({}, {A.SIGN: True}, AttributeReadOnly),
        ({"ENCRYPT": True}, {A.DECRYPT: True}, AttributeReadOnly),
        ({}, {A.WRAP_WITH_TRUSTED: True}, None),
        ({"WRAP_WITH_TRUSTED": True}, {A.WRAP_WITH_TRUSTED: False}, AttributeReadOnly),
        ({}, {A.ALLOWED_MECHANISMS: []}, None),
        ({}, {A.ALLOWED_MECHANISMS: [M.AES_CBC.value]}, AttributeReadOnly),
        ({}, {A.TOKEN: True}, AttributeReadOnly),
        ({}, {A.LOCAL: True}, AttributeReadOnly),
        ({}, {A.ALWAYS_SENSITIVE: True}, AttributeReadOnly),
        ({}, {A.VALUE_LEN: 16}, AttributeReadOnly),
        ({}, {A.EC_POINT: b"x"}, TemplateInconsistent),
        ({}, {A.DERIVE_TEMPLATE: {}}, TemplateInconsistent),
        ({"END_DATE": "2026-01-01"}, {A.START_DATE: "2026-02-01"}, TemplateInconsistent),
        ({}, {A.TRUSTED: True}, PermissionDenied),
        ({"MODIFIABLE": False}, {A.LABEL: "new"}, ActionProhibited),
        ({"MODIFIABLE": False}, {A.EXTRACTABLE: False}, ActionProhibited),
        ({"TOKEN": False}, {A.LABEL: "new"}, ActionProhibited),
        ({}, {A.LABEL: "new", A.LOCAL: False}, AttributeReadOnly),
    ],
)
def test_an_attribute_changes_as_its_rule_says(
    start: dict[str, Any], template: Attributes, error: type[LnhError] | None
) -> None:
    before = aes(**start)
    kept = dict(before)
    if error is None:
        assert rules.change(before, template, Role.KRCO) == before | template
    else:
        with pytest.raises(error):
            rules.change(before, template, Role.KRCO)
    assert before == kept


def test_no_change_ever_undoes_what_only_tightens() -> None:
    for name, rule in ATTRIBUTES.items():
        if rule.change in (Change.ONLY_TRUE, Change.ONLY_FALSE) and ObjectClass.SECRET_KEY in rule.classes:
            loose = rule.change is Change.ONLY_FALSE
            tight = aes(COMPATIBLE, ENCRYPT=True) | {name: not loose, A.MODIFIABLE: True}
            with pytest.raises(LnhError, match=name.name):
                rules.change(tight | {name: not loose}, {name: loose}, Role.KRSO)


def test_trust_freezes_a_key_and_only_the_krso_gives_and_takes_it() -> None:
    key = aes(WRAP=True)
    trusted = rules.change(key, {A.TRUSTED: True}, Role.KRSO)
    with pytest.raises(ActionProhibited, match="TRUSTED"):
        rules.change(trusted, {A.LABEL: "new"}, Role.KRSO)
    with pytest.raises(PermissionDenied):
        rules.change(trusted, {A.TRUSTED: False}, Role.KRCO)
    assert rules.change(trusted, {A.TRUSTED: False}, Role.KRSO) == key
    with pytest.raises(TemplateInconsistent, match="TRUSTED"):
        rules.change(aes(WRAP=True, EXTRACTABLE=True), {A.TRUSTED: True}, Role.KRSO)


def test_a_copy_has_its_originals_history_and_one_way_attributes_and_no_trust() -> None:
    key = rules.change(aes(WRAP=True), {A.TRUSTED: True}, Role.KRSO)
    copied = rules.copy(key, {A.LABEL: "copy"}, Role.KRCO, "its own")
    assert copied == key | {A.LABEL: "copy", A.TRUSTED: False, A.MODIFIABLE: False, A.UNIQUE_ID: "its own"}
    for name, value in (
        (A.SENSITIVE, False),
        (A.EXTRACTABLE, True),
        (A.UNWRAP, True),
        (A.LOCAL, True),
    ):
        with pytest.raises(AttributeReadOnly, match=name.name):
            rules.copy(key, {name: value}, Role.KRSO, "its own")
    with pytest.raises(ActionProhibited, match="COPYABLE"):
        rules.copy(aes(COPYABLE=False), {}, Role.KRCO, "its own")
    with pytest.raises(ActionProhibited, match="TOKEN"):
        rules.copy(aes(TOKEN=False), {}, Role.KRCO, "its own")
    with pytest.raises(ActionProhibited, match="TOKEN"):
        rules.copy(aes(), {A.TOKEN: False}, Role.KRCO, "its own")


def test_an_object_that_is_not_destroyable_stays() -> None:
    rules.check_destroy(aes())
    with pytest.raises(ActionProhibited, match="DESTROYABLE"):
        rules.check_destroy(aes(DESTROYABLE=False))


def test_a_sensitive_value_is_never_among_what_is_read() -> None:
    for attributes in (aes(), pair("RSA")[1].attributes):
        assert A.VALUE not in rules.visible(attributes)
        with pytest.raises(AttributeSensitive):
            rules.check_readable(attributes)
    with pytest.raises(AttributeSensitive):
        rules.check_readable(aes(SENSITIVE=False))
    rules.check_readable(aes(SENSITIVE=False, EXTRACTABLE=True))
    rules.check_readable(pair("RSA")[0].attributes)


# Policies


def test_every_field_of_a_policy_knows_what_is_stricter() -> None:
    assert set(STRICTER) == set(rules.policy_view(Policy()))


@pytest.mark.parametrize(
    ("cluster", "stricter", "looser"),
    [
        ({}, {"allowed_mechanisms": [M.AES_GCM.value]}, None),
        (
            {"allowed_mechanisms": [M.AES_GCM.value]},
            {"allowed_mechanisms": []},
            {"allowed_mechanisms": [M.ECDSA.value]},
        ),
        ({"allowed_mechanisms": [M.AES_GCM.value]}, {}, {"allowed_mechanisms": None}),
        ({"weak_mechanisms": [M.AES_ECB.value]}, {"weak_mechanisms": []}, {"weak_mechanisms": [M.RSA_PKCS.value]}),
        ({"minimum_rsa_bits": 3072}, {"minimum_rsa_bits": 4096}, {"minimum_rsa_bits": 2048}),
        ({"import": True}, {"import": False}, None),
        ({}, {}, {"import": True}),
        ({}, {"export_wrapped": False}, None),
        ({"export_wrapped": False}, {}, {"export_wrapped": True}),
        ({"caller_ivs": True}, {"caller_ivs": False}, None),
        ({}, {}, {"caller_ivs": True}),
        ({"key_uses": "compatible"}, {"key_uses": "separated"}, None),
        ({}, {}, {"key_uses": "compatible"}),
        ({}, {"per_use_audit": True}, None),
        ({"per_use_audit": True}, {}, {"per_use_audit": False}),
        ({}, {"objects_per_keyring": 10}, {"objects_per_keyring": 257}),
        ({}, {"token_lifetime": 60}, {"token_lifetime": 1000}),
        ({"session_lifetime": 600}, {"session_lifetime": 60}, {"session_lifetime": 601}),
        ({"read_only_max": 100}, {"read_only_max": 0}, {"read_only_max": 101}),
        ({}, {"lock_after": 20}, None),
        ({"lock_after": 20}, {"lock_after": 10}, {"lock_after": 21}),
        ({"lock_after": 20}, {}, {"lock_after": 0}),
        ({}, {"fips": True}, None),
        ({"fips": True}, {}, {"fips": False}),
    ],
)
def test_a_keyrings_policy_is_only_stricter(
    cluster: dict[str, Any], stricter: dict[str, Any], looser: dict[str, Any] | None
) -> None:
    base = rules.change_policy(Policy(), cluster)
    assert rules.policy_view(merge(base, stricter)) == rules.policy_view(base) | {
        name: tuple(value) if isinstance(value, list) else value for name, value in stricter.items()
    }
    if looser is not None:
        (name,) = looser
        with pytest.raises(PolicyForbids, match=name):
            merge(base, looser)
        assert merge(base, rules.policy_view(effective(base, looser))) == effective(base, looser)


def test_a_cluster_policy_that_becomes_stricter_rules_keyrings_set_before() -> None:
    keyring = {"minimum_rsa_bits": 3072, "key_uses": "compatible"}
    assert effective(Policy(key_uses=KeyUses.COMPATIBLE), keyring).key_uses is KeyUses.COMPATIBLE
    tightened = effective(Policy(minimum_rsa_bits=4096), keyring)
    assert tightened.minimum_rsa_bits == 4096
    assert tightened.key_uses is KeyUses.SEPARATED


@pytest.mark.parametrize(
    "changes",
    [
        {"no_such_field": 1},
        {"minimum_rsa_bits": 1024},
        {"minimum_rsa_bits": "many"},
        {"token_lifetime": 10**9},
        {"import_keys": True},
        {"fips": None},
        {"key_uses": "any"},
        {"allowed_mechanisms": [0x999]},
        {"weak_mechanisms": None},
    ],
)
def test_what_is_no_policy_is_refused_naming_the_field(changes: dict[str, Any]) -> None:
    with pytest.raises(ArgumentInvalid, match=next(iter(changes))):
        rules.change_policy(Policy(), changes)


def test_every_mechanism_that_generates_is_subject_to_policy() -> None:
    forbidding = Policy(allowed_mechanisms=())
    for mechanism, rule in MECHANISM_RULES.items():
        if Use.GENERATE in rule.uses:
            with pytest.raises(PolicyForbids):
                generate_key(mechanism, {A.VALUE_LEN: 32}, forbidding)
        if Use.GENERATE_PAIR in rule.uses:
            with pytest.raises(PolicyForbids):
                generate_key_pair(mechanism, {}, {}, forbidding)


def test_only_what_a_template_may_say_is_taken_from_it() -> None:
    for name, rule in ATTRIBUTES.items():
        if rule.source_for(ObjectClass.SECRET_KEY) is Source.HSM and rule.applies(ObjectClass.SECRET_KEY, KeyType.AES):
            value: Any = {"bool": True, "int": 1, "bytes": b"123", "str": "x"}[rule.kind.value]
            with pytest.raises(AttributeReadOnly, match=name.name):
                generate_key(M.AES_KEY_GEN, {A.VALUE_LEN: 32, name: value}, ONE, Role.KRSO)


def test_an_rsa_key_has_the_public_exponent_that_its_template_says() -> None:
    template: dict[Attribute, Any] = {A.MODULUS_BITS: 2048, A.PUBLIC_EXPONENT: b"\3"}
    public, private = generate_key_pair(M.RSA_PKCS_KEY_PAIR_GEN, template, {}, Policy())
    assert public.attributes[A.PUBLIC_EXPONENT] == private.attributes[A.PUBLIC_EXPONENT] == b"\3"
    key = load_der_public_key(public.value)
    assert isinstance(key, RSAPublicKey)
    assert key.public_numbers().e == 3
    with pytest.raises(PolicyForbids, match="PUBLIC_EXPONENT"):
        generate_key_pair(M.RSA_PKCS_KEY_PAIR_GEN, template, {}, Policy(fips=True))
