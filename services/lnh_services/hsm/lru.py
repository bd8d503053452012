"""A bounded mapping, which every cache of the hsm is."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Lru(Generic[K, V]):
    """A bounded mapping that drops what was used longest ago."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return the value of a key, which is then the one used last; None where there is none."""
        value = self._entries.pop(key, None)
        if value is not None:
            self._entries[key] = value
        return value

    def put(self, key: K, value: V) -> None:
        """Set the value of a key, dropping another where there is no room."""
        self._entries.pop(key, None)
        if len(self._entries) >= self._size:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = value

    def drop(self, key: K) -> V | None:
        """Drop a key, and return its value or None."""
        return self._entries.pop(key, None)

    def values(self) -> list[V]:
        """Return a copy of the values, the one used longest ago first."""
        return list(self._entries.values())

    def keys(self) -> list[K]:
        """Return a copy of the keys, the one used longest ago first."""
        return list(self._entries)

    def items(self) -> list[tuple[K, V]]:
        """Return a copy of keys and values, the one used longest ago first."""
        return list(self._entries.items())

    def clear(self) -> None:
        """Drop everything."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)
