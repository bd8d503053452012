"""A listing for `async for` says of its pages what one that blocks says, after each of its items."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lnh.aio.objects.listings import Listing as AwaitedListing
from lnh.objects.listings import AsOf, Listing, Page
from lnh_common.messages.base import Behind, Skipped

BEHIND = st.builds(lambda until: Behind(whole_until=until, behind_ms=1), st.integers(0, 9))
SKIPPED = st.builds(lambda number: Skipped(id=bytes([number]) * 16, why="it was changed"), st.integers(0, 9))
PAGES = st.lists(st.tuples(st.lists(st.integers()), st.none() | BEHIND, st.lists(SKIPPED, max_size=2).map(tuple)))


def said(listing: AsOf, item: object) -> tuple[Any, ...]:
    return item, listing.behind, listing.skipped, listing.current, listing.whole_until


@given(PAGES)
def test_both_listings_say_the_same_after_each_item(pages: list[Page[int]]) -> None:
    async def awaited_pages() -> AsyncIterator[Page[int]]:
        for page in pages:
            yield page

    async def taken() -> list[tuple[Any, ...]]:
        listing = AwaitedListing(awaited_pages()).where(lambda item: item % 2 == 0).each(str)
        return [said(listing, item) async for item in listing] + [said(listing, None)]

    listing = Listing(iter(pages)).where(lambda item: item % 2 == 0).each(str)
    assert asyncio.run(taken()) == [said(listing, item) for item in listing] + [said(listing, None)]
