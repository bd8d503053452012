"""A small CA: its key, its certificate and its revocation lists are objects of one keyring.

    ca = Authority.create(session, private, "CN=root,O=Example")
    certificate = ca.issue(request_pem, Profile.SERVER)
    crl = ca.revoke([certificate.serial_number])

The newest revocation list is a data object, and says all there is to know of what was revoked. Two administrators who
revoke at the same time each write a list, and whoever is next makes one of all lists there are; so neither forgets what
the other revoked. Certificates that were issued are kept by those who asked for them, or imported like any other.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lnh.arguments import checked
from lnh.objects import certificates
from lnh.objects.certificates import Names, Profile, Revoked, Subject
from lnh.objects.keys import Certificate, DataObject, PrivateKey
from lnh.objects.session import ObjectSession
from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, CertificateInvalid, LimitReached, ObjectUnknown, VersionConflict
from lnh_common.pkcs11.attributes import Attribute, Attributes, ObjectClass

_LISTS: Final = "lnh revocation list"  # APPLICATION of the data objects
_ATTEMPTS: Final = 5  # to write a list while others write theirs


@checked
class Authority:
    """A CA of a keyring.

    Attributes:
        key: signs.
        certificate: the CA's.
    """

    def __init__(self, session: ObjectSession, key: PrivateKey, certificate: Certificate) -> None:
        self.session: Final = session
        self.key: Final = key
        self.certificate: Final = certificate
        self._loaded: Final = certificate.as_cryptography()

    @classmethod
    def create(
        cls,
        session: ObjectSession,
        key: PrivateKey,
        subject: Subject,
        *,
        days: int | None = None,
        path_length: int | None = None,
    ) -> Authority:
        """Make a key a root CA: it signs itself a certificate, which is kept with the key's label and ID.

        Args:
            subject: such as `CN=root,O=Example`.
            days: of validity; None for ten years.
            path_length: how many CAs may stand below it; None for any number.

        Raises as `certificates.self_signed` and `ObjectSession.create_object` do.
        """
        made = certificates.self_signed(key, subject, Profile.CA, days=days, path_length=path_length)
        return cls(session, key, keep(session, made, key.label, key.id))

    @classmethod
    def find(cls, session: ObjectSession, key: PrivateKey) -> Authority:
        """Find the CA of a key: of the certificates with its public key the CA's that ends last.

        Raises ObjectUnknown where the keyring has none.
        """
        wanted = {
            Attribute.CLASS: ObjectClass.CERTIFICATE.value,
            Attribute.PUBLIC_KEY_INFO: key[Attribute.PUBLIC_KEY_INFO],
        }
        found: list[tuple[dt.datetime, Certificate]] = []
        for each in session.find(wanted):
            assert isinstance(each, Certificate), "its CLASS says so"
            loaded = each.as_cryptography()
            with contextlib.suppress(CertificateInvalid):
                certificates.check_is_ca(loaded)
                found.append((loaded.not_valid_after_utc, each))
        if not found:
            said = f"no CA's certificate of key {key.label!r} in this keyring"
            raise ObjectUnknown(said, {"advice": "lnh certificate self-sign KEY, or lnh certificate import FILE"})
        return cls(session, key, max(found, key=lambda each: each[0])[1])

    def issue(
        self,
        request: x509.CertificateSigningRequest | bytes | str,
        profile: Profile,
        *,
        days: int | None = None,
        subject: Subject | None = None,
        names: Names | None = None,
        path_length: int | None = None,
    ) -> x509.Certificate:
        """Make the certificate that a request asks for, as `certificates.issue` does.

        Args:
            request: or its PEM or DER.

        Raises CertificateInvalid, ArgumentInvalid, LimitReached and what signing raises.
        """
        asked = request if isinstance(request, x509.CertificateSigningRequest) else certificates.read_request(request)
        return certificates.issue(
            self.key,
            self._loaded,
            asked,
            profile,
            days=days,
            subject=subject,
            names=names,
            path_length=path_length,
        )

    def revoke(
        self,
        serials: Sequence[int],
        *,
        reason: x509.ReasonFlags = x509.ReasonFlags.unspecified,
        days: int = 30,
    ) -> x509.CertificateRevocationList:
        """Revoke certificates by their serial numbers, for good, and return the CA's new revocation list.

        Args:
            reason: why.
            days: until the next list is due.

        Raises ArgumentInvalid, LimitReached for a list that no data object holds (some 1 200 certificates), and as
        `revocation_list` does.
        """
        for serial in serials:
            if not 0 < serial < 1 << 8 * limits.SERIAL_BYTES:
                raise ArgumentInvalid(f"a serial number is positive and has up to {limits.SERIAL_BYTES} bytes")
        now = dt.datetime.now(dt.timezone.utc)
        return self._write([Revoked(serial, now, reason) for serial in serials], days)

    def revocation_list(self, days: int = 30) -> x509.CertificateRevocationList:
        """Make the CA's list of all that it revoked, and keep it in place of the last one.

        Args:
            days: until the next list is due.

        Raises CertificateInvalid, VersionConflict while others write their lists all the time, and what signing raises.
        """
        return self._write([], days)

    def _write(self, more: list[Revoked], days: int) -> x509.CertificateRevocationList:
        """Make a list of all that there are and of what is revoked now, until no other one was written meanwhile."""
        before = self._lists()
        for _ in range(_ATTEMPTS):
            revoked = {each.serial: each for each in more}
            number = 0
            for _, crl in before:
                number = max(number, certificates.crl_number(crl))
                revoked |= {each.serial: each for each in certificates.revoked_by(crl)}
            made = certificates.revocation_list(self.key, self._loaded, revoked.values(), number + 1, days=days)
            self._keep(made)
            for found, _ in before:
                with contextlib.suppress(ObjectUnknown):  # another administrator was first
                    found.destroy()
            before = self._lists()
            if all(each.serial in revoked for _, crl in before for each in certificates.revoked_by(crl)):
                return made
        raise VersionConflict("others wrote revocation lists of this CA meanwhile; nothing is lost")

    def _keep(self, crl: x509.CertificateRevocationList) -> None:
        value = crl.public_bytes(Encoding.DER)
        if len(value) > limits.DATA_BYTES:
            raise LimitReached(f"a revocation list of {len(value)} bytes; a data object holds {limits.DATA_BYTES}")
        self.session.create_object(ObjectClass.DATA, value, template=self._names(), label=self.key.label, private=False)

    def _lists(self) -> list[tuple[DataObject, x509.CertificateRevocationList]]:
        """Return the lists that this CA signed; what else has their name is not believed."""
        objects = self.session.find(self._names(), current=True, object_class=ObjectClass.DATA)
        read = [
            (each, certificates.genuine_list(each.value, self._loaded))
            for each in objects
            if isinstance(each, DataObject)
        ]
        return [(each, crl) for each, crl in read if crl is not None]

    def _names(self) -> Attributes:
        """Return what the objects with this CA's lists are named by."""
        return {Attribute.APPLICATION: _LISTS, Attribute.OBJECT_ID: certificates.key_identifier_of(self._loaded)}


def keep(session: ObjectSession, certificate: x509.Certificate, label: str, key_id: bytes) -> Certificate:
    """Keep a certificate in a keyring; raises as `ObjectSession.create_object` does."""
    made = session.create_object(
        ObjectClass.CERTIFICATE, certificate.public_bytes(Encoding.DER), label=label, id=key_id
    )
    assert isinstance(made, Certificate), "it was made as one"
    return made
