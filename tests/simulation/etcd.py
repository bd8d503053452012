"""A model of etcd: keys at revisions, transactions one after the other, and all that a client may see of its faults.

It is linearizable. What it does not do is answer: a request or its answer may be lost, and then its asker hears
`Unknown` when the deadline is over; a request that waits for an election, or in a slow network, is carried out later
than that.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from lnh_services.store.etcd.requests import (
    Compact,
    Differed,
    Done,
    Outcome,
    Range,
    Refused,
    Request,
    Transaction,
    Unknown,
    Why,
)

DEADLINE = 1.0  # seconds, of the client's


@dataclass
class Kept:
    """What a node of etcd keeps, and what a backup of it holds."""

    revision: int = 1
    values: dict[bytes, bytes] = field(default_factory=dict)

    def copy(self) -> Kept:
        return Kept(self.revision, dict(self.values))

    def found(self, asked: Range) -> tuple[tuple[bytes, bytes], ...]:
        keys = sorted(key for key in self.values if asked.first <= key < asked.end)
        return tuple((key, self.values[key]) for key in (keys[: asked.limit] if asked.limit else keys))


class Etcd:
    """Args: at: has something done at a time. now: tells the time. changed: is told before a transaction changes keys."""

    def __init__(
        self,
        rng: random.Random,
        now: Callable[[], float],
        at: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self.rng = rng
        self.now = now
        self.at = at
        self.kept = Kept()
        self.backups: list[Kept] = []
        self.cut: dict[int, float] = {}  # no request of this slot arrives
        self.deaf: dict[int, float] = {}  # no answer arrives there
        self.without_leader_until = 0.0
        self.full_until = 0.0
        self.slow_until, self.slowness = 0.0, 0.0
        self.unknown = 0

    def heal(self) -> None:
        self.cut.clear()
        self.deaf.clear()
        self.without_leader_until = self.full_until = self.slow_until = 0.0

    def ask(
        self,
        slot: int,
        request: Request,
        before: Callable[[Transaction], None],
        answered: Callable[[Outcome], None],
    ) -> None:
        """Carry a request out, some time; exactly one outcome is answered within the deadline.

        Args:
            before: is told of a transaction that is about to change keys.
        """
        over = False

        def answers(outcome: Outcome) -> None:
            nonlocal over
            if not over:
                over = True
                self.unknown += isinstance(outcome, Unknown)
                answered(outcome)

        def arrives() -> None:
            now = self.now()
            if self.without_leader_until > now:
                if self.rng.random() < 0.6:
                    self.at(self.without_leader_until + self.rng.uniform(0, 0.02), arrives)
                return
            outcome = self.carry_out(request, before)
            if self.deaf.get(slot, 0.0) <= now:
                self.at(now + self._delay(), lambda: answers(outcome))

        self.at(self.now() + DEADLINE, lambda: answers(Unknown()))
        if self.cut.get(slot, 0.0) <= self.now():
            self.at(self.now() + self._delay() + self.rng.uniform(0.0005, 0.002), arrives)

    def _delay(self) -> float:
        slow = self.rng.expovariate(1 / self.slowness) if self.slow_until > self.now() else 0.0
        return self.rng.uniform(0.0001, 0.0005) + slow

    def carry_out(self, request: Request, before: Callable[[Transaction], None]) -> Outcome:
        kept = self.kept
        if isinstance(request, Range):
            return Done(kept.revision, kept.found(request))
        if isinstance(request, Compact):
            return Done(kept.revision)
        if request.puts and self.full_until > self.now():
            return Refused(Why.NO_SPACE, "mvcc: database space exceeded")
        if any(kept.values.get(compare.key) != compare.value for compare in request.compares):
            return Differed(kept.revision, kept.found(request.otherwise) if request.otherwise else ())
        before(request)
        kept.revision += 1
        for put in request.puts:
            kept.values[put.key] = put.value
        for deleted in request.deletes:
            for key, _ in kept.found(deleted):
                del kept.values[key]
        return Done(kept.revision)
