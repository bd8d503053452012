"""Decides which key encrypts, and which key a key id names. Pure.

The AES keys of one label are the KEK and those before it. The newest encrypts: handles begin with the time at which a
key was asked for, so the greatest is the newest, on every member and after every restart. Each key decrypts what it
encrypted.

An API server takes the key id of `Status` for what holds, throws an answer to `Encrypt` away that names another, and
must never see an id again that was replaced. So the key changes in `choose` alone, and never to an older one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, Generic, Protocol, TypeVar

from lnh_common.errors import MemberBehind, NotPossible, ObjectUnknown
from lnh_common.pkcs11.attributes import Attribute, Attributes
from lnh_common.pkcs11.parameters import GcmParameters

_PREFIX: Final = "lnh-"
_BOUND: Final = b"lnh kms v2 "  # by which nothing that others encrypt with the key decrypts here
_UNKNOWN: Final = {
    "advice": "serve the keyring and label that encrypted it; a key that was destroyed is in the backups"
}


class Key(Protocol):
    """What is looked at of a key."""

    @property
    def handle(self) -> bytes:
        """The 16 bytes that name it."""

    @property
    def attributes(self) -> Attributes:
        """Everything about it that is not sensitive."""


K = TypeVar("K", bound=Key)


def key_id(key: Key) -> str:
    """Name a key as an API server stores and logs it: by its handle, which is no secret and never used again."""
    return _PREFIX + key.handle.hex()


def parameters(name: str) -> GcmParameters:
    """Return the parameters of AES-GCM that bind a ciphertext to this use and to the key's id."""
    return GcmParameters(aad=_BOUND + name.encode())


class Keys(Generic[K]):
    """The keys of one label.

    Args:
        label: theirs.
        make: the command that makes one, as advice.
    """

    def __init__(self, label: str, make: str) -> None:
        self._label: Final = label
        self._advice: Final = {"advice": make}
        self._known: dict[str, K] = {}
        self._chosen: K | None = None
        self._is_whole = False

    @property
    def chosen_id(self) -> str:
        """The id of the key that encrypts; empty where none was found yet."""
        return "" if self._chosen is None else key_id(self._chosen)

    def take(self, listed: Iterable[K], *, current: bool) -> None:
        """Take in a listing.

        Args:
            current: whether it is all there is; a member that is behind may lack the newest, and list what was
                destroyed.
        """
        found = {key_id(key): key for key in listed}
        self._known = found if current else self._known | found
        self._is_whole = current

    def bind(self, to: Callable[[K], K]) -> None:
        """Replace each key by the same one of another session."""
        self._known = {name: to(key) for name, key in self._known.items()}
        self._chosen = None if self._chosen is None else to(self._chosen)

    def choose(self) -> None:
        """Have the newest key encrypt from now on."""
        usable = [key for key in self._known.values() if _may(key, Attribute.ENCRYPT) and _may(key, Attribute.DECRYPT)]
        newest = max(usable, key=lambda key: key.handle, default=None)
        if newest is not None and (self._chosen is None or newest.handle >= self._chosen.handle):
            self._chosen = newest

    def encrypting(self) -> K:
        """Return the key that encrypts; raises NotPossible, or MemberBehind where that cannot be told."""
        if self._chosen is None:
            self._check_whole()
            raise NotPossible(f"no AES key with label {self._label!r} encrypts", self._advice)
        if self.chosen_id not in self._known:
            raise NotPossible(f"the newest key, {self.chosen_id}, was destroyed or has another label", self._advice)
        return self._chosen

    def has(self, name: str) -> bool:
        """Tell whether an id names a key that was listed."""
        return name in self._known

    def decrypting(self, name: str) -> K:
        """Return the key that an id names; raises ObjectUnknown, or MemberBehind where that cannot be told."""
        key = self._known.get(name)
        if key is None:
            self._check_whole()
            raise ObjectUnknown(f"no key with label {self._label!r} has this key id", _UNKNOWN)
        return key

    def _check_whole(self) -> None:
        if not self._is_whole:
            raise MemberBehind(f"the member that answers is behind its cluster, and may lack a key {self._label!r}")


def _may(key: Key, use: Attribute) -> bool:
    return key.attributes.get(use) is True
