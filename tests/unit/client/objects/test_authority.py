"""A CA of a keyring, over a pure worker: it issues, revokes, and forgets nothing that was revoked."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from lnh.objects import certificates, chains
from lnh.objects.authority import Authority
from lnh.objects.certificates import Profile
from lnh.objects.keys import Certificate, DataObject, PrivateKey
from lnh_common.errors import ArgumentInvalid, CertificateInvalid, LimitReached, ObjectUnknown
from lnh_common.pkcs11.attributes import KeyType, ObjectClass
from models.object_session import WorkerSession

OPENSSL = shutil.which("openssl")


@pytest.fixture
def session() -> WorkerSession:
    return WorkerSession.open(**{"import": True})


def key(session: WorkerSession, label: str = "ca", key_type: KeyType = KeyType.EC) -> PrivateKey:
    return session.generate_keypair(key_type, label=label, id=label.encode())[1]


def request(name: str = "a.example") -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name.from_rfc4514_string(f"CN={name}"))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM)


def lists(session: WorkerSession) -> list[DataObject]:
    return [each for each in session.find(object_class=ObjectClass.DATA) if isinstance(each, DataObject)]


@pytest.mark.parametrize("key_type", [KeyType.EC, KeyType.EC_EDWARDS, KeyType.ML_DSA])
def test_a_ca_issues_certificates_that_chain_up_to_it(session: WorkerSession, key_type: KeyType) -> None:
    held = key(session, key_type=key_type)
    ca = Authority.create(session, held, "CN=root,O=Example", path_length=0)
    assert (ca.certificate.label, ca.certificate.id) == ("ca", b"ca")
    again = Authority.find(session, held)
    assert again.certificate == ca.certificate
    root = ca.certificate.as_cryptography()
    for profile in (Profile.SERVER, Profile.CLIENT, Profile.CODE_SIGNING):
        made = again.issue(request(), profile)
        assert chains.verify(made, [root], profile=profile) == (made, root)
    with pytest.raises(CertificateInvalid, match="path length is 0"):
        again.issue(request(), Profile.CA)
    with pytest.raises(CertificateInvalid, match="no request"):
        again.issue(b"-----BEGIN CERTIFICATE-----", Profile.SERVER)


def test_an_intermediate_ca_of_the_same_keyring_issues_too(session: WorkerSession) -> None:
    root = Authority.create(session, key(session, "root"), "CN=root")
    below = key(session, "issuing")
    asked = certificates.request(below, "CN=issuing")
    (kept,) = session.import_file(root.issue(asked, Profile.CA, path_length=0).public_bytes(Encoding.DER))
    assert isinstance(kept, Certificate)
    assert kept.id == below.id
    leaf = Authority.find(session, below).issue(request(), Profile.SERVER)
    trusted, between = root.certificate.as_cryptography(), kept.as_cryptography()
    assert chains.verify(leaf, [trusted], [between], profile=Profile.SERVER) == (leaf, between, trusted)


def test_the_certificate_of_a_ca_is_the_one_that_ends_last(session: WorkerSession) -> None:
    held = key(session)
    with pytest.raises(ObjectUnknown, match="no CA's certificate"):
        Authority.find(session, held)
    certificates_made = [Authority.create(session, held, "CN=root", days=days).certificate for days in (10, 3000, 20)]
    leaf = certificates.self_signed(held, "CN=leaf", Profile.CLIENT, days=9000)
    session.import_file(leaf.public_bytes(Encoding.DER))
    assert Authority.find(session, held).certificate == certificates_made[1]


def test_what_was_revoked_stays_revoked_whoever_writes_the_next_list(session: WorkerSession) -> None:
    ca = Authority.create(session, key(session), "CN=root")
    root = ca.certificate.as_cryptography()
    made = [ca.issue(request(f"{name}.example"), Profile.SERVER) for name in "abc"]
    first = ca.revoke([made[0].serial_number], reason=x509.ReasonFlags.key_compromise)
    second = Authority.find(session, ca.key).revoke([made[1].serial_number, made[0].serial_number])
    last = ca.revocation_list()
    assert [certificates.crl_number(each) for each in (first, second, last)] == [1, 2, 3]
    assert {each.serial_number for each in last} == {each.serial_number for each in made[:2]}
    kept = last.get_revoked_certificate_by_serial_number(made[0].serial_number)
    assert kept is not None
    assert kept.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.key_compromise
    assert [each.value for each in lists(session)] == [last.public_bytes(Encoding.DER)]
    assert chains.verify(made[2], [root], crls=[last])
    for revoked in made[:2]:
        with pytest.raises(CertificateInvalid, match="was revoked"):
            chains.verify(revoked, [root], crls=[last])
    for wrong in (0, -1, 1 << 160):
        with pytest.raises(ArgumentInvalid):
            ca.revoke([wrong])


class Between(WorkerSession):
    """A session in which somebody else acts just before a list of ours is written."""

    act: Callable[[], object] | None = None

    def create_object(self, *arguments: Any, **more: Any) -> Any:
        act, self.act = self.act, None
        if act is not None:
            act()
        return super().create_object(*arguments, **more)


def test_two_who_revoke_at_once_forget_nothing_of_each_other(session: WorkerSession) -> None:
    ca = Authority.create(session, key(session), "CN=root")
    ca.revoke([1])
    mine = Between(session.client, session.keyring)
    mine.act = lambda: ca.revoke([2])
    other = Authority.find(mine, ca.key)
    made = other.revoke([3])
    assert {each.serial_number for each in made} == {1, 2, 3}
    assert {each.serial_number for each in ca.revocation_list()} == {1, 2, 3}
    assert len(lists(session)) == 1


def test_a_list_that_another_key_signed_is_not_believed(session: WorkerSession) -> None:
    ca = Authority.create(session, key(session), "CN=root")
    stranger = Authority.create(session, key(session, "other"), "CN=root")
    forged = stranger.revoke([7])
    ca.revoke([8])
    (own,) = [each for each in lists(session) if each.label == "ca"]
    own.set_attributes(value=forged.public_bytes(Encoding.DER))
    assert {each.serial_number for each in ca.revoke([9])} == {9}


def test_a_list_that_no_object_holds_is_refused_and_the_last_one_stays(session: WorkerSession) -> None:
    ca = Authority.create(session, key(session), "CN=root")
    ca.revoke(range(1 << 100, (1 << 100) + 1000))
    before = lists(session)
    with pytest.raises(LimitReached, match="a data object holds"):
        ca.revoke(range(1 << 101, (1 << 101) + 2000))
    assert lists(session) == before


@pytest.mark.skipif(OPENSSL is None, reason="no openssl command on this machine")
def test_openssl_verifies_what_a_ca_issued_until_it_is_revoked(session: WorkerSession, tmp_path: Path) -> None:
    ca = Authority.create(session, key(session), "CN=root,O=Example")
    made = ca.issue(request(), Profile.SERVER)

    def verified(crl: x509.CertificateRevocationList) -> bool:
        for name, found in (("root", ca.certificate.as_cryptography()), ("leaf", made), ("crl", crl)):
            (tmp_path / name).write_bytes(found.public_bytes(Encoding.PEM))
        words = ["verify", "-x509_strict", "-crl_check", "-purpose", "sslserver", "-verify_hostname", "a.example"]
        files = ["-CAfile", tmp_path / "root", "-CRLfile", tmp_path / "crl", tmp_path / "leaf"]
        done = subprocess.run([str(OPENSSL), *words, *map(str, files)], capture_output=True, timeout=30, check=False)
        return done.returncode == 0

    assert verified(ca.revocation_list())
    assert not verified(ca.revoke([made.serial_number]))
