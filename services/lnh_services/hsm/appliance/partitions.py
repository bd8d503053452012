"""Keeps the objects of the appliance's own partitions, a sealed file each, and carries out what their CO asks.

A partition's objects are sealed as a keyring's are (`objects/stored.py`), under a key of the partition's own that only
the HSM's state holds: with the partition its key goes, and so does what the file says. They are made, changed and used
by the rules, templates and mechanisms of a keyring's, under the default policy. docs/formats/hsm-state.md is exact.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from lnh_common import limits
from lnh_common.errors import LimitReached, MalformedMessage, ObjectUnknown, PolicyForbids, SealBroken
from lnh_common.messages import console
from lnh_common.messages import objects as wire
from lnh_common.messages.base import Empty, Message
from lnh_common.messages.session import Id16, Role
from lnh_common.messages.store import Item, Put
from lnh_common.pkcs11.attributes import Attribute, ObjectClass, parse_template
from lnh_common.pkcs11.mechanisms import Mechanism, Use, mechanism
from lnh_common.wire import codec
from lnh_services import durable
from lnh_services.hsm.appliance.state import Partition
from lnh_services.hsm.crypto.mechanisms import IvSource
from lnh_services.hsm.objects import create as creation
from lnh_services.hsm.objects import from_keys, key_rules
from lnh_services.hsm.objects import generate as generation
from lnh_services.hsm.objects import policy as rules
from lnh_services.hsm.objects.generate import Generated
from lnh_services.hsm.objects.policy import Policy
from lnh_services.hsm.objects.prepared_keys import ACTS, Act, CachedKey, Prepared, check_today, prepare
from lnh_services.hsm.objects.stored import HANDLE_BYTES, Attributes, KeyringKeys, has, stored_template, view

FORMAT: Final = "lnh-partition-1"
_ROLE: Final = Role.KRCO  # what a CO may say in a template is what a KRCO may
_POLICY: Final = Policy()


class _Stored(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    handle: Id16
    version: int
    head: bytes
    body: bytes


class _File(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    format: str
    serial: str
    objects: tuple[_Stored, ...]


class PartitionFiles:
    """The files `data/hsm/partition-SERIAL.cbor`, mode 0600, one for each partition that has had an object."""

    def __init__(self, directory: Path) -> None:
        self._directory: Final = directory

    def read(self, serial: str) -> dict[bytes, _Stored]:
        """Read the sealed objects of a partition, by handle; raises SealBroken for a damaged file, StorageFailed."""
        path = self._path(serial)
        data = durable.read_private(path, limits.PARTITION_BYTES)
        if data is None:
            return {}
        try:
            file = codec.convert(codec.decode(data, limits.PARTITION_BYTES), _File)
        except MalformedMessage:
            raise SealBroken(f"data/hsm/{path.name} is damaged") from None
        if (file.format, file.serial) != (FORMAT, serial):
            raise SealBroken(f"data/hsm/{path.name} is of format {file.format!r} and partition {file.serial}")
        return {one.handle: one for one in file.objects}

    def write(self, serial: str, stored: Iterable[_Stored]) -> None:
        """Replace a partition's file, durably and at once; raises LimitReached, StorageFailed."""
        data = codec.encode([FORMAT, serial, [list(msgspec.structs.astuple(one)) for one in stored]])
        if len(data) > limits.PARTITION_BYTES:
            raise LimitReached(f"the partition would have {len(data)} bytes; at most {limits.PARTITION_BYTES}")
        durable.replace_file(self._path(serial), data)

    def erase(self, serial: str) -> None:
        """Remove a partition's file; raises StorageFailed."""
        durable.remove_file(self._path(serial))

    def erase_all(self) -> None:
        """Remove every partition's file, also of partitions that the state does not name; raises StorageFailed."""
        for path in self._directory.glob("partition-*.cbor"):
            durable.remove_file(path)

    def _path(self, serial: str) -> Path:
        return self._directory / f"partition-{serial}.cbor"


_NO_POLICY: Final = "do without: a partition goes by the default policy, which nobody can change"


class Contents:
    """The objects of one partition while something is done with them.

    Args:
        stored: as `PartitionFiles.read` gives them; an operation changes them, and the caller writes them.
        ivs: this process's source of IVs.
        utc: UTC seconds, for keys with dates.
    """

    def __init__(self, partition: Partition, stored: dict[bytes, _Stored], ivs: IvSource, utc: float) -> None:
        assert partition.key is not None, "a partition with a CO has a key for its objects"
        self.stored: Final = stored
        self._label: Final = partition.label
        self._keys: Final = KeyringKeys.derive(partition.key, b"", partition.serial.encode())
        self._ivs: Final = ivs
        self._utc: Final = utc

    def perform(self, operation: str, message: Message) -> Message:
        """Carry out one operation of `messages/objects.py` and answer as a worker would; raises what it would."""
        try:
            return _PERFORM[operation](self, message)
        except PolicyForbids as error:
            error.detail = {"advice": _NO_POLICY} | error.detail
            raise

    # --- objects

    def generate(self, message: wire.GenerateKey) -> wire.ObjectView:
        """Make a secret key."""
        self._check_room(1)
        made = generation.generate_key(mechanism(message.mechanism), stored_template(message.template), _POLICY, _ROLE)
        return self._made(made)

    def generate_pair(self, message: wire.GenerateKeyPair) -> wire.KeyPair:
        """Make a key pair."""
        self._check_room(2)
        public, private = generation.generate_key_pair(
            mechanism(message.mechanism),
            stored_template(message.public_template),
            stored_template(message.private_template),
            _POLICY,
            _ROLE,
        )
        return wire.KeyPair(public=self._made(public), private=self._made(private, 1))

    def find(self, message: wire.Find) -> wire.Found:
        """Return a page of the objects that have the template's attributes, in handle order."""
        template = parse_template(message.template)
        page: list[wire.ObjectView] = []
        size = 0
        for handle in sorted(handle for handle in self.stored if handle > message.after):
            if not has(self._attributes(handle), template):
                continue
            size += len(self.stored[handle].head)
            if len(page) == message.limit or (page and size > limits.PAGE_BYTES):
                return wire.Found(objects=tuple(page), more=True, last=page[-1].handle)
            page.append(self._view(handle))
        return wire.Found(objects=tuple(page), more=False, last=page[-1].handle if page else message.after)

    def show(self, message: wire.Show) -> wire.ObjectView:
        """Show an object's attributes."""
        return self._view(message.handle)

    def set_attributes(self, message: wire.SetAttributes) -> wire.ObjectView:
        """Change an object's attributes, all of the template or none."""
        item = self._item(message.handle)
        rules.check_version(item.version, message.version)
        changed = creation.change(self._keys.read_attributes(item), parse_template(message.template), _ROLE)
        return self._put(item.version, message.handle, changed, self._keys.read_value(item))

    def destroy(self, message: wire.Destroy) -> Empty:
        """Destroy an object."""
        rules.check_version(self._item(message.handle).version, message.version)
        rules.check_destroy(self._attributes(message.handle))
        del self.stored[message.handle]
        return Empty()

    # --- cryptography

    def use(self, message: Any, act: Act) -> Message:
        """Use a key, in any of `ACTS`."""
        _, operate = self._prepared(message, act)
        return act.carry_out(operate, message)

    def send(self, message: console.SendKey) -> wire.Result:
        """Wrap a key for an HSM elsewhere, under a public key that is not kept.

        The public key counts as TRUSTED, as one of a keyring does when its KRSO says so: here the SO has said it.

        Raises as `key_rules.check_wrap` does, and as the making of a public key.
        """
        template = parse_template(message.template) | {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY.value,
            Attribute.WRAP: True,
            Attribute.TRUSTED: True,
        }
        made = creation.create(template, message.receiver, _POLICY, Role.KRSO)
        receiver = CachedKey.loaded_from(1, made.attributes, made.value)
        key = self._key(message.handle)
        operate = prepare(receiver, Use.WRAP, Mechanism.RSA_AES_KEY_WRAP, b"", _POLICY, self._ivs)
        key_rules.check_wrap(receiver.attributes, key.attributes, _POLICY)
        return wire.Result(data=operate(from_keys.value_of(key.loaded)))

    # --- objects of something else

    def create(self, message: wire.CreateObject) -> wire.ObjectView:
        """Make an object of a value; the default policy lets public keys, certificates and data come in."""
        self._check_room(1)
        return self._made(creation.create(stored_template(message.template), message.value, _POLICY, _ROLE))

    def copy(self, message: wire.Copy) -> wire.ObjectView:
        """Copy an object."""
        self._check_room(1)
        item = self._item(message.handle)
        copied = creation.copy(self._keys.read_attributes(item), stored_template(message.template), _ROLE)
        return self._made(Generated(copied, self._keys.read_value(item)))

    def value(self, message: wire.Show) -> wire.Value:
        """Read the value of a key that may be read in plaintext."""
        key = self._key(message.handle)
        return wire.Value(value=from_keys.readable_value(key.attributes, key.loaded))

    def wrap(self, message: wire.Wrap) -> wire.Result:
        """Wrap a key with another."""
        wrapped = self._key(message.key)
        wrapping, operate = self._prepared(message, Use.WRAP)
        key_rules.check_wrap(wrapping.attributes, wrapped.attributes, _POLICY)
        return wire.Result(data=operate(from_keys.value_of(wrapped.loaded)))

    def unwrap(self, message: wire.Unwrap) -> wire.ObjectView:
        """Make the key that was wrapped."""
        base, operate = self._prepared(message, Use.UNWRAP, makes=1)
        template = _stays(message.template)
        made = from_keys.unwrapped(base.attributes, template, lambda: operate(message.data), _POLICY, _ROLE)
        return self._made(made)

    def derive(self, message: wire.Derive) -> wire.ObjectView:
        """Make a secret key out of another, or of an agreement on a curve."""
        base, operate = self._prepared(message, Use.DERIVE, makes=1)
        return self._made(from_keys.derived(base.attributes, _stays(message.template), operate, _POLICY, _ROLE))

    def encapsulate(self, message: wire.Derive) -> wire.Encapsulated:
        """Draw a secret key, and the ciphertext that carries it to the holder of the private key."""
        base, operate = self._prepared(message, Use.ENCAPSULATE, makes=1)
        secret, ciphertext = operate()
        made = from_keys.agreed(base.attributes, _stays(message.template), lambda: secret, _POLICY, _ROLE)
        return wire.Encapsulated(key=self._made(made), ciphertext=ciphertext)

    def decapsulate(self, message: wire.Decapsulate) -> wire.ObjectView:
        """Make the secret key that a ciphertext carries."""
        base, operate = self._prepared(message, Use.DECAPSULATE, makes=1)
        template = _stays(message.template)
        return self._made(from_keys.agreed(base.attributes, template, lambda: operate(message.data), _POLICY, _ROLE))

    # --- the parts of these

    def _key(self, handle: bytes) -> CachedKey:
        item = self._item(handle)
        return CachedKey.loaded_from(item.version, *self._keys.read(item))

    def _prepared(self, message: Any, act: Act | Use, *, makes: int = 0) -> tuple[CachedKey, Prepared]:
        """Return the key that a message uses so, and its operation; there is room for so many objects that it makes."""
        self._check_room(makes)
        key = self._key(message.handle)
        operate = prepare(key, act, message.mechanism, message.parameters, _POLICY, self._ivs)
        check_today(key, self._utc)
        return key, operate

    def _check_room(self, wanted: int) -> None:
        if len(self.stored) + wanted > limits.OBJECTS_PER_PARTITION:
            raise LimitReached(
                f"partition {self._label} holds {len(self.stored)} objects; at most {limits.OBJECTS_PER_PARTITION}"
            )

    def _item(self, handle: bytes) -> Item:
        stored = self.stored.get(handle)
        if stored is None:
            raise ObjectUnknown(f"no object {handle.hex()} in partition {self._label}")
        return Item(key=self._keys.key(handle), version=stored.version, head=stored.head, body=stored.body)

    def _attributes(self, handle: bytes) -> Attributes:
        return self._keys.read_attributes(self._item(handle))

    def _view(self, handle: bytes) -> wire.ObjectView:
        item = self._item(handle)
        return view(handle, item.version, self._keys.read_attributes(item))

    def _made(self, made: Generated, number: int = 0) -> wire.ObjectView:
        """Keep a new object, the `number`th of its request; by their handles objects are listed as they were made."""
        when = int(self._utc * 1000).to_bytes(6, "big") + number.to_bytes(1, "big")
        return self._put(0, when + secrets.token_bytes(HANDLE_BYTES - len(when)), made.attributes, made.value)

    def _put(self, expected: int, handle: bytes, attributes: Attributes, value: bytes) -> wire.ObjectView:
        attributes[Attribute.UNIQUE_ID] = handle.hex()
        put: Put = self._keys.put(handle, expected, attributes, value)
        self.stored[handle] = _Stored(handle, expected + 1, put.head, put.body)
        return view(handle, expected + 1, attributes)


def _stays(template: dict[int, Any]) -> Attributes:
    """Check the template of what comes out of another key, whose own template may say that it is of a session."""
    parsed = stored_template(template)
    parsed.setdefault(Attribute.TOKEN, True)
    return parsed


_PERFORM: Final[dict[str, Callable[[Contents, Any], Message]]] = {
    wire.GENERATE.name: Contents.generate,
    wire.GENERATE_PAIR.name: Contents.generate_pair,
    wire.CREATE.name: Contents.create,
    wire.COPY.name: Contents.copy,
    wire.VALUE.name: Contents.value,
    wire.WRAP.name: Contents.wrap,
    wire.UNWRAP.name: Contents.unwrap,
    wire.DERIVE.name: Contents.derive,
    wire.ENCAPSULATE.name: Contents.encapsulate,
    wire.DECAPSULATE.name: Contents.decapsulate,
    wire.FIND.name: Contents.find,
    wire.SHOW.name: Contents.show,
    wire.SET.name: Contents.set_attributes,
    wire.DESTROY.name: Contents.destroy,
    **{name: partial(Contents.use, act=act) for name, act in ACTS.items()},
}
