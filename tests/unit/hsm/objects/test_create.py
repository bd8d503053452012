"""Objects made of values: what comes in, what the HSM says of it, and what is refused."""

from __future__ import annotations

import datetime as dt
import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, mlkem, rsa, x448, x25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)

from lnh_common import errors
from lnh_common.errors import LnhError
from lnh_common.messages import admin, objects
from lnh_common.messages.session import Credential, Role
from lnh_common.pkcs11.algorithms import CURVES, ML_DSA_SETS, ML_KEM_SETS
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass, parse_template
from lnh_common.pkcs11.mechanisms import Mechanism
from lnh_services.hsm.crypto import rsa_primes
from lnh_services.hsm.objects import describing
from lnh_services.hsm.objects.create import change, create
from lnh_services.hsm.objects.generate import Generated, generate_key_pair
from lnh_services.hsm.objects.policy import Policy
from models.worker import KRCO, KRSO, Client, make_keyring

A = Attribute
IMPORTS = Policy(import_keys=True)
_ALSO_DRAWN = {A.UNIQUE_ID, A.LOCAL, A.KEY_GEN_MECHANISM, A.ALWAYS_SENSITIVE, A.NEVER_EXTRACTABLE}


def template(**named: Any) -> dict[A, Any]:
    return dict(parse_template({Attribute[name].value: value for name, value in named.items()}))


def make(value: bytes, policy: Policy = IMPORTS, role: Role = Role.KRCO, **named: Any) -> Generated:
    return create(template(**named), value, policy, role)


def aes(value: bytes = b"k" * 32, policy: Policy = IMPORTS, role: Role = Role.KRCO, **named: Any) -> Generated:
    return make(value, policy, role, CLASS=ObjectClass.SECRET_KEY, KEY_TYPE=KeyType.AES, **named)


def pkcs8(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def spki(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def certificate(name: str = "a certificate", serial: int = 0x80) -> x509.Certificate:
    key = ed25519.Ed25519PrivateKey.generate()
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    day = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
    builder = x509.CertificateBuilder(who, who, key.public_key(), serial, day, day + dt.timedelta(days=1))
    return builder.sign(key, None)


PAIRS: dict[str, tuple[Mechanism, dict[A, Any]]] = {
    "RSA": (Mechanism.RSA_PKCS_KEY_PAIR_GEN, {A.MODULUS_BITS: 2048}),
    **{
        name: (Mechanism.EC_KEY_PAIR_GEN, {A.EC_PARAMS: curve.oid})
        for name, curve in CURVES.items()
        if curve.key_type is KeyType.EC
    },
    "Ed25519": (Mechanism.EC_EDWARDS_KEY_PAIR_GEN, {A.EC_PARAMS: CURVES["Ed25519"].oid}),
    "Ed448": (Mechanism.EC_EDWARDS_KEY_PAIR_GEN, {A.EC_PARAMS: CURVES["Ed448"].oid}),
    "X25519": (Mechanism.EC_MONTGOMERY_KEY_PAIR_GEN, {A.EC_PARAMS: CURVES["X25519"].oid}),
    "X448": (Mechanism.EC_MONTGOMERY_KEY_PAIR_GEN, {A.EC_PARAMS: CURVES["X448"].oid}),
    **{name: (Mechanism.ML_DSA_KEY_PAIR_GEN, {A.PARAMETER_SET: number}) for number, name in ML_DSA_SETS.items()},
    **{name: (Mechanism.ML_KEM_KEY_PAIR_GEN, {A.PARAMETER_SET: number}) for number, name in ML_KEM_SETS.items()},
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_key_that_came_in_is_described_as_the_same_key_made_here(name: str) -> None:
    mechanism, parameters = PAIRS[name]
    for half, object_class in zip(
        generate_key_pair(mechanism, parameters, {}, IMPORTS), (ObjectClass.PUBLIC_KEY, ObjectClass.PRIVATE_KEY),
        strict=True,
    ):  # fmt: skip
        came_in = make(half.value, CLASS=object_class)
        assert came_in.value == half.value
        made_here, described = (
            {key: value for key, value in one.attributes.items() if key not in _ALSO_DRAWN} for one in (half, came_in)
        )
        assert described == made_here


def test_what_only_the_hsm_says_of_a_key_that_came_in() -> None:
    private = make(pkcs8(ec.generate_private_key(ec.SECP256R1())), CLASS=ObjectClass.PRIVATE_KEY)
    for made in (aes(), private):
        assert made.attributes[A.LOCAL] is False
        assert made.attributes[A.ALWAYS_SENSITIVE] is False
        assert made.attributes[A.NEVER_EXTRACTABLE] is False
        assert A.KEY_GEN_MECHANISM not in made.attributes
        assert A.VALUE not in made.attributes
    public = make(spki(ed25519.Ed25519PrivateKey.generate().public_key()), CLASS=ObjectClass.PUBLIC_KEY)
    assert public.attributes[A.LOCAL] is False


def test_the_check_value_of_a_secret_that_came_in() -> None:
    # FIPS 197's zero key: the first bytes of AES-256(0, 0).
    assert aes(bytes(32)).attributes[A.CHECK_VALUE] == bytes.fromhex("dc95c0")
    secret = make(b"s" * 20, CLASS=ObjectClass.SECRET_KEY, KEY_TYPE=KeyType.GENERIC_SECRET)
    assert secret.attributes[A.CHECK_VALUE] == hashlib.sha1(b"s" * 20, usedforsecurity=False).digest()[:3]
    assert secret.attributes[A.VALUE_LEN] == 20


@pytest.mark.parametrize(
    "name", ["LOCAL", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "KEY_GEN_MECHANISM", "UNIQUE_ID", "CHECK_VALUE"]
)
def test_no_template_sets_what_only_the_hsm_sets(name: str) -> None:
    said: dict[str, Any] = {"KEY_GEN_MECHANISM": 0x1080, "UNIQUE_ID": "mine", "CHECK_VALUE": b"abc"}
    with pytest.raises(errors.AttributeReadOnly, match=name):
        aes(**{name: said.get(name, True)})


@pytest.mark.parametrize("object_class", [ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY])
def test_secret_and_private_keys_come_in_only_where_the_policy_says_so(object_class: ObjectClass) -> None:
    with pytest.raises(errors.PolicyForbids, match="import"):
        make(b"k" * 32, Policy(), CLASS=object_class, KEY_TYPE=KeyType.AES)
    public = spki(ed25519.Ed25519PrivateKey.generate().public_key())
    assert make(public, Policy(), CLASS=ObjectClass.PUBLIC_KEY).attributes[A.KEY_TYPE] == KeyType.EC_EDWARDS
    assert make(b"data", Policy(), CLASS=ObjectClass.DATA).attributes[A.VALUE] == b"data"


def _wrong_rsa() -> bytes:
    """Make an RSA key whose private exponent is another key's."""
    one, other = (rsa.generate_private_key(65537, 2048).private_numbers() for _ in range(2))
    mixed = rsa.RSAPrivateNumbers(one.p, one.q, other.d, one.dmp1, one.dmq1, one.iqmp, one.public_numbers)
    return pkcs8(mixed.private_key(unsafe_skip_rsa_key_validation=True))


MERSENNE = 2**4423 - 1  # a prime


def _der(tag: int, content: bytes) -> bytes:
    """Encode one value in DER."""
    length = len(content)
    return bytes([tag]) + (bytes([length]) if length < 0x80 else _long(length)) + content


def _long(length: int) -> bytes:
    size = (length.bit_length() + 7) // 8
    return bytes([0x80 | size]) + length.to_bytes(size, "big")


def _rsa_of(p: int, q: int, modulus: int, d: int = 65537) -> bytes:
    """Encode what looks like an RSA key in PKCS#8, of these parts."""
    numbers = (0, modulus, 65537, d, p, q, 65537, 65537, 3)
    key = _der(0x30, b"".join(_der(0x02, each.to_bytes(each.bit_length() // 8 + 1, "big")) for each in numbers))
    kind = bytes.fromhex("300d06092a864886f70d0101010500")  # rsaEncryption
    return _der(0x30, _der(0x02, b"\0") + kind + _der(0x04, key))


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (_rsa_of(MERSENNE, MERSENNE, MERSENNE**2), errors.KeySizeRange),
        (_rsa_of(MERSENNE, MERSENNE, 2**2047 + 1), errors.AttributeInvalid),
        (_rsa_of(3, MERSENNE, 3 * MERSENNE), errors.AttributeInvalid),
        (_rsa_of(2**1023 + 1, 2**1023 + 3, 2**2047 + 1), errors.AttributeInvalid),
        (_rsa_of(2**1023 + 1, 2**1024 - 1, (2**1023 + 1) * (2**1024 - 1), 2**9000 + 1), errors.AttributeInvalid),
    ],
)
def test_primes_are_tested_only_of_what_may_be_a_key_of_the_product(
    monkeypatch: pytest.MonkeyPatch, value: bytes, error: type[LnhError]
) -> None:
    tested: list[bytes] = []

    def load(der: bytes, password: None, *, unsafe_skip_rsa_key_validation: bool = False) -> object:
        if not unsafe_skip_rsa_key_validation:
            tested.append(der)
        return load_der_private_key(der, password, unsafe_skip_rsa_key_validation=True)

    monkeypatch.setattr(describing, "load_der_private_key", load)
    monkeypatch.setattr(rsa_primes, "is_sound", tested.append)
    with pytest.raises(error):
        make(value, CLASS=ObjectClass.PRIVATE_KEY)
    assert not tested


def test_the_primes_of_a_long_key_are_tested_while_others_are_served(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(der: bytes, password: None, *, unsafe_skip_rsa_key_validation: bool = False) -> object:
        assert unsafe_skip_rsa_key_validation, "the interpreter would be held for as long as it takes"
        return load_der_private_key(der, password, unsafe_skip_rsa_key_validation=True)

    monkeypatch.setattr(describing, "load_der_private_key", load)
    key = rsa.generate_private_key(65537, 3200)  # quick to make, and too long to be tested here
    assert make(pkcs8(key), CLASS=ObjectClass.PRIVATE_KEY).attributes[A.KEY_TYPE] == KeyType.RSA
    n = key.private_numbers()
    wrong = rsa.RSAPrivateNumbers(n.p, n.q, n.d + 2, n.dmp1, n.dmq1, n.iqmp, n.public_numbers)
    with pytest.raises(errors.AttributeInvalid, match="belong together"):
        make(pkcs8(wrong.private_key(unsafe_skip_rsa_key_validation=True)), CLASS=ObjectClass.PRIVATE_KEY)


def test_a_process_that_ends_otherwise_has_tested_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended with 1"):
        rsa_primes.is_sound(b"")


@pytest.mark.parametrize("program", ["/bin/cat", "/nowhere"])
def test_a_process_that_stands_still_or_is_not_to_be_had_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    stands_still = tmp_path / "python"
    stands_still.write_text(f"#!/bin/sh\nexec {program} /dev/zero > /dev/null\n")
    stands_still.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(stands_still) if program == "/bin/cat" else program)
    monkeypatch.setattr(rsa_primes, "_SECONDS", 0.2)
    with pytest.raises(errors.Busy, match="were not tested"):
        rsa_primes.is_sound(b"")


REFUSED: list[tuple[str, Any, dict[str, Any], type[LnhError]]] = [
    ("CLASS", b"k" * 32, {}, errors.TemplateIncomplete),
    ("KEY_TYPE", b"k" * 32, {"CLASS": ObjectClass.SECRET_KEY}, errors.TemplateIncomplete),
    ("value", b"", {"CLASS": ObjectClass.SECRET_KEY, "KEY_TYPE": KeyType.AES}, errors.TemplateIncomplete),
    ("RSA", b"k" * 32, {"CLASS": ObjectClass.SECRET_KEY, "KEY_TYPE": KeyType.RSA}, errors.TemplateInconsistent),
    ("AES has 16", b"k" * 31, {"CLASS": ObjectClass.SECRET_KEY, "KEY_TYPE": KeyType.AES}, errors.KeySizeRange),
    ("16 to 512", b"k" * 15, {"CLASS": ObjectClass.SECRET_KEY, "KEY_TYPE": KeyType.GENERIC_SECRET}, errors.KeySizeRange),
    ("VALUE_LEN", b"k" * 32, {"CLASS": ObjectClass.SECRET_KEY, "KEY_TYPE": KeyType.AES, "VALUE_LEN": 16},
     errors.TemplateInconsistent),
    ("PKCS#8", b"no key", {"CLASS": ObjectClass.PRIVATE_KEY}, errors.AttributeInvalid),
    ("PKCS#8", _wrong_rsa, {"CLASS": ObjectClass.PRIVATE_KEY}, errors.AttributeInvalid),
    ("SubjectPublicKeyInfo", b"no key", {"CLASS": ObjectClass.PUBLIC_KEY}, errors.AttributeInvalid),
    ("supported", lambda: pkcs8(ec.generate_private_key(ec.SECP224R1())), {"CLASS": ObjectClass.PRIVATE_KEY},
     errors.AttributeInvalid),
    ("RSA of 1024", lambda: pkcs8(rsa.generate_private_key(65537, 1024)), {"CLASS": ObjectClass.PRIVATE_KEY},
     errors.KeySizeRange),
    ("PKCS#8", lambda: _rsa_of(2**1023 + 1, 2**1024 - 1, (2**1023 + 1) * (2**1024 - 1)),
     {"CLASS": ObjectClass.PRIVATE_KEY}, errors.AttributeInvalid),
    ("KEY_TYPE", lambda: pkcs8(ed25519.Ed25519PrivateKey.generate()),
     {"CLASS": ObjectClass.PRIVATE_KEY, "KEY_TYPE": KeyType.EC}, errors.TemplateInconsistent),
    ("EC_PARAMS", lambda: pkcs8(ed25519.Ed25519PrivateKey.generate()),
     {"CLASS": ObjectClass.PRIVATE_KEY, "EC_PARAMS": CURVES["Ed448"].oid}, errors.TemplateInconsistent),
    ("X.509", b"no certificate", {"CLASS": ObjectClass.CERTIFICATE}, errors.AttributeInvalid),
    ("VALUE", b"", {"CLASS": ObjectClass.CERTIFICATE}, errors.TemplateIncomplete),
    ("SUBJECT", lambda: certificate().public_bytes(Encoding.DER),
     {"CLASS": ObjectClass.CERTIFICATE, "SUBJECT": b"another"}, errors.TemplateInconsistent),
    ("SENSITIVE", b"data", {"CLASS": ObjectClass.DATA, "SENSITIVE": True}, errors.TemplateInconsistent),
    ("VALUE", b"data", {"CLASS": ObjectClass.DATA, "VALUE": b"other"}, errors.TemplateInconsistent),
    ("65536", b"d" * 65537, {"CLASS": ObjectClass.DATA}, errors.LimitReached),
]  # fmt: skip


@pytest.mark.parametrize(("naming", "value", "named", "error"), REFUSED)
def test_what_does_not_go_together_is_refused_by_name(
    naming: str, value: Any, named: dict[str, Any], error: type[LnhError]
) -> None:
    with pytest.raises(error, match=naming):
        make(value() if callable(value) else value, **named)


def test_no_refusal_shows_a_byte_of_the_value() -> None:
    for named in ({}, {"CLASS": ObjectClass.PRIVATE_KEY}, {"CLASS": ObjectClass.SECRET_KEY, "KEY_TYPE": KeyType.AES}):
        with pytest.raises(LnhError) as refused:
            make(b"very secret value", **named)
        assert "secret value" not in repr(refused.value) + str(refused.value.detail)


def test_the_policy_governs_the_kind_of_key_that_comes_in() -> None:
    small = pkcs8(rsa.generate_private_key(65537, 2048))
    with pytest.raises(errors.PolicyForbids, match="minimum_rsa_bits"):
        make(small, Policy(import_keys=True, minimum_rsa_bits=3072), CLASS=ObjectClass.PRIVATE_KEY)
    koblitz = pkcs8(ec.generate_private_key(ec.SECP256K1()))
    with pytest.raises(errors.PolicyForbids, match="fips"):
        make(koblitz, Policy(import_keys=True, fips=True), CLASS=ObjectClass.PRIVATE_KEY)


def test_only_the_krso_makes_a_key_trusted_that_comes_in() -> None:
    with pytest.raises(errors.PermissionDenied, match="TRUSTED"):
        aes(TRUSTED=True, WRAP=True)
    assert aes(role=Role.KRSO, TRUSTED=True, WRAP=True).attributes[A.TRUSTED] is True
    with pytest.raises(errors.TemplateInconsistent, match="TRUSTED"):
        aes(role=Role.KRSO, TRUSTED=True, WRAP=True, EXTRACTABLE=True)


def test_a_certificate_says_of_itself_whose_it_is() -> None:
    given = certificate(serial=0x80)
    der = given.public_bytes(Encoding.DER)
    made = make(der, CLASS=ObjectClass.CERTIFICATE, LABEL="ca", ID=b"\0\1")
    attributes = made.attributes
    assert made.value == b""
    assert (attributes[A.VALUE], attributes[A.SUBJECT]) == (der, given.subject.public_bytes())
    assert attributes[A.ISSUER] == given.issuer.public_bytes()
    assert attributes[A.SERIAL_NUMBER] == bytes.fromhex("02020080")
    assert attributes[A.CHECK_VALUE] == hashlib.sha1(der, usedforsecurity=False).digest()[:3]
    assert attributes[A.PUBLIC_KEY_INFO] == spki(given.public_key())
    assert attributes[A.PRIVATE] is False
    assert make(b"", CLASS=ObjectClass.CERTIFICATE, VALUE=der, LABEL="ca", ID=b"\0\1").attributes | {
        A.UNIQUE_ID: ""
    } == attributes | {A.UNIQUE_ID: ""}


def test_a_certificate_that_gets_another_value_says_what_that_says() -> None:
    made = make(certificate("first").public_bytes(Encoding.DER), CLASS=ObjectClass.CERTIFICATE)
    second = certificate("second")
    changed = change(made.attributes, {A.VALUE: second.public_bytes(Encoding.DER)}, Role.KRCO)
    assert changed[A.SUBJECT] == second.subject.public_bytes()
    assert changed[A.PUBLIC_KEY_INFO] == spki(second.public_key())
    assert changed[A.CHECK_VALUE] != made.attributes[A.CHECK_VALUE]
    with pytest.raises(errors.TemplateInconsistent, match="SUBJECT"):
        change(made.attributes, {A.SUBJECT: second.subject.public_bytes()}, Role.KRCO)
    with pytest.raises(errors.AttributeInvalid, match="certificate in DER"):
        change(made.attributes, {A.VALUE: b"nonsense"}, Role.KRCO)
    assert change(made.attributes, {A.LABEL: "new"}, Role.KRCO)[A.LABEL] == "new"


# --- through a worker


@pytest.fixture
def keyring(client: Client) -> bytes:
    keyring = make_keyring(client)
    allow_import(client, keyring)
    client.login(Credential(role=Role.KRCO, keyring=keyring, password=KRCO))
    return keyring


def allow_import(client: Client, keyring: bytes) -> None:
    client.as_administrator().ask(admin.CLUSTER_POLICY, admin.PolicyChange(changes={"import": True}))
    client.login(Credential(role=Role.KRSO, keyring=keyring, password=KRSO))
    client.ask(admin.KEYRING_POLICY, admin.PolicyChange(changes={"import": True}), keyring)


def request(value: bytes, **named: Any) -> objects.CreateObject:
    return objects.CreateObject(template={Attribute[name].value: said for name, said in named.items()}, value=value)


def test_a_private_key_that_came_in_signs_and_is_found(client: Client, keyring: bytes) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    asked = request(pkcs8(key), CLASS=ObjectClass.PRIVATE_KEY, LABEL="from outside")
    made = client.ask(objects.CREATE, asked, keyring)
    assert made.attributes[A.UNIQUE_ID] == made.handle.hex()
    found = client.ask(objects.FIND, objects.Find(template={A.LABEL.value: "from outside"}), keyring)
    assert [one.handle for one in found.objects] == [made.handle]
    use = objects.Use(handle=made.handle, mechanism=Mechanism.ECDSA_SHA256, data=b"data")
    signature = client.ask(objects.SIGN, use, keyring).data
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    key.public_key().verify(encode_dss_signature(r, s), b"data", ec.ECDSA(SHA256()))


def test_a_key_of_a_session_comes_in_and_nothing_is_stored(client: Client, keyring: bytes) -> None:
    asked = request(b"k" * 32, CLASS=ObjectClass.SECRET_KEY, KEY_TYPE=KeyType.AES, TOKEN=False)
    made = client.ask(objects.CREATE_IN_SESSION, asked, keyring)
    assert client.ask(objects.FIND, objects.Find(), keyring).objects == ()
    use = objects.Use(handle=made.handle, mechanism=Mechanism.AES_GCM, data=b"data", sealed=made.sealed)
    assert client.ask(objects.ENCRYPT, use, keyring).iv
    with pytest.raises(errors.TemplateInconsistent, match="TOKEN"):
        client.ask(objects.CREATE, asked, keyring)


def test_a_certificate_is_found_by_subject_and_serial(client: Client, keyring: bytes) -> None:
    for name, serial in (("one", 1), ("two", 1), ("one", 2)):
        value = certificate(name, serial).public_bytes(Encoding.DER)
        client.ask(objects.CREATE, request(value, CLASS=ObjectClass.CERTIFICATE, LABEL=f"{name} {serial}"), keyring)
    wanted = {A.SUBJECT.value: certificate("one").subject.public_bytes(), A.SERIAL_NUMBER.value: b"\x02\x01\x02"}
    found = client.ask(objects.FIND, objects.Find(template=wanted), keyring)
    assert [one.attributes[A.LABEL] for one in found.objects] == ["one 2"]


def test_a_request_that_comes_again_makes_one_object(client: Client, keyring: bytes) -> None:
    asked = request(b"k" * 32, CLASS=ObjectClass.SECRET_KEY, KEY_TYPE=KeyType.AES)
    sent, keys = client.sealed(objects.CREATE, asked, keyring)
    answers = [client.open(objects.CREATE, sent, keys, client.world.serve(client.worker, sent)) for _ in range(2)]
    assert answers[0] == answers[1]
    assert len(client.ask(objects.FIND, objects.Find(), keyring).objects) == 1


def test_the_kinds_of_key_here_are_all_that_the_product_has() -> None:
    kinds = (ed448.Ed448PrivateKey, x25519.X25519PrivateKey, x448.X448PrivateKey, mldsa.MLDSA65PrivateKey,
             mlkem.MLKEM768PrivateKey)  # fmt: skip
    for kind in kinds:
        assert make(pkcs8(kind.generate()), CLASS=ObjectClass.PRIVATE_KEY).attributes[A.LOCAL] is False
