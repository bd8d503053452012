"""Objects of a keyring, one class for each kind, with methods named for what they do.

Shaped after python-pkcs11. Everything an object is, is in its `attributes`; names are PKCS#11's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, TypeAlias, overload

from lnh.arguments import checked
from lnh.objects import encoding
from lnh.objects.calls import ObjectCalls
from lnh.objects.encoding import Encrypted
from lnh_common import limits
from lnh_common.errors import ActionProhibited, ArgumentInvalid, AttributeInvalid, LnhError, SignatureInvalid
from lnh_common.messages import objects as wire
from lnh_common.messages.base import Message, Operation
from lnh_common.pkcs11.algorithms import AES_BLOCK
from lnh_common.pkcs11.attributes import Attribute, Attributes, AttributeValue, KeyType, ObjectClass, from_wire
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use
from lnh_common.wire import codec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
    from cryptography.x509 import Certificate as X509Certificate

    from lnh.objects.as_cryptography import WrappedKey

BytesLike: TypeAlias = bytes | bytearray | memoryview
Data: TypeAlias = BytesLike | BinaryIO

_BATCHES_IN_FLIGHT: Final = 4


@checked
class StoredObject:
    """An object of a keyring, or of a session, as it was when it was read.

    Attributes:
        handle: 16 bytes, the same on every member, never reused.
        version: counts its changes.
        attributes: everything about it that is not sensitive.
        sealed: of an object with TOKEN false, the sealed bytes that its session carries, because it is stored nowhere;
            else empty.
    """

    def __init__(self, session: ObjectCalls, view: wire.ObjectView) -> None:
        self.session: Final = session
        self.handle: Final = view.handle
        self.sealed = view.sealed if isinstance(view, wire.SessionObject) else b""
        self._take(view)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.label!r} {self.handle.hex()}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredObject) and self.handle == other.handle

    def __hash__(self) -> int:
        return hash(self.handle)

    @property
    def label(self) -> str:
        """The attribute LABEL; empty where there is none."""
        value = self.attributes.get(Attribute.LABEL, "")
        assert isinstance(value, str), "LABEL is text"
        return value

    @property
    def id(self) -> bytes:
        """The attribute ID; empty where there is none."""
        value = self.attributes.get(Attribute.ID, b"")
        assert isinstance(value, bytes), "ID is bytes"
        return value

    @property
    def object_class(self) -> ObjectClass:
        """The attribute CLASS."""
        return ObjectClass(self._number(Attribute.CLASS))

    def __getitem__(self, attribute: Attribute) -> AttributeValue:
        """Return an attribute's value; raises AttributeInvalid when the object has none."""
        try:
            return self.attributes[attribute]
        except KeyError:
            raise AttributeInvalid(f"this object has no {attribute.name}, or it is sensitive") from None

    def refresh(self) -> None:
        """Read the object again; raises ObjectUnknown when it is gone."""
        self._take(self.session.ask(wire.SHOW, wire.Show(handle=self.handle, sealed=self.sealed)))

    def set_attributes(self, attributes: Mapping[Attribute, AttributeValue] | None = None, **named: object) -> None:
        """Change attributes, all or none: `key.set_attributes(label="new", extractable=False)`.

        Raises AttributeReadOnly, AttributeInvalid, ActionProhibited, MemberReadOnly.
        """
        if self.sealed:
            raise ActionProhibited("TOKEN is false: an object of a session cannot be changed")
        template = encoding.template(attributes, named)
        self._take(self.session.ask(wire.SET, wire.SetAttributes(handle=self.handle, template=template)))

    def destroy(self) -> None:
        """Destroy the object: afterwards no read-write member uses it. Raises ActionProhibited."""
        if self.sealed:
            self._drop()
            return
        self.session.ask(wire.DESTROY, wire.ObjectRef(handle=self.handle))

    def _drop(self) -> None:
        if self.attributes.get(Attribute.DESTROYABLE) is False:
            raise ActionProhibited("DESTROYABLE is false")
        self.session.forget(self.handle)
        self.sealed = b""

    def _take(self, view: wire.ObjectView) -> None:
        self.version = view.version
        self.attributes: Attributes = from_wire(
            {number: value for number, value in view.attributes.items() if number in Attribute._value2member_map_}
        )

    def _number(self, attribute: Attribute) -> int:
        value = self[attribute]
        assert isinstance(value, int), f"{attribute.name} is a number"
        return value


@checked
class Key(StoredObject):
    """Base of all keys: a type, and mechanisms that go with it."""

    @property
    def key_type(self) -> KeyType:
        """The attribute KEY_TYPE."""
        return KeyType(self._number(Attribute.KEY_TYPE))

    def default_mechanism(self, use: Use) -> Mechanism:
        """Choose the mechanism for this use when none is named; raises MechanismInvalid when there is none."""
        return encoding.default_mechanism(self.attributes, use)

    def _mechanism(self, given: Mechanism | None, use: Use) -> Mechanism:
        if given is not None:
            return given
        chosen = self._defaults.get(use)
        if chosen is None:
            chosen = self._defaults[use] = self.default_mechanism(use)
        return chosen

    def _use(self, mechanism: Mechanism, data: Data, parameters: Message | None) -> dict[str, Any]:
        return self._carry(encoding.use_fields(self.handle, mechanism, data, parameters))

    def _results(
        self,
        operation: Operation[Any, wire.Results],
        batches: Iterable[dict[str, Any]],
        timeout: float | None,
        *,
        return_errors: bool,
    ) -> Iterator[bytes | LnhError]:
        """Yield the result of each item of many, in order; raise the first error, or yield each in its place."""
        calls = ((operation, self._carry(fields)) for fields in batches)
        number = 0
        for fields in self.session.call_each(calls, _BATCHES_IN_FLIGHT, timeout):
            for result in codec.convert(fields, wire.Results).results:
                if isinstance(result, bytes):
                    yield result
                else:
                    error = LnhError.from_wire(result)
                    if not return_errors:
                        error.detail = {**error.detail, "item": number}
                        raise error
                    yield error
                number += 1

    def _carry(self, fields: dict[str, Any]) -> dict[str, Any]:
        if self.sealed:
            fields["sealed"] = self.sealed
        return fields

    def _take(self, view: wire.ObjectView) -> None:
        super()._take(view)
        self._defaults: dict[Use, Mechanism] = {}


@checked
class SigningKey(Key):
    """A key that signs: a private key, or a secret key that makes tags."""

    def sign(
        self,
        data: Data,
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        der: bool = False,
        timeout: float | None = None,
    ) -> bytes:
        """Sign data.

        Args:
            data: up to 1 MiB; more, or an open file, for mechanisms with a hash of their own (not HMAC):
                the hash is then computed here.
            mechanism: None takes the key type's (ECDSA with the hash of the curve's size, RSA PSS with SHA-256...).
            parameters: of the mechanism, such as `PssParameters`.
            der: an ECDSA signature as X.509 has it (RFC 3279, 2.2.3), not `r || s`.

        Raises KeyFunctionNotPermitted, MechanismInvalid, DataLength, ObjectUnknown and what a call raises.
        """
        mechanism = self._mechanism(mechanism, Use.SIGN)
        fields = self._use(mechanism, data, parameters)
        signature = codec.convert(self.session.call(wire.SIGN, fields, timeout), wire.Result).data
        return encoding.ecdsa_to_der(mechanism, signature) if der else signature

    @overload
    def sign_many(
        self,
        messages: Sequence[BytesLike],
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        return_errors: Literal[False] = False,
        timeout: float | None = None,
    ) -> list[bytes]: ...

    @overload
    def sign_many(
        self,
        messages: Sequence[BytesLike],
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        return_errors: bool,
        timeout: float | None = None,
    ) -> list[bytes | LnhError]: ...

    def sign_many(
        self,
        messages: Sequence[BytesLike],
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        return_errors: bool = False,
        timeout: float | None = None,
    ) -> Sequence[bytes | LnhError]:
        """Sign many messages in few requests (up to 1024 messages and 1 MiB, of answers too, each), in order.

        Args:
            return_errors: give the error in place of a signature that failed, instead of raising the first.
            timeout: seconds for each request.
        """
        mechanism = self._mechanism(mechanism, Use.SIGN)
        cut = encoding.batches(messages, answer=encoding.signature_bytes(mechanism, self.attributes))
        asked = (encoding.many_fields(self.handle, mechanism, batch, parameters) for batch in cut)
        return list(self._results(wire.SIGN_MANY, asked, timeout, return_errors=return_errors))

    def sign_each(
        self,
        messages: Iterable[Data],
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        in_flight: int = 64,
        timeout: float | None = None,
    ) -> Iterator[bytes]:
        """Yield the signature of each message, in order, with up to `in_flight` requests under way at once.

        Takes messages as it needs them, so they may be endless. Raises the error of a message in its turn.
        """
        mechanism = self._mechanism(mechanism, Use.SIGN)
        calls = ((wire.SIGN, self._use(mechanism, message, parameters)) for message in messages)
        for fields in self.session.call_each(calls, in_flight, timeout):
            yield codec.convert(fields, wire.Result).data


@checked
class VerifyingKey(Key):
    """A key that verifies: a public key, or a secret key."""

    def verify(
        self,
        data: Data,
        signature: BytesLike,
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        der: bool = False,
        timeout: float | None = None,
    ) -> bool:
        """Tell whether the signature was made over the data by this key; arguments are as of `sign`.

        Raises as `sign` does, and nothing for a signature that is merely wrong.
        """
        mechanism = self._mechanism(mechanism, Use.VERIFY)
        signature = bytes(signature)
        if len(signature) > limits.SIGNATURE_BYTES:
            return False
        if der:
            try:
                signature = encoding.ecdsa_from_der(mechanism, signature, self.attributes)
            except SignatureInvalid:
                return False
        fields = self._use(mechanism, data, parameters)
        fields["signature"] = signature
        try:
            self.session.call(wire.VERIFY, fields, timeout)
        except SignatureInvalid:
            return False
        return True

    def verify_many(
        self,
        messages: Sequence[BytesLike],
        signatures: Sequence[BytesLike],
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        timeout: float | None = None,
    ) -> list[bool]:
        """Tell of each message whether its signature was made over it by this key, in few requests and in order.

        Args:
            signatures: one for each message.
            mechanism, parameters: as of `sign`.
            timeout: seconds for each request.

        Raises ArgumentInvalid unless there are as many signatures as messages; the first error of an item that is not
        that its signature is wrong; and what a call raises.
        """
        mechanism = self._mechanism(mechanism, Use.VERIFY)
        if len(messages) != len(signatures):
            raise ArgumentInvalid(f"{len(signatures)} signatures for {len(messages)} messages")
        # One that is too long for a request is no signature; an empty one in its place is none either.
        given = [bytes(each) if len(each) <= limits.SIGNATURE_BYTES else b"" for each in signatures]
        most = max(map(len, given), default=0)
        asked: list[dict[str, Any]] = []
        begin = 0
        for batch in encoding.batches(messages, more=most):
            fields = encoding.many_fields(self.handle, mechanism, batch, parameters)
            asked.append({**fields, "signatures": given[begin : begin + len(batch)]})
            begin += len(batch)
        found: list[bool] = []
        for result in self._results(wire.VERIFY_MANY, asked, timeout, return_errors=True):
            if isinstance(result, LnhError) and not isinstance(result, SignatureInvalid):
                result.detail = {**result.detail, "item": len(found)}
                raise result
            found.append(isinstance(result, bytes))
        return found


@checked
class EncryptingKey(Key):
    """A key that encrypts: a public key, or a secret key."""

    def encrypt(
        self,
        data: BytesLike,
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        timeout: float | None = None,
    ) -> Encrypted:
        """Encrypt up to 1 MiB: `iv || ciphertext || tag`, which `decrypt` takes as it is.

        The HSM draws the IV. For a mechanism without one (RSA) the answer is the ciphertext alone.

        Args:
            mechanism: None takes the key's (AES_GCM, or that of its family; RSA_PKCS_OAEP).
            parameters: such as `GcmParameters(aad=b"...")`, of which the associated data has up to 2 KiB.

        Raises DataLength, MechanismParameterInvalid and what a call raises.
        """
        mechanism = self._mechanism(mechanism, Use.ENCRYPT)
        fields = self._carry(encoding.encrypt_fields(self.handle, mechanism, data, parameters))
        result = codec.convert(self.session.call(wire.ENCRYPT, fields, timeout), wire.Result)
        return Encrypted(result.iv or encoding.given_iv(parameters), result.data)

    @overload
    def encrypt_many(
        self,
        messages: Sequence[BytesLike],
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        return_errors: Literal[False] = False,
        timeout: float | None = None,
    ) -> list[Encrypted]: ...

    @overload
    def encrypt_many(
        self,
        messages: Sequence[BytesLike],
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        return_errors: bool,
        timeout: float | None = None,
    ) -> list[Encrypted | LnhError]: ...

    def encrypt_many(
        self,
        messages: Sequence[BytesLike],
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        return_errors: bool = False,
        timeout: float | None = None,
    ) -> Sequence[Encrypted | LnhError]:
        """Encrypt many messages in few requests, in order, each with an IV of its own that the HSM draws.

        Args:
            mechanism, parameters: as of `encrypt`; an IV is refused.
            return_errors: give the error in place of what failed, instead of raising the first.
            timeout: seconds for each request.
        """
        mechanism = self._mechanism(mechanism, Use.ENCRYPT)
        length = MECHANISM_RULES[mechanism].iv_bytes
        modulus = self.attributes.get(Attribute.MODULUS)
        answer = len(modulus) if isinstance(modulus, bytes) else 0
        cut = encoding.batches(messages, answer=answer, more=0 if answer else length + AES_BLOCK)
        asked = (encoding.many_fields(self.handle, mechanism, batch, parameters) for batch in cut)
        return [
            Encrypted(result[:length], result[length:]) if isinstance(result, bytes) else result
            for result in self._results(wire.ENCRYPT_MANY, asked, timeout, return_errors=return_errors)
        ]


@checked
class DecryptingKey(Key):
    """A key that decrypts: a private key, or a secret key."""

    def decrypt(
        self,
        data: BytesLike,
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        timeout: float | None = None,
    ) -> bytes:
        """Decrypt what `encrypt` made; with an IV among the parameters, `data` is the rest.

        Raises EncryptedDataInvalid, which says one thing for every way this can fail.
        """
        mechanism = self._mechanism(mechanism, Use.DECRYPT)
        parameters, ciphertext = encoding.split_iv(mechanism, parameters, data)
        fields = self._carry(encoding.decrypt_fields(self.handle, mechanism, ciphertext, parameters))
        return codec.convert(self.session.call(wire.DECRYPT, fields, timeout), wire.Result).data

    @overload
    def decrypt_many(
        self,
        ciphertexts: Sequence[BytesLike],
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        return_errors: Literal[False] = False,
        timeout: float | None = None,
    ) -> list[bytes]: ...

    @overload
    def decrypt_many(
        self,
        ciphertexts: Sequence[BytesLike],
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        return_errors: bool,
        timeout: float | None = None,
    ) -> list[bytes | LnhError]: ...

    def decrypt_many(
        self,
        ciphertexts: Sequence[BytesLike],
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        return_errors: bool = False,
        timeout: float | None = None,
    ) -> Sequence[bytes | LnhError]:
        """Decrypt many that `encrypt` or `encrypt_many` made, in few requests and in order.

        Args:
            mechanism, parameters: as of `decrypt`; each ciphertext begins with its own IV, where there is one.
            return_errors: give the error in place of what failed, instead of raising the first.
            timeout: seconds for each request.
        """
        mechanism = self._mechanism(mechanism, Use.DECRYPT)
        cut = encoding.batches(ciphertexts)
        asked = (encoding.many_fields(self.handle, mechanism, batch, parameters) for batch in cut)
        return list(self._results(wire.DECRYPT_MANY, asked, timeout, return_errors=return_errors))


@checked
class PrivateKey(SigningKey, DecryptingKey):
    """The private half of a key pair. Its value never leaves the HSM."""

    def as_cryptography(self) -> WrappedKey:
        """Wrap the key as `cryptography` has it, so that `x509.CertificateBuilder().sign(...)` uses it in the cluster.

        An X25519 or X448 key only shows its public half. Raises KeyTypeInconsistent for a type that has no wrapper.
        """
        from lnh.objects.as_cryptography import wrap

        return wrap(self)


@checked
class PublicKey(VerifyingKey, EncryptingKey):
    """The public half of a key pair."""

    def to_der(self) -> bytes:
        """Encode the key as SubjectPublicKeyInfo (RFC 5280, 4.1.2.7)."""
        value = self[Attribute.PUBLIC_KEY_INFO]
        assert isinstance(value, bytes), "PUBLIC_KEY_INFO is bytes"
        return value

    def to_pem(self) -> str:
        """Encode the key as SubjectPublicKeyInfo in PEM (RFC 7468, 13)."""
        return encoding.pem("PUBLIC KEY", self.to_der())

    def to_jwk(self) -> str:
        """Encode the key as a JSON Web Key (RFC 7517); raises KeyTypeInconsistent for a type that has no such form."""
        from lnh.objects.jwk import of_public_key

        return of_public_key(self.to_der())

    def to_openssh(self) -> str:
        """Encode the key as a line for OpenSSH, with the label as its comment.

        Raises KeyTypeInconsistent for a type that OpenSSH does not have.
        """
        return encoding.openssh(self.to_der(), self.label)

    def as_cryptography(self) -> PublicKeyTypes:
        """Load the key as `cryptography` has it, to verify and encrypt without the cluster."""
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        return load_der_public_key(self.to_der())


class SecretKey(SigningKey, VerifyingKey, EncryptingKey, DecryptingKey):
    """A symmetric key. It has one use for life: to encrypt, to make tags, to wrap or to derive."""


@checked
class Certificate(StoredObject):
    """An X.509 certificate."""

    def to_der(self) -> bytes:
        """Return the certificate as it is, in DER."""
        return _value(self)

    def to_pem(self) -> str:
        """Encode the certificate in PEM (RFC 7468, 5)."""
        return encoding.pem("CERTIFICATE", self.to_der())

    def as_cryptography(self) -> X509Certificate:
        """Load the certificate as `cryptography` has it."""
        from cryptography.x509 import load_der_x509_certificate

        return load_der_x509_certificate(self.to_der())


@checked
class DataObject(StoredObject):
    """Data of any kind."""

    @property
    def value(self) -> bytes:
        """The attribute VALUE."""
        return _value(self)


CLASSES: Final[dict[ObjectClass, type[StoredObject]]] = {
    ObjectClass.PRIVATE_KEY: PrivateKey,
    ObjectClass.PUBLIC_KEY: PublicKey,
    ObjectClass.SECRET_KEY: SecretKey,
    ObjectClass.CERTIFICATE: Certificate,
    ObjectClass.DATA: DataObject,
}


def _value(found: StoredObject) -> bytes:
    value = found[Attribute.VALUE]
    assert isinstance(value, bytes), "VALUE is bytes"
    return value


def of_view(session: ObjectCalls, view: wire.ObjectView) -> StoredObject:
    """Make the object of its class."""
    number = view.attributes.get(Attribute.CLASS.value)
    kinds = [kind for object_class, kind in CLASSES.items() if object_class == number]
    return (kinds[0] if kinds else StoredObject)(session, view)
