"""Verifies that a certificate chains up to a root that is trusted (RFC 5280, 6.1). Pure: certificates and a time in.

Here, and not by `cryptography`'s verifier, because that one follows the rules of web browsers: it knows no Ed25519,
Ed448, secp256k1 or brainpool keys and no code signing. The library still parses, and checks each signature.

A chain is looked for from the certificate upwards: whoever has the name that it calls its issuer, and the key that
signed it, is one. What is not understood and critical is refused, as are constraints on names, which are not compared
here. A root counts because it is given as one; of it the dates, what it may sign, and its path length are checked too.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from lnh.objects.certificates import PROFILES, UNPARSED, Profile, check_is_ca, check_names, extension, said
from lnh.objects.key_files import key_type_of
from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, CertificateInvalid, KeyFileInvalid, LimitReached
from lnh_common.pkcs11.algorithms import RSA_BITS

_UNDERSTOOD: Final = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)
_WEAK_HASHES: Final = frozenset({"md5", "sha1"})


@dataclass(frozen=True)
class _Given:
    """What a verification rests on."""

    roots: Sequence[x509.Certificate]
    intermediates: Sequence[x509.Certificate]
    crls: Sequence[x509.CertificateRevocationList]
    at: dt.datetime
    profile: Profile | None


def verify(
    certificate: x509.Certificate,
    roots: Sequence[x509.Certificate],
    intermediates: Sequence[x509.Certificate] = (),
    *,
    profile: Profile | None = None,
    crls: Sequence[x509.CertificateRevocationList] = (),
    at: dt.datetime | None = None,
) -> tuple[x509.Certificate, ...]:
    """Find the chain from a certificate to a root, both in it.

    Args:
        roots: trusted without a signature.
        intermediates: that may stand between, in any order; more than are needed do no harm.
        profile: what the certificate must be for; None for anything.
        crls: revocation lists. With any, the certificate's issuer must have one that is in force; each other one of the
            chain is looked up where its issuer has one.
        at: the time, None for now.

    Raises CertificateInvalid, naming the condition that failed of the most nearly complete chain; LimitReached when a
    chain is not found in 100 signatures.
    """
    if at is not None and at.tzinfo is None:
        raise ArgumentInvalid("a time without its zone; give one of dt.timezone.utc")
    given = _Given(roots, intermediates, crls, at or dt.datetime.now(dt.timezone.utc), profile)
    for each in (certificate, *roots, *intermediates):
        check_names(each)
    _check_purpose(certificate, profile)
    search = _Search(given)
    for path in search.paths((certificate,)):
        try:
            _check(path, given)
        except CertificateInvalid as error:
            search.refuse(path, error.message)
        else:
            return path
    raise CertificateInvalid(search.refusal())


class _Search:
    """A search for chains, of a bounded number of signatures."""

    def __init__(self, given: _Given) -> None:
        self._given = given
        self._signatures = 0
        self._refusals: list[tuple[int, str]] = []

    def paths(self, path: tuple[x509.Certificate, ...]) -> Iterator[tuple[x509.Certificate, ...]]:
        """Yield the chains that begin with this one and end at a root."""
        last = path[-1]
        if last in self._given.roots:
            yield path
            return
        if weak := _weak_hash(last):
            self.refuse(path, f"{said(last)} is signed over {weak}, which is not strong enough")
            return
        if len(path) == limits.CHAIN_CERTIFICATES:
            self.refuse(path, f"a chain of more than {limits.CHAIN_CERTIFICATES} certificates")
            return
        found = False
        for issuer in dict.fromkeys((*self._given.roots, *self._given.intermediates)):
            if issuer.subject == last.issuer and issuer not in path and self._signed(last, issuer):
                found = True
                yield from self.paths((*path, issuer))
        if not found:
            self.refuse(path, f"{said(last)}: its issuer is not here: {last.issuer.rfc4514_string()[:100]!r}")

    def refuse(self, path: tuple[x509.Certificate, ...], why: str) -> None:
        """Note why a chain that came so far does not hold."""
        self._refusals.append((len(path), why))

    def refusal(self) -> str:
        """Say why no chain holds: what is wrong with the one that came furthest."""
        return max(self._refusals, key=lambda each: each[0])[1]

    def _signed(self, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
        self._signatures += 1
        if self._signatures > limits.CHAIN_SIGNATURES:
            raise LimitReached(f"more than {limits.CHAIN_SIGNATURES} signatures tried; give fewer intermediates")
        try:
            certificate.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False
        return True


def _weak_hash(signed: x509.Certificate | x509.CertificateRevocationList) -> str:
    """Name the hash that a certificate or list is signed over, if it is weak; the library checks no such signature."""
    try:
        hash_ = signed.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return "an unknown algorithm"
    return hash_.name if hash_ is not None and hash_.name in _WEAK_HASHES else ""


def _check(path: tuple[x509.Certificate, ...], given: _Given) -> None:
    """Check all that must hold of a chain whose signatures are right; raises CertificateInvalid."""
    below = 0  # certificates of CAs below the one that is looked at, but for those that a CA made of itself
    for place, certificate in enumerate(path):
        _check_dates(certificate, given.at)
        _check_critical(certificate)
        is_root = place == len(path) - 1
        if not is_root:
            _check_key(certificate)
            _check_revocation(certificate, path[place + 1], given, needed=place == 0)
        if place == 0:
            continue
        check_is_ca(certificate)
        basic = extension(certificate, x509.BasicConstraints)
        if basic is not None and basic.path_length is not None and below > basic.path_length:
            raise CertificateInvalid(f"{said(certificate)} allows {basic.path_length} CAs below it; there are {below}")
        _check_ca_purpose(certificate, given.profile)
        if certificate.subject != certificate.issuer:
            below += 1


def _check_dates(certificate: x509.Certificate, at: dt.datetime) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= at <= end:
        raise CertificateInvalid(
            f"{said(certificate)} is valid from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
        )


def _check_critical(certificate: x509.Certificate) -> None:
    if extension(certificate, x509.NameConstraints) is not None:
        raise CertificateInvalid(f"{said(certificate)} constrains names, which is not checked here")
    for each in certificate.extensions:
        if each.critical and not isinstance(each.value, _UNDERSTOOD):
            raise CertificateInvalid(f"{said(certificate)} has the critical extension {each.oid.dotted_string}")


def _check_key(certificate: x509.Certificate) -> None:
    """Check that a certificate is of a key that an HSM could have: of its types, on its curves, and long enough."""
    try:
        public = certificate.public_key()
        key_type_of(public)
    except KeyFileInvalid as error:
        raise CertificateInvalid(f"{said(certificate)} is of {error}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateInvalid(f"{said(certificate)} is of a key of a kind that is not read") from None
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < RSA_BITS[0]:
        raise CertificateInvalid(f"{said(certificate)} is of an RSA key of {public.key_size} bits")


def _check_purpose(certificate: x509.Certificate, profile: Profile | None) -> None:
    """Check that a certificate is for this."""
    if profile is None:
        return
    rule = PROFILES[profile]
    if rule.is_ca:
        check_is_ca(certificate)
        return
    purposes = extension(certificate, x509.ExtendedKeyUsage)
    if rule.purpose is not None and (purposes is None or rule.purpose not in purposes):
        raise CertificateInvalid(f"{said(certificate)} is not for {profile.value}, says its extended key usage")
    usage = extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        raise CertificateInvalid(f"{said(certificate)} may not sign: its key usage lacks digitalSignature")


def _check_ca_purpose(certificate: x509.Certificate, profile: Profile | None) -> None:
    """Check that a CA that limits what its certificates are for allows this."""
    wanted = PROFILES[profile].purpose if profile is not None else None
    purposes = extension(certificate, x509.ExtendedKeyUsage)
    if wanted is None or purposes is None or {wanted, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(purposes):
        return
    raise CertificateInvalid(f"{said(certificate)} makes no certificates for {profile.value if profile else ''}")


def _check_revocation(certificate: x509.Certificate, issuer: x509.Certificate, given: _Given, *, needed: bool) -> None:
    if not given.crls:
        return
    lists = [each for each in given.crls if _is_in_force(each, issuer, given.at)]
    weak = next((hash_ for each in given.crls if (hash_ := _weak_hash(each)) and _names(each, issuer)), "")
    if weak and not lists:
        raise CertificateInvalid(f"{said(issuer)} signs its revocation list over {weak}, which is not strong enough")
    if not lists and needed:
        raise CertificateInvalid(f"{said(certificate)}: its issuer has no revocation list that is in force")
    for each in lists:
        found = each.get_revoked_certificate_by_serial_number(certificate.serial_number)
        if found is not None and found.revocation_date_utc <= given.at:
            raise CertificateInvalid(
                f"{said(certificate)} was revoked on {found.revocation_date_utc:%Y-%m-%d %H:%M} UTC"
            )


def _names(crl: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    try:
        return crl.issuer == issuer.subject
    except ValueError:
        return False


def _is_in_force(crl: x509.CertificateRevocationList, issuer: x509.Certificate, at: dt.datetime) -> bool:
    """Tell whether this is a complete list of that issuer, genuine, and not due for its next."""
    usage = extension(issuer, x509.KeyUsage)
    if usage is not None and not usage.crl_sign:
        return False
    try:
        if _weak_hash(crl) or crl.issuer != issuer.subject or any(each.critical for each in crl.extensions):
            return False
        if crl.next_update_utc is None or not crl.last_update_utc <= at <= crl.next_update_utc:
            return False
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # another kind raises TypeError
    except (*UNPARSED, TypeError, UnsupportedAlgorithm):
        return False
