"""Invalidations on the store's loop: they begin in their order, whatever one that is over leads to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from lnh_services.store.leases import clock
from lnh_services.store.leases.invalidation import Event, Invalidations
from lnh_services.store.replication.messages import Effect, Instant, Invalidate, ReadId


class Replica:
    """Runs events as the driver does; `follow` are invalidations that it begins when another is over."""

    def __init__(self, follow: dict[int, int]) -> None:
        self.over: list[int] = []
        self.caches = Invalidations(lambda _worker, _told: None, self.turn, self.invalidated)
        self.turns = 0
        self.closed = False
        self._follow = follow

    def invalidated(self, _: Instant, number: int) -> list[Effect]:
        self.over.append(number)
        return [invalidate(self._follow[number])] if number in self._follow else []

    def turn(self, event: Event) -> None:
        self.turns += 1
        assert self.turns < 100, "nothing comes of it, again and again"
        if self.closed:
            return
        todo = event(clock.now())
        while todo:
            effect = todo.pop(0)
            assert isinstance(effect, Invalidate)
            todo += self.caches.begin(effect)


def invalidate(number: int) -> Invalidate:
    return Invalidate(number, frozenset(), everything=True)


async def invalidations(follow: dict[int, int], act: Callable[[Replica], None], count: int) -> list[int]:
    replica = Replica(follow)
    replica.caches.begin_anew(clock.now().boot)
    act(replica)
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(replica.over) == count
    return replica.over


def test_invalidations_that_waited_for_an_answer_to_leave_begin_in_their_order() -> None:
    def act(replica: Replica) -> None:
        replica.caches.served.add(ReadId(1))
        replica.turn(lambda _: [invalidate(1)])
        replica.turn(lambda _: [invalidate(2), invalidate(3)])
        assert replica.over == []
        replica.caches.served.clear()

    assert asyncio.run(invalidations({}, act, 3)) == [1, 2, 3]


def test_an_invalidation_that_another_leads_to_begins_after_all_that_waited() -> None:
    def act(replica: Replica) -> None:
        replica.caches.served.add(ReadId(1))
        replica.turn(lambda _: [invalidate(1), invalidate(2)])
        replica.caches.served.clear()

    assert asyncio.run(invalidations({1: 3}, act, 3)) == [1, 2, 3]


def test_nothing_waits_where_no_answer_is_on_its_way() -> None:
    assert asyncio.run(invalidations({1: 2}, lambda replica: replica.turn(lambda _: [invalidate(1)]), 2)) == [1, 2]


def test_a_store_that_takes_no_more_turns_lets_what_waited_go() -> None:
    def act(replica: Replica) -> None:
        replica.caches.served.add(ReadId(1))
        replica.turn(lambda _: [invalidate(1), invalidate(2)])
        replica.caches.served.clear()
        replica.closed = True

    assert asyncio.run(invalidations({}, act, 0)) == []
