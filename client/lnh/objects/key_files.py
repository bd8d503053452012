"""Reads keys, certificates and secrets from the files that other programs write. Pure: bytes in, objects out.

The form of a file shows in its first bytes: PEM and OpenSSH's private keys begin with dashes, JWK with a brace, DER and
PKCS #12 with a SEQUENCE; the rest is OpenSSH's line of a public key. A raw secret shows in nothing, so it is read only
when its form is named. `cryptography` parses; what it reads is brought to one form for each class: a private key as
PKCS #8, a public key as SubjectPublicKeyInfo, a certificate as it is, a secret as its bytes.

What is secret is in a `Secret` from here on. No error of this module holds anything of the file but names.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, mldsa, mlkem, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs7,
    pkcs12,
)

from lnh.objects import jwk
from lnh_common import limits
from lnh_common.errors import DataLength, KeyFileInvalid, LimitReached, PassphraseIncorrect
from lnh_common.pkcs11.algorithms import CURVES
from lnh_common.pkcs11.attributes import KeyType, ObjectClass
from lnh_common.secret import Secret
from lnh_common.text import is_name

T = TypeVar("T")

AskPassphrase: TypeAlias = Callable[[], str]


class Form(str, enum.Enum):
    """The form of a file with keys."""

    PEM = "pem"
    DER = "der"
    PKCS12 = "pkcs12"
    JWK = "jwk"
    OPENSSH = "openssh"
    RAW = "raw"


@dataclass(frozen=True)
class FileObject:
    """An object that a file holds.

    Args:
        object_class: its class.
        key_type: of a key its type; None of a secret that does not say what it is for.
        value: PKCS #8 of a private key, SubjectPublicKeyInfo of a public one, a certificate's DER, a secret's bytes.
        public: of a private key and of a certificate, the SubjectPublicKeyInfo of its public key; else empty.
        label: the name that the file has for it, or empty.
    """

    object_class: ObjectClass
    key_type: KeyType | None
    value: Secret
    public: bytes = b""
    label: str = ""


_KEY_TYPES: Final[tuple[tuple[tuple[type[Any], ...], KeyType], ...]] = (
    ((rsa.RSAPrivateKey, rsa.RSAPublicKey), KeyType.RSA),
    ((ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey), KeyType.EC),
    ((ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey), KeyType.EC_EDWARDS),
    ((ed448.Ed448PrivateKey, ed448.Ed448PublicKey), KeyType.EC_EDWARDS),
    ((x25519.X25519PrivateKey, x25519.X25519PublicKey), KeyType.EC_MONTGOMERY),
    ((x448.X448PrivateKey, x448.X448PublicKey), KeyType.EC_MONTGOMERY),
    ((mldsa.MLDSA44PrivateKey, mldsa.MLDSA44PublicKey), KeyType.ML_DSA),
    ((mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey), KeyType.ML_DSA),
    ((mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey), KeyType.ML_DSA),
    ((mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey), KeyType.ML_KEM),
    ((mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey), KeyType.ML_KEM),
)
# As `cryptography` names the curves that a key may be on.
_CURVE_NAMES: Final = {
    "P-256": "secp256r1",
    "P-384": "secp384r1",
    "P-521": "secp521r1",
}
_EC_CURVES: Final = {
    _CURVE_NAMES.get(name, name).lower(): name for name, curve in CURVES.items() if curve.key_type is KeyType.EC
}
# RFC 7517's `alg` of a secret says what it is for, where it does.
_SECRETS: Final = ((re.compile(r"HS\d+"), KeyType.GENERIC_SECRET), (re.compile(r"A\d+.*"), KeyType.AES))

_BEGIN: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,60})-----")
_PFX: Final = re.compile(rb"\x30(?:\x80|[\x00-\x7f]|\x81.|\x82..|\x83...|\x84....)\x02\x01\x03\x30", re.DOTALL)
_SSH_LINE: Final = re.compile(rb"^(ssh-|ecdsa-sha2-|sk-)[a-z0-9@.-]+ ", re.MULTILINE)


def read(data: bytes, passphrase: AskPassphrase | None = None, form: Form | None = None) -> list[FileObject]:
    """Read the objects that a file holds, in its order.

    Args:
        data: all of the file, up to 1 MiB.
        passphrase: asks for the file's passphrase; called once, and only when something in it is encrypted.
        form: None finds it; a raw secret is read only when this says so.

    Raises KeyFileInvalid for a file that holds nothing that is read, PassphraseIncorrect, DataLength for a longer file,
    LimitReached for one with more than 100 objects.
    """
    if len(data) > limits.KEY_FILE_BYTES:
        raise DataLength(
            f"a file of more than {limits.KEY_FILE_BYTES} bytes; keys and certificates are in smaller ones"
        )
    asked = _Asked(passphrase)
    found: list[FileObject] = []
    for each in _READERS[form or form_of(data)](data, asked):
        if len(found) == limits.KEY_FILE_OBJECTS:
            raise LimitReached(f"more than {limits.KEY_FILE_OBJECTS} objects in one file; split it")
        found.append(each)
    return found


def form_of(data: bytes) -> Form:
    """Tell the form of a file by its first bytes; raises KeyFileInvalid for one that looks like none."""
    if not data.strip():
        raise KeyFileInvalid("the file is empty")
    if b"-----BEGIN " in data:
        return Form.PEM
    if _PFX.match(data):
        return Form.PKCS12
    if data[:1] == b"\x30":
        return Form.DER
    text = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"{"):
        return Form.JWK
    if _SSH_LINE.search(text):
        return Form.OPENSSH
    raise KeyFileInvalid(
        "the file is in none of the forms PEM, DER, PKCS #12, JWK and OpenSSH; bytes of a secret come in by form raw"
    )


class _Asked:
    """Asks for a passphrase at most once."""

    def __init__(self, ask: AskPassphrase | None) -> None:
        self._ask = ask
        self._answer: Secret | None = None

    def passphrase(self) -> bytes:
        if self._ask is None:
            raise PassphraseIncorrect("the file is encrypted, and no passphrase was given")
        if self._answer is None:
            self._answer = Secret(self._ask().encode())
        return self._answer.reveal()


def _raw(data: bytes, _: _Asked) -> Iterator[FileObject]:
    if not data:
        raise KeyFileInvalid("the file is empty")
    yield FileObject(ObjectClass.SECRET_KEY, None, Secret(data))


def _pem(data: bytes, asked: _Asked) -> Iterator[FileObject]:
    found = False
    for label, block in _blocks(data):
        if label in _OF_OTHERS:
            raise KeyFileInvalid(f"PEM: {label}: {_OF_OTHERS[label]}")
        if label in _PASSED_OVER:
            continue
        if label not in _BLOCKS:
            raise KeyFileInvalid(f"PEM: {label} is not read; there are {', '.join(_BLOCKS)}")
        found = True
        yield from _BLOCKS[label](block, asked)
    if not found:
        raise KeyFileInvalid("PEM: no key and no certificate in it")


def _blocks(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the blocks of a PEM file, each with its label; what stands between them is not looked at."""
    place = 0
    while begin := _BEGIN.search(data, place):
        end = b"-----END " + begin[1] + b"-----"
        place = data.find(end, begin.end()) + len(end)
        if place < len(end):
            raise KeyFileInvalid(f"PEM: {begin[1].decode()} does not end; the file is cut short")
        yield begin[1].decode(), data[begin.start() : place] + b"\n"


def _private(load: Callable[[bytes, bytes | None], Any], what: str) -> Callable[[bytes, _Asked], Iterator[FileObject]]:
    def take(data: bytes, asked: _Asked) -> Iterator[FileObject]:
        yield _private_key(_opened(load, data, asked, what))

    return take


def _public(load: Callable[[bytes], Any], what: str) -> Callable[[bytes, _Asked], Iterator[FileObject]]:
    def take(data: bytes, _: _Asked) -> Iterator[FileObject]:
        yield _public_key(_parsed(load, data, what))

    return take


def _pem_certificates(data: bytes, _: _Asked) -> Iterator[FileObject]:
    yield _certificate(_parsed(x509.load_pem_x509_certificate, data, "certificate"))


def _pem_pkcs7(data: bytes, _: _Asked) -> Iterator[FileObject]:
    yield from map(_certificate, _parsed(pkcs7.load_pem_pkcs7_certificates, data, "PKCS #7"))


_BLOCKS: Final[dict[str, Callable[[bytes, _Asked], Iterator[FileObject]]]] = {
    "PRIVATE KEY": _private(serialization.load_pem_private_key, "private key in PKCS #8"),
    "ENCRYPTED PRIVATE KEY": _private(serialization.load_pem_private_key, "private key in PKCS #8"),
    "RSA PRIVATE KEY": _private(serialization.load_pem_private_key, "private key in PKCS #1"),
    "EC PRIVATE KEY": _private(serialization.load_pem_private_key, "private key in SEC 1"),
    "OPENSSH PRIVATE KEY": _private(serialization.load_ssh_private_key, "private key of OpenSSH"),
    "PUBLIC KEY": _public(serialization.load_pem_public_key, "public key"),
    "RSA PUBLIC KEY": _public(serialization.load_pem_public_key, "public key in PKCS #1"),
    "CERTIFICATE": _pem_certificates,
    "PKCS7": _pem_pkcs7,
}
_PASSED_OVER: Final = frozenset({"EC PARAMETERS"})  # openssl writes the curve in front of the key, which has it too
_OF_OTHERS: Final = {
    "CERTIFICATE REQUEST": "a request holds no key; lnh certificate issue makes a certificate of it",
    "NEW CERTIFICATE REQUEST": "a request holds no key; lnh certificate issue makes a certificate of it",
    "X509 CRL": "a revocation list holds no key; lnh certificate verify takes it by --crl",
    "DSA PRIVATE KEY": "the HSM has no DSA",
    "TRUSTED CERTIFICATE": "openssl's own form; write it with openssl x509 -in FILE",
}


def _der(data: bytes, asked: _Asked) -> Iterator[FileObject]:
    """Read what stands in DER: its kinds are told apart by trying, since their first bytes are the same."""
    for load, make in _DER_KINDS:
        try:
            loaded = load(data, asked)
        except KeyFileInvalid:
            continue
        yield from map(make, loaded)
        return
    raise KeyFileInvalid(
        "DER: neither a private key (PKCS #8, PKCS #1, SEC 1) nor a public key, a certificate or PKCS #7, "
        "or of a kind that is not read"
    )


def _pkcs12(data: bytes, asked: _Asked) -> Iterator[FileObject]:
    try:
        store = pkcs12.load_pkcs12(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # which it says of an encrypted one, too
        store = _with_passphrase(pkcs12.load_pkcs12, data, asked, "PKCS #12")
    if store.key is not None:
        yield _private_key(store.key, _name(store.cert.friendly_name if store.cert is not None else None))
    for each in (store.cert, *store.additional_certs):
        if each is not None:
            yield _certificate(each.certificate, _name(each.friendly_name))
    if store.key is None and store.cert is None and not store.additional_certs:
        raise KeyFileInvalid("PKCS #12: neither a key nor a certificate is in it")


def _name(found: bytes | None) -> str:
    return _label((found or b"").decode("utf-8", "replace"))


def _jwk(data: bytes, _: _Asked) -> Iterator[FileObject]:
    for each in jwk.parse(data.removeprefix(b"\xef\xbb\xbf")):
        key = jwk.key_of(each)
        label = _label(each.kid)
        if isinstance(key, bytes):
            types = [key_type for pattern, key_type in _SECRETS if pattern.fullmatch(each.alg)]
            yield FileObject(ObjectClass.SECRET_KEY, types[0] if types else None, Secret(key), label=label)
        elif hasattr(key, "private_bytes"):
            yield _private_key(key, label)
        else:
            yield _public_key(key, label)


def _openssh(data: bytes, _: _Asked) -> Iterator[FileObject]:
    for line in data.removeprefix(b"\xef\xbb\xbf").splitlines():
        if not line.strip() or line.startswith(b"#"):
            continue
        key = _parsed(serialization.load_ssh_public_key, line.strip(), "public key of OpenSSH")
        comment = line.split(None, 2)[2:]
        yield _public_key(key, _name(comment[0].strip() if comment else None))


_READERS: Final[dict[Form, Callable[[bytes, _Asked], Iterator[FileObject]]]] = {
    Form.PEM: _pem,
    Form.DER: _der,
    Form.PKCS12: _pkcs12,
    Form.JWK: _jwk,
    Form.OPENSSH: _openssh,
    Form.RAW: _raw,
}


def _parsed(load: Callable[[bytes], T], data: bytes, what: str) -> T:
    try:
        return load(data)
    except UnsupportedAlgorithm:
        raise KeyFileInvalid(f"a {what} of a kind that is not read") from None
    except (ValueError, TypeError, OverflowError, x509.InvalidVersion):
        raise KeyFileInvalid(f"the {what} does not parse, or is of a kind that is not read") from None


def _opened(load: Callable[[bytes, bytes | None], Any], data: bytes, asked: _Asked, what: str) -> Any:
    """Load a private key, with the passphrase if it has one; the library tells that by a TypeError."""
    try:
        return load(data, None)
    except TypeError:
        return _with_passphrase(load, data, asked, what)
    except UnsupportedAlgorithm:
        raise KeyFileInvalid(f"a {what} of a kind, or under an encryption, that is not read") from None
    except (ValueError, OverflowError):
        raise KeyFileInvalid(f"the {what} does not parse, or is of a kind that is not read") from None


def _with_passphrase(load: Callable[[bytes, bytes | None], T], data: bytes, asked: _Asked, what: str) -> T:
    passphrase = asked.passphrase()
    try:
        return load(data, passphrase)
    except UnsupportedAlgorithm:
        raise KeyFileInvalid(f"a {what} under an encryption that is not read") from None
    except (ValueError, TypeError, OverflowError):
        raise PassphraseIncorrect(f"the passphrase of the {what} is wrong, or the file is damaged") from None


def _private_key(key: Any, label: str = "") -> FileObject:
    key_type = key_type_of(key)
    value = Secret(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
    return FileObject(ObjectClass.PRIVATE_KEY, key_type, value, spki(key.public_key()), label)


def _public_key(key: Any, label: str = "") -> FileObject:
    return FileObject(ObjectClass.PUBLIC_KEY, key_type_of(key), Secret(spki(key)), label=label)


def _certificate(certificate: x509.Certificate, label: str = "") -> FileObject:
    try:
        names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    except ValueError:  # the library parses names when they are asked for
        raise KeyFileInvalid("a certificate whose subject does not parse") from None
    label = label or (_label(str(names[0].value)) if names else "")
    return FileObject(
        ObjectClass.CERTIFICATE, None, Secret(certificate.public_bytes(Encoding.DER)), public_of(certificate), label
    )


_DER_KINDS: Final[tuple[tuple[Callable[[bytes, _Asked], list[Any]], Callable[[Any], FileObject]], ...]] = (
    (lambda data, asked: [_opened(serialization.load_der_private_key, data, asked, "private key")], _private_key),
    (lambda data, _: [_parsed(serialization.load_der_public_key, data, "public key")], _public_key),
    (lambda data, _: [_parsed(x509.load_der_x509_certificate, data, "certificate")], _certificate),
    (lambda data, _: _parsed(pkcs7.load_der_pkcs7_certificates, data, "PKCS #7"), _certificate),
)


def public_of(certificate: x509.Certificate) -> bytes:
    """Return the SubjectPublicKeyInfo of a certificate; empty for a key of a kind that the library does not load."""
    try:
        return spki(certificate.public_key())
    except (UnsupportedAlgorithm, ValueError):
        return b""


def spki(key: Any) -> bytes:
    """Encode a public key as SubjectPublicKeyInfo."""
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def key_type_of(key: Any) -> KeyType:
    """Return the type of a key; raises KeyFileInvalid for one that the HSM does not have."""
    for kinds, key_type in _KEY_TYPES:
        if isinstance(key, kinds):
            if key_type is KeyType.EC and key.curve.name.lower() not in _EC_CURVES:
                raise KeyFileInvalid(f"a key on {key.curve.name}; there are {', '.join(_EC_CURVES.values())}")
            return key_type
    raise KeyFileInvalid("a key of a type that the HSM does not have (DSA, DH and so on)")


def _label(found: str) -> str:
    """Take a file's name of an object for its label, where it can be one."""
    return found if is_name(found) and len(found.encode()) <= limits.LABEL_BYTES else ""
