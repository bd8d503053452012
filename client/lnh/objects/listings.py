"""Listings, which say beside what they list whether it is all there is, and if not, up to when it was.

A member that is not in step with its cluster lists what it has: there may be more by now, or less. So everything that
lists several things is a `Listing`, which knows that. `current=True` demands one from a member that is in step.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from typing_extensions import Self

from lnh_common.messages.base import Behind, Skipped

T = TypeVar("T")
U = TypeVar("U")

Page = tuple[Iterable[T], Behind | None, tuple[Skipped, ...]]


class AsOf:
    """Base of a listing: tells whether what it lists is all there is.

    Attributes:
        behind: None where it is; else how far the member that listed it may be behind.
        skipped: what is there and was left out, since it does not open at that member: each with its id, and why.
    """

    behind: Behind | None = None
    skipped: tuple[Skipped, ...] = ()

    @property
    def current(self) -> bool:
        """Tell whether it holds all that was acknowledged before it was asked for."""
        return self.behind is None

    @property
    def whole_until(self) -> dt.datetime | None:
        """The moment up to which it holds all that was acknowledged; None where it is current, or that is not known."""
        if self.behind is None or not self.behind.whole_until:
            return None
        return dt.datetime.fromtimestamp(self.behind.whole_until / 1000, dt.timezone.utc)

    def note(self, behind: Behind | None, skipped: tuple[Skipped, ...]) -> None:
        """Take in what one more page says of itself."""
        self.skipped += skipped
        if behind is not None and (self.behind is None or behind.whole_until < self.behind.whole_until):
            self.behind = behind


class Listed(list[T], AsOf):
    """A list that came in one piece."""

    def __init__(self, listed: Iterable[T], behind: Behind | None = None, skipped: tuple[Skipped, ...] = ()) -> None:
        super().__init__(listed)
        self.behind = behind
        self.skipped = skipped


class Listing(AsOf, Iterator[T]):
    """A listing that comes a page at a time, as it is taken; it says of itself what holds for the pages taken so far.

    Args:
        pages: each with how far the member that gave it may be behind, and what was left out.
    """

    def __init__(self, pages: Iterator[Page[T]]) -> None:
        self._pages = pages
        self._page: Iterator[T] = iter(())

    def each(self, make: Callable[[T], U]) -> Listing[U]:
        """Make something of each item of the listing; use either the listing or the result, not both."""
        return Listing(([make(one) for one in page], behind, skipped) for page, behind, skipped in self._pages)

    def where(self, fits: Callable[[T], bool]) -> Listing[T]:
        """Keep the items that fit; use either the listing or the result, not both."""
        return Listing(([one for one in page if fits(one)], behind, skipped) for page, behind, skipped in self._pages)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        while True:
            for one in self._page:
                return one
            page, behind, skipped = next(self._pages)
            self._page = iter(page)
            self.note(behind, skipped)
