"""Numbers what the caches of this member are told to drop, and knows how far all of them have. Pure.

An invalidation is about an entry of the log and those after it, and is over when every cache has dropped what it names.
"""

from __future__ import annotations

from typing import Final

from lnh_common.messages.store import Key
from lnh_services.store.replication.messages import Invalidate

NOTHING_BEFORE: Final = 0  # an invalidation about everything: nothing is acknowledged before it is over
NO_ENTRY: Final = 2**62  # an invalidation that is about no entry


class Invalidations:
    """The invalidations of one incarnation that are not over yet."""

    def __init__(self) -> None:
        self._last = 0
        self._open: dict[int, int] = {}  # and the first entry each is about

    def begin(self, first: int, keys: frozenset[Key], *, everything: bool = False) -> Invalidate:
        """Begin an invalidation; `first` is the first entry that it is about."""
        self._last += 1
        self._open[self._last] = first
        return Invalidate(self._last, keys, everything)

    def end(self, number: int) -> bool:
        """Note that an invalidation is over; tell whether it was not before."""
        return self._open.pop(number, None) is not None

    def reach(self, last: int) -> int:
        """Return the index, `last` at most, up to which all caches have dropped what the entries touch."""
        return min(min(self._open.values(), default=NO_ENTRY) - 1, last)

    @property
    def is_from_the_start(self) -> bool:
        """Tell whether caches may still hold something of before this start, or of another log."""
        return NOTHING_BEFORE in self._open.values()
