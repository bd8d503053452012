# Made of client/lnh/objects/keys.py by `python tests/surface.py`: change that file, and run it.
"""Objects of a keyring, one class for each kind; `uses.py` has what keys of several kinds do.

Shaped after python-pkcs11. Everything an object is, is in its `attributes`; names are PKCS#11's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from lnh.aio.objects.base import BytesLike, Certificate, Data, DataObject, Key, StoredObject
from lnh.aio.objects.calls import ObjectCalls
from lnh.aio.objects.uses import DecryptingKey, EncryptingKey, SigningKey, VerifyingKey, WrappingKey
from lnh.arguments import checked
from lnh.objects import encoding
from lnh_common import limits
from lnh_common.errors import (
    EncryptedDataInvalid,
    WrappedKeyInvalid,
)
from lnh_common.messages import objects as wire
from lnh_common.messages.base import Message
from lnh_common.pkcs11.attributes import Attribute, AttributeValue, KeyType, ObjectClass
from lnh_common.pkcs11.mechanisms import Mechanism, Use

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes


__all__ = [
    "CLASSES",
    "BytesLike",
    "Certificate",
    "Data",
    "DataObject",
    "Key",
    "PrivateKey",
    "PublicKey",
    "SecretKey",
    "StoredObject",
    "of_view",
]


@checked
class UnwrappingKey(Key):
    """A key that unwraps: a private key, or a secret key."""

    async def unwrap(
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
            await self.session.ask(wire.UNWRAP_IN_SESSION, message, timeout)
            if in_session
            else await self.session.ask(wire.UNWRAP, message, timeout)
        )
        assert isinstance(made, SecretKey | PrivateKey), "secret and private keys are unwrapped"
        return made


@checked
class DerivingKey(Key):
    """A key that derives: a private key of a curve, or a secret key."""

    async def derive(
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
            await self.session.ask(wire.DERIVE_IN_SESSION, message, timeout)
            if in_session
            else await self.session.ask(wire.DERIVE, message, timeout)
        )
        assert isinstance(made, SecretKey), "a secret key is derived"
        return made


@checked
class PrivateKey(SigningKey, DecryptingKey, UnwrappingKey, DerivingKey):
    """The private half of a key pair. Its value never leaves the HSM."""

    async def decapsulate(
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
            await self.session.ask(wire.DECAPSULATE_IN_SESSION, message, timeout)
            if in_session
            else await self.session.ask(wire.DECAPSULATE, message, timeout)
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

    async def encapsulate(
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
            answer = await self.session.ask(wire.ENCAPSULATE_IN_SESSION, message, timeout)
        else:
            answer = await self.session.ask(wire.ENCAPSULATE, message, timeout)
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
