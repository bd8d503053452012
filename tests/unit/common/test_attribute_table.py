"""The tables of attributes and mechanisms: complete, and with the standard's numbers."""

from __future__ import annotations

import enum
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from lnh.objects import encoding
from lnh_common import limits
from lnh_common.errors import AttributeInvalid, LimitReached, MechanismInvalid, MechanismParameterInvalid
from lnh_common.messages.base import Message
from lnh_common.pkcs11.algorithms import CURVES, CURVES_BY_PARAMS, Hash
from lnh_common.pkcs11.attributes import (
    ATTRIBUTES,
    NATURAL_USES,
    Attribute,
    Change,
    KeyType,
    Kind,
    ObjectClass,
    Source,
    from_wire,
    parse_template,
    to_wire,
)
from lnh_common.pkcs11.mechanisms import (
    MECHANISM_RULES,
    NATURAL_FAMILIES,
    Mechanism,
    Use,
    mechanism,
    parameters_of,
    parse_parameters,
)
from lnh_common.pkcs11.parameters import (
    AeadParameters,
    GcmParameters,
    IvParameters,
    MacParameters,
    OaepParameters,
    ParameterKind,
    PssParameters,
    pack_parameters,
)
from lnh_common.wire import codec
from lnh_services.hsm.objects.document import not_served, render
from models import standard

A = Attribute


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ObjectClass, standard.OBJECT_CLASSES),
        (KeyType, standard.KEY_TYPES),
        (Attribute, standard.ATTRIBUTES),
        (Mechanism, standard.MECHANISMS),
    ],
)
def test_numbers_are_those_of_the_standards_header(ours: type[enum.IntEnum], theirs: dict[str, int]) -> None:
    assert {member.name: member.value for member in ours} == theirs


def test_numbers_agree_with_python_pkcs11_where_it_is_installed() -> None:
    pkcs11: ModuleType = pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed")
    for ours in (ObjectClass, KeyType, Attribute, Mechanism):
        theirs = getattr(pkcs11, ours.__name__)
        for member in ours:
            if member.name in theirs.__members__:
                assert theirs[member.name] == member.value, member


def test_every_attribute_has_a_rule_and_every_mechanism_too() -> None:
    assert set(ATTRIBUTES) == set(Attribute)
    assert set(MECHANISM_RULES) == set(Mechanism)


def test_every_default_is_a_value_its_own_rule_accepts() -> None:
    for attribute, rule in ATTRIBUTES.items():
        for object_class, default in rule.defaults.items():
            assert object_class in rule.classes, attribute
            assert parse_template({attribute: default}) == {attribute: default}


def test_only_flags_change_one_way_and_nothing_the_hsm_sets_ever_changes() -> None:
    for attribute, rule in ATTRIBUTES.items():
        if rule.change in (Change.ONLY_TRUE, Change.ONLY_FALSE, Change.KRSO):
            assert rule.kind is Kind.BOOL, attribute
        for object_class in rule.classes:
            if rule.source_for(object_class) in (Source.HSM, Source.PARAMETER):
                assert rule.change_for(object_class) is Change.NEVER, attribute


def test_natural_uses_are_attributes_the_key_has_and_a_mechanism_serves() -> None:
    for (object_class, key_type), uses in NATURAL_USES.items():
        for use in uses:
            assert ATTRIBUTES[use].applies(object_class, key_type)
            assert any(
                key_type in rule.key_types and use.name.lower() in {name.value for name in rule.uses}
                for rule in MECHANISM_RULES.values()
            ), (key_type, use)


def test_secret_keys_mechanisms_have_a_family_and_others_have_none() -> None:
    secret = {KeyType.AES, KeyType.CHACHA20, KeyType.GENERIC_SECRET}
    for name, rule in MECHANISM_RULES.items():
        used = bool(rule.key_types & secret) and not rule.uses & {Use.GENERATE, Use.GENERATE_PAIR}
        assert (rule.family is not None) == used, name
    families = {rule.family for rule in MECHANISM_RULES.values()}
    assert set(NATURAL_FAMILIES.values()) <= families


def test_every_use_of_every_mechanism_is_served() -> None:
    assert not_served() == {}


def test_the_page_of_mechanisms_is_what_the_tables_say() -> None:
    page = Path(__file__).parents[3] / "docs" / "mechanisms.md"
    assert page.read_text() == render(), "python -m lnh_services.hsm.objects.document > docs/mechanisms.md"


def test_curves_have_the_object_identifiers_the_library_gives_them() -> None:
    oids = {
        "P-256": ec.EllipticCurveOID.SECP256R1,
        "P-384": ec.EllipticCurveOID.SECP384R1,
        "P-521": ec.EllipticCurveOID.SECP521R1,
        "secp256k1": ec.EllipticCurveOID.SECP256K1,
        "brainpoolP256r1": ec.EllipticCurveOID.BRAINPOOLP256R1,
        "brainpoolP384r1": ec.EllipticCurveOID.BRAINPOOLP384R1,
        "brainpoolP512r1": ec.EllipticCurveOID.BRAINPOOLP512R1,
    }
    assert {curve.name: curve.oid for curve in CURVES.values() if curve.key_type is KeyType.EC} == {
        name: _der(oid.dotted_string) for name, oid in oids.items()
    }


def _der(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    body = bytes([40 * first + second])
    for arc in rest:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.insert(0, 0x80 | arc & 0x7F)
        body += bytes(groups)
    return bytes([6, len(body)]) + body


def test_a_curve_is_also_known_by_its_printable_name() -> None:
    assert CURVES_BY_PARAMS[b"\x13\x0cedwards25519"] is CURVES["Ed25519"]
    for curve in CURVES.values():
        for alias in curve.aliases:
            assert alias[1] == len(alias) - 2


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        (A.TOKEN, 1),
        (A.VALUE_LEN, True),
        (A.VALUE_LEN, -1),
        (A.VALUE_LEN, 2**32),
        (A.LABEL, b"bytes"),
        (A.LABEL, "x" * (limits.LABEL_BYTES + 1)),
        (A.LABEL, "\u00e9" * limits.LABEL_BYTES),
        (A.LABEL, "\ud800"),
        (A.ID, "text"),
        (A.ID, bytes(limits.ID_BYTES + 1)),
        (A.CLASS, 99),
        (A.KEY_TYPE, 0x13),
        (A.START_DATE, "24.11.2026"),
        (A.START_DATE, "20261124"),
        (A.END_DATE, "2026-02-30"),
        (A.ALLOWED_MECHANISMS, 5),
        (A.ALLOWED_MECHANISMS, ["AES_GCM"]),
        (A.ALLOWED_MECHANISMS, [True]),
        (A.WRAP_TEMPLATE, []),
        (A.WRAP_TEMPLATE, {A.LABEL.value: 1}),
        (A.WRAP_TEMPLATE, {A.UNWRAP_TEMPLATE.value: {}}),
    ],
)
def test_a_wrong_value_is_refused_naming_the_attribute(attribute: Attribute, value: object) -> None:
    with pytest.raises(AttributeInvalid) as refused:
        parse_template({attribute.value: value})
    assert any(name in str(refused.value) for name in (attribute.name, "LABEL"))


@pytest.mark.parametrize("number", [0x13, 0x8000_0000, "LABEL", None, b""])
def test_an_unknown_attribute_is_refused(number: object) -> None:
    with pytest.raises(AttributeInvalid, match="unknown attribute"):
        parse_template({number: True})  # type: ignore[dict-item]


def test_a_template_of_too_many_attributes_is_refused_naming_the_limit() -> None:
    with pytest.raises(LimitReached, match=str(limits.TEMPLATE_ATTRIBUTES)):
        parse_template(dict.fromkeys(range(limits.TEMPLATE_ATTRIBUTES + 1), True))


def test_attributes_survive_the_wire() -> None:
    template = parse_template(
        {
            A.CLASS: ObjectClass.SECRET_KEY,
            A.LABEL: "caf\u00e9",
            A.START_DATE: "2026-11-24",
            A.ALLOWED_MECHANISMS: [Mechanism.AES_GCM, Mechanism.AES_CBC, Mechanism.AES_GCM],
            A.UNWRAP_TEMPLATE: {A.SENSITIVE.value: True},
        }
    )
    assert template[A.ALLOWED_MECHANISMS] == [Mechanism.AES_CBC, Mechanism.AES_GCM]
    assert from_wire(codec.decode(codec.encode(to_wire(template)))) == template


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (Mechanism.AES_GCM, GcmParameters(iv=bytes(12), aad=b"header")),
        (Mechanism.CHACHA20_POLY1305, AeadParameters(aad=b"header")),
        (Mechanism.RSA_PKCS_PSS, PssParameters(hash=Hash.SHA384, salt_length=0)),
        (Mechanism.RSA_PKCS_OAEP, OaepParameters(hash=Hash.SHA1, label=b"l")),
        (Mechanism.SHA256_HMAC_GENERAL, MacParameters(length=16)),
    ],
)
def test_parameters_survive_the_wire(name: Mechanism, parameters: GcmParameters) -> None:
    assert parse_parameters(name, pack_parameters(parameters)) == parameters


def test_default_parameters_take_no_bytes() -> None:
    assert pack_parameters(None) == pack_parameters(GcmParameters()) == b""
    assert parse_parameters(Mechanism.AES_GCM, b"") == GcmParameters()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (Mechanism.AES_GCM, codec.encode({"iv": "text"})),
        (Mechanism.AES_GCM, codec.encode({"nonce": b""})),
        (Mechanism.AES_GCM, b"\xff"),
        (Mechanism.EDDSA, codec.encode({"context": b""})),
        (Mechanism.ML_DSA, codec.encode({"context": bytes(256)})),
        (Mechanism.SHA256_HMAC_GENERAL, b""),
        (Mechanism.RSA_PKCS_OAEP, codec.encode({"hash": "MD5"})),
        (Mechanism.RSA_PKCS_PSS, codec.encode({"salt_length": -1})),
    ],
)
def test_wrong_parameters_are_refused_naming_the_mechanism(name: Mechanism, parameters: bytes) -> None:
    with pytest.raises(MechanismParameterInvalid, match=name.name):
        parse_parameters(name, parameters)


def test_every_parameter_is_declared_with_help_and_bounds_that_its_default_keeps() -> None:
    for name in Mechanism:
        rule = MECHANISM_RULES[name]
        assert set(rule.narrows) <= {each.name for each in parameters_of(name)}, name
        for each in parameters_of(name):
            assert each.help.endswith("."), (name, each.name)
            assert (each.range is not None) == (each.kind in (ParameterKind.BYTES, ParameterKind.NUMBER))
            assert bool(each.choices) == (each.kind is ParameterKind.NAME)
            assert each.is_required or not each.problem(each.default)
        encrypts = Use.ENCRYPT in rule.uses and "iv" in {each.name for each in parameters_of(name)}
        assert bool(rule.iv_bytes) == encrypts, name


@pytest.mark.parametrize(
    ("name", "parameters", "wanted"),
    [
        (Mechanism.AES_GCM, GcmParameters(iv=bytes(16)), "iv of 16 bytes; 12 wanted"),
        (Mechanism.AES_CTR, IvParameters(iv=bytes(15)), "iv of 15 bytes; 16 wanted"),
        (Mechanism.SHA512_HMAC_GENERAL, MacParameters(length=31), "length 31; 32 to 64 wanted"),
        (Mechanism.SHA256_HMAC_GENERAL, MacParameters(length=33), "length 33; 16 to 32 wanted"),
        (Mechanism.SHA256_RSA_PKCS_PSS, PssParameters(hash=Hash.SHA512), "hash SHA-512; one of SHA-256 wanted"),
        (Mechanism.RSA_PKCS_OAEP, OaepParameters(hash=Hash.SHA3_256), "hash SHA3-256; one of SHA-1, SHA-256"),
    ],
)
def test_the_sdk_refuses_what_the_mechanisms_row_forbids(name: Mechanism, parameters: Message, wanted: str) -> None:
    with pytest.raises(MechanismParameterInvalid, match=wanted):
        encoding.packed(name, parameters)
    with pytest.raises(MechanismParameterInvalid, match=wanted):
        parse_parameters(name, pack_parameters(parameters))


def test_an_unknown_mechanism_number_is_refused() -> None:
    assert mechanism(0x1087) is Mechanism.AES_GCM
    with pytest.raises(MechanismInvalid, match="0x999"):
        mechanism(0x999)
