"""Has the core look at what is stored when that changes, and seldom otherwise.

What an HSM keeps in step with its cluster (channel seeds, generations of the SMK, what a restore left to be done) rests
on the items of some tables, and on who is a member and who is primary. The store says when one of these changes, so an
idle core asks it next to nothing. While there is something left to be done that no change announces, such as a member
that is to become read-write, the core looks again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Final, NoReturn

from lnh_common.errors import LnhError
from lnh_common.messages import store
from lnh_services.hsm.answers import Asks

WATCH_SECONDS: Final = 30.0  # so late, at most, comes what the time alone makes due
PAUSE: Final = 0.2  # between two looks at least: what changes together is looked at once

Look = Callable[[], Awaitable[bool | None]]


async def watch(
    store_: Asks,
    tables: Collection[str],
    look: Look,
    again: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> NoReturn:
    """Call `look` now, and whenever one of these tables may have changed, for ever.

    Args:
        look: does what is due, and raises nothing; tells whether nothing is left until a table changes.
        again: seconds until it is called again where something is left.
    """
    asked, index = tuple(sorted(tables)), 0
    while True:
        if not await look():
            await sleep(again)
            continue
        try:
            changed = await store_.ask(store.WATCH, store.Watch(index=index, tables=asked), timeout=WATCH_SECONDS)
            index = changed.index
        except LnhError:
            pass  # the look finds out what is wrong
        await sleep(PAUSE)
