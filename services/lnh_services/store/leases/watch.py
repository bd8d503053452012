"""Keeps the recent changes for services that watch, and counts how fast they come. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Final

from lnh_common.messages.store import Changed, Key

KEPT_KEYS: Final = 16_384
KEYS_AT_ONCE: Final = 4096  # in one message, which stays below limits.BODY_BYTES


class RecentChanges:
    """The changed keys of the last entries. A watcher that asks for more than is kept reads its tables anew."""

    def __init__(self) -> None:
        self._entries: deque[tuple[int, frozenset[Key]]] = deque()
        self._keys = 0
        self._floor = 0  # what changed up to this index is not known
        self._last = 0

    @property
    def last(self) -> int:
        """The newest index that is known of."""
        return self._last

    def restart(self, index: int) -> None:
        """Begin anew behind `index`: after a start, and when another state took the place of the old one."""
        self._entries.clear()
        self._keys = 0
        self._floor = self._last = index

    def add(self, index: int, keys: frozenset[Key]) -> None:
        """Note that entry `index` changed `keys`."""
        self._last = max(self._last, index)
        if not keys:
            return
        self._entries.append((index, keys))
        self._keys += len(keys)
        while self._keys > KEPT_KEYS:
            self._floor, dropped = self._entries.popleft()
            self._keys -= len(dropped)

    def since(self, index: int, tables: Collection[str]) -> Changed | None:
        """Return the changes in `tables` after `index`, or None if there are none."""
        if index < self._floor or index > self._last:
            return self.everything()
        changed: set[Key] = set()
        for at, keys in reversed(self._entries):
            if at <= index:
                break
            changed.update(key for key in keys if key.table in tables)
        if len(changed) > KEYS_AT_ONCE:
            return self.everything()
        if not changed:
            return None
        return Changed(index=self._last, keys=tuple(sorted(changed, key=_order)))

    def nothing(self) -> Changed:
        """Make the answer of a watch whose time is up."""
        return Changed(index=self._last, keys=())

    def everything(self) -> Changed:
        """Make the answer for a watcher that must read its tables anew."""
        return Changed(index=self._last, keys=(), everything=True)


def _order(key: Key) -> tuple[str, bytes, bytes]:
    return key.table, key.scope, key.id


class Rate:
    """Counts events a second over the last `window` seconds."""

    def __init__(self, window: float = 5.0) -> None:
        self._window: Final = window
        self._events: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> None:
        """Count events that happened now."""
        self._events.append((now, count))
        self._drop(now)

    def at(self, now: float) -> float:
        """Return the events a second, as of now."""
        self._drop(now)
        return sum(count for _, count in self._events) / self._window

    def _drop(self, now: float) -> None:
        while self._events and self._events[0][0] <= now - self._window:
            self._events.popleft()
