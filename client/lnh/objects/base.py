"""What every object of a keyring is and can do: the base of the classes in `lnh.objects.keys`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeAlias

from lnh.arguments import checked
from lnh.objects import encoding, streaming
from lnh.objects.calls import ObjectCalls
from lnh_common.errors import ActionProhibited, ArgumentInvalid, AttributeInvalid, LnhError, VersionConflict
from lnh_common.messages import objects as wire
from lnh_common.messages.base import Message, Operation
from lnh_common.messages.objects import StreamedUse
from lnh_common.pkcs11.attributes import Attribute, Attributes, AttributeValue, KeyType, ObjectClass, from_wire
from lnh_common.pkcs11.mechanisms import Mechanism, Use
from lnh_common.wire import codec

if TYPE_CHECKING:
    from cryptography.x509 import Certificate as X509Certificate

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

    def set_attributes(
        self,
        attributes: Mapping[Attribute, AttributeValue] | None = None,
        *,
        if_version: int | None = None,
        **named: object,
    ) -> None:
        """Change attributes, all or none: `key.set_attributes(label="new", extractable=False)`.

        Args:
            if_version: change them only while the object has this version; its present one is `version`.

        Raises AttributeReadOnly, AttributeInvalid, ActionProhibited, MemberReadOnly, VersionConflict.
        """
        if self.sealed:
            raise ActionProhibited("TOKEN is false: an object of a session cannot be changed")
        template = encoding.template(attributes, named)
        message = wire.SetAttributes(handle=self.handle, template=template, version=_wanted(if_version))
        self._take(self.session.ask(wire.SET, message))

    def destroy(self, *, if_version: int | None = None) -> None:
        """Destroy the object: afterwards no read-write member uses it.

        Args:
            if_version: destroy it only while it has this version.

        Raises ActionProhibited, VersionConflict.
        """
        version = _wanted(if_version)
        if self.sealed:
            if version not in (0, self.version):
                raise VersionConflict(f"the object has version {self.version}, not {version}")
            self._drop()
            return
        self.session.ask(wire.DESTROY, wire.Destroy(handle=self.handle, version=version))

    def copy(self, attributes: Mapping[Attribute, AttributeValue] | None = None, **named: object) -> StoredObject:
        """Copy the object: `key.copy(label="second")`. What changes one way only goes along; TRUSTED does not.

        The copy is a stored object: that of an object of a session is made with `token=True`.
        Raises ActionProhibited where COPYABLE is false, or without that; else as `set_attributes`.
        """
        template = encoding.template(attributes, named)
        message = wire.Copy(handle=self.handle, template=template, sealed=self.sealed)
        copied = self.session.adopt(self.session.ask(wire.COPY, message))
        assert isinstance(copied, type(self)), "a copy is of the same class"
        return copied

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

    def read_value(self) -> bytes:
        """Read the key's value: the bytes of a secret key, PKCS#8 DER of a private key.

        Raises AttributeSensitive for a key that is SENSITIVE or not EXTRACTABLE: its value leaves wrapped, or not at
        all.
        """
        return self.session.ask(wire.VALUE, wire.Show(handle=self.handle, sealed=self.sealed)).value

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

    def _fields(self, use: StreamedUse, mechanism: Mechanism, parameters: Message | None) -> dict[str, Any]:
        return streaming.fields_of(use, self.handle, self.sealed, mechanism, parameters)

    def _carry(self, fields: dict[str, Any]) -> dict[str, Any]:
        if self.sealed:
            fields["sealed"] = self.sealed
        return fields

    def _take(self, view: wire.ObjectView) -> None:
        super()._take(view)
        self._defaults: dict[Use, Mechanism] = {}


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


def _wanted(version: int | None) -> int:
    """Return the version that a message demands; 0 demands none. Raises ArgumentInvalid for what no object has."""
    if version is not None and version < 1:
        raise ArgumentInvalid(f"version {version}; they count from 1")
    return version or 0


def _value(found: StoredObject) -> bytes:
    value = found[Attribute.VALUE]
    assert isinstance(value, bytes), "VALUE is bytes"
    return value
