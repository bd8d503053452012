"""Lends the channels of a connection to one user at a time.

A user can be interrupted at any line: a signal handler raises (Ctrl-C, a job's time limit), or an iteration stops. So a
channel is lent as a `Loan`, and three rules keep every later call whole:

- A channel is lent again only when it is at rest, with nothing under way. One that was left in the midst of a call is
  closed: half a message may have been read from it, or a request be taken for one that is sent.
- A loan that is lost, because the exception came where it changed hands, closes its channel when it is freed. How many
  channels there are is therefore not counted, but is how many loans there are.
- None of it has a lock. State that other threads see changes by single calls, which nothing interrupts.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Final, Generic, Protocol, TypeVar

from lnh_common.bus.process import OwnProcess
from lnh_common.errors import Busy, ConnectionClosed

CHANNELS: Final = 64  # of one connection: so many threads can wait for answers at once
_LOOK: Final = 0.5  # seconds between two looks whether a loan was lost, which nobody tells


class Lendable(Protocol):
    """A resource that a pool lends."""

    @property
    def is_at_rest(self) -> bool:
        """Tell whether the next user finds it as good as new."""

    def close(self) -> None:
        """Release its resources; a second call changes nothing, and neither does a call in a forked child."""


C = TypeVar("C", bound=Lendable)


class Loan(Generic[C]):
    """One channel, and its holder: the pool, or one user."""

    __slots__ = ("__weakref__", "channel")

    def __init__(self, channel: C) -> None:
        self.channel: Final = channel

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()

    def __del__(self) -> None:
        if not sys.is_finalizing() and hasattr(self, "channel"):  # not if it was interrupted in its first line
            self.close()


class Pool(Generic[C]):
    """Lends channels, made when they are needed and lent newest first, to any thread.

    Args:
        make: a new channel.
        most: channels at once, about: threads that ask at the same moment may make one each.
        owner: the process that they belong to.
    """

    def __init__(self, make: Callable[[], C], most: int, owner: OwnProcess) -> None:
        self._make: Final = make
        self._most: Final = most
        self._owner: Final = owner
        self._idle: Final[list[Loan[C]]] = []
        self._loans: Final[weakref.WeakSet[Loan[C]]] = weakref.WeakSet()
        self._waiting: Final[list[object]] = []
        self._returned: Final[SimpleQueue[None]] = SimpleQueue()  # wakes those that wait
        self._closed = False

    def borrow(self, timeout: float) -> Loan[C]:
        """Lend a channel to the caller alone, until `give_back`.

        Raises ConnectionClosed, Busy when none comes back within `timeout` seconds.
        """
        self._owner.check()
        loan = self._take()
        if loan is not None:
            return loan
        end = time.monotonic() + timeout
        self._waiting.append(end)  # before it is looked again, so that nothing comes back unnoticed
        try:
            while (loan := self._take()) is None:
                left = end - time.monotonic()
                if left <= 0:
                    raise Busy(f"{self._most} threads use this connection, which is the limit, for {timeout:g} s")
                with suppress(Empty):
                    self._returned.get(timeout=min(left, _LOOK))
        finally:
            self._waiting.remove(end)
        return loan

    def give_back(self, loan: Loan[C]) -> None:
        """Take a channel back, or close it if its user was interrupted."""
        if loan.channel.is_at_rest:
            self._idle.append(loan)
        else:
            self._loans.discard(loan)
            loan.close()
        if self._closed:
            self._close_idle()
        if self._waiting:
            self._returned.put(None)

    def close(self) -> None:
        """Close every channel that is not in use now, and each of the others when it is given back."""
        self._closed = True
        self._close_idle()
        for _ in list(self._waiting):
            self._returned.put(None)

    def _take(self) -> Loan[C] | None:
        """Take an idle channel, or make one while there may be more."""
        if self._closed:
            raise ConnectionClosed("this connection was closed")
        try:
            return self._idle.pop()
        except IndexError:
            pass
        if len(self._loans) >= self._most:
            return None
        loan = Loan(self._make())
        self._loans.add(loan)
        return loan

    def _close_idle(self) -> None:
        with suppress(IndexError):  # another thread may have taken the last one
            while True:
                self._idle.pop().close()
