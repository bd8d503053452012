"""A partition of an appliance without a cluster as what keys come from: its console wraps keys, as the SO allows."""

from __future__ import annotations

from typing import Final

from lnh.console import Console
from lnh.migration.plan import Found, Route
from lnh.migration.source import Wrapped, kind_of
from lnh.objects.keys import PublicKey, StoredObject
from lnh_common.errors import (
    KeyFunctionNotPermitted,
    KeySizeRange,
    KeyUnextractable,
    NotPossible,
    PolicyForbids,
    TemplateInconsistent,
)
from lnh_common.pkcs11.attributes import Attribute

_A = Attribute
_REFUSALS: Final = (KeyFunctionNotPermitted, KeySizeRange, KeyUnextractable, PolicyForbids, TemplateInconsistent)


class PartitionSource:
    """The objects of a partition, as its CO reads them; keys leave it as the CO and the HSM's SO allow."""

    routes: frozenset[Route] = frozenset({Route.RSA_AES})

    def __init__(self, console: Console, partition: str, co_password: str, so_password: str) -> None:
        view = console.partition(partition)
        self.name: Final = f"partition {view.serial} {partition}"
        self._console: Final = console
        self._partition: Final = partition
        self._co_password: Final = co_password
        self._so_password: Final = so_password
        self._objects: list[StoredObject] = []

    def objects(self) -> list[Found]:
        """List the partition's objects."""
        self._objects = list(self._console.partition_session(self._partition, self._co_password).find())
        return [_found(number, each) for number, each in enumerate(self._objects)]

    def wrap(self, found: Found, receiver: PublicKey, route: Route) -> Wrapped:
        """Wrap a key under a public key of the keyring; raises KeyUnextractable."""
        assert route is Route.RSA_AES, "what a partition can, it said"
        handle, template = self._objects[found.number].handle, receiver.attributes.get(_A.WRAP_TEMPLATE, {})
        assert isinstance(template, dict), "WRAP_TEMPLATE is a template"
        passwords = self._co_password, self._so_password
        try:
            return Wrapped(self._console.send_key(self._partition, *passwords, handle, receiver.to_der(), template))
        except _REFUSALS as error:
            raise KeyUnextractable(f"the partition does not wrap it: {error}") from None

    def carrier(self, receiver: PublicKey) -> Wrapped:
        """Refuse: a partition wraps each key by itself."""
        raise NotPossible("a partition has no key that carries others")

    def wrap_by_carrier(self, found: Found) -> bytes:
        """Refuse: a partition wraps each key by itself."""
        raise NotPossible("a partition has no key that carries others")

    def value(self, found: Found) -> bytes:
        """Refuse: a partition shows no key in clear."""
        raise KeyUnextractable("a partition shows no key in clear")


def _found(number: int, each: StoredObject) -> Found:
    attributes = dict(each.attributes)
    public = attributes.get(_A.PUBLIC_KEY_INFO)
    key_type = attributes.get(_A.KEY_TYPE)
    kind = kind_of(each.object_class, key_type if isinstance(key_type, int) else None)
    return Found(number, attributes, public if isinstance(public, bytes) else b"", kind=kind)
