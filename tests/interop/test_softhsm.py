"""Keys, certificates and data of a SoftHSM2 token come into a keyring: what was made there is used here."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

import softhsm
from lnh.migration import tokens
from lnh.migration.carry import Migration, Outcome
from lnh.migration.journal import Journal
from lnh.migration.plan import Choices, Found, Way
from lnh.objects.keys import Certificate, DataObject, Key, PrivateKey, PublicKey, SecretKey
from lnh_common.errors import KeyUnextractable, NameUnknown, NotPossible, PasswordIncorrect, PolicyForbids
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from models.object_session import WorkerSession

pytestmark = pytest.mark.skipif(bool(softhsm.MISSING), reason=softhsm.MISSING)

P256 = bytes.fromhex("06082a8648ce3d030107")
ED25519 = b"\x13\x0cedwards25519"
DATA = b"what both must agree on"


@pytest.fixture(scope="module", autouse=True)
def few_rsa_keys() -> Iterator[None]:
    """RSA keys of a length are drawn once: what is tested is where keys go, not how they are made."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rsa, "generate_private_key", cache(rsa.generate_private_key))
        yield


@pytest.fixture(scope="module")
def token() -> str:
    """A token with keys of each kind, most of which may leave it, a certificate and data."""
    import pkcs11
    from pkcs11 import Attribute as Their
    from pkcs11 import KeyType as Types
    from pkcs11 import Mechanism as By

    label = softhsm.new_token()
    leaves = {Their.EXTRACTABLE: True}
    with softhsm.open_token(label) as session:
        session.generate_keypair(Types.RSA, 2048, store=True, label="rsa", id=b"\1", private_template=leaves)
        curve = session.create_domain_parameters(Types.EC, {Their.EC_PARAMS: P256}, local=True)
        curve.generate_keypair(store=True, label="ec", id=b"\2", private_template=leaves)
        curve.generate_keypair(store=True, label="stuck", id=b"\3")
        edwards = session.create_domain_parameters(Types.EC_EDWARDS, {Their.EC_PARAMS: ED25519}, local=True)
        make = By.EC_EDWARDS_KEY_PAIR_GEN
        edwards.generate_keypair(mechanism=make, store=True, label="ed", id=b"\4", private_template=leaves)
        session.generate_key(
            Types.AES, 256, store=True, label="aes", id=b"\5", template=leaves | {Their.MODIFIABLE: False}
        )
        secret = leaves | {
            Their.SIGN: True,
            Their.VERIFY: True,
            Their.ENCRYPT: False,
            Their.DECRYPT: False,
            Their.WRAP: False,
        }
        of_generic: dict[str, Any] = {"mechanism": By.GENERIC_SECRET_KEY_GEN, "store": True}
        session.generate_key(
            Types.GENERIC_SECRET, 384, label="hmac", template=secret | {Their.UNWRAP: False}, **of_generic
        )
        certificate: dict[Any, Any] = {
            Their.CLASS: pkcs11.ObjectClass.CERTIFICATE,
            Their.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
        }
        named: dict[Any, Any] = {Their.LABEL: "ec", Their.ID: b"\2", Their.TOKEN: True}
        subject = x509.Name([]).public_bytes()
        session.create_object(certificate | named | {Their.SUBJECT: subject, Their.VALUE: made_certificate()})
        data: dict[Any, Any] = {
            Their.CLASS: pkcs11.ObjectClass.DATA,
            Their.TOKEN: True,
            Their.LABEL: "notes",
            Their.APPLICATION: "app",
            Their.VALUE: DATA,
        }
        session.create_object(data)
    return label


def made_certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.fixture
def source(token: str) -> Iterator[tokens.TokenSource]:
    with tokens.opened(softhsm.MODULE, token, softhsm.PIN) as source:
        yield source


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "sub" / "journal.jsonl")


def migrated(source: Any, session: WorkerSession, journal: Journal, **choices: Any) -> dict[str, Outcome]:
    """The outcomes, by class and label."""
    outcomes = list(Migration(source, session, Choices(**choices), journal).carry_out())
    assert [each.failure for each in outcomes] == [None] * len(outcomes)
    return {f"{each.step.found.object_class.name} {each.step.found.label}": each for each in outcomes}


def found(session: WorkerSession, outcome: Outcome) -> Any:
    return session.get_object(outcome.handle)


def of_token(session: Any, label: str, object_class: Any) -> Any:
    return session.get_key(label=label, object_class=object_class)


def test_what_a_token_made_is_used_in_the_keyring_with_its_names(source: tokens.TokenSource, journal: Journal) -> None:
    import pkcs11
    from pkcs11 import Mechanism as By

    session = WorkerSession.open()
    outcomes = migrated(source, session, journal, mechanisms=(Mechanism.AES_CBC_PAD,))
    assert Counter(each.step.way for each in outcomes.values()) == {
        Way.WRAPPED: 4,  # rsa, ec, aes, hmac
        Way.COPIED: 4,  # two public keys, the certificate, the data
        Way.NEW: 2,
        Way.STAYS: 2,  # the public keys of those
    }
    for kind, each in outcomes.items():
        if each.handle:
            made = found(session, each)
            assert (made.label, kind) == (each.step.found.label, f"{made.object_class.name} {made.label}")
            assert made.attributes.get(Attribute.ID, b"") == each.step.found.id
    its = {name: found(session, each) for name, each in outcomes.items() if each.handle}
    rsa, of_curve = its["PRIVATE_KEY rsa"], its["PRIVATE_KEY ec"]
    assert isinstance(rsa, PrivateKey)
    assert isinstance(of_curve, PrivateKey)
    assert len(list(session.find())) == 12  # of the migration's own session nothing is left
    theirs = source._session
    public = of_token(theirs, "rsa", pkcs11.ObjectClass.PUBLIC_KEY)
    assert public.verify(DATA, rsa.sign(DATA, Mechanism.SHA256_RSA_PKCS), mechanism=By.SHA256_RSA_PKCS)
    public = of_token(theirs, "ec", pkcs11.ObjectClass.PUBLIC_KEY)
    digest = bytes(32)
    assert public.verify(digest, of_curve.sign(digest, Mechanism.ECDSA), mechanism=By.ECDSA)
    aes, hmac = (of_token(theirs, label, pkcs11.ObjectClass.SECRET_KEY) for label in ("aes", "hmac"))
    iv = bytes(range(16))
    sealed = iv + aes.encrypt(DATA, mechanism=By.AES_CBC_PAD, mechanism_param=iv)
    assert its["SECRET_KEY aes"].decrypt(sealed, Mechanism.AES_CBC_PAD) == DATA
    assert its["SECRET_KEY hmac"].sign(DATA, Mechanism.SHA256_HMAC) == hmac.sign(DATA, mechanism=By.SHA256_HMAC)
    for name in ("PRIVATE_KEY rsa", "PRIVATE_KEY ec", "SECRET_KEY aes", "SECRET_KEY hmac"):
        attributes = its[name].attributes
        assert (attributes[Attribute.SENSITIVE], attributes[Attribute.EXTRACTABLE]) == (True, False)
        assert attributes[Attribute.LOCAL] is False
    assert its["SECRET_KEY aes"].attributes[Attribute.MODIFIABLE] is False
    assert isinstance(its["CERTIFICATE ec"], Certificate)
    assert isinstance(its["DATA notes"], DataObject)
    assert (its["DATA notes"].value, its["DATA notes"][Attribute.APPLICATION]) == (DATA, "app")


def test_new_keys_take_the_place_of_those_that_cannot_come_and_say_why(
    source: tokens.TokenSource, journal: Journal
) -> None:
    session = WorkerSession.open()
    outcomes = migrated(source, session, journal)
    for label, key_type, why in (
        ("stuck", KeyType.EC, "EXTRACTABLE is false"),
        ("ed", KeyType.EC_EDWARDS, "the token does not wrap it: KeyNotWrappable"),
    ):
        outcome = outcomes[f"PRIVATE_KEY {label}"]
        assert outcome.step.way is Way.NEW
        assert why in outcome.step.notes
        made = found(session, outcome)
        assert made.key_type is key_type
        assert made.attributes[Attribute.LOCAL] is True
        public = session.get_key(label=label, object_class=ObjectClass.PUBLIC_KEY)
        assert isinstance(public, PublicKey)
        assert public.verify(DATA, made.sign(DATA))
        assert outcomes[f"PUBLIC_KEY {label}"].step.way is Way.STAYS


def test_keys_that_cannot_come_are_listed_where_no_new_ones_are_wanted(
    source: tokens.TokenSource, journal: Journal
) -> None:
    session = WorkerSession.open()
    outcomes = migrated(source, session, journal, new_keys=False)
    assert outcomes["PRIVATE_KEY stuck"].step.way is Way.STAYS
    assert outcomes["PUBLIC_KEY stuck"].step.way is Way.COPIED  # what it signed is still verified
    assert len(list(session.find())) == 10


@pytest.mark.parametrize("keeps_journal", [True, False])
@pytest.mark.parametrize("uses", ["separated", "compatible"])
def test_a_second_run_makes_nothing_twice(
    source: tokens.TokenSource, tmp_path: Path, keeps_journal: bool, uses: str
) -> None:
    session = WorkerSession.open(key_uses=uses)
    choices = {"separated": uses == "separated"}
    before = migrated(source, session, Journal(tmp_path / "first"), **choices)
    held = {each.handle for each in session.find()}
    after = migrated(source, session, Journal(tmp_path / ("first" if keeps_journal else "second")), **choices)
    assert {each.step.way for each in after.values()} == {Way.THERE, Way.STAYS}
    assert {name: each.handle for name, each in after.items()} == {name: each.handle for name, each in before.items()}
    assert {each.handle for each in session.find()} == held


class Interrupted(Exception):
    """Ends a run."""


class EndsAfter(Journal):
    """Ends a run once so many objects came: before their line is written, or after."""

    def __init__(self, path: Path, lines: int, *, is_written: bool) -> None:
        super().__init__(path)
        self.lines, self.is_written = lines, is_written

    def add(self, source: bytes, handle: bytes) -> None:
        self.lines -= 1
        if self.is_written or self.lines:
            super().add(source, handle)
        if not self.lines:
            raise Interrupted


@pytest.mark.parametrize("is_written", [True, False])
def test_an_interrupted_run_is_gone_on_with_wherever_it_ended(
    source: tokens.TokenSource, tmp_path: Path, is_written: bool
) -> None:
    for lines in (1, 6, 10):
        session = WorkerSession.open()
        path = tmp_path / f"{lines}"
        with pytest.raises(Interrupted):
            migrated(source, session, EndsAfter(path, lines, is_written=is_written))
        migrated(source, session, Journal(path))
        made = Counter((each.object_class, each.label) for each in session.find())
        assert set(made.values()) == {1}
        assert len(made) == 12


def test_what_was_renamed_since_is_not_made_again(source: tokens.TokenSource, journal: Journal) -> None:
    session = WorkerSession.open()
    outcomes = migrated(source, session, journal)
    found(session, outcomes["SECRET_KEY hmac"]).set_attributes(label="other", id=b"other")
    again = migrated(source, session, journal)
    assert again["SECRET_KEY hmac"].step.way is Way.THERE


def test_no_key_is_seen_in_clear_on_the_way(
    source: tokens.TokenSource, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: tokens.TokenSource, found: Found) -> bytes:
        raise AssertionError("a key was read in clear")

    monkeypatch.setattr(tokens.TokenSource, "value", never)
    migrated(source, WorkerSession.open(), journal)


def test_a_keyring_whose_policy_is_compatible_keeps_all_uses(source: tokens.TokenSource, journal: Journal) -> None:
    session = WorkerSession.open(key_uses="compatible")
    outcomes = migrated(source, session, journal, separated=False)
    aes = found(session, outcomes["SECRET_KEY aes"])
    uses = ("ENCRYPT", "DECRYPT", "WRAP", "UNWRAP", "SIGN", "VERIFY")
    assert [aes.attributes[Attribute[use]] for use in uses] == [True] * len(uses)
    rsa = outcomes["PRIVATE_KEY rsa"]
    assert found(session, rsa).attributes[Attribute.UNWRAP] is False
    assert rsa.step.notes == ("UNWRAP stays behind: RSA of fewer than 3072 bits wraps nothing",)


@pytest.mark.parametrize("uses", ["separated", "compatible"])
def test_what_was_extractable_stays_so_if_it_is_wanted_and_can(
    source: tokens.TokenSource, journal: Journal, uses: str
) -> None:
    session = WorkerSession.open(key_uses=uses)
    outcomes = migrated(source, session, journal, extractable=True, separated=uses == "separated")
    for name, is_carried in (("PRIVATE_KEY rsa", True), ("PRIVATE_KEY ec", True), ("SECRET_KEY aes", False)):
        can = uses == "compatible" or not is_carried
        assert found(session, outcomes[name]).attributes[Attribute.EXTRACTABLE] is can
        assert can != any(note.startswith("EXTRACTABLE stays behind") for note in outcomes[name].step.notes)
    assert found(session, outcomes["PRIVATE_KEY stuck"]).attributes[Attribute.EXTRACTABLE] is False


def plain_token() -> str:
    """A token with a secret that everybody who is logged in to it may read, and that wraps nothing."""
    from pkcs11 import Attribute as Their
    from pkcs11 import KeyType as Types

    label = softhsm.new_token()
    with softhsm.open_token(label) as session:
        plain = {Their.EXTRACTABLE: True, Their.SENSITIVE: False, Their.WRAP_WITH_TRUSTED: True}
        session.generate_key(Types.AES, 256, store=True, label="plain", template=plain)
    return label


@pytest.mark.parametrize(("wanted", "way"), [(True, Way.IN_CLEAR), (False, Way.STAYS)])
def test_a_key_is_read_in_clear_only_if_that_is_said(journal: Journal, wanted: bool, way: Way) -> None:
    session = WorkerSession.open(**{"import": True})
    with tokens.opened(softhsm.MODULE, plain_token(), softhsm.PIN) as source:
        (outcome,) = Migration(source, session, Choices(in_clear=wanted, new_keys=False), journal).carry_out()
    assert (outcome.step.way, outcome.failure) == (way, None)
    if wanted:
        made = found(session, outcome)
        assert isinstance(made, SecretKey)
        assert made.attributes[Attribute.SENSITIVE] is True


def test_a_policy_without_import_lets_nothing_in_that_is_in_clear(journal: Journal) -> None:
    session = WorkerSession.open()
    with tokens.opened(softhsm.MODULE, plain_token(), softhsm.PIN) as source:
        (outcome,) = Migration(source, session, Choices(in_clear=True), journal).carry_out()
    assert isinstance(outcome.failure, PolicyForbids)
    assert not any(isinstance(each, Key) for each in session.find())


def test_what_is_wrong_with_a_token_is_told(token: str) -> None:
    with pytest.raises(NameUnknown, match=f"no token 'other' .*{token}"):
        tokens.find_token(softhsm.MODULE, "other")
    with pytest.raises(PasswordIncorrect), tokens.opened(softhsm.MODULE, token, "654321"):
        pass
    with pytest.raises(NotPossible, match="no/such"):
        tokens.find_token("/no/such.so", token)


def test_a_token_that_wraps_nothing_after_all_is_told(source: tokens.TokenSource) -> None:
    (stuck,) = [each for each in source.objects() if each.label == "stuck" and each.is_sensitive_key]
    session = WorkerSession.open()
    public, _ = session.generate_keypair(KeyType.RSA, 3072, public={Attribute.WRAP: True}, token=False)
    source.carrier(public)
    with pytest.raises(KeyUnextractable, match="KeyUnextractable"):
        source.wrap_by_carrier(stuck)
