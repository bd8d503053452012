"""What keys come from: an HSM that lists its objects, and wraps those that may leave it."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from lnh.migration.plan import Found, Route
from lnh.objects.keys import PublicKey
from lnh_common.pkcs11.algorithms import Hash
from lnh_common.pkcs11.attributes import KeyType, ObjectClass


class Wrapped(NamedTuple):
    """A key, wrapped for the keyring: by which hash OAEP goes, where it does, and the bytes."""

    data: bytes
    hash: Hash = Hash.SHA256


class Source(Protocol):
    """An HSM from which keys come.

    Attributes:
        name: the same at every run, and of no other source.
        routes: how keys can leave it.
    """

    @property
    def name(self) -> str:
        """The name."""

    @property
    def routes(self) -> frozenset[Route]:
        """The routes."""

    def objects(self) -> list[Found]:
        """List what it holds, in an order of its own."""

    def wrap(self, found: Found, receiver: PublicKey, route: Route) -> Wrapped:
        """Wrap a key under an RSA public key of the keyring, by `Route.OAEP` or `Route.RSA_AES`.

        Raises KeyUnextractable where the source does not wrap it after all.
        """

    def carrier(self, receiver: PublicKey) -> Wrapped:
        """Draw the AES key that carries other keys, and wrap it under a public key of the keyring."""

    def wrap_by_carrier(self, found: Found) -> bytes:
        """Wrap a key by AES_KEY_WRAP_PAD under the carrier; raises KeyUnextractable."""

    def value(self, found: Found) -> bytes:
        """Read a key in clear, as `object.create` takes it; raises AttributeSensitive, KeyTypeInconsistent."""


def kind_of(object_class: int | None, key_type: int | None) -> str:
    """Name class and type of an object for people."""
    if object_class is None or object_class not in ObjectClass._value2member_map_:
        return "unknown"
    name = ObjectClass(object_class).name.lower().replace("_", " ")
    if key_type is None:
        return name
    return f"{KeyType(key_type).name if key_type in KeyType._value2member_map_ else hex(key_type)} {name}"
