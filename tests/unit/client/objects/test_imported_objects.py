"""Files become objects of a keyring, a pure worker's: all that a file holds, or none of it."""

from __future__ import annotations

import datetime as dt
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    pkcs12,
)

from lnh.objects import encoding
from lnh.objects.keys import Certificate, DataObject, Key, PrivateKey, PublicKey, SecretKey
from lnh_common.errors import (
    ArgumentInvalid,
    AttributeInvalid,
    KeyFileInvalid,
    LimitReached,
    LnhError,
    PassphraseIncorrect,
    PolicyForbids,
    TemplateInconsistent,
)
from lnh_common.pkcs11.attributes import Attribute, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism
from models.keys import PAIRS, pair
from models.object_session import WorkerSession

KEYS: dict[str, Any] = {kind: load_der_private_key(pair(kind)[1].value, None) for kind in PAIRS}
NOW = dt.datetime(2026, 11, 29, tzinfo=dt.timezone.utc)


@pytest.fixture(scope="module")
def opened() -> WorkerSession:
    return WorkerSession.open(**{"import": True})


@pytest.fixture
def session(opened: WorkerSession) -> Iterator[WorkerSession]:
    """A session with a keyring in which nothing is, nor stays."""
    yield opened
    for each in list(opened.find()):
        each.destroy()


def pem(kind: str) -> bytes:
    made: bytes = KEYS[kind].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made


def spki(kind: str) -> bytes:
    made: bytes = KEYS[kind].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return made


def certificate(serial: int = 1, name: str = "of P-256", kind: str = "P-256") -> x509.Certificate:
    subject = x509.Name.from_rfc4514_string(f"CN={name}")
    builder = x509.CertificateBuilder(
        subject, subject, KEYS[kind].public_key(), serial, NOW, NOW + dt.timedelta(days=1)
    )
    return builder.sign(KEYS[kind], hashes.SHA256())


def der(serial: int = 1, name: str = "of P-256") -> bytes:
    return certificate(serial, name).public_bytes(Encoding.DER)


@pytest.mark.parametrize("kind", PAIRS)
def test_a_private_key_comes_in_with_its_public_half(session: WorkerSession, kind: str) -> None:
    private, public = session.import_file(pem(kind), label=f"in {kind}")
    assert isinstance(private, PrivateKey)
    assert isinstance(public, PublicKey)
    assert public.to_der() == spki(kind)
    assert private.label == public.label == f"in {kind}"
    assert private.id == public.id
    assert len(private.id) == 20
    assert (private[Attribute.LOCAL], private[Attribute.SENSITIVE], private[Attribute.EXTRACTABLE]) == (
        False,
        True,
        False,
    )
    if private[Attribute.SIGN] if Attribute.SIGN in private.attributes else False:
        assert public.verify(b"data", private.sign(b"data"))
    with pytest.raises(AttributeInvalid):
        private[Attribute.VALUE]


def test_an_imported_key_signs_as_it_did_outside(session: WorkerSession) -> None:
    private, _ = session.import_file(pem("RSA"), label="rsa")
    assert isinstance(private, PrivateKey)
    signature = private.sign(b"data", Mechanism.SHA256_RSA_PKCS)
    from cryptography.hazmat.primitives.asymmetric import padding

    assert signature == KEYS["RSA"].sign(b"data", padding.PKCS1v15(), hashes.SHA256())


def test_keys_and_secrets_come_in_where_policy_says_so_and_the_rest_always() -> None:
    session = WorkerSession.open()
    for data, more in ((pem("P-256"), {}), (bytes(32), {"form": "raw", "key_type": KeyType.AES})):
        with pytest.raises(PolicyForbids, match="import"):
            session.import_file(data, **more)  # type: ignore[arg-type]
    assert list(session.find()) == []
    (public,) = session.import_file(
        KEYS["P-256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    (held,) = session.import_file(der())
    assert set(session.find()) == {public, held}


def test_pkcs12_brings_in_a_key_its_certificate_and_the_chain(session: WorkerSession) -> None:
    leaf, other = certificate(), certificate(2, "issuer", "P-384")
    data = pkcs12.serialize_key_and_certificates(b"web", KEYS["P-256"], leaf, [other], BestAvailableEncryption(b"pass word"))  # fmt: skip
    with pytest.raises(PassphraseIncorrect):
        session.import_file(data, passphrase="wrong")
    with pytest.raises(PassphraseIncorrect, match="no passphrase"):
        session.import_file(data)
    private, public, own, chain = session.import_file(io.BytesIO(data), passphrase=lambda: "pass word", id=b"\0\0\7")
    assert [type(each) for each in (private, public, own, chain)] == [PrivateKey, PublicKey, Certificate, Certificate]
    assert [each.label for each in (private, own, chain)] == ["web", "web", "issuer"]
    assert isinstance(own, Certificate)
    assert own.as_cryptography() == leaf
    assert x509.load_pem_x509_certificate(own.to_pem().encode()) == leaf


def test_a_certificate_gets_the_id_of_its_private_key(session: WorkerSession) -> None:
    _, private = session.generate_keypair(KeyType.EC, curve="P-256", id=b"\x0b", label="generated")
    public: Any = private.as_cryptography().public_key()
    builder = x509.CertificateBuilder(
        certificate().subject, certificate().subject, public, 5, NOW, NOW + dt.timedelta(days=1)
    )
    made = builder.sign(KEYS["P-256"], hashes.SHA256()).public_bytes(Encoding.DER)
    assert session.import_file(made)[0].id == b"\x0b"
    assert session.import_file(made, id=b"\x0c")[0].id == b"\x0c"


def test_secrets_come_in_raw_and_from_jwk(session: WorkerSession) -> None:
    (key,) = session.import_file(bytes(range(32)), form="raw", key_type=KeyType.GENERIC_SECRET, label="hmac")
    assert isinstance(key, SecretKey)
    import hmac

    assert key.sign(b"data", Mechanism.SHA256_HMAC) == hmac.digest(bytes(range(32)), b"data", "sha256")
    jwk = json.dumps({"kty": "oct", "k": "AAECAwQFBgcICQoLDA0ODw", "alg": "A128GCM", "kid": "of a server"}).encode()
    (aes,) = session.import_file(jwk)
    assert isinstance(aes, SecretKey)
    assert (aes.key_type, aes.label, aes[Attribute.VALUE_LEN]) == (KeyType.AES, "of a server", 16)
    assert aes.decrypt(aes.encrypt(b"data")) == b"data"
    with pytest.raises(ArgumentInvalid, match="AES, not GENERIC_SECRET"):
        session.import_file(jwk, key_type=KeyType.GENERIC_SECRET)
    with pytest.raises(ArgumentInvalid, match="name its key type"):
        session.import_file(bytes(32), form="raw")
    with pytest.raises(ArgumentInvalid, match="there are pem, der"):
        session.import_file(bytes(32), form="hex")


def test_an_error_midway_leaves_nothing(session: WorkerSession) -> None:
    before = set(session.find())
    small = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    jwk = {"keys": [{"kty": "oct", "k": "AAECAwQFBgcICQoLDA0ODw", "alg": "A128GCM"}, {"kty": "oct", "k": "AAEC", "alg": "A128GCM"}]}  # fmt: skip
    for data, more in (
        (json.dumps(jwk).encode(), {}),
        (small, {"sign": False, "derive": True, "verify": True, "encrypt": True}),
    ):
        with pytest.raises(LnhError):
            session.import_file(data, **more)  # type: ignore[arg-type]
    assert set(session.find()) == before
    with pytest.raises(AttributeInvalid, match="value_len: nothing in this file"):
        session.import_file(small, value_len=3)
    with pytest.raises(KeyFileInvalid, match="private key too"):
        session.import_file(small, only=ObjectClass.CERTIFICATE)
    assert set(session.find()) == before


def test_attributes_go_to_the_objects_that_have_them(session: WorkerSession) -> None:
    private, public = session.import_file(pem("P-256"), extractable=True, verify=True, modifiable=False, sign=True)
    assert private[Attribute.EXTRACTABLE] is True
    assert private[Attribute.NEVER_EXTRACTABLE] is False
    assert private[Attribute.MODIFIABLE] is public[Attribute.MODIFIABLE] is False


def test_objects_of_a_session_come_in_too(session: WorkerSession) -> None:
    private, public = session.import_file(pem("Ed25519"), token=False, label="mine")
    assert isinstance(private, PrivateKey)
    assert isinstance(public, PublicKey)
    assert private.sealed
    assert public.verify(b"data", private.sign(b"data"))
    private.destroy()
    public.destroy()


def test_an_id_with_zeros_in_front_is_another_id(session: WorkerSession) -> None:
    ids = (b"", b"\0", b"\0\0", b"\1", b"\0\1", b"\1\0")
    made = {key_id: session.generate_key(KeyType.AES, id=key_id, label="zeros") for key_id in ids}
    for key_id, key in made.items():
        assert list(session.find(id=key_id, label="zeros")) == [key]
        assert session.get_key(id=key_id, label="zeros").id == key_id


LABELS = ("ключ", "鍵 🔑", "e\u0301", "\u00e9", "مفتاح", "a\nb\0c", " trailing ", "\u200bzero width", "𐍈" * 64)


def test_labels_of_any_unicode_are_told_apart_by_their_code_points(session: WorkerSession) -> None:
    made = {label: session.generate_key(KeyType.AES, label=label) for label in LABELS}
    for label, key in made.items():
        assert list(session.find(label=label)) == [key]
        assert session.get_object(key.handle).label == label
    with pytest.raises(AttributeInvalid):
        session.generate_key(KeyType.AES, label="𐍈" * 64 + "a")


def test_duplicates_are_allowed_and_told_apart_by_handle(session: WorkerSession) -> None:
    first = session.import_file(pem("P-384"), label="twice")
    second = session.import_file(pem("P-384"), label="twice")
    found = list(session.find(label="twice"))
    assert set(found) == {*first, *second}
    assert len({each.handle for each in found}) == len({each[Attribute.UNIQUE_ID] for each in found}) == 4
    with pytest.raises(LimitReached, match="2 keys"):
        session.get_key(label="twice")
    kept = session.get_object(second[0].handle)
    first[0].destroy()
    assert isinstance(kept, Key)
    assert session.get_key(label="twice") == kept


def test_certificates_are_found_by_subject_issuer_and_serial_number(session: WorkerSession) -> None:
    serials = (127, 128, 1 << 150)
    made = {serial: session.import_file(der(serial, f"number {serial}"))[0] for serial in serials}
    for serial, one in made.items():
        assert list(session.find_certificates(serial=serial)) == [one]
        assert list(session.find_certificates(subject=f"CN=number {serial}", issuer=f"CN=number {serial}")) == [one]
        assert one[Attribute.SERIAL_NUMBER][2:] == serial.to_bytes(serial.bit_length() // 8 + 1, "big")  # type: ignore[index]
        stored = {Attribute.ISSUER: one[Attribute.ISSUER], Attribute.SERIAL_NUMBER: one[Attribute.SERIAL_NUMBER]}
        assert list(session.find(stored, object_class=ObjectClass.CERTIFICATE)) == [one]
    assert list(session.find_certificates(subject="CN=number 127", serial=128)) == []
    printable = x509.Name(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, "printed", x509.name._ASN1Type.PrintableString)]
    )
    builder = x509.CertificateBuilder(
        printable, printable, KEYS["P-256"].public_key(), 9, NOW, NOW + dt.timedelta(days=1)
    )
    (odd,) = session.import_file(builder.sign(KEYS["P-256"], hashes.SHA256()).public_bytes(Encoding.DER))
    assert list(session.find_certificates(subject="CN=printed")) == [odd]
    for wrong in (-1, 1 << 160):
        with pytest.raises(ArgumentInvalid):
            session.find_certificates(serial=wrong)
    with pytest.raises(ArgumentInvalid):
        session.find_certificates(subject="printed")


def test_the_hsm_says_what_a_certificate_says_and_no_template_says_otherwise(session: WorkerSession) -> None:
    with pytest.raises(TemplateInconsistent):
        session.import_file(der(), subject=b"\x30\x00")


def test_data_is_kept_as_it_is(session: WorkerSession) -> None:
    made = session.create_object(ObjectClass.DATA, b"\0any bytes", label="notes", application="mail")
    assert isinstance(made, DataObject)
    found = session.get_object(made.handle)
    assert isinstance(found, DataObject)
    assert (found.value, found[Attribute.APPLICATION]) == (b"\0any bytes", "mail")
    made.set_attributes(value=b"others")
    made.refresh()
    assert made.value == b"others"
    made.destroy()


def test_public_keys_are_exported_in_every_form(session: WorkerSession) -> None:
    _, public = session.import_file(pem("P-256"), label="out\nside")
    assert isinstance(public, PublicKey)
    for text in (public.to_pem(), public.to_jwk(), public.to_openssh()):
        (again,) = session.import_file(text.encode())
        assert isinstance(again, PublicKey)
        assert again.to_der() == spki("P-256")
    assert public.to_openssh() == encoding.openssh(spki("P-256"), "out\nside")
