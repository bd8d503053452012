"""The JSON of requests and answers that make keys of keys, use them many times at once, and carry them in and out."""

from __future__ import annotations

import enum
from typing import Annotated, Final, TypeAlias

import msgspec

from lnh_common import limits
from lnh_common.messages.objects import Index
from lnh_common.pkcs11.attributes import KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use
from lnh_rest.base import Body, Secretive
from lnh_rest.problems import Problem
from lnh_rest.schemas import one_of
from lnh_rest.shapes import (
    Bits,
    Ciphertext,
    Data,
    Handle,
    KeyPairMade,
    Label,
    NewKeyPair,
    ObjectView,
    Parameters,
    Template,
    Total,
    made_by,
    serving,
)

Value: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=limits.OBJECT_BYTES)]
KeyFile: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=limits.KEY_FILE_BYTES)]
Wrapped: TypeAlias = Annotated[bytes, msgspec.Meta(max_length=limits.WRAPPED_BYTES)]
SecretType: TypeAlias = Annotated[str, made_by(Use.GENERATE)]
DigestName: TypeAlias = Annotated[str, serving(Use.DIGEST)]
StreamedName: TypeAlias = Annotated[str, one_of(each.name for each in Mechanism if MECHANISM_RULES[each].streams)]
Items: Final = msgspec.Meta(min_length=1, max_length=limits.BATCH_ITEMS)


class ObjectChange(Body):
    """Change these attributes, all or none."""

    attributes: Template


class NewObject(Secretive):
    """Make an object of a value.

    Args:
        value: the bytes of a secret key; PKCS#8 DER of a private key; SubjectPublicKeyInfo DER of a public key; DER of
            an X.509 certificate; data.
        attributes: by name; `key_type` of a secret key.
    """

    object_class: Annotated[str, one_of(ObjectClass.__members__)]
    value: Value
    attributes: Template = {}


class NewCopy(Body):
    """Copy an object, with these attributes in place of its own."""

    attributes: Template = {}


class NewKeyFile(Secretive):
    """Bring in all keys, certificates and secrets that a file holds, or none.

    Args:
        file: PEM, DER, PKCS #12, JWK or OpenSSH.
        passphrase: of an encrypted file.
        label: of all that is made; none for the names that the file has.
        key_type: of a secret.
        attributes: each goes to the objects that have it.
    """

    file: KeyFile
    passphrase: Annotated[str, msgspec.Meta(max_length=limits.PASSWORD_CHARACTERS[1])] | None = None
    label: Label | None = None
    key_type: Annotated[str, one_of(KeyType.__members__)] | None = None
    attributes: Template = {}


class ObjectsMade(Body):
    """Answer with new objects."""

    objects: tuple[ObjectView, ...]


class ObjectValue(Secretive):
    """Answer with a key's value: the bytes of a secret key, PKCS#8 DER of a private key."""

    value: bytes


class PublicForm(enum.Enum):
    """The form of a public key: SubjectPublicKeyInfo in PEM, a JSON Web Key, or a line for OpenSSH."""

    PEM = "pem"
    JWK = "jwk"
    OPENSSH = "openssh"


class PublicQuery(Body):
    """Ask for a public key, or a certificate (in PEM), in a form."""

    form: PublicForm = PublicForm.PEM


class PublicText(Body):
    """Answer with a public key or a certificate, as text."""

    form: PublicForm
    text: str


class CertificateQuery(Body):
    """Ask for certificates by what they say.

    Args:
        subject, issuer: whole names, such as `CN=a.example,O=Example` (RFC 4514).
        serial: hexadecimal.
    """

    subject: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    issuer: Annotated[str, msgspec.Meta(max_length=1024)] | None = None
    serial: Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{1,40}$")] | None = None


class NewKeyPairs(NewKeyPair, kw_only=True):
    """Generate many key pairs of one kind, all or none; RSA pairs are made one by one.

    Args:
        total: how many; each has the label and a running number from `index`.
    """

    total: Total = 1
    index: Index = 1


class KeyPairsMade(Body):
    """Answer with new key pairs."""

    pairs: tuple[KeyPairMade, ...]


class Wrap(Body):
    """Wrap a key with another, so that it may leave the HSM.

    Args:
        key: the handle of the key that is wrapped.
    """

    key: Handle
    mechanism: Annotated[str, serving(Use.WRAP)] | None = None
    parameters: Parameters = {}


class WrappedKey(Body):
    """Answer with a wrapped key."""

    wrapped: bytes


class Unwrap(Secretive):
    """Make the key that wrapping wrapped.

    Args:
        object_class, key_type: of the key within.
    """

    wrapped: Wrapped
    object_class: Annotated[str, one_of(("SECRET_KEY", "PRIVATE_KEY"))]
    key_type: Annotated[str, one_of(KeyType.__members__)]
    mechanism: Annotated[str, serving(Use.UNWRAP)] | None = None
    parameters: Parameters = {}
    attributes: Template = {}


class Derive(Secretive):
    """Derive a secret key.

    Args:
        bits: 128 at least; none takes 256.
        parameters: such as `public_key` of ECDH, or `info` of HKDF; bytes are base64.
    """

    key_type: SecretType
    bits: Bits | None = None
    mechanism: Annotated[str, serving(Use.DERIVE)] | None = None
    parameters: Parameters = {}
    attributes: Template = {}


class Encapsulate(Body):
    """Draw a secret key of 256 bits, and what carries it to the private key's holder (ML-KEM)."""

    key_type: SecretType
    attributes: Template = {}


class EncapsulatedKey(Body):
    """Answer with the new key, and with the ciphertext that carries it."""

    key: ObjectView
    ciphertext: bytes


class Decapsulate(Secretive):
    """Make the secret key that a ciphertext carries (ML-KEM)."""

    ciphertext: Wrapped
    key_type: SecretType
    attributes: Template = {}


class Outcome(Secretive):
    """Answer for one of many: a result, or the problem with it."""

    result: bytes | None = None
    problem: Problem | None = None


class SignMany(Secretive):
    """Sign many messages with one key; the other fields are as of `Sign`."""

    messages: Annotated[tuple[Data, ...], Items]
    mechanism: Annotated[str, serving(Use.SIGN)] | None = None
    parameters: Parameters = {}
    der: bool = False


class EncryptMany(Secretive):
    """Encrypt many messages with one key; the other fields are as of `Encrypt`."""

    messages: Annotated[tuple[Data, ...], Items]
    mechanism: Annotated[str, serving(Use.ENCRYPT)] | None = None
    parameters: Parameters = {}


class DecryptMany(Secretive):
    """Decrypt many with one key; the other fields are as of `Decrypt`."""

    ciphertexts: Annotated[tuple[Ciphertext, ...], Items]
    mechanism: Annotated[str, serving(Use.DECRYPT)] | None = None
    parameters: Parameters = {}


class SignedMany(Body):
    """Answer with a signature for each message, in order."""

    results: tuple[Outcome, ...]


class EncryptedMany(Body):
    """Answer with a ciphertext for each message, in order."""

    results: tuple[Outcome, ...]


class DecryptedMany(Secretive):
    """Answer with what was encrypted in each, in order."""

    results: tuple[Outcome, ...]


class DigestQuery(Body):
    """Ask for the hash of the body."""

    mechanism: DigestName = "SHA256"


class Digested(Body):
    """Answer with a hash."""

    digest: bytes


class StreamQuery(Body):
    """Say how a body of any length is encrypted or decrypted.

    Args:
        aad: associated data of a mechanism that has it, base64.
    """

    mechanism: StreamedName | None = None
    aad: Annotated[str, msgspec.Meta(max_length=2 * limits.AAD_BYTES)] | None = None
