"""Makes certificates, requests and revocation lists (RFC 5280, 2986) with a key in the HSM.

What a certificate is for is its profile, a row of `PROFILES`. A request gives names and a public key, and nothing
else: which extensions a certificate has, the profile says. `cryptography` encodes; the key signs where it is.

Functions of the key, their arguments and the time; `authority` keeps a CA's certificates and lists in a keyring.
"""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.asn1 import encode_der
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from lnh.objects.as_cryptography import EcKey, KeyInHsm, RsaKey, sign_with
from lnh.objects.key_files import key_type_of, spki
from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, CertificateInvalid, KeyFileInvalid, LimitReached, MechanismInvalid
from lnh_common.pkcs11.algorithms import RSA_BITS
from lnh_common.pkcs11.attributes import Attribute, Attributes
from lnh_common.pkcs11.mechanisms import Mechanism

T = TypeVar("T")
Subject: TypeAlias = str | x509.Name
Names: TypeAlias = Sequence[str | x509.GeneralName]

# What the library raises for what does not parse, at once or when that part is asked for.
UNPARSED: Final = (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
_BACKDATED: Final = dt.timedelta(seconds=limits.ISSUED_AT_TOLERANCE)  # clocks of those who verify may be behind ours
_M = Mechanism


class Profile(str, enum.Enum):
    """The purpose of a certificate."""

    CA = "ca"
    SERVER = "server"
    CLIENT = "client"
    CODE_SIGNING = "code-signing"


@dataclass(frozen=True)
class ProfileRule:
    """The extensions of a certificate of one profile.

    Args:
        usages: of KeyUsage (RFC 5280, 4.2.1.3), as `x509.KeyUsage` names them.
        purpose: of ExtendedKeyUsage; None for none.
        days: of validity, where nothing else is said.
        is_ca: whether it signs certificates and lists.
        named: whether it must have a name among its alternative names.
    """

    usages: frozenset[str]
    purpose: x509.ObjectIdentifier | None
    days: int
    is_ca: bool = False
    named: bool = False


_SIGNS: Final = frozenset({"digital_signature"})
PROFILES: Final[dict[Profile, ProfileRule]] = {
    Profile.CA: ProfileRule(frozenset({"key_cert_sign", "crl_sign"}), None, 3650, is_ca=True),
    Profile.SERVER: ProfileRule(_SIGNS, ExtendedKeyUsageOID.SERVER_AUTH, 365, named=True),
    Profile.CLIENT: ProfileRule(_SIGNS, ExtendedKeyUsageOID.CLIENT_AUTH, 365),
    Profile.CODE_SIGNING: ProfileRule(_SIGNS, ExtendedKeyUsageOID.CODE_SIGNING, 365),
}
_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)

_NAME_KINDS: Final[dict[str, Callable[[str], x509.GeneralName]]] = {
    "dns": x509.DNSName,
    "ip": lambda text: x509.IPAddress(ipaddress.ip_address(text)),
    "email": x509.RFC822Name,
    "uri": x509.UniformResourceIdentifier,
}

# How a key signs a certificate: the first of these that its ALLOWED_MECHANISMS has.
_RSA_SIGNATURES: Final[dict[Mechanism, tuple[hashes.HashAlgorithm, bool]]] = {
    _M.SHA256_RSA_PKCS: (hashes.SHA256(), False),
    _M.SHA384_RSA_PKCS: (hashes.SHA384(), False),
    _M.SHA512_RSA_PKCS: (hashes.SHA512(), False),
    _M.SHA256_RSA_PKCS_PSS: (hashes.SHA256(), True),
    _M.SHA384_RSA_PKCS_PSS: (hashes.SHA384(), True),
    _M.SHA512_RSA_PKCS_PSS: (hashes.SHA512(), True),
}
_EC_SIGNATURES: Final[dict[Mechanism, hashes.HashAlgorithm]] = {
    _M.ECDSA_SHA256: hashes.SHA256(),
    _M.ECDSA_SHA384: hashes.SHA384(),
    _M.ECDSA_SHA512: hashes.SHA512(),
}


class HasAttributes(Protocol):
    """An object, as `lnh.objects.keys.StoredObject` is."""

    attributes: Attributes


@dataclass(frozen=True)
class Revoked:
    """A certificate that is revoked: its serial number, since when, and why."""

    serial: int
    at: dt.datetime
    reason: x509.ReasonFlags = x509.ReasonFlags.unspecified


def subject_of(text: Subject) -> x509.Name:
    """Parse a subject, such as `CN=example.com,O=Example` (RFC 4514); raises ArgumentInvalid."""
    if isinstance(text, x509.Name):
        return text
    try:
        return x509.Name.from_rfc4514_string(text)
    except ValueError:
        raise ArgumentInvalid(f"subject {text[:100]!r} is no name such as CN=example.com,O=Example,C=DE") from None


def name_of(text: str | x509.GeneralName) -> x509.GeneralName:
    """Parse an alternative name: `DNS:a.example`, `IP:192.0.2.1`, `EMAIL:a@a.example`, `URI:https://a.example`.

    Raises ArgumentInvalid.
    """
    if isinstance(text, x509.GeneralName):
        return text
    kind, colon, value = text.partition(":")
    make = _NAME_KINDS.get(kind.lower())
    if not colon or not value or make is None:
        raise ArgumentInvalid(f"name {text[:100]!r}; one is DNS:a.example, IP:192.0.2.1, EMAIL:a@a.example or URI:...")
    try:
        return make(value)
    except ValueError:
        raise ArgumentInvalid(f"name {text[:100]!r} is not {kind.upper()}; of DNS names the ASCII form") from None


def serial_number(serial: int) -> bytes:
    """Encode a serial number as SERIAL_NUMBER has it: a DER INTEGER (PKCS#11 v3.1, 4.6.3); raises ArgumentInvalid."""
    if not 0 <= serial < 1 << 8 * limits.SERIAL_BYTES:
        raise ArgumentInvalid(f"a serial number has up to {limits.SERIAL_BYTES} bytes and is not negative")
    return encode_der(serial)


def named(which: Attribute, name: x509.Name) -> Callable[[HasAttributes], bool]:
    """Tell whether an object's SUBJECT or ISSUER is this name, in whatever way it is encoded."""

    def fits(found: HasAttributes) -> bool:
        value = found.attributes.get(Attribute.VALUE)
        if not isinstance(value, bytes):
            return False
        try:
            certificate = x509.load_der_x509_certificate(value)
            its = certificate.subject if which is Attribute.SUBJECT else certificate.issuer
        except (ValueError, x509.InvalidVersion):
            return False
        return its == name

    return fits


def request(key: KeyInHsm, subject: Subject, names: Names = ()) -> x509.CertificateSigningRequest:
    """Make a request for a certificate (RFC 2986), signed by the key that it is for.

    Args:
        subject: such as `CN=example.com,O=Example`.
        names: alternative ones, such as `DNS:a.example`.

    Raises ArgumentInvalid, LimitReached, MechanismInvalid, KeyTypeInconsistent and what signing raises.
    """
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject_of(subject))
    if names:
        builder = builder.add_extension(_alternative(names), critical=False)
    signer, hash_, padding_ = _signing(key)
    return builder.sign(signer, hash_, rsa_padding=padding_)


def self_signed(
    key: KeyInHsm,
    subject: Subject,
    profile: Profile = Profile.CA,
    *,
    days: int | None = None,
    names: Names = (),
    path_length: int | None = None,
    at: dt.datetime | None = None,
) -> x509.Certificate:
    """Make a certificate of a key, signed by that key itself.

    Args:
        days: of validity, up to 100 years; None for the profile's.
        path_length: of a CA, how many CAs may stand below it; None for any number.
        at: the time, None for now.

    Raises ArgumentInvalid, CertificateInvalid, LimitReached, MechanismInvalid, KeyTypeInconsistent and what signing
    raises.
    """
    name = subject_of(subject)
    signer, _, _ = _signing(key)
    public = signer.public_key()
    now = _utc(at)
    builder = _builder(profile, name, public, names, path_length)
    builder = builder.issuer_name(name).not_valid_before(now - _BACKDATED).not_valid_after(_until(now, profile, days))
    return _signed(builder, key)


def issue(
    key: KeyInHsm,
    issuer: x509.Certificate,
    asked: x509.CertificateSigningRequest,
    profile: Profile,
    *,
    days: int | None = None,
    subject: Subject | None = None,
    names: Names | None = None,
    path_length: int | None = None,
    at: dt.datetime | None = None,
) -> x509.Certificate:
    """Make the certificate that a request asks for, signed by a CA's key.

    Of the request the subject, the alternative names and the public key are taken; the rest says the profile.

    Args:
        key: of the CA.
        issuer: the CA's certificate.
        days: of validity; None for the profile's, or until the CA's own end where that is sooner.
        subject, names: in place of the request's.
        path_length: of a CA, how many CAs may stand below it; None for as many as the issuer allows.
        at: the time, None for now.

    Raises CertificateInvalid for a request that its key did not sign, an issuer that is no CA, is not this key's, or
    ends sooner; ArgumentInvalid, LimitReached, MechanismInvalid and what signing raises.
    """
    now = _utc(at)
    check_issuer(key, issuer, now)
    public = _proven(asked)
    name = subject_of(subject) if subject is not None else asked.subject
    below = _path_length_below(issuer, profile, path_length)
    builder = _builder(profile, name, public, _names_of(asked) if names is None else names, below)
    end = _until(now, profile, days)
    if end > issuer.not_valid_after_utc:
        if days is not None:
            raise CertificateInvalid(f"valid until {end:%Y-%m-%d}: its CA ends {issuer.not_valid_after_utc:%Y-%m-%d}")
        end = issuer.not_valid_after_utc
    builder = builder.issuer_name(issuer.subject).not_valid_after(end)
    builder = builder.not_valid_before(max(now - _BACKDATED, issuer.not_valid_before_utc))
    return _signed(builder.add_extension(_authority_key(issuer), critical=False), key)


def revocation_list(
    key: KeyInHsm,
    issuer: x509.Certificate,
    revoked: Iterable[Revoked],
    number: int,
    *,
    days: int = 30,
    at: dt.datetime | None = None,
) -> x509.CertificateRevocationList:
    """Make a CA's list of the certificates that it revoked (RFC 5280, 5).

    Args:
        number: of the list; the next one's is greater.
        days: until the next list is due.

    Raises as `issue`.
    """
    now = _utc(at)
    check_issuer(key, issuer, now)
    _check_days(days)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject)
    builder = builder.last_update(now).next_update(now + dt.timedelta(days=days))
    for each in sorted(revoked, key=lambda one: one.serial):
        entry = x509.RevokedCertificateBuilder().serial_number(each.serial).revocation_date(_utc(each.at))
        if each.reason is not x509.ReasonFlags.unspecified:  # which RFC 5280, 5.3.1 wants left out
            entry = entry.add_extension(x509.CRLReason(each.reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    builder = builder.add_extension(x509.CRLNumber(number), critical=False)
    builder = builder.add_extension(_authority_key(issuer), critical=False)
    signer, hash_, padding_ = _signing(key)
    return builder.sign(signer, hash_, rsa_padding=padding_)


def read_request(data: bytes | str) -> x509.CertificateSigningRequest:
    """Read a request in PEM or DER; raises CertificateInvalid."""
    data = data.encode() if isinstance(data, str) else data
    load = x509.load_pem_x509_csr if b"-----BEGIN " in data else x509.load_der_x509_csr
    return _read(load, data, "request", lambda found: (found.subject, found.extensions))


def read_list(data: bytes | str) -> x509.CertificateRevocationList:
    """Read a revocation list in PEM or DER; raises CertificateInvalid."""
    data = data.encode() if isinstance(data, str) else data
    load = x509.load_pem_x509_crl if b"-----BEGIN " in data else x509.load_der_x509_crl
    return _read(load, data, "revocation list", lambda found: (found.issuer, found.extensions, revoked_by(found)))


def _read(load: Callable[[bytes], T], data: bytes, what: str, touch: Callable[[T], object]) -> T:
    """Load a file; `touch` asks for what the library parses only when it is asked for."""
    if len(data) > limits.KEY_FILE_BYTES:
        raise CertificateInvalid(f"a {what} of {len(data)} bytes; at most {limits.KEY_FILE_BYTES}")
    try:
        found = load(data)
        touch(found)
    except UNPARSED:
        raise CertificateInvalid(f"the file is no {what} in PEM or DER, or a part of it does not parse") from None
    return found


def check_names(certificate: x509.Certificate) -> None:
    """Check that the names in a certificate parse; raises CertificateInvalid."""
    try:
        _ = certificate.subject, certificate.issuer
    except ValueError:
        raise CertificateInvalid("a certificate whose subject or issuer does not parse") from None


def genuine_list(value: bytes, issuer: x509.Certificate) -> x509.CertificateRevocationList | None:
    """Return the revocation list in DER that this CA signed; None for anything else."""
    try:
        found = x509.load_der_x509_crl(value)
        is_signed = found.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # another kind: TypeError
        is_signed = is_signed and found.issuer == issuer.subject
    except (*UNPARSED, TypeError, UnsupportedAlgorithm):
        return None
    return found if is_signed else None


def crl_number(crl: x509.CertificateRevocationList) -> int:
    """Return the number of a revocation list; 0 for one without."""
    numbers = [each.value.crl_number for each in crl.extensions if isinstance(each.value, x509.CRLNumber)]
    return numbers[0] if numbers else 0


def revoked_by(crl: x509.CertificateRevocationList) -> list[Revoked]:
    """Return what a revocation list says is revoked."""
    return [Revoked(each.serial_number, each.revocation_date_utc, _reason(each)) for each in crl]


def _reason(entry: x509.RevokedCertificate) -> x509.ReasonFlags:
    reasons = [each.value.reason for each in entry.extensions if isinstance(each.value, x509.CRLReason)]
    return reasons[0] if reasons else x509.ReasonFlags.unspecified


def key_identifier_of(certificate: x509.Certificate) -> bytes:
    """Return the identifier of a CA's key, as the certificates below it name it."""
    found = extension(certificate, x509.SubjectKeyIdentifier)
    if found is not None:
        return found.digest
    return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest


def check_issuer(key: KeyInHsm, issuer: x509.Certificate, at: dt.datetime) -> None:
    """Check that this is the certificate of a CA with this key, and valid; raises CertificateInvalid."""
    check_names(issuer)
    if spki(issuer.public_key()) != key[Attribute.PUBLIC_KEY_INFO]:
        raise CertificateInvalid("the CA's certificate is of another key")
    check_is_ca(issuer)
    if not issuer.not_valid_before_utc <= at <= issuer.not_valid_after_utc:
        begin, end = issuer.not_valid_before_utc, issuer.not_valid_after_utc
        raise CertificateInvalid(f"the CA's certificate is valid from {begin:%Y-%m-%d} to {end:%Y-%m-%d} only")


def check_is_ca(certificate: x509.Certificate) -> None:
    """Check that a certificate may sign others; raises CertificateInvalid."""
    basic = extension(certificate, x509.BasicConstraints)
    if basic is None or not basic.ca:
        raise CertificateInvalid(f"{said(certificate)} is no CA")
    usage = extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise CertificateInvalid(f"{said(certificate)} may not sign certificates: its key usage lacks keyCertSign")


def extension(certificate: x509.Certificate | x509.CertificateSigningRequest, kind: type[T]) -> T | None:
    """Return the extension of this kind, or None; raises CertificateInvalid for extensions that do not parse."""
    try:
        found = [each.value for each in certificate.extensions if isinstance(each.value, kind)]
    except UNPARSED:
        raise CertificateInvalid("its extensions do not parse, or one is there twice") from None
    return found[0] if found else None


def said(certificate: x509.Certificate) -> str:
    """Name a certificate in a message."""
    return f"certificate {certificate.subject.rfc4514_string()[:100]!r} (serial {certificate.serial_number:x})"


def _builder(
    profile: Profile, subject: x509.Name, public: Any, names: Names, path_length: int | None
) -> x509.CertificateBuilder:
    rule = PROFILES[profile]
    if path_length is not None and not rule.is_ca:
        raise ArgumentInvalid(f"path_length is a CA's; the profile is {profile.value}")
    if path_length is not None and path_length < 0:
        raise ArgumentInvalid(f"path_length {path_length}; 0 or more")
    if rule.named and not names:
        raise CertificateInvalid(f"the profile {profile.value} needs a name, such as DNS:a.example")
    if not list(subject) and (rule.is_ca or not names):
        raise CertificateInvalid("the subject is empty; a CA needs one, and whatever has no alternative name")
    builder = x509.CertificateBuilder().subject_name(subject).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.add_extension(x509.BasicConstraints(rule.is_ca, path_length), critical=True)
    usages = rule.usages | {"key_encipherment"} if _also_encrypts(profile, public) else rule.usages
    builder = builder.add_extension(x509.KeyUsage(**{name: name in usages for name in _USAGES}), critical=True)
    if rule.purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([rule.purpose]), critical=False)
    if names:
        builder = builder.add_extension(_alternative(names), critical=not list(subject))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)


def _also_encrypts(profile: Profile, public: object) -> bool:
    """Tell whether it is an RSA server's, to which older clients encrypt."""
    return profile is Profile.SERVER and isinstance(public, rsa.RSAPublicKey)


def _alternative(names: Names) -> x509.SubjectAlternativeName:
    if len(names) > limits.SUBJECT_NAMES:
        raise LimitReached(f"{len(names)} names in one certificate; at most {limits.SUBJECT_NAMES}")
    return x509.SubjectAlternativeName([name_of(name) for name in names])


def _names_of(asked: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    found = extension(asked, x509.SubjectAlternativeName)
    return list(found) if found is not None else []


def _proven(asked: x509.CertificateSigningRequest) -> Any:
    """Return a request's public key, once it has proved that its owner made it."""
    try:
        public, _ = asked.public_key(), asked.subject
        if not asked.is_signature_valid:
            raise CertificateInvalid("the request is not signed by the key that it is for")
        key_type_of(public)
    except KeyFileInvalid as error:
        raise CertificateInvalid(f"the request is for {error}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise CertificateInvalid("the request is for a key of a kind that is not read") from None
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < RSA_BITS[0]:
        raise CertificateInvalid(f"the request is for an RSA key of {public.key_size} bits; at least {RSA_BITS[0]}")
    return public


def _path_length_below(issuer: x509.Certificate, profile: Profile, wanted: int | None) -> int | None:
    """Return the path length of a certificate below this issuer; raises CertificateInvalid where there is no room."""
    if not PROFILES[profile].is_ca:
        return wanted
    basic = extension(issuer, x509.BasicConstraints)
    room = basic.path_length if basic is not None else None
    if room is None:
        return wanted
    if room == 0:
        raise CertificateInvalid("the CA may have no CA below it: its path length is 0")
    if wanted is not None and wanted >= room:
        raise CertificateInvalid(f"path_length {wanted} below a CA of path length {room}; at most {room - 1}")
    return room - 1 if wanted is None else wanted


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    found = extension(issuer, x509.SubjectKeyIdentifier)
    if found is not None:
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]  # a CA's signs


def _until(now: dt.datetime, profile: Profile, days: int | None) -> dt.datetime:
    days = PROFILES[profile].days if days is None else days
    _check_days(days)
    return now + dt.timedelta(days=days)


def _check_days(days: int) -> None:
    if not 1 <= days <= limits.CERTIFICATE_DAYS:
        raise ArgumentInvalid(f"days {days}; from 1 to {limits.CERTIFICATE_DAYS}")


def _utc(at: dt.datetime | None) -> dt.datetime:
    """Return a moment in whole seconds of UTC, as certificates have it."""
    if at is None:
        at = dt.datetime.now(dt.timezone.utc)
    if at.tzinfo is None:
        raise ArgumentInvalid("a time without its zone; give one of dt.timezone.utc")
    return at.astimezone(dt.timezone.utc).replace(microsecond=0)


def _signed(builder: x509.CertificateBuilder, key: KeyInHsm) -> x509.Certificate:
    signer, hash_, padding_ = _signing(key)
    return builder.sign(signer, hash_, rsa_padding=padding_)


def _signing(key: KeyInHsm) -> tuple[Any, Any, padding.PSS | None]:
    """Choose how a key signs: the wrapped key, the hash and RSA's padding; raises MechanismInvalid."""
    wrapped = sign_with(key)
    allowed = key[Attribute.ALLOWED_MECHANISMS]
    assert isinstance(allowed, list), "ALLOWED_MECHANISMS is a list"
    if isinstance(wrapped, RsaKey):
        for mechanism, (hash_, is_pss) in _RSA_SIGNATURES.items():
            if mechanism in allowed:
                return wrapped, hash_, padding.PSS(padding.MGF1(hash_), padding.PSS.DIGEST_LENGTH) if is_pss else None
        raise MechanismInvalid(f"the key is allowed none of {', '.join(each.name for each in _RSA_SIGNATURES)}")
    if isinstance(wrapped, EcKey):
        fitting = sorted(_EC_SIGNATURES, key=lambda each: _distance(wrapped.curve, _EC_SIGNATURES[each]))
        for mechanism in fitting:
            if mechanism in allowed:
                return wrapped, _EC_SIGNATURES[mechanism], None
        raise MechanismInvalid(f"the key is allowed none of {', '.join(each.name for each in _EC_SIGNATURES)}")
    return wrapped, None, None


def _distance(curve: ec.EllipticCurve, hash_: hashes.HashAlgorithm) -> int:
    return abs(curve.key_size - 8 * hash_.digest_size)
