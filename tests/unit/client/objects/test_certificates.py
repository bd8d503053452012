"""Certificates, requests and revocation lists that keys in the HSM sign; openssl is asked wherever it has the key type."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, mldsa, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lnh.objects import certificates, chains
from lnh.objects.as_cryptography import wrap
from lnh.objects.certificates import Profile, Revoked
from lnh_common.errors import (
    ArgumentInvalid,
    AttributeSensitive,
    CertificateInvalid,
    KeyTypeInconsistent,
    LimitReached,
    MechanismInvalid,
)
from lnh_common.pkcs11.attributes import Attribute, KeyType
from lnh_common.pkcs11.mechanisms import GENERATORS, Mechanism
from lnh_services.hsm.objects.generate import Generated, generate_key_pair
from models.keys import COMPATIBLE, KINDS, PAIRS, KeyInHsm

OPENSSL = shutil.which("openssl")
NOW = dt.datetime(2026, 11, 29, 12, tzinfo=dt.timezone.utc)
SIGNING = [kind for kind in PAIRS if KINDS[kind][0] not in (KeyType.EC_MONTGOMERY, KeyType.ML_KEM)]
OF_OPENSSL = [kind for kind in SIGNING if KINDS[kind][0] is not KeyType.ML_DSA]  # which 3.5 has, and most machines not
A = Attribute


def key(kind: str) -> KeyInHsm:
    """Another key than the one of the process, where a test needs two."""
    key_type, template = KINDS[kind]
    return KeyInHsm(kind, generate_key_pair(GENERATORS[key_type], template, {}, COMPATIBLE))


def root_of(held: KeyInHsm, **more: object) -> x509.Certificate:
    return certificates.self_signed(held, "CN=root,O=Example", at=NOW, **more)  # type: ignore[arg-type]


class Pki:
    """A root, a CA below it, and a server's certificate below that."""

    def __init__(self) -> None:
        self.root_key, self.ca_key, self.server_key = (key("P-256") for _ in range(3))
        self.root = root_of(self.root_key)
        asked = certificates.request(self.ca_key, "CN=issuing CA,O=Example")
        self.ca = certificates.issue(self.root_key, self.root, asked, Profile.CA, path_length=0, at=NOW)
        self.asked = certificates.request(self.server_key, "CN=a.example", ["DNS:a.example", "IP:192.0.2.1"])
        self.server = certificates.issue(self.ca_key, self.ca, self.asked, Profile.SERVER, at=NOW)

    def revoke(self, *serials: int, number: int = 1) -> x509.CertificateRevocationList:
        revoked = [Revoked(serial, NOW, x509.ReasonFlags.key_compromise) for serial in serials]
        return certificates.revocation_list(self.ca_key, self.ca, revoked, number, at=NOW)


@pytest.fixture(scope="module")
def pki() -> Pki:
    return Pki()


def openssl_verifies(
    tmp_path: Path,
    leaf: x509.Certificate,
    root: x509.Certificate,
    between: x509.Certificate | None = None,
    purpose: str = "any",
    crl: x509.CertificateRevocationList | None = None,
) -> bool:
    assert OPENSSL is not None
    words = [OPENSSL, "verify", "-x509_strict", "-check_ss_sig", "-purpose", purpose]
    words += ["-attime", str(int(NOW.timestamp()))]
    for name, option, found in (
        ("root", "-CAfile", root),
        ("between", "-untrusted", between),
        ("crl", "-CRLfile", crl),
    ):
        if found is not None:
            (tmp_path / name).write_bytes(found.public_bytes(Encoding.PEM))
            words += [option, str(tmp_path / name)]
    words += ["-crl_check"] if crl is not None else []
    (tmp_path / "leaf").write_bytes(leaf.public_bytes(Encoding.PEM))
    done = subprocess.run([*words, str(tmp_path / "leaf")], capture_output=True, timeout=30, check=False)
    return done.returncode == 0


@pytest.mark.parametrize("kind", SIGNING)
def test_a_key_of_each_kind_signs_itself_a_certificate_and_another_one(kind: str, tmp_path: Path) -> None:
    held = KeyInHsm(kind)
    root = root_of(held)
    asked = certificates.request(held, "CN=signer", ["EMAIL:a@a.example"])
    assert asked.is_signature_valid
    leaf = certificates.issue(held, root, asked, Profile.CODE_SIGNING, at=NOW)
    assert chains.verify(leaf, [root], profile=Profile.CODE_SIGNING, at=NOW) == (leaf, root)
    if kind in OF_OPENSSL and OPENSSL is not None:
        assert openssl_verifies(tmp_path, leaf, root)


@pytest.mark.skipif(OPENSSL is None, reason="no openssl command on this machine")
@pytest.mark.parametrize(
    ("profile", "purpose", "others"),
    [
        (Profile.SERVER, "sslserver", ("sslclient",)),
        (Profile.CLIENT, "sslclient", ("sslserver",)),
        (Profile.CODE_SIGNING, "any", ("sslserver", "sslclient")),
    ],
)
def test_openssl_takes_a_certificate_for_what_its_profile_says_alone(
    pki: Pki, profile: Profile, purpose: str, others: tuple[str, ...], tmp_path: Path
) -> None:
    leaf = certificates.issue(pki.ca_key, pki.ca, pki.asked, profile, at=NOW)
    assert openssl_verifies(tmp_path, leaf, pki.root, pki.ca, purpose)
    assert not any(openssl_verifies(tmp_path, leaf, pki.root, pki.ca, other) for other in others)


@pytest.mark.skipif(OPENSSL is None, reason="no openssl command on this machine")
def test_openssl_takes_what_is_not_on_the_list_of_the_revoked(pki: Pki, tmp_path: Path) -> None:
    assert openssl_verifies(tmp_path, pki.server, pki.root, pki.ca, crl=pki.revoke(7))
    assert not openssl_verifies(tmp_path, pki.server, pki.root, pki.ca, crl=pki.revoke(7, pki.server.serial_number))


def test_a_certificate_says_what_its_profile_does_and_no_more_of_the_request(pki: Pki) -> None:
    wishes = x509.CertificateSigningRequestBuilder().subject_name(certificates.subject_of("CN=a.example"))
    wishes = wishes.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    wishes = wishes.add_extension(x509.SubjectAlternativeName([x509.DNSName("a.example")]), critical=False)
    asked = wishes.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    made = certificates.issue(pki.ca_key, pki.ca, asked, Profile.SERVER, at=NOW)
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    usage = made.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.key_cert_sign, usage.crl_sign) == (True, False, False)
    assert made.subject.rfc4514_string() == "CN=a.example"
    assert made.issuer == pki.ca.subject
    other = certificates.issue(
        pki.ca_key, pki.ca, asked, Profile.SERVER, subject="CN=b.example", names=["DNS:b.example"], at=NOW
    )
    names = other.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["b.example"]
    assert other.serial_number != made.serial_number
    assert made.serial_number.bit_length() > 64


def test_a_certificate_ends_no_later_than_its_ca(pki: Pki) -> None:
    end = pki.ca.not_valid_after_utc
    late = end - dt.timedelta(days=10)
    made = certificates.issue(pki.ca_key, pki.ca, pki.asked, Profile.CLIENT, at=late)
    assert made.not_valid_after_utc == end
    with pytest.raises(CertificateInvalid, match="its CA ends"):
        certificates.issue(pki.ca_key, pki.ca, pki.asked, Profile.CLIENT, days=11, at=late)
    with pytest.raises(CertificateInvalid, match="valid from"):
        certificates.issue(pki.ca_key, pki.ca, pki.asked, Profile.CLIENT, at=end + dt.timedelta(days=1))


def test_only_a_ca_of_its_own_key_issues(pki: Pki) -> None:
    for held, certificate, said in (
        (pki.root_key, pki.ca, "of another key"),
        (pki.server_key, pki.server, "is no CA"),
    ):
        with pytest.raises(CertificateInvalid, match=said):
            certificates.issue(held, certificate, pki.asked, Profile.SERVER, at=NOW)
        with pytest.raises(CertificateInvalid, match=said):
            certificates.revocation_list(held, certificate, [], 1, at=NOW)
    with pytest.raises(CertificateInvalid, match="path length is 0"):
        certificates.issue(pki.ca_key, pki.ca, pki.asked, Profile.CA, at=NOW)
    narrow = root_of(pki.root_key, path_length=2)
    below = certificates.issue(pki.root_key, narrow, pki.asked, Profile.CA, at=NOW)
    assert below.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 1
    with pytest.raises(CertificateInvalid, match="at most 1"):
        certificates.issue(pki.root_key, narrow, pki.asked, Profile.CA, path_length=2, at=NOW)


def test_a_request_that_its_key_did_not_sign_gets_no_certificate(pki: Pki) -> None:
    der = bytearray(pki.asked.public_bytes(Encoding.DER))
    der[-1] ^= 1
    with pytest.raises(CertificateInvalid, match="not signed by the key"):
        certificates.issue(pki.ca_key, pki.ca, x509.load_der_x509_csr(bytes(der)), Profile.SERVER, at=NOW)
    small = rsa.generate_private_key(65537, 1024)
    asked = x509.CertificateSigningRequestBuilder().subject_name(pki.ca.subject).sign(small, hashes.SHA256())
    with pytest.raises(CertificateInvalid, match="1024 bits"):
        certificates.issue(pki.ca_key, pki.ca, asked, Profile.CLIENT, at=NOW)
    odd = ec.generate_private_key(ec.SECP224R1())
    asked = x509.CertificateSigningRequestBuilder().subject_name(pki.ca.subject).sign(odd, hashes.SHA256())
    with pytest.raises(CertificateInvalid, match="secp224r1"):
        certificates.issue(pki.ca_key, pki.ca, asked, Profile.CLIENT, at=NOW)


@pytest.mark.parametrize(
    ("subject", "names", "days", "error"),
    [
        ("no name", ["DNS:a"], 1, ArgumentInvalid),
        ("CN=a", ["a.example"], 1, ArgumentInvalid),
        ("CN=a", ["DNS:ä.example"], 1, ArgumentInvalid),
        ("CN=a", ["IP:300.1.1.1"], 1, ArgumentInvalid),
        ("CN=a", ["DNS:a.example"], 0, ArgumentInvalid),
        ("CN=a", ["DNS:a.example"], 36526, ArgumentInvalid),
        ("CN=a", [], 1, CertificateInvalid),
        ("CN=a", [f"DNS:{number}.example" for number in range(101)], 1, LimitReached),
    ],
)
def test_what_cannot_stand_in_a_certificate_is_named(
    subject: str, names: list[str], days: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        certificates.self_signed(KeyInHsm("P-256"), subject, Profile.SERVER, names=names, days=days, at=NOW)


def test_a_key_signs_with_a_mechanism_that_it_is_allowed() -> None:
    public, private = KeyInHsm("RSA").public, KeyInHsm("RSA").private

    def allowed(*mechanisms: Mechanism) -> KeyInHsm:
        numbers = [each.value for each in mechanisms]
        narrowed = Generated(private.attributes | {A.ALLOWED_MECHANISMS: numbers}, private.value)
        return KeyInHsm("RSA", (public, narrowed))

    made = root_of(allowed(Mechanism.SHA384_RSA_PKCS_PSS))
    assert isinstance(made.signature_algorithm_parameters, padding.PSS)
    assert made.signature_hash_algorithm is not None
    assert made.signature_hash_algorithm.name == "sha384"
    made.verify_directly_issued_by(made)
    with pytest.raises(MechanismInvalid, match="SHA256_RSA_PKCS"):
        root_of(allowed(Mechanism.RSA_PKCS_OAEP))
    for kind, name in (("P-256", "sha256"), ("P-384", "sha384"), ("P-521", "sha512")):
        hash_ = root_of(KeyInHsm(kind)).signature_hash_algorithm
        assert hash_ is not None
        assert hash_.name == name


def test_a_list_has_each_revoked_certificate_and_why(pki: Pki) -> None:
    found = pki.revoke(9, 5, number=3)
    assert [each.serial_number for each in found] == [5, 9]
    assert found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 3
    reason = next(iter(found)).extensions.get_extension_for_class(x509.CRLReason).value.reason
    assert reason is x509.ReasonFlags.key_compromise
    assert found.is_signature_valid(pki.ca.public_key())  # type: ignore[arg-type]


def test_lattice_keys_are_keys_of_the_library() -> None:
    wrapped = wrap(KeyInHsm("ML-DSA-65"))
    assert isinstance(wrapped, mldsa.MLDSA65PrivateKey)
    wrapped.public_key().verify(wrapped.sign(b"data", b"context"), b"data", b"context")
    wrapped.public_key().verify(wrapped.sign(b"data"), b"data")
    with pytest.raises(AttributeSensitive):
        wrapped.private_bytes()
    with pytest.raises(Exception, match="sign_mu"):
        wrapped.sign_mu(b"\0" * 64)


def test_a_key_that_agrees_shows_its_public_half_and_keeps_the_secret() -> None:
    wrapped = wrap(KeyInHsm("X25519"))
    assert isinstance(wrapped, x25519.X25519PrivateKey)
    assert isinstance(wrapped.public_key(), x25519.X25519PublicKey)
    with pytest.raises(AttributeSensitive, match="shared secret"):
        wrapped.exchange(wrapped.public_key())
    with pytest.raises(KeyTypeInconsistent, match="does not sign"):
        certificates.request(KeyInHsm("X25519"), "CN=a")
    with pytest.raises(KeyTypeInconsistent):
        wrap(KeyInHsm("ML-KEM-768"))


def test_subjects_of_any_script_are_written(pki: Pki) -> None:
    for text in ("CN=Bücher GmbH", "CN=証明書", "CN=\U0001f511"):
        made = certificates.self_signed(pki.root_key, text, at=NOW)
        assert made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == text[3:]
