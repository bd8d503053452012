"""Makes this member's workers drop what changes, on the store's loop, and tells the replica when they have.

`worker_leases.py` knows which workers hold a lease. Here is the loop's part of it: which workers to tell, when to look
again, and that no worker is told to drop anything before the answer to what it read earlier has left.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from lnh_common import limits
from lnh_common.messages import store as messages
from lnh_services.store.disk.writer import certain
from lnh_services.store.leases import clock
from lnh_services.store.leases.watch import KEYS_AT_ONCE
from lnh_services.store.leases.worker_leases import WorkerId, WorkerLeases
from lnh_services.store.replication.messages import Effect, Instant, Invalidate, ReadId, Seconds

Tell = Callable[[WorkerId, messages.Invalidate], None]
Event = Callable[[Instant], list[Effect]]


class Invalidations:
    """The invalidations of one store. Made and used within a running loop.

    Args:
        tell: sends an Invalidate to a worker that has a lease; the word may get lost.
        turn: has an event of the replica carried out.
        over: tells the replica that an invalidation is over.

    Attributes:
        leases: which workers hold one.
        served: reads that were carried out, and whose answers have not left yet.
    """

    def __init__(self, tell: Tell, turn: Callable[[Event], None], over: Callable[[Instant, int], list[Effect]]) -> None:
        self.leases = WorkerLeases(limits.WORKER_LEASE_MS, clock.now().boot)
        self.served: Final[set[ReadId]] = set()
        self._loop: Final = asyncio.get_running_loop()
        self._tell: Final = tell
        self._turn: Final = turn
        self._over: Final = over
        self._held: Final[deque[Invalidate]] = deque()  # until those answers have left
        self._releasing = False  # soon, or now
        self._begun: Final[dict[int, messages.Invalidate]] = {}  # open ones
        self._timer: asyncio.TimerHandle | None = None

    def begin_anew(self, fence: Seconds) -> None:
        """Begin anew; until `fence` a worker may hold a lease of an earlier incarnation."""
        self.leases = WorkerLeases(limits.WORKER_LEASE_MS, fence)

    def begin(self, invalidation: Invalidate) -> list[Effect]:
        """Begin an invalidation, after all that wait; returns what follows if no worker holds a lease."""
        if self.served or self._held:
            # An answer must not follow a later Invalidate: a worker would cache what is old by then.
            self._held.append(invalidation)
            self._release_soon()
            return []
        return self._open(invalidation)

    def _open(self, invalidation: Invalidate) -> list[Effect]:
        everything = invalidation.everything or len(invalidation.keys) > KEYS_AT_ONCE
        keys = () if everything else tuple(invalidation.keys)
        told = messages.Invalidate(sequence=invalidation.number, keys=keys, everything=everything)
        self._begun[invalidation.number] = told
        now = clock.now().boot
        for worker in self.leases.begin(now, invalidation.number, everything=everything):
            self._tell(worker, told)
        return self._finished()

    def remind(self, worker: WorkerId) -> None:
        """Tell a worker again what it must drop, because it has a new connection and the word may be lost."""
        for invalidation in self._begun.values():
            self._tell(worker, invalidation)

    def invalidated(self, worker: WorkerId, number: int) -> None:
        """Note that a worker has dropped what it was told to."""
        self.leases.invalidated(worker, number)
        self._look()

    def leased_workers(self) -> list[WorkerId]:
        """Return the workers that hold a lease now."""
        return self.leases.known(clock.now().boot)

    def latest_end(self) -> Seconds:
        """Return when every lease that was granted has ended."""
        return self.leases.latest_end(clock.now().boot)

    def _release_soon(self) -> None:
        if not self._releasing:
            self._releasing = True
            self._loop.call_soon(self._release_held)

    @certain
    def _release_held(self) -> None:
        """Begin the invalidations that wait, in their order; one that this leads to waits behind the rest."""
        while self._held and not self.served:
            self._turn(partial(self._open_held, self._held.popleft()))
        self._releasing = False
        if self._held:
            self._release_soon()

    def _open_held(self, invalidation: Invalidate, _: Instant) -> list[Effect]:
        return self._open(invalidation)

    def _look(self) -> None:
        self._turn(lambda _: self._finished())

    def _finished(self) -> list[Effect]:
        now = clock.now()
        effects: list[Effect] = []
        for number in self.leases.finished(now.boot):
            self._begun.pop(number, None)
            effects += self._over(now, number)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        change = self.leases.next_change()
        if change is not None:
            # A little late rather than early: the loop's clock is not the leases'.
            self._timer = self._loop.call_later(max(0.0, change - now.boot) + 0.001, self._look)
        return effects
