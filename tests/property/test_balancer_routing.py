"""The balancer's accounts hold whatever happens, in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lnh_common.errors import Busy, DeadlineExceeded, Unreachable
from lnh_services.balancer.routing import MOVES, PATIENCE, SILENT_AFTER, Bounds, Place, Request, Router
from lnh_services.balancer.throttle import Throttle

BOUNDS = Bounds(requests=12, requests_per_client=5, bytes=400)
OPERATIONS = ["key.sign", "object.generate-pair", "key.sign-many", "session.login"]


class Accounts(RuleBasedStateMachine):
    """A balancer's life: requests, answers (late and doubled too), places that come and go, time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.alive: dict[bytes, Request] = {}
        self.sent: list[tuple[int, bytes]] = []  # what a place may answer

    @initialize(tiers=st.lists(st.integers(0, 1), min_size=1, max_size=4))
    def begin(self, tiers: list[int]) -> None:
        self.router = Router([Place(f"p{n}", tier, 1 + n) for n, tier in enumerate(tiers)], BOUNDS)

    def dispatched(self, requests: list[Request]) -> None:
        for request in requests:
            assert request.place is not None
            assert self.router.places[request.place].up, "a request was sent to a place that is down"
            self.sent.append((request.place, request.tag))

    @rule(
        client=st.sampled_from([b"a", b"b", b"c"]),
        size=st.integers(0, 150),
        operation=st.sampled_from(OPERATIONS),
        lasts=st.floats(0.01, 5),
    )
    def ask(self, client: bytes, size: int, operation: str, lasts: float) -> None:
        mine = [request for request in self.alive.values() if request.client == client]
        full = (
            len(self.alive) >= BOUNDS.requests
            or len(mine) >= BOUNDS.requests_per_client
            or sum(request.size for request in self.alive.values()) + size > BOUNDS.bytes
        )
        frames = [b"", b"", bytes(size)]
        if full:
            with pytest.raises(Busy):
                self.router.admit(self.now, client, frames, operation, self.now + lasts)
            return
        request = self.router.admit(self.now, client, frames, operation, self.now + lasts)
        assert request.tag not in self.alive, "a tag is used once"
        self.alive[request.tag] = request
        if request.place is not None:
            self.dispatched([request])

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        place, tag = data.draw(st.sampled_from(self.sent))
        held = tag in self.router.places[place].outstanding
        request = self.router.settle(self.now, place, tag)
        assert (request is not None) == held
        if request is not None:
            assert self.alive.pop(tag) is request, "an answer settled a request that had ended"

    @rule(data=st.data())
    def come(self, data: st.DataObject) -> None:
        self.dispatched(self.router.up(self.now, data.draw(st.integers(0, len(self.router.places) - 1))))

    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        self.dispatched(self.router.down(self.now, data.draw(st.integers(0, len(self.router.places) - 1))))

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for request, error in self.router.expire(self.now):
            assert self.alive.pop(request.tag) is request, "a request ended twice"
            if isinstance(error, DeadlineExceeded):
                assert request.deadline <= self.now
            else:
                assert isinstance(error, Unreachable)
                assert request.patience <= self.now or request.moves > MOVES
        assert all(request.deadline > self.now for request in self.alive.values()), "one outlived its deadline"

    @invariant()
    def every_request_is_in_one_place(self) -> None:
        if not hasattr(self, "router"):
            return
        router = self.router
        held = [request for place in router.places for request in place.outstanding.values()]
        held += [*router.waiting, *(request for request, _ in router._given_up)]
        assert sorted(request.tag for request in held) == sorted(self.alive)
        assert router.requests == len(held)
        assert router.bytes == sum(request.size for request in held)
        clients = {request.client for request in held}
        assert router.clients == {one: sum(request.client == one for request in held) for one in clients}
        for number, place in enumerate(router.places):
            assert place.work == sum(request.work for request in place.outstanding.values())
            assert place.up or not place.outstanding, "a place that is down holds work"
            assert all(request.place == number for request in place.outstanding.values())
        if any(place.up for place in router.places):
            assert not router.waiting, "a request waits though a place is up"


Accounts.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestAccounts = Accounts.TestCase


def router(*places: Place) -> Router:
    made = Router(list(places))
    for number in range(len(places)):
        made.up(0.0, number)
    return made


def ask(made: Router, now: float, operation: str = "key.sign") -> Request:
    return made.admit(now, b"c", [b"", b"", b""], operation, now + 100)


@given(st.lists(st.sampled_from(OPERATIONS), max_size=60), st.integers(1, 5))
def test_no_place_gets_work_while_another_has_less(operations: list[str], count: int) -> None:
    made = router(*(Place(str(n)) for n in range(count)))
    for operation in operations:
        least = min(place.work for place in made.places)
        chosen = ask(made, 0.0, operation).place
        assert chosen is not None
        assert (
            made.places[chosen].work - least
            == made.places[chosen].outstanding[list(made.places[chosen].outstanding)[-1]].work
        )


def test_a_key_pair_being_generated_keeps_signatures_away() -> None:
    made = router(Place("0"), Place("1"))
    busy = ask(made, 0.0, "object.generate-pair").place
    assert all(ask(made, 0.0).place != busy for _ in range(60))


def test_a_higher_tier_is_used_only_when_the_lower_is_down() -> None:
    made = router(Place("worker"), Place("peer", tier=1))
    assert [ask(made, 0.0).place for _ in range(5)] == [0] * 5
    assert [request.place for request in made.down(0.0, 0)] == [1] * 5


def test_a_place_of_twice_the_weight_gets_twice_the_work() -> None:
    made = router(Place("small"), Place("large", weight=2))
    chosen = [ask(made, 0.0).place for _ in range(300)]
    assert chosen.count(1) == 200


def test_a_silent_place_is_passed_over_until_it_answers() -> None:
    made = router(Place("0"), Place("1"))
    stuck = ask(made, 0.0)
    assert stuck.place == 0
    later = SILENT_AFTER + 0.1
    busy = [ask(made, later) for _ in range(5)]
    assert {request.place for request in busy} == {1}
    made.settle(later, 0, stuck.tag)
    assert ask(made, later).place == 0


def test_a_second_answer_is_dropped() -> None:
    made = router(Place("0"), Place("1"))
    request = ask(made, 0.0)
    made.down(0.0, 0)
    assert made.settle(0.0, 1, request.tag) is request
    assert made.settle(0.0, 0, request.tag) is None
    assert made.settle(0.0, 1, request.tag) is None


def test_a_request_without_a_place_waits_for_a_bounded_time() -> None:
    made = Router([Place("0")])
    request = ask(made, 0.0)
    assert made.expire(PATIENCE - 0.1) == []
    assert [(one, type(error)) for one, error in made.expire(PATIENCE)] == [(request, Unreachable)]


def test_a_throttled_address_recovers_with_time_and_harms_no_other() -> None:
    throttle = Throttle(rate=10, burst=3, addresses=2)
    assert [throttle.allows(0.0, "a") for _ in range(4)] == [True, True, True, False]
    assert throttle.allows(0.0, "b")
    assert not throttle.allows(0.05, "a")
    assert throttle.allows(0.11, "a")


@given(st.lists(st.tuples(st.floats(0, 1), st.text(max_size=3)), max_size=200))
def test_a_throttle_never_allows_more_than_burst_and_rate_and_stays_small(steps: list[tuple[float, str]]) -> None:
    throttle = Throttle(rate=5, burst=3, addresses=1000)
    now = 0.0
    allowed: dict[str, int] = {}
    for pause, address in steps:
        now += pause
        allowed[address] = allowed.get(address, 0) + throttle.allows(now, address)
        assert allowed[address] <= 3 + 5 * now + 1e-6
    small = Throttle(rate=5, burst=3, addresses=2)
    for _, address in steps:
        small.allows(0.0, address)
        assert len(small) <= 2
