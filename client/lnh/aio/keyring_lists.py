# Made of client/lnh/keyring_lists.py by `python tests/surface.py`: change that file, and run it.
"""Lists the keyrings that a session may see, or finds the one of a label; loads nothing that uses a keyring."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from lnh.aio.objects.listings import Listing, Page
from lnh_common.errors import KeyringUnknown
from lnh_common.messages.admin import Keyrings, KeyringView, ListKeyrings


class ListsKeyrings(Protocol):
    """Asks for a page of keyrings."""

    async def __call__(self, message: ListKeyrings, *, current: bool = False) -> Keyrings:
        """Ask for the page; with `current` from a member that is in step."""


def keyring_listing(ask: ListsKeyrings, *, current: bool) -> Listing[KeyringView]:
    """List every keyring that may be seen, a page at a time.

    Raises MemberBehind where there is none, and no member that is in step says so.
    """

    async def pages() -> AsyncIterator[Page[KeyringView]]:
        after, more, seen = b"", True, False
        while more:
            page = await ask(ListKeyrings(after=after), current=current)
            seen = seen or bool(page.keyrings)
            after, more = page.last, page.more and page.last > after
            if page.behind is not None and not more and not seen:
                page = await ask(ListKeyrings(after=after), current=True)
            yield page.keyrings, page.behind, page.skipped

    return Listing(pages())


async def keyring_labelled(ask: ListsKeyrings, label: str) -> KeyringView:
    """Find the keyring with this label; raises KeyringUnknown.

    Raises MemberBehind where there is none, and no member that is in step says so.
    """
    page = await ask(ListKeyrings(label=label))
    if page.behind is not None and all(view.label != label for view in page.keyrings):
        page = await ask(ListKeyrings(label=label), current=True)
    for view in page.keyrings:
        if view.label == label:
            return view
    raise KeyringUnknown(f"no keyring {label!r}")
