"""Messages about the objects of a keyring and their use. The keyring is the message's route.

An object of a session (TOKEN false) is stored nowhere: the client that makes it gets it `sealed`, and sends that along
with each use. Making one changes nothing, so it is a read: a read-only member does it, and one that is made twice
because its answer was lost is of no consequence.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final

import msgspec

from lnh_common import limits
from lnh_common.messages.base import Confidential, Effect, Empty, Listing, Message, Seal, operation
from lnh_common.messages.session import Id16

Data = Annotated[bytes, msgspec.Meta(max_length=limits.REQUEST_BYTES)]
Ciphertext = Annotated[bytes, msgspec.Meta(max_length=limits.CIPHERTEXT_BYTES)]
Signature = Annotated[bytes, msgspec.Meta(max_length=limits.SIGNATURE_BYTES)]
Parameters = Annotated[bytes, msgspec.Meta(max_length=limits.PARAMETERS_BYTES)]
# {attribute number: value}; `attributes.parse_template` checks it.
WireTemplate = Annotated[dict[int, Any], msgspec.Meta(max_length=limits.TEMPLATE_ATTRIBUTES)]


# What the HSM gave for an object of this session; empty for a stored one.
Sealed = Annotated[bytes, msgspec.Meta(max_length=limits.SESSION_OBJECT_BYTES)]


class ObjectView(Message):
    """Describe an object as every session of its keyring sees it: no sensitive value is among `attributes`."""

    handle: bytes
    version: int
    attributes: dict[int, Any]


class GenerateKey(Message):
    """Ask for a secret key that the mechanism generates, with the attributes of the template."""

    mechanism: int
    template: WireTemplate = {}


class GenerateKeyPair(Message):
    """Ask for a key pair that the mechanism generates, with a template for each half."""

    mechanism: int
    public_template: WireTemplate = {}
    private_template: WireTemplate = {}


class KeyPair(Message):
    """Answer with both halves of a new key pair."""

    public: ObjectView
    private: ObjectView


Total = Annotated[int, msgspec.Meta(ge=1)]
Index = Annotated[int, msgspec.Meta(ge=0, le=10**9)]
Version = Annotated[int, msgspec.Meta(ge=0, le=10**18)]  # 0: whichever there is


class GenerateKeys(GenerateKey, kw_only=True):
    """Ask for `total` keys, all or none.

    The LABEL of the template, if there is one, is followed by a running number from `index`.
    """

    total: Total
    index: Index = 1


class GenerateKeyPairs(GenerateKeyPair, kw_only=True):
    """Ask for `total` key pairs, as `GenerateKeys`; both halves of a pair have the same number."""

    total: Total
    index: Index = 1


class Objects(Message):
    """Answer with the new objects, in the order of their numbers."""

    objects: tuple[ObjectView, ...]


class KeyPairs(Message):
    """Answer with the new key pairs, in the order of their numbers."""

    pairs: tuple[KeyPair, ...]


class SessionObject(ObjectView, kw_only=True):
    """Answer with an object of this session; the client sends `sealed` along with each use of it."""

    sealed: bytes


class SessionKeyPair(Message):
    """Answer with both halves of a new key pair of this session."""

    public: SessionObject
    private: SessionObject


class CreateObject(Confidential):
    """Ask for an object of a value that is given; the template names its CLASS.

    Args:
        template: its attributes.
        value: the bytes of a secret key, PKCS#8 DER of a private key, SubjectPublicKeyInfo DER of a public key, DER of
            a certificate, or data. Of the last two it may be VALUE in the template.
    """

    template: WireTemplate
    value: Annotated[bytes, msgspec.Meta(max_length=limits.OBJECT_BYTES)] = b""


class Find(Message):
    """Ask for objects whose attributes equal those of `template`, in handle order, behind the handle `after`."""

    template: WireTemplate = {}
    after: Annotated[bytes, msgspec.Meta(max_length=16)] = b""
    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.PAGE_ITEMS)] = limits.PAGE_ITEMS


class Found(Listing, kw_only=True):
    """Answer with one page of objects; `more` says that another page follows."""

    objects: tuple[ObjectView, ...]
    more: bool
    last: bytes = b""  # the next page is behind it

    def is_bare(self) -> bool:
        """Tell whether the page is empty and the last one."""
        return not self.objects and not self.more


class ObjectRef(Message):
    """Name the object that an operation is about, by its handle."""

    handle: Id16


class Show(ObjectRef, kw_only=True):
    """Ask for an object's attributes."""

    sealed: Sealed = b""


class Destroy(ObjectRef, kw_only=True, omit_defaults=True):
    """Destroy an object; with a `version`, only while it has that one."""

    version: Version = 0


class SetAttributes(Message, omit_defaults=True):
    """Change the attributes of the template, all or none; with a `version`, only while the object has that one.

    A member of version 0.1 does not know of it, and refuses a message that has one.
    """

    handle: Id16
    template: WireTemplate
    version: Version = 0


class Use(Confidential):
    """Use a key on data; `parameters` is the CBOR of the mechanism's parameter type, empty for its defaults."""

    handle: Id16
    mechanism: int
    data: Data
    parameters: Parameters = b""
    sealed: Sealed = b""


class Verify(Use, kw_only=True):
    """Check a signature over data with a key; SignatureInvalid answers a wrong one."""

    signature: Signature


class Decrypt(Confidential):
    """Decrypt data with a key; as `Use`, but it takes whatever encrypting the most data can give."""

    handle: Id16
    mechanism: int
    data: Ciphertext
    parameters: Parameters = b""
    sealed: Sealed = b""


class UseMany(Confidential):
    """Use a key on up to 1024 items of at most 1 MiB together; each item has a result of its own, or an error."""

    handle: Id16
    mechanism: int
    items: Annotated[tuple[Data, ...], msgspec.Meta(min_length=1, max_length=limits.BATCH_ITEMS)]
    parameters: Parameters = b""
    sealed: Sealed = b""


class StreamedUse(str, enum.Enum):
    """The use that a long input is fed to."""

    DIGEST = "digest"
    SIGN = "sign"
    VERIFY = "verify"
    ENCRYPT = "encrypt"
    DECRYPT = "decrypt"


class Part(Confidential):
    """Feed one part of a long input to a use of a key; the worker keeps what it has so far (StreamLost: no more).

    All answers of one input name one IV. Where one names another, another worker has begun the input too.

    Args:
        stream: random, the same for all parts of one input.
        offset: bytes that came before this part. The same part once more has the same answer.
        last: the answer to this part has the signature, or ends the text; for VERIFY it is none.
        handle: empty for DIGEST.
        signature: of VERIFY, with the last part.
    """

    stream: Id16
    use: StreamedUse
    mechanism: int
    data: Annotated[bytes, msgspec.Meta(max_length=limits.PART_BYTES)]
    offset: Annotated[int, msgspec.Meta(ge=0)]
    last: bool = False
    handle: Annotated[bytes, msgspec.Meta(max_length=16)] = b""
    parameters: Parameters = b""
    sealed: Sealed = b""
    signature: Signature = b""


class VerifyMany(Confidential):
    """Check a signature of each item, as `UseMany`; there are as many signatures as items."""

    handle: Id16
    mechanism: int
    items: Annotated[tuple[Data, ...], msgspec.Meta(min_length=1, max_length=limits.BATCH_ITEMS)]
    signatures: Annotated[tuple[Signature, ...], msgspec.Meta(min_length=1, max_length=limits.BATCH_ITEMS)]
    parameters: Parameters = b""
    sealed: Sealed = b""


class Wrap(Confidential):
    """Wrap the secret or private key `key` with the key `handle`, by a mechanism as of `Use`.

    Args:
        key: the key to be wrapped.
        key_sealed: of a key of this session.
    """

    handle: Id16
    mechanism: int
    key: Id16
    parameters: Parameters = b""
    sealed: Sealed = b""
    key_sealed: Sealed = b""


class WrapMany(Confidential):
    """Wrap many keys with the key `handle`, as `Wrap`; each has a result of its own, or an error.

    Args:
        keys: the keys to be wrapped.
        keys_sealed: where some of them are of this session, one for each of `keys`, empty for a stored one.
    """

    handle: Id16
    mechanism: int
    keys: Annotated[tuple[Id16, ...], msgspec.Meta(min_length=1, max_length=limits.WRAPPED_AT_ONCE)]
    parameters: Parameters = b""
    sealed: Sealed = b""
    keys_sealed: Annotated[tuple[Sealed, ...], msgspec.Meta(max_length=limits.WRAPPED_AT_ONCE)] = ()


class Derive(Confidential):
    """Make a secret key out of the key `handle`, by a mechanism as of `Use`.

    Args:
        template: of the new key: its KEY_TYPE, and VALUE_LEN where the type has several lengths.
    """

    handle: Id16
    mechanism: int
    template: WireTemplate
    parameters: Parameters = b""
    sealed: Sealed = b""


class Unwrap(Derive, kw_only=True):
    """Make a key of `data`, in which the key was wrapped; the template names its CLASS and KEY_TYPE."""

    data: Annotated[bytes, msgspec.Meta(max_length=limits.WRAPPED_BYTES)]


class Decapsulate(Derive, kw_only=True):
    """Make the secret key that a ciphertext carries for a private key."""

    data: Annotated[bytes, msgspec.Meta(max_length=limits.WRAPPED_BYTES)]


class Encapsulated(Message):
    """Answer with a new secret key, and the ciphertext that carries it."""

    key: ObjectView
    ciphertext: bytes


class EncapsulatedInSession(Message):
    """Answer with a new secret key of this session, and the ciphertext that carries it."""

    key: SessionObject
    ciphertext: bytes


class Copy(ObjectRef, kw_only=True):
    """Copy an object into a stored one, with the attributes of the template in place of its own.

    Args:
        sealed: of an object of this session; the template has TOKEN true then.
    """

    template: WireTemplate = {}
    sealed: Sealed = b""


class Value(Confidential):
    """Answer with the value of a key that may be read in plaintext."""

    value: bytes


class Result(Confidential):
    """Answer with what the mechanism made; `iv` is the IV that the HSM drew, for mechanisms that have one."""

    data: bytes
    iv: bytes = b""


class Results(Confidential):
    """Answer for each item with its bytes, or with the error `[code, message, detail]`.

    What encrypts answers `iv || ciphertext` for each, and takes that to decrypt; what verifies answers nothing for a
    signature that is right.
    """

    results: tuple[bytes | list[Any], ...]


class Uses(Confidential):
    """Send several uses of keys of one keyring under one seal, each an operation of `TOGETHER` and its fields.

    No caller asks for it: a client sends together what is due at the same time.
    """

    uses: Annotated[tuple[tuple[str, dict[str, Any]], ...], msgspec.Meta(min_length=1, max_length=limits.USES_TOGETHER)]


class Outcomes(Confidential):
    """Answer for each use with `[0, fields]`, its reply's fields, or with an error `[code, message, detail]`."""

    outcomes: tuple[list[Any], ...]


class RandomBytes(Message):
    """Ask for `length` random bytes of the HSM."""

    length: Annotated[int, msgspec.Meta(ge=1, le=limits.REQUEST_BYTES)]


GENERATE: Final = operation("object.generate", GenerateKey, ObjectView, Seal.SESSION, Effect.WRITE)
GENERATE_PAIR: Final = operation("object.generate-pair", GenerateKeyPair, KeyPair, Seal.SESSION, Effect.WRITE)
GENERATE_MANY: Final = operation("object.generate-many", GenerateKeys, Objects, Seal.SESSION, Effect.WRITE)
GENERATE_PAIRS: Final = operation("object.generate-pairs", GenerateKeyPairs, KeyPairs, Seal.SESSION, Effect.WRITE)
GENERATE_IN_SESSION: Final = operation("object.generate-in-session", GenerateKey, SessionObject, Seal.SESSION)
GENERATE_PAIR_IN_SESSION: Final = operation(
    "object.generate-pair-in-session", GenerateKeyPair, SessionKeyPair, Seal.SESSION
)
CREATE: Final = operation("object.create", CreateObject, ObjectView, Seal.SESSION, Effect.WRITE, since="0.2")
CREATE_IN_SESSION: Final = operation("object.create-in-session", CreateObject, SessionObject, Seal.SESSION)
FIND: Final = operation("object.find", Find, Found, Seal.SESSION)
SHOW: Final = operation("object.show", Show, ObjectView, Seal.SESSION)
SET: Final = operation("object.set", SetAttributes, ObjectView, Seal.SESSION, Effect.WRITE)
DESTROY: Final = operation("object.destroy", Destroy, Empty, Seal.SESSION, Effect.WRITE)
SIGN: Final = operation("key.sign", Use, Result, Seal.SESSION)
VERIFY: Final = operation("key.verify", Verify, Empty, Seal.SESSION)
ENCRYPT: Final = operation("key.encrypt", Use, Result, Seal.SESSION)
DECRYPT: Final = operation("key.decrypt", Decrypt, Result, Seal.SESSION)
SIGN_MANY: Final = operation("key.sign-many", UseMany, Results, Seal.SESSION)
VERIFY_MANY: Final = operation("key.verify-many", VerifyMany, Results, Seal.SESSION)
ENCRYPT_MANY: Final = operation("key.encrypt-many", UseMany, Results, Seal.SESSION)
DECRYPT_MANY: Final = operation("key.decrypt-many", UseMany, Results, Seal.SESSION)
STREAM: Final = operation("key.stream", Part, Result, Seal.SESSION)
USES: Final = operation("key.uses", Uses, Outcomes, Seal.SESSION)
WRAP: Final = operation("key.wrap", Wrap, Result, Seal.SESSION)
WRAP_MANY: Final = operation("key.wrap-many", WrapMany, Results, Seal.SESSION)
UNWRAP: Final = operation("key.unwrap", Unwrap, ObjectView, Seal.SESSION, Effect.WRITE, since="0.2")
UNWRAP_IN_SESSION: Final = operation("key.unwrap-in-session", Unwrap, SessionObject, Seal.SESSION)
DERIVE: Final = operation("key.derive", Derive, ObjectView, Seal.SESSION, Effect.WRITE, since="0.2")
DERIVE_IN_SESSION: Final = operation("key.derive-in-session", Derive, SessionObject, Seal.SESSION)
ENCAPSULATE: Final = operation("key.encapsulate", Derive, Encapsulated, Seal.SESSION, Effect.WRITE, since="0.2")
ENCAPSULATE_IN_SESSION: Final = operation("key.encapsulate-in-session", Derive, EncapsulatedInSession, Seal.SESSION)
DECAPSULATE: Final = operation("key.decapsulate", Decapsulate, ObjectView, Seal.SESSION, Effect.WRITE, since="0.2")
DECAPSULATE_IN_SESSION: Final = operation("key.decapsulate-in-session", Decapsulate, SessionObject, Seal.SESSION)
COPY: Final = operation("object.copy", Copy, ObjectView, Seal.SESSION, Effect.WRITE, since="0.2")
VALUE: Final = operation("object.value", Show, Value, Seal.SESSION)
RANDOM: Final = operation("random", RandomBytes, Result, Seal.SESSION)

# What makes objects, whose handles the audit trail names.
MAKING: Final = frozenset(
    operation.name
    for operation in (
        GENERATE,
        GENERATE_PAIR,
        GENERATE_MANY,
        GENERATE_PAIRS,
        GENERATE_IN_SESSION,
        GENERATE_PAIR_IN_SESSION,
        CREATE,
        CREATE_IN_SESSION,
        COPY,
        UNWRAP,
        UNWRAP_IN_SESSION,
        DERIVE,
        DERIVE_IN_SESSION,
        ENCAPSULATE,
        ENCAPSULATE_IN_SESSION,
        DECAPSULATE,
        DECAPSULATE_IN_SESSION,
    )
)
TOGETHER: Final = frozenset({SIGN.name, VERIFY.name, ENCRYPT.name, DECRYPT.name})  # what `USES` carries
