"""What keys do with data and with other keys: one class for each use. A key of `keys.py` has those of its kind.

Each use comes once, many at a time in few requests, and over files of any length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from lnh.arguments import checked
from lnh.objects import encoding, feeding, streaming
from lnh.objects.base import BytesLike, Data, Key
from lnh.objects.encoding import Encrypted
from lnh.objects.streaming import Long, Progress
from lnh_common import limits
from lnh_common.errors import (
    ArgumentInvalid,
    LnhError,
    SignatureInvalid,
)
from lnh_common.messages import objects as wire
from lnh_common.messages.base import Message
from lnh_common.messages.objects import StreamedUse
from lnh_common.pkcs11.algorithms import AES_BLOCK
from lnh_common.pkcs11.attributes import Attribute
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism, Use
from lnh_common.wire import codec


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
            return feeding.feed(self.session, given, self._fields(StreamedUse.SIGN, mechanism, parameters), timeout)
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
                feeding.feed(self.session, given, {**shared, "signature": signature}, timeout)
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
            feeding.encrypt_file(self.session, file, Path(target), fields, iv, timeout)


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
            feeding.decrypt_file(self.session, file, Path(target), fields, timeout)


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
