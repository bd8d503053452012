"""Stores objects: attributes and value sealed apart, and blind tags to find them by.

A listing opens attributes and never a value. The value is bound to the hash of the sealed attributes, so a store cannot
give a key other attributes than those it was stored with. A tag is an HMAC under the keyring's index key over a name
and a value: the store finds equal ones without reading either.

An object of a session is not stored: attributes and value are one sealed thing that its session's SDK carries, bound to
keyring, session and handle (docs/formats/session-objects.md).

While a keyring is given another key (`worker/handlers/rekeying.py`), its keys know those of before: what is sealed
under these opens, and whatever is stored is sealed under the newest.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field, replace
from typing import Any, Final

from lnh_common.errors import SealBroken, TemplateInconsistent
from lnh_common.messages.objects import GENERATE_IN_SESSION, ObjectView
from lnh_common.messages.store import OBJECTS, Item, Key, Put
from lnh_common.pkcs11.attributes import Attribute, parse_template, to_wire
from lnh_common.wire import codec
from lnh_services.hsm.crypto.key_hierarchy import Purpose
from lnh_services.hsm.crypto.sealing import Kind, Place, seal, unseal
from lnh_services.hsm.objects.policy import visible

HANDLE_BYTES: Final = 16
SEARCHABLE: Final = (Attribute.LABEL, Attribute.ID, Attribute.CLASS, Attribute.KEY_TYPE)
_TAG_BYTES: Final = 16
_COMMON_TAGS: Final = 64

Attributes = dict[Attribute, Any]


def view(handle: bytes, version: int, attributes: Attributes) -> ObjectView:
    """View an object as its session sees it."""
    return ObjectView(handle=handle, version=version, attributes=to_wire(visible(attributes)))


def stored_template(template: dict[int, Any]) -> Attributes:
    """Check a template for an object that is stored; raises TemplateInconsistent for an object of a session."""
    parsed = parse_template(template)
    if parsed.get(Attribute.TOKEN) is False:
        raise TemplateInconsistent(f"TOKEN is false: {GENERATE_IN_SESSION.name} makes an object of a session")
    return parsed


def has(attributes: Attributes, template: Attributes) -> bool:
    """Tell whether an object has all of a template's attributes; VALUE is not compared, a key's is sealed apart."""
    return all(
        name in attributes and attributes[name] == value
        for name, value in template.items()
        if name is not Attribute.VALUE
    )


@dataclass(frozen=True)
class KeyringKeys:
    """The keys of one keyring, all from its keyring key, and its name on every seal.

    Args:
        before: the keys that some objects may still be sealed under; None where all are sealed under these.
        rekeyed: the version of the `RekeyRecord` that said so; 0 where there was none.
    """

    cluster: bytes
    keyring: bytes
    attributes: bytes = field(repr=False)
    value: bytes = field(repr=False)
    index: bytes = field(repr=False)
    session: bytes = field(repr=False)
    before: KeyringKeys | None = field(default=None, repr=False)
    rekeyed: int = 0
    _common: dict[tuple[Attribute, object], bytes] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def derive(cls, keyring_key: bytes, cluster: bytes, keyring: bytes) -> KeyringKeys:
        """Derive the keys of a keyring from its keyring key (32 bytes)."""
        return cls(
            cluster,
            keyring,
            Purpose.ATTRIBUTES.derive(keyring_key),
            Purpose.VALUE.derive(keyring_key),
            Purpose.INDEX.derive(keyring_key),
            Purpose.SESSION_OBJECT.derive(keyring_key),
        )

    def with_before(self, keyring_key: bytes, sealed: bytes, rekeyed: int) -> KeyringKeys:
        """Return these keys with those of before, whose keyring key `seal_before` sealed; raises SealBroken.

        Args:
            keyring_key: that these keys are from.
            sealed: empty where none are needed any more.
        """
        if not sealed:
            return replace(self, rekeyed=rekeyed)
        key = unseal(Purpose.BEFORE.derive(keyring_key), sealed, self._place(Kind.KEYRING_KEY_BEFORE, b"", 0))
        return replace(self, before=KeyringKeys.derive(key, self.cluster, self.keyring), rekeyed=rekeyed)

    def seal_before(self, keyring_key: bytes, newest: bytes) -> bytes:
        """Seal the keyring key that these keys are from under the keyring's newest."""
        return seal(Purpose.BEFORE.derive(newest), keyring_key, self._place(Kind.KEYRING_KEY_BEFORE, b"", 0))

    def generations(self) -> tuple[KeyringKeys, ...]:
        """Return the keys that objects are sealed under, oldest first."""
        return (self,) if self.before is None else (self.before, self)

    def _place(self, kind: Kind, handle: bytes, version: int) -> Place:
        return Place(kind, cluster=self.cluster, keyring=self.keyring, handle=handle, version=version)

    def key(self, handle: bytes) -> Key:
        """Return the key of the item that stores the object."""
        return Key(table=OBJECTS, scope=self.keyring, id=handle)

    def tag(self, attribute: Attribute, value: object) -> bytes:
        """Make the blind tag of one attribute's value; kept if that is a class, a type or empty, as of most objects."""
        if value and not isinstance(value, int):
            return self._tag(attribute, value)
        known = self._common.get((attribute, value))
        if known is None:
            known = self._tag(attribute, value)
            if len(self._common) < _COMMON_TAGS:
                self._common[attribute, value] = known
        return known

    def _tag(self, attribute: Attribute, value: object) -> bytes:
        name = attribute.name.encode()
        covered = len(name).to_bytes(2, "big") + name + codec.encode(value)
        return hmac.digest(self.index, covered, "sha256")[:_TAG_BYTES]

    def put(self, handle: bytes, expected: int, attributes: Attributes, value: bytes, limit: int | None = None) -> Put:
        """Make the change that stores the object as version `expected + 1`."""
        place = self._place(Kind.ATTRIBUTES, handle, expected + 1)
        head = seal(self.attributes, codec.encode(_numbered(attributes)), place)
        body = seal(self.value, value, place.of(Kind.VALUE, hashlib.sha256(head).digest()))
        tags = tuple(self.tag(name, attributes[name]) for name in SEARCHABLE if attributes.get(name) is not None)
        return Put(key=self.key(handle), expected=expected, head=head, body=body, tags=tags, limit=limit)

    def read_attributes(self, item: Item) -> Attributes:
        """Open the attributes of a stored object; raises SealBroken."""
        return self._sealing(item)[1]

    def _sealing(self, item: Item) -> tuple[KeyringKeys, Attributes]:
        """Return the keys that an object is sealed under, and its attributes; raises SealBroken."""
        place = self._place(Kind.ATTRIBUTES, item.key.id, item.version)
        try:
            return self, _named(codec.decode(unseal(self.attributes, item.head, place)))
        except SealBroken:
            if self.before is None:
                raise
            return self.before._sealing(item)

    def resealed(self, item: Item) -> Put | None:
        """Make the change that seals a stored object anew; None where these keys seal it already. Raises SealBroken."""
        keys, attributes = self._sealing(item)
        value = keys.read_value(item)
        return None if keys is self else self.put(item.key.id, item.version, attributes, value)

    def read_value(self, item: Item) -> bytes:
        """Open the value of an object that these keys seal; raises SealBroken for other attributes than its own."""
        place = self._place(Kind.VALUE, item.key.id, item.version)
        place = place.of(Kind.VALUE, hashlib.sha256(item.head).digest())
        return unseal(self.value, item.body, place)

    def read(self, item: Item) -> tuple[Attributes, bytes]:
        """Open attributes and value of a stored object; raises SealBroken, also for other attributes than its own."""
        keys, attributes = self._sealing(item)
        return attributes, keys.read_value(item)

    def seal_for_session(self, session: bytes, handle: bytes, attributes: Attributes, value: bytes) -> bytes:
        """Seal an object for the session with this id, which carries it."""
        place = self._place(Kind.SESSION_OBJECT, handle, 1).of(Kind.SESSION_OBJECT, session)
        return seal(self.session, codec.encode([_numbered(attributes), value]), place)

    def open_for_session(self, session: bytes, handle: bytes, sealed: bytes) -> tuple[Attributes, bytes]:
        """Open attributes and value that `seal_for_session` sealed for this very session; raises SealBroken."""
        place = self._place(Kind.SESSION_OBJECT, handle, 1).of(Kind.SESSION_OBJECT, session)
        attributes, value = codec.decode(unseal(self.session, sealed, place))
        return _named(attributes), value


def _numbered(attributes: Attributes) -> dict[int, Any]:
    return {int(name): value for name, value in attributes.items()}


def _named(numbered: dict[int, Any]) -> Attributes:
    return {Attribute(number): value for number, value in numbered.items()}
