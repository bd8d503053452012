"""`lnh certificate`: certificates of a keyring, requests for them, and a CA whose key is in the keyring."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lnh_cli.nouns import key as keys
from lnh_cli.support import files, named, terminal
from lnh_cli.support.command import Output, Yes, noun, verb
from lnh_cli.support.options import ObjectOptions
from lnh_common import limits

if TYPE_CHECKING:
    from cryptography import x509

    from lnh.objects.authority import Authority
    from lnh.objects.certificates import Profile
    from lnh.objects.keys import Certificate, PrivateKey
    from lnh.objects.session import ObjectSession

app = noun("certificate", "Certificates of a keyring, and a CA whose key is in it.")

CertificateArgument = Annotated[
    str, typer.Argument(metavar="CERTIFICATE", help="Label, handle, or serial: and its number in hexadecimal.")
]
CaArgument = Annotated[str, typer.Argument(metavar="CA", help="Label or handle of the CA's key.")]
Subject = Annotated[str, typer.Option(help="Such as CN=a.example,O=Example.")]
OtherSubject = Annotated[str | None, typer.Option("--subject", help="In place of the request's.")]
Names = Annotated[
    list[str] | None,
    typer.Option("--name", help="DNS:a.example, IP:192.0.2.1, EMAIL:... or URI:...; repeatable."),
]
ProfileOption = Annotated[str, typer.Option(help="ca, server, client or code-signing.")]
Days = Annotated[int | None, typer.Option(min=1, max=limits.CERTIFICATE_DAYS, help="Of validity.")]
PathLength = Annotated[int | None, typer.Option(min=0, help="Of a CA: how many CAs may stand below it.")]
Also = Annotated[Path | None, typer.Option("--output", "-o", help="File to write it to, too.", callback=files.writable)]
RequestFile = Annotated[
    Path,
    typer.Argument(metavar="REQUEST", help="The request (CSR), PEM or DER.", allow_dash=True, callback=files.readable),
]
Der = Annotated[bool, typer.Option("--der", help="DER instead of PEM.")]
Due = Annotated[int, typer.Option("--days", min=1, max=limits.CERTIFICATE_DAYS, help="Until the next list is due.")]
_REVOKED_FOR = (
    "unspecified, key-compromise, ca-compromise, affiliation-changed, superseded, cessation-of-operation, "
    "certificate-hold or privilege-withdrawn"
)


@verb(app, "import", ObjectOptions)
def import_(
    options: ObjectOptions,
    file: files.Input = None,
    label: Annotated[str | None, typer.Option(help="None takes the name in the certificate.")] = None,
    key_id: Annotated[str | None, typer.Option("--id", help="ID, hexadecimal; None takes that of its key.")] = None,
) -> None:
    """Import the certificates of a file: PEM, DER or PKCS #7. What holds keys too is for `lnh key import`."""
    from lnh_common.pkcs11.attributes import ObjectClass

    data = files.read(file, limits.KEY_FILE_BYTES)
    attributes: dict[str, Any] = {} if key_id is None else {"id": files.unhex(key_id)}
    with options.objects() as session:
        made = session.import_file(data, label=label, only=ObjectClass.CERTIFICATE, **attributes)
        _rows(options, made)


@verb(app, "list", ObjectOptions)
def list_(
    options: ObjectOptions,
    label: Annotated[str | None, typer.Option(help="Only with this label.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only of this subject, as a whole.")] = None,
    issuer: Annotated[str | None, typer.Option(help="Only of this issuer, as a whole.")] = None,
    serial: Annotated[str | None, typer.Option(help="Only with this serial number, hexadecimal.")] = None,
) -> None:
    """List the certificates."""
    from lnh.objects import certificates

    number = None if serial is None else named.parse_serial(serial)
    for name in (subject, issuer):
        if name is not None:
            certificates.subject_of(name)
    wanted: dict[str, Any] = {} if label is None else {"label": label}
    with options.objects() as session:
        _rows(options, list(session.find_certificates(subject=subject, issuer=issuer, serial=number, **wanted)))


@verb(app, "show", ObjectOptions)
def show(options: ObjectOptions, certificate: CertificateArgument) -> None:
    """Show what a certificate says."""
    with options.objects() as session:
        found = find_certificate(session, certificate)
        options.record(_row(found) | _details(found.as_cryptography()))


@verb(app, "export", ObjectOptions)
def export(
    options: ObjectOptions, certificate: CertificateArgument, der: Der = False, output: files.Output = None
) -> None:
    """Write a certificate, in PEM or DER."""
    with options.objects() as session:
        found = find_certificate(session, certificate)
        as_der, as_pem = found.to_der(), found.to_pem()
    data, told = (as_der, {"der": as_der}) if der else (as_pem.encode(), {"pem": as_pem})
    files.write_result(output, data, as_json=options.json, told=told | {"handle": found.handle}, is_text=not der)


@verb(app, "delete", ObjectOptions)
def delete(options: ObjectOptions, certificate: CertificateArgument, yes: Yes = False) -> None:
    """Destroy a certificate; its key stays."""
    with options.objects() as session:
        found = find_certificate(session, certificate)
        terminal.confirm(f"Destroy certificate {certificate!r}? It cannot be undone.", yes=yes)
        found.destroy()
    options.say("destroyed 1 certificate", handles=[found.handle])


@verb(app, "request", ObjectOptions)
def request(
    options: ObjectOptions,
    key: keys.KeyArgument,
    subject: Subject,
    names: Names = None,
    der: Der = False,
    output: files.Output = None,
) -> None:
    """Write a request (CSR) for a certificate of a key, for any CA."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from lnh.objects import certificates

    wanted, others = certificates.subject_of(subject), [certificates.name_of(each) for each in names or ()]
    with options.objects() as session:
        made = certificates.request(_private(session, key), wanted, others)
    as_der, as_pem = made.public_bytes(Encoding.DER), made.public_bytes(Encoding.PEM)
    told = {"der": as_der} if der else {"pem": as_pem.decode()}
    files.write_result(output, as_der if der else as_pem, as_json=options.json, told=told, is_text=not der)


@verb(app, "self-sign", ObjectOptions)
def self_sign(
    options: ObjectOptions,
    key: keys.KeyArgument,
    subject: Subject,
    profile: ProfileOption = "ca",
    days: Days = None,
    names: Names = None,
    path_length: PathLength = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write it to, too.", callback=files.writable)
    ] = None,
) -> None:
    """Make a certificate that a key signs itself, and keep it with the key: a root CA, unless --profile says else."""
    from lnh.objects import certificates
    from lnh.objects.authority import keep

    wanted, name = _profile(profile), certificates.subject_of(subject)
    others = [certificates.name_of(each) for each in names or ()]
    with options.objects() as session:
        held = _private(session, key)
        made = certificates.self_signed(held, name, wanted, days=days, names=others, path_length=path_length)
        kept = keep(session, made, held.label, held.id)
        if output is not None:
            files.write(output, kept.to_pem().encode(), is_text=True)
        _rows(options, [kept])


@verb(app, "issue", ObjectOptions)
def issue(
    options: ObjectOptions,
    ca: CaArgument,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="REQUEST", help="The request (CSR), in PEM or DER.", allow_dash=True, callback=files.readable
        ),
    ],
    profile: Annotated[str, typer.Option(help="server, client, code-signing or ca.")],
    days: Days = None,
    subject: OtherSubject = None,
    names: Annotated[list[str] | None, typer.Option("--name", help="In place of the request's; repeatable.")] = None,
    path_length: PathLength = None,
    keep: Annotated[str | None, typer.Option("--keep", help="Keep it in the keyring, too, with this label.")] = None,
    der: Der = False,
    output: files.Output = None,
) -> None:
    """Issue the certificate that a request asks for, signed by a CA of the keyring."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from lnh.objects import certificates

    wanted = _profile(profile)
    asked = certificates.read_request(files.read(file, limits.KEY_FILE_BYTES))
    name = None if subject is None else certificates.subject_of(subject)
    others = [certificates.name_of(each) for each in names] if names else None
    with options.objects() as session:
        made = _authority(session, ca).issue(
            asked, wanted, days=days, subject=name, names=others, path_length=path_length
        )
        if keep is not None:
            session.import_file(made.public_bytes(Encoding.DER), label=keep)
    as_der, as_pem = made.public_bytes(Encoding.DER), made.public_bytes(Encoding.PEM)
    told: dict[str, Any] = {"der": as_der} if der else {"pem": as_pem.decode()}
    told |= {"serial": f"{made.serial_number:x}"}
    files.write_result(output, as_der if der else as_pem, as_json=options.json, told=told, is_text=not der)


@verb(app, "revoke", ObjectOptions)
def revoke(
    options: ObjectOptions,
    ca: CaArgument,
    which: Annotated[
        list[str],
        typer.Argument(metavar="SERIAL...", help="Serial numbers, hexadecimal, or certificates' files."),
    ],
    reason: Annotated[str, typer.Option(help=_REVOKED_FOR)] = "unspecified",
    days: Due = 30,
    yes: Yes = False,
    output: files.Output = None,
) -> None:
    """Revoke certificates of a CA for good, and write its new revocation list."""
    from cryptography.x509 import ReasonFlags

    names = {each.name.replace("_", "-"): each for each in ReasonFlags if each is not ReasonFlags.remove_from_crl}
    if reason not in names:
        terminal.refuse(f"no reason {reason!r}", _REVOKED_FOR, terminal.USAGE)
    serials = [_serial(each) for each in which]
    with options.objects() as session:
        authority = _authority(session, ca)
        terminal.confirm(f"Revoke {len(serials)} certificate(s) of {ca!r}? It cannot be undone.", yes=yes)
        made = authority.revoke(serials, reason=names[reason], days=days)
    _write_list(options, made, output)


@verb(app, "crl", ObjectOptions)
def crl(options: ObjectOptions, ca: CaArgument, days: Due = 30, output: files.Output = None) -> None:
    """Write a new revocation list of a CA, with all that it revoked."""
    with options.objects() as session:
        made = _authority(session, ca).revocation_list(days)
    _write_list(options, made, output)


@verb(app, "verify", Output)
def verify(
    options: Output,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The certificate; those behind it may stand between.")],
    roots: Annotated[list[Path], typer.Option("--root", help="File with roots that are trusted; repeatable.")],
    between: Annotated[
        list[Path] | None, typer.Option("--intermediate", help="File with certificates between; repeatable.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="What it must be for: server, client, code-signing, ca.")] = None,
    lists: Annotated[list[Path] | None, typer.Option("--crl", help="File with a revocation list; repeatable.")] = None,
    at: Annotated[str | None, typer.Option(help="The time in UTC, such as 2026-12-31T23:59; now without one.")] = None,
) -> None:
    """Verify that a certificate chains up to a trusted root. It needs no cluster."""
    from lnh.objects import certificates, chains

    wanted = None if profile is None else _profile(profile)
    moment = None if at is None else _moment(at)
    own = _certificates([file])
    chain = chains.verify(
        own[0],
        _certificates(roots),
        [*own[1:], *_certificates(between or ())],
        profile=wanted,
        crls=[certificates.read_list(files.read(each, limits.KEY_FILE_BYTES)) for each in lists or ()],
        at=moment,
    )
    options.rows([_said(each) for each in chain], "subject", "issuer", "serial", "until")


def find_certificate(session: ObjectSession, name: str) -> Certificate:
    """The certificate with this label, handle or serial number; raises ObjectUnknown, or LimitReached for several."""
    from lnh.objects.keys import Certificate
    from lnh_common.pkcs11.attributes import ObjectClass

    found = named.find_one(session, name, ObjectClass.CERTIFICATE)
    assert isinstance(found, Certificate), "its CLASS says so"
    return found


def _private(session: ObjectSession, key: str) -> PrivateKey:
    from lnh.objects.keys import PrivateKey
    from lnh_common.errors import KeyFunctionNotPermitted

    found = keys.find_key(session, key)
    if not isinstance(found, PrivateKey):
        raise KeyFunctionNotPermitted(f"{key!r} is no private key; only that signs certificates")
    return found


def _authority(session: ObjectSession, key: str) -> Authority:
    from lnh.objects.authority import Authority

    return Authority.find(session, _private(session, key))


def _profile(text: str) -> Profile:
    from lnh.objects.certificates import Profile

    profiles = {each.value: each for each in Profile}
    if text not in profiles:
        terminal.refuse(f"no profile {text!r}", ", ".join(profiles), terminal.USAGE)
    return profiles[text]


def _moment(text: str) -> dt.datetime:
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        terminal.refuse(f"{text!r} is no time", "2026-12-31T23:59, in UTC", terminal.USAGE)
    return found.replace(tzinfo=dt.timezone.utc) if found.tzinfo is None else found


def _certificates(paths: Sequence[Path]) -> list[x509.Certificate]:
    from cryptography import x509

    from lnh.objects import key_files
    from lnh_common.errors import KeyFileInvalid
    from lnh_common.pkcs11.attributes import ObjectClass

    found: list[x509.Certificate] = []
    for path in paths:
        held = key_files.read(files.read(path, limits.KEY_FILE_BYTES))
        certificates = [each for each in held if each.object_class is ObjectClass.CERTIFICATE]
        if not certificates:
            raise KeyFileInvalid(f"{path} holds no certificate")
        found += (x509.load_der_x509_certificate(each.value.reveal()) for each in certificates)
    return found


def _serial(text: str) -> int:
    """The serial number that is meant: the number itself, or that of the certificate in a file."""
    path = Path(text)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # what is no path is no file
        is_file = False
    return _certificates([path])[0].serial_number if is_file else named.parse_serial(text)


def _write_list(options: ObjectOptions, made: x509.CertificateRevocationList, output: Path | None) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    from lnh.objects import certificates

    pem = made.public_bytes(Encoding.PEM)
    told = {"pem": pem.decode(), "number": certificates.crl_number(made), "revoked": len(list(made))}
    files.write_result(output, pem, as_json=options.json, told=told, is_text=True)


def _rows(options: ObjectOptions, found: Sequence[Any]) -> None:
    options.rows([_row(one) for one in found], "label", "subject", "issuer", "serial", "until", "id", "handle")


def _row(found: Certificate) -> dict[str, Any]:
    return {"label": found.label, **_said(found.as_cryptography()), "id": found.id, "handle": found.handle}


def _said(certificate: x509.Certificate) -> dict[str, Any]:
    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "serial": f"{certificate.serial_number:x}",
        "until": terminal.moment(int(certificate.not_valid_after_utc.timestamp())),
    }


def _details(certificate: x509.Certificate) -> dict[str, Any]:
    """What `show` tells beside the columns of `list`."""
    import hashlib

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from lnh.objects.certificates import extension

    basic = extension(certificate, x509.BasicConstraints)
    names = extension(certificate, x509.SubjectAlternativeName)
    purposes = extension(certificate, x509.ExtendedKeyUsage)
    return {
        "from": terminal.moment(int(certificate.not_valid_before_utc.timestamp())),
        "ca": basic is not None and basic.ca,
        "names": [str(getattr(each, "value", each)) for each in names or ()],
        "purposes": [each._name for each in purposes or ()],
        "sha256": hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest(),
    }
