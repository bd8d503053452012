"""Objects of a keyring, one class for each kind, with methods named for what they do.

Shaped after python-pkcs11. Everything an object is, is in its `attributes`; names are PKCS#11's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, overload

from lnh.arguments import checked
from lnh.objects import encoding, streaming
from lnh.objects.base import BytesLike, Certificate, Data, DataObject, Key, StoredObject
from lnh.objects.calls import ObjectCalls
from lnh.objects.encoding import Encrypted
from lnh.objects.streaming import Long, Progress
from lnh_common import limits
from lnh_common.errors import (
    ArgumentInvalid,
    EncryptedDataInvalid,
    LnhError,
    SignatureInvalid,
    WrappedKeyInvalid,
)
from lnh_common.messages import objects as wire
from lnh_common.messages.base import Message
from lnh_common.messages.objects import StreamedUse
from lnh_common.pkcs11.algorithms import AES_BLOCK
from lnh_common.pkcs11.attributes import Attribute, AttributeValue, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use
from lnh_common.wire import codec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

    from lnh.objects.as_cryptography import WrappedKey

__all__ = [
    "CLASSES",
    "BytesLike",
    "Certificate",
    "Data",
    "DataObject",
    "DecryptingKey",
    "EncryptingKey",
    "Key",
    "PrivateKey",
    "PublicKey",
    "SecretKey",
    "SigningKey",
    "StoredObject",
    "VerifyingKey",
    "of_view",
]


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
            data: up to 1 MiB; more, or an open file, for mechanisms that hash it (the hash is computed here) or make a
                tag of it (it goes to the HSM in parts).
            mechanism: None takes the key type's (ECDSA with the hash of the curve's size, RSA PSS with SHA-256...).
            parameters: of the mechanism, such as `PssParameters`.
            der: an ECDSA signature as X.509 has it (RFC 3279, 2.2.3), not `r || s`.

        Raises KeyFunctionNotPermitted, MechanismInvalid, DataLength, ObjectUnknown and what a call raises.
        """
        mechanism = self._mechanism(mechanism, Use.SIGN)
        given = streaming.prepared(self.session, mechanism, data)
        if isinstance(given, Long):
            return streaming.feed(self.session, given, self._fields(StreamedUse.SIGN, mechanism, parameters), timeout)
        fields = self._use(mechanism, given, parameters)
        signature = codec.convert(self.session.call(wire.SIGN, fields, timeout), wire.Result).data
        return encoding.ecdsa_to_der(mechanism, signature) if der else signature

    def sign_file(
        self,
        path: Path | str,
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        der: bool = False,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> bytes:
        """Sign a file of any length, as `sign`.

        Args:
            progress: told (bytes read, bytes in all) from time to time.
        """
        with streaming.opened(path, progress) as file:
            return self.sign(file, mechanism, parameters, der=der, timeout=timeout)

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
        given = streaming.prepared(self.session, mechanism, data)
        try:
            if isinstance(given, Long):
                shared = self._fields(StreamedUse.VERIFY, mechanism, parameters)
                streaming.feed(self.session, given, {**shared, "signature": signature}, timeout)
            else:
                fields = self._use(mechanism, given, parameters)
                self.session.call(wire.VERIFY, {**fields, "signature": signature}, timeout)
        except SignatureInvalid:
            return False
        return True

    def verify_file(
        self,
        path: Path | str,
        signature: BytesLike,
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        der: bool = False,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Tell whether the signature was made over a file of any length by this key, as `verify`."""
        with streaming.opened(path, progress) as file:
            return self.verify(file, signature, mechanism, parameters, der=der, timeout=timeout)

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

    def encrypt_file(
        self,
        source: Path | str,
        target: Path | str,
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> None:
        """Encrypt a file of any length, to `iv || ciphertext || tag` in a file of its own.

        The target is there, or is replaced, when all of it is written.

        Args:
            mechanism, parameters: as of `encrypt`; a mechanism of AES.
            progress: told (bytes read, bytes in all) from time to time.
            timeout: seconds for each part.

        Raises DataLength for a mechanism that takes its data at once, and what `encrypt` raises; StreamLost where the
        members that work on it keep failing.
        """
        mechanism = self._mechanism(mechanism, Use.ENCRYPT)
        streaming.check_parts(self.session, mechanism)
        fields = self._fields(StreamedUse.ENCRYPT, mechanism, parameters)
        with streaming.opened(source, progress) as file:
            iv = encoding.given_iv(parameters)
            streaming.encrypt_file(self.session, file, Path(target), fields, iv, timeout)


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

    def decrypt_file(
        self,
        source: Path | str,
        target: Path | str,
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> None:
        """Decrypt what `encrypt_file` wrote; `target` is there, or is replaced, when all of it is verified.

        Arguments, and what is raised, are as of `encrypt_file` and `decrypt`.
        """
        mechanism = self._mechanism(mechanism, Use.DECRYPT)
        streaming.check_parts(self.session, mechanism)
        with streaming.opened(source, progress) as file:
            parameters = streaming.take_iv(mechanism, parameters, file)
            fields = self._fields(StreamedUse.DECRYPT, mechanism, parameters)
            streaming.decrypt_file(self.session, file, Path(target), fields, timeout)


@checked
class WrappingKey(Key):
    """A key that wraps: a public key, or a secret key."""

    def wrap(
        self,
        key: Key,
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        timeout: float | None = None,
    ) -> bytes:
        """Wrap a secret or private key that is EXTRACTABLE, so that it may leave the HSM.

        With `key_uses = separated` a key is wrapped only by one whose templates give it back as what it is.

        Args:
            key: of this session's keyring, or of this session.
            mechanism: None takes the key's (AES_KEY_WRAP_PAD; RSA_AES_KEY_WRAP or RSA_PKCS_OAEP).
            parameters: such as `OaepParameters`.

        Raises KeyUnextractable, KeyFunctionNotPermitted, KeySizeRange, PolicyForbids, TemplateInconsistent.
        """
        mechanism = self._mechanism(mechanism, Use.WRAP)
        message = wire.Wrap(
            handle=self.handle,
            mechanism=mechanism.value,
            key=key.handle,
            parameters=encoding.packed(mechanism, parameters) if parameters is not None else b"",
            sealed=self.sealed,
            key_sealed=key.sealed,
        )
        return self.session.ask(wire.WRAP, message, timeout).data

    @overload
    def wrap_many(
        self,
        keys: Sequence[Key],
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        return_errors: Literal[False] = False,
        timeout: float | None = None,
    ) -> list[bytes]: ...

    @overload
    def wrap_many(
        self,
        keys: Sequence[Key],
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        return_errors: bool,
        timeout: float | None = None,
    ) -> list[bytes | LnhError]: ...

    def wrap_many(
        self,
        keys: Sequence[Key],
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        return_errors: bool = False,
        timeout: float | None = None,
    ) -> Sequence[bytes | LnhError]:
        """Wrap many keys, as `wrap`, in few requests and in order.

        Args:
            return_errors: give the error in place of what failed, instead of raising the first.
            timeout: seconds for each request.
        """
        mechanism = self._mechanism(mechanism, Use.WRAP)
        packed = encoding.packed(mechanism, parameters) if parameters is not None else b""
        shared = {"handle": self.handle, "mechanism": mechanism.value, "parameters": packed}
        cut = (keys[begin : begin + limits.WRAPPED_AT_ONCE] for begin in range(0, len(keys), limits.WRAPPED_AT_ONCE))
        asked = (
            {**shared, "keys": [key.handle for key in batch], "keys_sealed": [key.sealed for key in batch]}
            for batch in cut
        )
        return list(self._results(wire.WRAP_MANY, asked, timeout, return_errors=return_errors))


@checked
class UnwrappingKey(Key):
    """A key that unwraps: a private key, or a secret key."""

    def unwrap(
        self,
        data: BytesLike,
        object_class: ObjectClass,
        key_type: KeyType,
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        template: Mapping[Attribute, AttributeValue] | None = None,
        timeout: float | None = None,
        **attributes: object,
    ) -> SecretKey | PrivateKey:
        """Make the key that `wrap` wrapped. It is SENSITIVE, and EXTRACTABLE only if this key is and says so.

        What it is for, this key's UNWRAP_TEMPLATE says, or else it is the natural use of its type. With `token=False`
        it lives in this session only.

        Args:
            data: up to 16 KiB.
            object_class, key_type: of the key within.
            mechanism, parameters: as `wrap` was given them.
            template, attributes: attributes of the new key, by number, or by name in lower case.

        Raises WrappedKeyInvalid, which says one thing for every way this can fail; TemplateInconsistent,
        TemplateIncomplete, PolicyForbids, MemberReadOnly, OutcomeUnknown.
        """
        said = {Attribute.CLASS.value: object_class.value, Attribute.KEY_TYPE.value: key_type.value}
        values = said | encoding.template(template, attributes)
        mechanism = self._mechanism(mechanism, Use.UNWRAP)
        data = bytes(data)
        if len(data) > limits.WRAPPED_BYTES:
            raise WrappedKeyInvalid(f"{len(data)} bytes; a wrapped key has {limits.WRAPPED_BYTES} at most")
        message = wire.Unwrap(
            handle=self.handle,
            mechanism=mechanism.value,
            template=values,
            parameters=encoding.packed(mechanism, parameters) if parameters is not None else b"",
            sealed=self.sealed,
            data=data,
        )
        in_session = values.get(Attribute.TOKEN) is False
        made = self.session.adopt(
            self.session.ask(wire.UNWRAP_IN_SESSION, message, timeout)
            if in_session
            else self.session.ask(wire.UNWRAP, message, timeout)
        )
        assert isinstance(made, SecretKey | PrivateKey), "secret and private keys are unwrapped"
        return made


@checked
class DerivingKey(Key):
    """A key that derives: a private key of a curve, or a secret key."""

    def derive(
        self,
        key_type: KeyType,
        bits: int | None = None,
        mechanism: Mechanism | None = None,
        parameters: Message | None = None,
        *,
        template: Mapping[Attribute, AttributeValue] | None = None,
        timeout: float | None = None,
        **attributes: object,
    ) -> SecretKey:
        """Make a secret key: `base.derive(KeyType.AES, 256, parameters=HkdfParameters(info=b"backup"))`.

        What it is for, this key's DERIVE_TEMPLATE says, or else it is the natural use of its type; what comes of an
        agreement on a curve encrypts (AES, CHACHA20) or derives further (GENERIC_SECRET). With `token=False` it lives
        in this session only.

        Args:
            bits: 128 at least; None takes 256.
            mechanism: None takes the key's (ECDH1_DERIVE, HKDF_DERIVE, SP800_108_COUNTER_KDF).
            parameters: `EcdhParameters(public_key=...)`, `HkdfParameters`, `CounterParameters`.
            template, attributes: attributes of the new key, by number, or by name in lower case.

        Raises TemplateInconsistent, KeySizeRange, MechanismParameterInvalid, MemberReadOnly, OutcomeUnknown.
        """
        size = {Attribute.VALUE_LEN.value: encoding.whole_bytes(key_type, 256 if bits is None else bits)}
        values = {Attribute.KEY_TYPE.value: key_type.value} | size | encoding.template(template, attributes)
        mechanism = self._mechanism(mechanism, Use.DERIVE)
        message = wire.Derive(
            handle=self.handle,
            mechanism=mechanism.value,
            template=values,
            parameters=encoding.packed(mechanism, parameters) if parameters is not None else b"",
            sealed=self.sealed,
        )
        in_session = values.get(Attribute.TOKEN) is False
        made = self.session.adopt(
            self.session.ask(wire.DERIVE_IN_SESSION, message, timeout)
            if in_session
            else self.session.ask(wire.DERIVE, message, timeout)
        )
        assert isinstance(made, SecretKey), "a secret key is derived"
        return made


@checked
class PrivateKey(SigningKey, DecryptingKey, UnwrappingKey, DerivingKey):
    """The private half of a key pair. Its value never leaves the HSM."""

    def as_cryptography(self) -> WrappedKey:
        """Wrap the key as `cryptography` has it, so that `x509.CertificateBuilder().sign(...)` uses it in the cluster.

        An X25519 or X448 key only shows its public half. Raises KeyTypeInconsistent for a type that has no wrapper.
        """
        from lnh.objects.as_cryptography import wrap

        return wrap(self)

    def decapsulate(
        self,
        ciphertext: BytesLike,
        key_type: KeyType,
        *,
        template: Mapping[Attribute, AttributeValue] | None = None,
        timeout: float | None = None,
        **attributes: object,
    ) -> SecretKey:
        """Make the secret key of 256 bits that a ciphertext of `encapsulate` carries (ML-KEM).

        It is SENSITIVE, and encrypts (AES, CHACHA20) or derives further (GENERIC_SECRET). With `token=False` it is of
        this session only. A ciphertext that nobody made for this key gives a key that nobody else has.

        Raises EncryptedDataInvalid for a ciphertext of another length; else as `derive`.
        """
        values = {Attribute.KEY_TYPE.value: key_type.value} | encoding.template(template, attributes)
        message = wire.Decapsulate(
            handle=self.handle,
            mechanism=self._mechanism(None, Use.DECAPSULATE).value,
            template=values,
            sealed=self.sealed,
            data=_bounded(ciphertext),
        )
        in_session = values.get(Attribute.TOKEN) is False
        made = self.session.adopt(
            self.session.ask(wire.DECAPSULATE_IN_SESSION, message, timeout)
            if in_session
            else self.session.ask(wire.DECAPSULATE, message, timeout)
        )
        assert isinstance(made, SecretKey), "a secret key is agreed on"
        return made


def _bounded(ciphertext: BytesLike) -> bytes:
    data = bytes(ciphertext)
    if len(data) > limits.WRAPPED_BYTES:
        raise EncryptedDataInvalid("the ciphertext has not the length of the key's parameter set")
    return data


@checked
class PublicKey(VerifyingKey, EncryptingKey, WrappingKey):
    """The public half of a key pair."""

    def encapsulate(
        self,
        key_type: KeyType,
        *,
        template: Mapping[Attribute, AttributeValue] | None = None,
        timeout: float | None = None,
        **attributes: object,
    ) -> tuple[SecretKey, bytes]:
        """Draw a secret key of 256 bits, and the ciphertext that carries it to the private key's holder (ML-KEM).

        With `token=False` the key lives in this session only.

        Raises TemplateInconsistent, KeyFunctionNotPermitted; OutcomeUnknown also where the key was made and its
        ciphertext was lost: then it says which key to destroy.
        """
        values = {Attribute.KEY_TYPE.value: key_type.value} | encoding.template(template, attributes)
        message = wire.Derive(
            handle=self.handle,
            mechanism=self._mechanism(None, Use.ENCAPSULATE).value,
            template=values,
            sealed=self.sealed,
        )
        answer: wire.Encapsulated | wire.EncapsulatedInSession
        if values.get(Attribute.TOKEN) is False:
            answer = self.session.ask(wire.ENCAPSULATE_IN_SESSION, message, timeout)
        else:
            answer = self.session.ask(wire.ENCAPSULATE, message, timeout)
        made = self.session.adopt(answer.key)
        assert isinstance(made, SecretKey), "a secret key is agreed on"
        return made, answer.ciphertext

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


class SecretKey(SigningKey, VerifyingKey, EncryptingKey, DecryptingKey, WrappingKey, UnwrappingKey, DerivingKey):
    """A symmetric key. It has one use for life: to encrypt, to make tags, to wrap or to derive."""


CLASSES: Final[dict[ObjectClass, type[StoredObject]]] = {
    ObjectClass.PRIVATE_KEY: PrivateKey,
    ObjectClass.PUBLIC_KEY: PublicKey,
    ObjectClass.SECRET_KEY: SecretKey,
    ObjectClass.CERTIFICATE: Certificate,
    ObjectClass.DATA: DataObject,
}


def of_view(session: ObjectCalls, view: wire.ObjectView) -> StoredObject:
    """Make the object of its class."""
    number = view.attributes.get(Attribute.CLASS.value)
    kinds = [kind for object_class, kind in CLASSES.items() if object_class == number]
    return (kinds[0] if kinds else StoredObject)(session, view)
