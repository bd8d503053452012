"""A lock for one task at a time, used as `lnh.net.mutex` has one for threads."""

from __future__ import annotations

import asyncio
from typing import Final


class Mutex:
    """A lock for one task at a time: `async with mutex.hold(): ...`."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock: Final = asyncio.Lock()

    def hold(self) -> asyncio.Lock:
        """Return the lock, which is taken when the block is entered and let go at its end, also by a cancellation."""
        return self._lock
