"""The store's writer thread: carries out the replica's durable steps, one at a time, and reports how each ended.

A step that the disk has no room for is given back to its sender. A disk that fails in a way that leaves open what is
durable, or that answers nothing at all, ends the process at once, answering nobody: its next start reads what is really
there.
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable
from concurrent.futures import Future as ThreadFuture
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

from lnh_common import limits
from lnh_common.errors import SealBroken
from lnh_common.events import Log
from lnh_services.store.disk.disk_errors import DiskFull, DiskUncertain

P = ParamSpec("P")
T = TypeVar("T")

EXIT_DISK: Final = 74  # EX_IOERR
EXIT_BUG: Final = 70  # EX_SOFTWARE

_log: Final = Log("store")


def certain(method: Callable[P, None]) -> Callable[P, None]:
    """Guard a turn of the replica: where an invariant broke, the process ends rather than go on uncertain."""

    @functools.wraps(method)
    def turn(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception as error:  # whatever it is, nothing after it may be answered
            _log.bug("invariant broken, exiting", error)
            end(EXIT_BUG)

    return turn


def end(code: int) -> NoReturn:
    """End the process at once: no answer that is not certain may leave, and no later step may begin."""
    os._exit(code)


class Writer:
    """One thread for one disk. Made and used within a running loop."""

    def __init__(self) -> None:
        self._loop: Final = asyncio.get_running_loop()
        self._thread: Final = ThreadPoolExecutor(1, "store-writer")
        self._closed = False

    def submit(
        self,
        work: Callable[[], T],
        then: Callable[[T], None],
        full: Callable[[DiskFull], None],
        damaged: Callable[[SealBroken], None],
    ) -> None:
        """Do `work` in the thread, after all that came before; then call one of the others here."""
        watchdog = self._loop.call_later(limits.DISK_STALL, _stalled)

        def done(future: ThreadFuture[T]) -> None:
            self._loop.call_soon_threadsafe(self._written, future, watchdog, then, full, damaged)

        self._thread.submit(work).add_done_callback(done)

    @certain
    def _written(
        self,
        future: ThreadFuture[Any],
        watchdog: asyncio.TimerHandle,
        then: Callable[[Any], None],
        full: Callable[[DiskFull], None],
        damaged: Callable[[SealBroken], None],
    ) -> None:
        watchdog.cancel()
        error = future.exception()
        if self._closed and (error is None or isinstance(error, DiskFull | SealBroken)):
            return  # nobody is there any more to go on from it; the next start finds it on disk, or not
        if error is None:
            then(future.result())
        elif isinstance(error, DiskFull):
            full(error)
        elif isinstance(error, SealBroken):
            damaged(error)
        elif isinstance(error, DiskUncertain):
            _log.failure("disk failed, exiting", problem=str(error))
            end(EXIT_DISK)
        else:
            _log.bug("writer failed, exiting", error)
            end(EXIT_BUG)

    def close(self) -> None:
        """Wait for steps that were begun; their results are reported to nobody any more."""
        self._closed = True
        self._thread.shutdown(wait=True)


def _stalled() -> None:
    _log.failure("disk answers nothing, exiting", seconds=limits.DISK_STALL)
    end(EXIT_DISK)
