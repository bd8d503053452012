"""Bounds what each class of peers may have this member do, so that none takes the service from another. Pure.

A peer is a **stranger** (no client has its key), a registered **client**, a logged-in **session** (a worker vouched for
its connection), or another **member**. Each class has one budget (`limits.py`), and in it accounts: a client's key, or
else a connection. A request over the budget is refused as Busy before it costs more than reading it.

    looks    requests a second that are looked at, for strangers and clients: of the class, and of one account as many
             as the class has left; more are thrown away unread
    volume   bytes a second of strangers: who brings more is disconnected, and until it is made up for none is let in
    admit    requests and bytes in flight: of the class, and of one account as much as the class has left, so that an
             account with nothing in flight is admitted whatever the others of its class do
    turns    how many a class has at workers at once, and how much of their time it gets: the others wait their turn,
             and accounts have turns one after another, however many requests each has waiting

So a class uses up its own budget and nobody else's: sessions and members have no turns to wait for, and between a
session's request and a worker there are a few of other classes at most, whatever these do.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from lnh_common import limits
from lnh_common.rate import Rate

T = TypeVar("T")

_ACCOUNTS_A_LOOK: Final = (
    4  # are counted at most for each look of a second; what they used is then forgotten, below ...
)
_FORGOTTEN: Final = 0.1  # looks


class Peer(enum.IntEnum):
    """A class of peers."""

    STRANGER = 0
    CLIENT = 1
    SESSION = 2
    MEMBER = 3


BUDGETS: Final[dict[Peer, limits.Budget]] = {
    Peer.STRANGER: limits.STRANGERS,
    Peer.CLIENT: limits.CLIENTS,
    Peer.SESSION: limits.SESSIONS,
    Peer.MEMBER: limits.PEERS,
}


@dataclass
class _Account(Generic[T]):
    requests: int = 0
    bytes: int = 0
    waiting: deque[tuple[T, float]] = field(default_factory=deque)


class Looks:
    """Counts the looks at requests of one class against a rate: a second's worth at once, shared by its accounts.

    What the class used comes back with time, to each account in proportion to what it used. An account is looked at
    while it used less than the class has left: so one alone leaves the others half of a second's worth, two a third.

    Args:
        rate: looks a second; 0 for any number.
    """

    def __init__(self, rate: int) -> None:
        self._rate: Final = rate
        self._at = 0.0
        self._used = 0.0  # by all accounts, and not back yet
        self._ebb = 0.0  # logarithm of how much is left of what was used when it was 0
        self._accounts: Final[dict[bytes, tuple[float, float]]] = {}  # what each used, and the ebb at that time

    def has(self, now: float, account: bytes) -> bool:
        """Tell whether one more message of an account is looked at."""
        if not self._rate:
            return True
        self._refill(now)
        return self._used_by(account) < self._rate - self._used

    def spend(self, account: bytes, amount: int) -> None:
        """Count the requests of a message that was looked at; what is spent beyond what was left is missing later."""
        if not self._rate:
            return
        self._accounts[account] = (self._used_by(account) + amount, self._ebb)
        self._used += amount
        if len(self._accounts) > _ACCOUNTS_A_LOOK * self._rate:
            for each in [each for each in self._accounts if self._used_by(each) < _FORGOTTEN]:
                del self._accounts[each]

    def _used_by(self, account: bytes) -> float:
        used, ebb = self._accounts.get(account, (0.0, 0.0))
        return used * math.exp(self._ebb - ebb)

    def _refill(self, now: float) -> None:
        back = (now - self._at) * self._rate
        if back <= 0:
            return
        self._at = now
        if back < self._used:
            self._ebb += math.log1p(-back / self._used)
            self._used -= back
        else:
            self._used = self._ebb = 0.0
            self._accounts.clear()


class Share(Generic[T]):
    """The requests that one class has in flight, and the order of their turns.

    Attributes:
        waiting: requests that wait their turn.
        at_workers: requests that had their turn and have not ended.
    """

    def __init__(self, budget: limits.Budget) -> None:
        self.budget: Final = budget
        self.requests = self.bytes = self.waiting = self.at_workers = 0
        self.looks: Final = Looks(budget.looks)
        self.volume: Final = Rate(budget.volume)
        self._work: Final = Rate(budget.work)
        self._accounts: Final[dict[bytes, _Account[T]]] = {}
        self._turns: Final[deque[bytes]] = deque()  # the accounts with something waiting, the next one first

    def refusal(self, account: bytes, size: int) -> str:
        """Say why one more request of so many bytes is not admitted; empty if it is."""
        has = self._accounts.get(account)
        requests, held = (has.requests, has.bytes) if has else (0, 0)
        budget = self.budget
        if requests + 1 > budget.requests - self.requests:
            return f"{self.requests} of {budget.requests} requests of this kind of peer are in flight"
        if held + size > budget.bytes - self.bytes:
            return f"{self.bytes} of {budget.bytes} bytes of this kind of peer are in flight"
        return ""

    def bytes_of(self, account: bytes) -> int:
        """Count the bytes of the requests that an account has in flight."""
        has = self._accounts.get(account)
        return has.bytes if has else 0

    def begin(self, account: bytes, size: int) -> None:
        """Count a request that was admitted."""
        has = self._accounts.get(account)
        if has is None:
            has = self._accounts[account] = _Account()
        has.requests += 1
        has.bytes += size
        self.requests += 1
        self.bytes += size

    def end(self, account: bytes, size: int, *, had_turn: bool) -> None:
        """Count a request no more, once it was answered or given up.

        Args:
            had_turn: whether `next` named it.
        """
        has = self._accounts[account]
        has.requests -= 1
        has.bytes -= size
        self.requests -= 1
        self.bytes -= size
        self.at_workers -= had_turn
        if not has.requests:
            del self._accounts[account]

    @property
    def has_turns(self) -> bool:
        """Tell whether requests of this class wait their turn."""
        return self.budget.at_workers > 0

    def enter(self, account: bytes, request: T, work: float) -> None:
        """Have a request that was begun wait its turn.

        Args:
            work: seconds that it takes a worker, about.
        """
        waiting = self._accounts[account].waiting
        if not waiting:
            self._turns.append(account)
        waiting.append((request, work))
        self.waiting += 1

    def next(self, now: float) -> T | None:
        """Return the request whose turn it is; None when the class has enough at workers, or nothing waits."""
        if not self._turns or self.at_workers >= self.budget.at_workers or not self._work.has(now):
            return None
        account = self._turns.popleft()
        waiting = self._accounts[account].waiting
        request, work = waiting.popleft()
        if waiting:
            self._turns.append(account)
        self._work.spend(work)
        self.waiting -= 1
        self.at_workers += 1
        return request

    def withdraw(self, account: bytes, request: T) -> None:
        """Give up a request that waits its turn; the caller calls `end`."""
        waiting = self._accounts[account].waiting
        waiting.remove(next(each for each in waiting if each[0] is request))
        self.waiting -= 1
        if not waiting:
            self._turns.remove(account)

    def all_waiting(self) -> list[T]:
        """Return the requests that wait their turn."""
        return [request for account in self._turns for request, _ in self._accounts[account].waiting]
