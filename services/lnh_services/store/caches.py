"""The leases under which this member's hsm workers use their caches, and the rounds in which they forget. Pure.

A worker may answer from its cache while it holds a lease. Before the store acknowledges a change it opens a
round: every worker with a lease is told to forget what changes. The round is over when each has said so or
its lease has certainly ended. Three rules make that end come:

- a worker that owes an answer gets no longer lease, only what is left of the one it has;
- a worker counts its lease from when it sent the request, the store from when it answered, on one clock
  (CLOCK_BOOTTIME), so the worker's ends first;
- a store that starts cannot know whom its predecessor gave a lease, so no round is over before every such
  lease has ended (the `fence`). A worker it does not know starts with empty caches (`fresh`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NewType

WorkerId = NewType("WorkerId", bytes)
Seconds = NewType("Seconds", float)  # CLOCK_BOOTTIME


@dataclass(frozen=True)
class Grant:
    """The answer to a worker that attaches."""

    lease_ms: int
    fresh: bool


@dataclass
class _Worker:
    lease_end: Seconds
    owes: set[int] = field(default_factory=set)  # rounds it has not yet answered


class WorkerLeases:
    """Which workers may hold what in their caches."""

    def __init__(self, lease_ms: int, fence: Seconds) -> None:
        """`fence` is when the last lease that an earlier incarnation may have granted has ended."""
        self._lease_ms = lease_ms
        self._fence = fence
        self._workers: dict[WorkerId, _Worker] = {}
        self._rounds: set[int] = set()

    def attach(self, now: Seconds, worker: WorkerId) -> Grant:
        """Grant or renew a lease; the answer must leave right away, since the lease counts from `now`."""
        self._drop_ended(now)
        known = self._workers.get(worker)
        if known is None:
            self._workers[worker] = _Worker(Seconds(now + self._lease_ms / 1000))
            return Grant(self._lease_ms, fresh=True)
        if known.owes:
            return Grant(int((known.lease_end - now) * 1000), fresh=False)
        known.lease_end = Seconds(now + self._lease_ms / 1000)
        return Grant(self._lease_ms, fresh=False)

    def open_round(self, now: Seconds, round_: int) -> list[WorkerId]:
        """Begin a round; answers whom to tell. Ask `finished` right away: there may be nobody."""
        self._drop_ended(now)
        self._rounds.add(round_)
        for worker in self._workers.values():
            worker.owes.add(round_)
        return list(self._workers)

    def forgotten(self, worker: WorkerId, round_: int) -> None:
        """The worker says it forgot; a word about another round, or from a stranger, changes nothing."""
        known = self._workers.get(worker)
        if known is not None:
            known.owes.discard(round_)

    def finished(self, now: Seconds) -> list[int]:
        """Close and name the rounds that are over, in their order."""
        self._drop_ended(now)
        if now < self._fence:
            return []
        owed = {round_ for worker in self._workers.values() for round_ in worker.owes}
        over = sorted(self._rounds - owed)
        self._rounds -= set(over)
        return over

    def next_change(self) -> Seconds | None:
        """When to ask `finished` again if nobody says anything; None while no round is open."""
        if not self._rounds:
            return None
        return Seconds(max(self._fence, min((w.lease_end for w in self._owing()), default=self._fence)))

    def latest_end(self, now: Seconds) -> Seconds:
        """When every lease granted so far, by whomever, has ended."""
        return Seconds(max([now, self._fence, *(worker.lease_end for worker in self._workers.values())]))

    def known(self, now: Seconds) -> list[WorkerId]:
        """The workers that hold a lease."""
        self._drop_ended(now)
        return list(self._workers)

    def _owing(self) -> Iterable[_Worker]:
        return (worker for worker in self._workers.values() if worker.owes)

    def _drop_ended(self, now: Seconds) -> None:
        for worker in [worker for worker, state in self._workers.items() if state.lease_end <= now]:
            del self._workers[worker]
