"""Which certificates chain up to a trusted root, and which condition a refusal names; openssl is the judge beside us."""

from __future__ import annotations

import datetime as dt
import random
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from lnh.objects import certificates, chains, key_files
from lnh.objects.certificates import Profile
from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, CertificateInvalid, KeyFileInvalid, LimitReached

OPENSSL = shutil.which("openssl")
NOW = dt.datetime(2026, 11, 29, 12, tzinfo=dt.timezone.utc)
DAY = dt.timedelta(days=1)
KEYS: dict[str, Any] = {
    **{name: ec.generate_private_key(ec.SECP256R1()) for name in ("root", "ca", "sub", "leaf", "other")},
    "p192": ec.generate_private_key(ec.SECP192R1()),
    "dsa": dsa.generate_private_key(1024),
}
CA_USAGE = {"key_cert_sign", "crl_sign"}
USAGES = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip


def made(
    name: str,
    issuer: str,
    *,
    ca: bool | None = True,
    path_length: int | None = None,
    usage: set[str] | None = CA_USAGE,  # read alone
    purposes: Sequence[x509.ObjectIdentifier] = (),
    begin: dt.datetime = NOW - DAY,
    end: dt.datetime = NOW + DAY,
    hash_: Any = hashes.SHA256(),  # noqa: B008  # has no state
    extra: Sequence[tuple[x509.ExtensionType, bool]] = (),
    signer: str = "",
    called: str = "",
) -> x509.Certificate:
    """A certificate of the key of that name, signed by the key of its issuer."""
    builder = x509.CertificateBuilder(
        subject_name=x509.Name.from_rfc4514_string(f"CN={called or name}"),
        issuer_name=x509.Name.from_rfc4514_string(f"CN={issuer}"),
        public_key=KEYS[name].public_key(),
        serial_number=random.getrandbits(100) + 1,
        not_valid_before=begin,
        not_valid_after=end,
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length if ca else None), critical=True)
    if usage is not None:
        builder = builder.add_extension(x509.KeyUsage(**{each: each in usage for each in USAGES}), critical=True)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(KEYS[name].public_key()), critical=False)
    if name != issuer:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(KEYS[signer or issuer].public_key())
        builder = builder.add_extension(identifier, critical=False)
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(KEYS[signer or issuer], hash_)


def leaf(issuer: str = "ca", **more: Any) -> x509.Certificate:
    usual: dict[str, Any] = {"ca": False, "usage": {"digital_signature"}}
    return made("leaf", issuer, **usual | more)


def crl(*serials: int, of: str = "ca", by: str = "", begin: dt.datetime = NOW - DAY, end: dt.datetime = NOW + DAY, critical: bool = False) -> x509.CertificateRevocationList:  # fmt: skip
    builder = x509.CertificateRevocationListBuilder().issuer_name(x509.Name.from_rfc4514_string(f"CN={of}"))
    builder = builder.last_update(begin).next_update(end)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - DAY).build()
        builder = builder.add_revoked_certificate(entry)
    if critical:
        part = x509.IssuingDistributionPoint(None, None, True, False, None, False, False)
        builder = builder.add_extension(part, critical=True)
    return builder.sign(KEYS[by or of], hashes.SHA256())


# openssl made it, since `cryptography` signs over SHA-1 no more.
SHA1 = """-----BEGIN CERTIFICATE-----
MIIBbDCCARSgAwIBAgIUV8HzIVDaC18i3lj41Oqc1I1y9/wwCQYHKoZIzj0EATAM
MQowCAYDVQQDDAF4MCAXDTI2MTEyOTEyMDM0NVoYDzIwNTQwNDE2MTIwMzQ1WjAM
MQowCAYDVQQDDAF4MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAESeWfjRl4kdbg
uR0/2L7LFbADpZiPPVzrNITbT5y9dv3KnCoIQSHsOq8Xs8Ps00m064l53ORHtzLo
HFBnx70HW6NTMFEwHQYDVR0OBBYEFAha0ALjws5gGP7IXPSWcm6tqcorMB8GA1Ud
IwQYMBaAFAha0ALjws5gGP7IXPSWcm6tqcorMA8GA1UdEwEB/wQFMAMBAf8wCQYH
KoZIzj0EAQNHADBEAiBeI5E7uVPKimAQp8asX9ULJhSget8jL7RPNjRhGeYlZgIg
CgkpDYg9abyg5J4EFz0QhM8NDGxRw/ygexj0BuCld8M=
-----END CERTIFICATE-----
"""
# The key of a CA, and a list that openssl signed by it over SHA-1; in force from 13:55 that day to 2054.
OLD = b"""-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgRqMb+XYx0sGykFSY
NId3FKSWuCybE6+5BlBihn1CxLmhRANCAASkG0QJI/EoO7UdlP0Gd2ZWrRkWJGYE
fuXhayNTqMnG0heAVHL2ywtT6Yd/MPaV5m2GdU6U9m7vCSzRyDz8vPTm
-----END PRIVATE KEY-----
"""
OLD_LIST = b"""-----BEGIN X509 CRL-----
MIGkME4CAQEwCQYHKoZIzj0EATAOMQwwCgYDVQQDDANvbGQXDTI2MTEyOTEzNTQ0
OVoYDzIwNTQwNDE2MTM1NDQ5WqAOMAwwCgYDVR0UBAMCAQEwCQYHKoZIzj0EAQNH
ADBEAiBXtuH90jHfilKXCTiLbS7BptTs0pzzLhMUQPeceCRpigIgaDqLLg6NXbN9
Hmisdjx3OT4ZQ5lST2W17+fKqdKdNGI=
-----END X509 CRL-----
"""
ROOT, CA, SUB = made("root", "root"), made("ca", "root"), made("sub", "ca")
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH


def test_a_chain_is_found_whatever_order_and_company_its_certificates_have() -> None:
    end = leaf("sub")
    strangers = [made("other", "other"), made("ca", "other")]
    for seed in range(10):
        given = [CA, SUB, ROOT, *strangers]
        random.Random(seed).shuffle(given)
        assert chains.verify(end, [ROOT], given, at=NOW) == (end, SUB, CA, ROOT)
    assert chains.verify(ROOT, [ROOT], at=NOW) == (ROOT,)
    assert chains.verify(CA, [ROOT, made("other", "other")], at=NOW, profile=Profile.CA) == (CA, ROOT)


def test_another_way_is_taken_where_the_first_does_not_hold() -> None:
    end = leaf()
    over = made("ca", "root", end=NOW - dt.timedelta(seconds=1))
    for given in ([over, CA], [CA, over]):
        assert chains.verify(end, [ROOT], given, at=NOW) == (end, CA, ROOT)


REFUSED: list[tuple[str, Callable[[], tuple[x509.Certificate, Sequence[x509.Certificate]]], str]] = [
    ("no issuer", lambda: (leaf(), []), "issuer is not here"),
    ("another key of the same name", lambda: (leaf(signer="other"), [CA]), "issuer is not here"),
    ("over", lambda: (leaf(end=NOW - dt.timedelta(seconds=1)), [CA]), "is valid from"),
    ("to come", lambda: (leaf(begin=NOW + dt.timedelta(seconds=1)), [CA]), "is valid from"),
    ("a CA that is over", lambda: (leaf(), [made("ca", "root", end=NOW - dt.timedelta(seconds=1))]), "is valid from"),
    ("issued by what is no CA", lambda: (leaf(), [made("ca", "root", ca=False)]), "is no CA"),
    ("issued by what does not say that it is a CA", lambda: (leaf(), [made("ca", "root", ca=None)]), "is no CA"),
    ("a CA that may not sign", lambda: (leaf(), [made("ca", "root", usage={"digital_signature"})]), "keyCertSign"),
    ("too deep", lambda: (leaf("sub"), [made("ca", "root", path_length=0), SUB]), "allows 0 CAs below it; there are 1"),
    ("a CA on another curve", lambda: (leaf(signer="p192"), [made("p192", "root", called="ca")]), "of a key on secp192r1"),
    ("a CA of another kind of key", lambda: (leaf(signer="dsa"), [made("dsa", "root", called="ca")]), "that the HSM does not have"),
    ("itself on another curve", lambda: (made("p192", "ca", ca=False, usage={"digital_signature"}), [CA]), "of a key on secp192r1"),
    ("sha1", lambda: (x509.load_pem_x509_certificate(SHA1.encode()), [CA]), "signed over sha1"),
    ("a critical extension", lambda: (leaf(extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x"), True)]), [CA]), "1.2.3"),
    ("constraints on names", lambda: (leaf(), [made("ca", "root", extra=[(x509.NameConstraints([x509.DNSName("a")], None), True)])]), "constrains names"),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "said"), [each[1:] for each in REFUSED], ids=[each[0] for each in REFUSED])
def test_a_refusal_names_the_condition_that_failed(
    parts: Callable[[], tuple[x509.Certificate, Sequence[x509.Certificate]]], said: str
) -> None:
    end, between = parts()
    with pytest.raises(CertificateInvalid, match=said):
        chains.verify(end, [ROOT], between, at=NOW)


def test_a_certificate_is_taken_for_what_it_and_its_cas_say() -> None:
    server = leaf(purposes=[SERVER])
    assert chains.verify(server, [ROOT], [CA], profile=Profile.SERVER, at=NOW)
    narrow = made("ca", "root", purposes=[CLIENT])
    for end, between, profile, said in (
        (server, CA, Profile.CLIENT, "not for client"),
        (leaf(), CA, Profile.SERVER, "not for server"),
        (server, narrow, Profile.SERVER, "makes no certificates for server"),
        (leaf(purposes=[SERVER], usage={"key_agreement"}), CA, Profile.SERVER, "digitalSignature"),
        (server, CA, Profile.CA, "is no CA"),
    ):
        with pytest.raises(CertificateInvalid, match=said):
            chains.verify(end, [ROOT], [between], profile=profile, at=NOW)
    wide = made("ca", "root", purposes=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
    assert chains.verify(server, [ROOT], [wide], profile=Profile.SERVER, at=NOW)


def test_what_is_revoked_is_refused_and_so_is_what_no_list_in_force_speaks_of() -> None:
    end = leaf()
    assert chains.verify(end, [ROOT], [CA], crls=[crl(end.serial_number + 1)], at=NOW)
    with pytest.raises(CertificateInvalid, match="was revoked"):
        chains.verify(end, [ROOT], [CA], crls=[crl(), crl(end.serial_number)], at=NOW)
    with pytest.raises(CertificateInvalid, match="was revoked"):
        chains.verify(end, [ROOT], [CA], crls=[crl(), crl(CA.serial_number, of="root")], at=NOW)
    for useless in (
        crl(of="other"),
        crl(by="other"),
        crl(end=NOW - dt.timedelta(seconds=1)),
        crl(begin=NOW + dt.timedelta(seconds=1)),
        crl(critical=True),
    ):
        with pytest.raises(CertificateInvalid, match="no revocation list that is in force"):
            chains.verify(end, [ROOT], [CA], crls=[useless], at=NOW)


def test_a_list_over_a_weak_hash_is_refused_and_does_no_harm_beside_another() -> None:
    KEYS["old"] = load_pem_private_key(OLD, None)
    ca, weak = made("old", "root"), x509.load_pem_x509_crl(OLD_LIST)
    below, at = made("sub", "old"), NOW + DAY / 2
    with pytest.raises(CertificateInvalid, match="over sha1"):
        chains.verify(leaf("old"), [ROOT], [ca], crls=[weak], at=at)
    with pytest.raises(CertificateInvalid, match="over sha1"):
        chains.verify(leaf("sub"), [ROOT], [below, ca], crls=[crl(of="sub"), weak], at=at)
    assert chains.verify(leaf("old"), [ROOT], [ca], crls=[weak, crl(of="old")], at=at)


def test_the_search_ends_however_many_certificates_say_the_same_name() -> None:
    rings = [made("ca", "ca") for _ in range(30)]
    with pytest.raises(LimitReached, match="signatures"):
        chains.verify(leaf(), [made("other", "other")], rings, at=NOW)
    assert limits.CHAIN_SIGNATURES == 100


def test_a_time_without_its_zone_is_refused() -> None:
    with pytest.raises(ArgumentInvalid):
        chains.verify(leaf(), [ROOT], [CA], at=NOW.replace(tzinfo=None))


@pytest.mark.skipif(OPENSSL is None, reason="no openssl command on this machine")
@pytest.mark.parametrize("seed", range(12))
def test_openssl_agrees_on_chains_of_any_make(seed: int, tmp_path: Path) -> None:
    """Chains with one flaw or none, drawn at random: both take a chain, or neither does."""
    draw = random.Random(seed)
    whole: list[dict[str, Any]] = [{}, {}, {"signer": "other"}, {"end": NOW - DAY / 2}]
    flaws: list[dict[str, Any]] = [{}, {}, {}, {"ca": False}, {"usage": {"digital_signature"}}, {"path_length": 0}, {"end": NOW - DAY / 2}]  # fmt: skip
    root = made("root", "root", path_length=draw.choice([None, 0, 1, 2]))
    ca, sub = made("ca", "root", **draw.choice(flaws)), made("sub", "ca", **draw.choice(flaws))
    end = leaf("sub", **draw.choice(whole))
    for name, found in (("root", [root]), ("between", [ca, sub]), ("leaf", [end])):
        (tmp_path / name).write_bytes(b"".join(each.public_bytes(Encoding.PEM) for each in found))
    words: list[str | Path] = [
        "-CAfile",
        tmp_path / "root",
        "-untrusted",
        tmp_path / "between",
        "-attime",
        str(int(NOW.timestamp())),
    ]
    assert OPENSSL is not None
    done = subprocess.run(
        [OPENSSL, "verify", "-x509_strict", *words, tmp_path / "leaf"], capture_output=True, timeout=30, check=False
    )
    refused = ""
    try:
        chains.verify(end, [root], [ca, sub], at=NOW)
    except CertificateInvalid as error:
        refused = error.message
    assert bool(refused) == (done.returncode != 0), (refused, done.stderr)


def broken(found: Any, text: bytes) -> bytes:
    """Its DER, in which this text is no text."""
    der: bytes = found.public_bytes(Encoding.DER)
    assert text in der
    return der.replace(text, b"\xff" + text[1:])


def test_parts_that_do_not_parse_are_refused_wherever_a_file_comes_in() -> None:
    """The library parses names and extensions only when they are asked for, so a file that loads may still be none."""
    names = [(x509.SubjectAlternativeName([x509.DNSName("zzzzzzzz")]), False)]
    strange = x509.load_der_x509_certificate(broken(leaf(called="abcdefgh"), b"abcdefgh"))
    for certificates_given in ((strange, [ROOT], [CA]), (leaf(), [ROOT, strange], [CA]), (leaf(), [ROOT], [strange])):
        with pytest.raises(CertificateInvalid, match="does not parse"):
            chains.verify(*certificates_given, at=NOW)
    odd = x509.load_der_x509_certificate(broken(leaf(extra=names), b"zzzzzzzz"))
    with pytest.raises(CertificateInvalid, match="do not parse"):
        chains.verify(odd, [ROOT, odd], [CA], at=NOW)
    with pytest.raises(KeyFileInvalid, match="does not parse"):
        key_files.read(broken(leaf(called="abcdefgh"), b"abcdefgh"))
    asked = x509.CertificateSigningRequestBuilder(x509.Name.from_rfc4514_string("CN=abcdefgh"))
    request = asked.add_extension(names[0][0], critical=False).sign(KEYS["leaf"], hashes.SHA256())
    for text in (b"abcdefgh", b"zzzzzzzz"):
        with pytest.raises(CertificateInvalid, match="does not parse"):
            certificates.read_request(broken(request, text))
    with pytest.raises(CertificateInvalid, match="does not parse"):
        certificates.read_list(broken(crl(of="abcdefgh", by="ca"), b"abcdefgh"))
