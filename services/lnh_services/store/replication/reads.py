"""Knows which reads wait for which entries: for those that touch what is read, until their fate is known. Pure."""

from __future__ import annotations

import msgspec

from lnh_common.messages.store import Key
from lnh_services.store.machine.restore_swap import EVERYTHING
from lnh_services.store.replication.messages import ReadId


class Interest(msgspec.Struct, frozen=True):
    """The items that a read looks at: one, or with `id` None everything in a table's scope."""

    table: str
    scope: bytes
    id: bytes | None = None


class Touches:
    """The items that an entry that is not yet settled may change."""

    def __init__(self, keys: frozenset[Key]) -> None:
        self._keys = keys
        self._all = EVERYTHING in keys
        self._scopes = frozenset((key.table, key.scope) for key in keys)

    def concern(self, interest: Interest) -> bool:
        """Tell whether the entry may change what a read looks at."""
        table, scope = interest.table, interest.scope
        if self._all:
            return True
        if (table, scope) not in self._scopes:
            return False
        if interest.id is None:
            return True
        whole, one = Key(table=table, scope=scope), Key(table=table, scope=scope, id=interest.id)
        return whole in self._keys or one in self._keys


class Reads:
    """The entries that are not settled, and the reads that wait for them."""

    def __init__(self) -> None:
        self._touches: dict[int, Touches] = {}
        self._waiting: dict[ReadId, int] = {}  # and the entry each waits for

    def touch(self, index: int, keys: frozenset[Key]) -> None:
        """Note what an entry may change."""
        if keys:
            self._touches[index] = Touches(keys)

    def last_touching(self, interest: Interest) -> int:
        """Return the index of the last entry that may change what a read looks at; 0 where there is none."""
        return next((index for index in reversed(self._touches) if self._touches[index].concern(interest)), 0)

    def settle(self, settled: int) -> None:
        """Forget what the entries up to this index touch: their fate is known."""
        for index in [index for index in self._touches if index <= settled]:
            del self._touches[index]

    def drop_after(self, last: int) -> None:
        """Forget what the entries after this index touch: they are gone."""
        for index in [index for index in self._touches if index > last]:
            del self._touches[index]

    def clear(self) -> None:
        """Forget what any entry touches: another state takes the place of all of them."""
        self._touches.clear()

    def wait(self, read: ReadId, index: int) -> None:
        """Have a read wait for an entry."""
        self._waiting[read] = index

    def withdraw(self, read: ReadId) -> None:
        """Drop a read that nobody waits for any more."""
        self._waiting.pop(read, None)

    def take_due(self, settled: int, last: int, *, all_of_them: bool) -> list[ReadId]:
        """Take the reads that wait no longer: what they wait for is settled, or gone from the log, whose end is `last`.

        Args:
            all_of_them: take every read, because the applied state is all that is promised.
        """
        due = [read for read, at in self._waiting.items() if all_of_them or at <= settled or at > last]
        for read in due:
            del self._waiting[read]
        return due

    def __bool__(self) -> bool:
        return bool(self._waiting)
