"""Grants the leases under which this member's hsm workers use their caches, and counts what invalidates them.

Pure. A worker may answer from its cache while it holds a lease. Before the store acknowledges a change it opens an
invalidation: every worker with a lease is told to drop what changes. The invalidation is over when each has said so or
its lease has certainly ended. Three rules make that end come:

- a worker that owes an answer about something it was told before its lease was last granted gets no longer lease, only
  what is left of the one it has (under steady writes there is always something it was told just now);
- a worker counts its lease from when it sent the request, the store from when it answered, on one clock
  (CLOCK_BOOTTIME), so the worker's ends first;
- a store that starts cannot know which workers its predecessor gave a lease, so no invalidation is over before every
  one of those leases has ended (the `fence`). A worker it does not know starts with empty caches (`fresh`).

A lease is read-write or read-only, as the member was when it was granted. Under a read-write lease a worker caches what
was current when it was read, and nothing else; under a read-only one, whatever its member serves. So that nothing of
the second kind is ever used as the first, an invalidation about everything, which a member goes through before it is
read-write again, ends each worker's lease with its answer, and nobody gets one while that invalidation is open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NewType

from lnh_services.store.replication.messages import Seconds

__all__ = ["Grant", "Seconds", "WorkerId", "WorkerLeases"]

WorkerId = NewType("WorkerId", bytes)


@dataclass(frozen=True)
class Grant:
    """The answer to a worker that attaches; `lease_ms` 0 grants nothing."""

    lease_ms: int
    fresh: bool
    read_write: bool


@dataclass
class _Worker:
    lease_end: Seconds
    read_write: bool
    knew: int  # the newest invalidation when it was last granted
    owes: set[int] = field(default_factory=set)  # invalidations it has not yet answered

    def is_late(self) -> bool:
        return min(self.owes, default=self.knew + 1) <= self.knew


class WorkerLeases:
    """Knows which workers may hold what in their caches."""

    def __init__(self, lease_ms: int, fence: Seconds) -> None:
        """Begin without leases; by `fence` every lease that an earlier incarnation may have granted has ended."""
        self._lease_ms = lease_ms
        self._fence = fence
        self._workers: dict[WorkerId, _Worker] = {}
        self._open: dict[int, bool] = {}  # open ones, and whether each is about everything
        self._newest = 0  # invalidation so far

    def attach(self, now: Seconds, worker: WorkerId, *, read_write: bool = True, until: Seconds | None = None) -> Grant:
        """Grant or renew a lease; the answer must leave right away, since the lease counts from `now`.

        Args:
            read_write: whether the member is read-write.
            until: when the lease must have ended, if that is sooner than it would.
        """
        self._drop_ended(now)
        if any(self._open.values()):
            return Grant(0, fresh=False, read_write=read_write)
        end = Seconds(now + self._lease_ms / 1000)
        if until is not None:
            end = min(end, until)
        known = self._workers.get(worker)
        if known is None:
            if end <= now:
                return Grant(0, fresh=False, read_write=read_write)
            self._workers[worker] = _Worker(end, read_write, self._newest)
            return Grant(_whole_ms(end - now), fresh=True, read_write=read_write)
        if known.is_late() or (known.read_write and not read_write):
            end = min(known.lease_end, end)
        elif known.read_write != read_write:
            return Grant(0, fresh=False, read_write=read_write)  # what it holds may not be current
        else:
            known.knew = self._newest
        known.lease_end = max(known.lease_end, end)  # the answer may be lost, and the worker keep the longer one
        return Grant(_whole_ms(end - now), fresh=False, read_write=known.read_write)

    def begin(self, now: Seconds, number: int, *, everything: bool = False) -> list[WorkerId]:
        """Begin an invalidation, newer ones with higher numbers; returns the workers to tell.

        Ask `finished` right away: there may be none.
        """
        assert number > self._newest, "invalidations are numbered in their order"
        self._newest = number
        self._drop_ended(now)
        self._open[number] = everything
        for worker in self._workers.values():
            worker.owes.add(number)
        return list(self._workers)

    def invalidated(self, worker: WorkerId, number: int) -> None:
        """Note that a worker dropped what it was told to; another number, or an unknown worker, changes nothing."""
        known = self._workers.get(worker)
        if known is None or number not in known.owes:
            return
        known.owes.discard(number)
        if self._open.get(number):
            del self._workers[worker]  # it ended its lease itself, and holds nothing

    def finished(self, now: Seconds) -> list[int]:
        """Close and name the invalidations that are over, in their order."""
        self._drop_ended(now)
        if now < self._fence:
            return []
        owed = {number for worker in self._workers.values() for number in worker.owes}
        over = sorted(self._open.keys() - owed)
        for number in over:
            del self._open[number]
        return over

    def next_change(self) -> Seconds | None:
        """Return when to ask `finished` again if no worker says anything; None while no invalidation is open."""
        if not self._open:
            return None
        return Seconds(max(self._fence, min((w.lease_end for w in self._owing()), default=self._fence)))

    def latest_end(self, now: Seconds) -> Seconds:
        """Return when every lease granted so far, by any incarnation, has ended."""
        return Seconds(max([now, self._fence, *(worker.lease_end for worker in self._workers.values())]))

    def known(self, now: Seconds) -> list[WorkerId]:
        """Return the workers that hold a lease."""
        self._drop_ended(now)
        return list(self._workers)

    def _owing(self) -> Iterable[_Worker]:
        return (worker for worker in self._workers.values() if worker.owes)

    def _drop_ended(self, now: Seconds) -> None:
        for worker in [worker for worker, state in self._workers.items() if state.lease_end <= now]:
            del self._workers[worker]


def _whole_ms(seconds: float) -> int:
    """Round down to milliseconds, so that a worker's count ends first."""
    return max(0, int(seconds * 1000 + 1e-6))
