"""Knows the keys whose requests go on to a worker: those of registered clients, as the store's records name them. Pure.

Every CURVE key is let in: to say `hello`, to register, and to act as an appliance user. Operations that only a
registered client may ask for (objects, cryptography, what a keyring's roles do) are refused here, request by request,
to a key that no client has or whose client was revoked. The hsm checks the same again and is the one that counts: this
keeps strangers from its workers, and the records are not authenticated here. Until they were read once, and where there
is no cluster, the hsm decides alone; when the store is away, the last records read hold.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from lnh_common.bus import curve
from lnh_common.errors import ClientRevoked, ClientUnknown, LnhError, MalformedMessage, NoCluster
from lnh_common.messages import admin, objects, store
from lnh_common.messages.base import Message, Operation, Seal
from lnh_common.wire import codec

TABLE: Final = "client"
WATCH_SECONDS: Final = 20.0
READ_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 1.0  # before the store is asked again after an error
_PAGE: Final = 1024

REGISTERED_ONLY: Final = frozenset(
    row.name for row in vars(objects).values() if isinstance(row, Operation) and row.seal is Seal.SESSION
) | {
    admin.KEYRING_POLICY.name,
    admin.KEYRING_REKEY.name,
    admin.KEYRING_RESEAL.name,
    admin.KEYRING_REKEY_STATE.name,
    admin.ROLE_SET.name,
}


class _Client(msgspec.Struct):
    """The fields that are read of a client's record (docs/formats.md, records); its other fields are the hsm's."""

    name: str
    curve_key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    revoked: bool


@dataclass(frozen=True)
class Question:
    """A question to the store; its answer, or error, is sent into the generator that asked."""

    operation: Operation[Any, Any]
    message: Message
    seconds: float


class Clients:
    """The registered clients as last read."""

    def __init__(self) -> None:
        self.known = False
        self._clients: dict[bytes, _Client] = {}
        self._keys: dict[str, _Client] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def refusal(self, key: str) -> LnhError | None:
        """Make the error that refuses this Z85 key an operation of registered clients; None for a client's key."""
        client = self._keys.get(key)
        if client is None:
            if not self.known:
                return None
            return ClientUnknown("this machine is not a registered client of the cluster")
        if client.revoked:
            return ClientRevoked(f"client {client.name!r} was revoked")
        return None

    def follow(self) -> Generator[Question | None, Any, None]:
        """Yield questions to the store, for ever; None is a pause. Errors are thrown in."""
        while True:
            try:
                index = yield from self._read_all()
                while True:
                    watch = store.Watch(index=index, tables=(TABLE,))
                    changed = yield Question(store.WATCH, watch, WATCH_SECONDS)
                    index = changed.index
                    if changed.everything:
                        break
                    yield from self._read(changed.keys)
            except NoCluster:
                self._take({}, known=False)
                yield None
            except LnhError:
                yield None

    def _read_all(self) -> Generator[Question, Any, int]:
        found: dict[bytes, _Client] = {}
        after, more = b"", True
        index: int | None = None
        while more:
            page: store.Scanned = yield Question(
                store.SCAN, store.Scan(table=TABLE, after=after, limit=_PAGE), READ_SECONDS
            )
            index = page.index if index is None else index  # what changed since the first page is told again
            for item in page.items:
                after = item.key.id
                self._put(found, item)
            more = page.more
        self._take(found, known=True)
        assert index is not None, "there is a first page"
        return index

    def _read(self, keys: tuple[store.Key, ...]) -> Generator[Question, Any, None]:
        clients = dict(self._clients)
        for key in keys:
            got = yield Question(store.GET, store.Get(key=key, body=False), READ_SECONDS)
            clients.pop(key.id, None)
            if got.item is not None:
                self._put(clients, got.item)
        if keys:
            self._take(clients, known=True)

    @staticmethod
    def _put(clients: dict[bytes, _Client], item: store.Item) -> None:
        try:
            fields = codec.decode(item.head)
            clients[item.key.id] = msgspec.convert(fields, _Client, builtin_types=(bytes,))
        except (MalformedMessage, msgspec.ValidationError):
            return  # the hsm will say what is wrong with it

    def _take(self, clients: dict[bytes, _Client], *, known: bool) -> None:
        keys: dict[str, _Client] = {}
        for client in clients.values():
            key = curve.to_z85(client.curve_key).decode()
            if key not in keys or keys[key].revoked:  # a machine may have registered again after it was revoked
                keys[key] = client
        self._clients, self._keys, self.known = clients, keys, known
