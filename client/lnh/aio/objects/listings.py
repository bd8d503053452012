"""Listings that come a page at a time, as `lnh.objects.listings` has them, for `async for`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TypeVar

from typing_extensions import Self

from lnh.objects.listings import AsOf, Listed, Page

__all__ = ["AsOf", "Listed", "Listing", "Page"]

T = TypeVar("T")
U = TypeVar("U")


class Listing(AsOf, AsyncIterator[T]):
    """A listing that comes a page at a time, as it is taken; it says of itself what holds for the pages taken so far.

    Args:
        pages: each with how far the member that gave it may be behind, and what was left out.
    """

    def __init__(self, pages: AsyncIterator[Page[T]]) -> None:
        self._pages = pages
        self._page: Iterator[T] = iter(())

    def each(self, make: Callable[[T], U]) -> Listing[U]:
        """Make something of each item of the listing; use either the listing or the result, not both."""
        return Listing(([make(one) for one in page], behind, skipped) async for page, behind, skipped in self._pages)

    def where(self, fits: Callable[[T], bool]) -> Listing[T]:
        """Keep the items that fit; use either the listing or the result, not both."""
        return Listing(
            ([one for one in page if fits(one)], behind, skipped) async for page, behind, skipped in self._pages
        )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while True:
            for one in self._page:
                return one
            page, behind, skipped = await anext(self._pages)
            self._page = iter(page)
            self.note(behind, skipped)
