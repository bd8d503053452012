"""The balancer's accounts hold whatever happens, in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lnh_common.errors import Busy, DeadlineExceeded, NotActivated, Unreachable
from lnh_common.wire.bundles import is_forwarded
from lnh_services.balancer.backends import PATIENCE, SILENT_AFTER, UNIT, Backend, Request
from lnh_services.balancer.routing import FORWARD_ABOVE, FORWARD_SMALL_ABOVE, MOVES, WINDOW, WORTH_A_HOP, Bounds, Router
from lnh_services.balancer.throttle import Throttle
from sizes import sized

BOUNDS = Bounds(requests=12, requests_per_client=5, bytes=400)
OPERATIONS = ["key.sign", "object.generate-pair", "key.sign-many", "session.login"]
PEER = b"peer"
SEALED = NotActivated("sealed")


class Accounts(RuleBasedStateMachine):
    """A balancer's life: requests of clients and of other members, answers (late and doubled too) and refusals, workers and
    members that come and go, its own lease, time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.alive: dict[bytes, Request] = {}
        self.sent: list[tuple[int, bytes]] = []  # what a backend may answer

    @initialize(own=st.integers(1, 3), far=st.lists(st.integers(0, 1), max_size=3))
    def begin(self, own: int, far: list[int]) -> None:
        self.router = Router([Backend(f"worker-{n}") for n in range(own)], BOUNDS)
        self.own = set(range(own))
        for tier in far:
            number = self.router.add(Backend("member", tier, far=True))
            self.router.up(self.now, number)
            self.router.report(self.now, number, takes=True, round_trip=0.001)
        self.router.set_forwards(self.now, forwards=True)

    @property
    def far(self) -> list[int]:
        return sorted(self.router._far)

    @property
    def numbers(self) -> list[int]:
        return [*self.own, *self.far]

    def dispatched(self, requests: list[Request]) -> None:
        for request in requests:
            assert request.backend is not None
            at = self.router.backends[request.backend]
            assert at.up, "a request was sent to a backend that is down"
            assert at.open, "a request was sent to a backend that takes none"
            if at.far:
                assert self.router.forwards, "a read-only member had work done elsewhere"
                assert not request.foreign, "a request went further than one hop"
                assert not request.stays, "what is about this member went elsewhere"
                up = {self.router.backends[number].tier for number in self.numbers if self.is_candidate(number)}
                assert at.tier == min(up), "another group was used though this one has somebody"
            self.sent.append((request.backend, request.tag))

    def is_candidate(self, number: int) -> bool:
        at = self.router.backends[number]
        return at.up and at.open

    @rule(
        client=st.sampled_from([b"a", b"b", PEER]),
        size=st.integers(0, 150),
        operation=st.sampled_from(OPERATIONS),
        lasts=st.floats(0.01, 5),
        stays=st.booleans(),
    )
    def ask(self, client: bytes, size: int, operation: str, lasts: float, stays: bool) -> None:
        mine = [request for request in self.alive.values() if request.client == client]
        full = (
            len(self.alive) >= BOUNDS.requests
            or len(mine) >= BOUNDS.requests_per_client
            or sum(request.size for request in self.alive.values()) + size > BOUNDS.bytes
        )
        frames = [b"", b"", bytes(size)]
        foreign = client == PEER
        if full or (foreign and not self.router.own_up()):
            with pytest.raises(Busy if full else Unreachable):
                self.router.admit(self.now, client, frames, operation, self.now + lasts, foreign=foreign)
            return
        request = self.router.admit(self.now, client, frames, operation, self.now + lasts, stays=stays, foreign=foreign)
        assert request.tag not in self.alive, "a tag is used once"
        assert is_forwarded(request.tag) == foreign
        self.alive[request.tag] = request
        if request.backend is not None:
            self.dispatched([request])

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        backend, tag = data.draw(st.sampled_from(self.sent))
        held = tag in self.router.backends[backend].outstanding
        request = self.router.settle(self.now, backend, tag)
        assert (request is not None) == held
        if request is not None:
            assert self.alive.pop(tag) is request, "an answer settled a request that had ended"

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        backend, tag = data.draw(st.sampled_from(self.sent))
        held = tag in self.router.backends[backend].outstanding
        request = self.router.rejected(self.now, backend, tag)
        assert (request is not None) == held
        if request is None:
            return
        if request.foreign:
            assert request.backend is None, "what another member sent goes back"
            del self.alive[tag]
        elif request.backend is not None:
            self.dispatched([request])

    @rule(data=st.data())
    def come(self, data: st.DataObject) -> None:
        self.dispatched(self.router.up(self.now, data.draw(st.sampled_from(self.numbers))))

    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        self.dispatched(self.router.down(self.now, data.draw(st.sampled_from(self.numbers))))

    @precondition(lambda self: self.far)
    @rule(data=st.data(), takes=st.booleans(), round_trip=st.floats(0, 1), weight=st.integers(1, 4))
    def report(self, data: st.DataObject, takes: bool, round_trip: float, weight: int) -> None:
        number = data.draw(st.sampled_from(self.far))
        sent = self.router.report(self.now, number, takes=takes, round_trip=round_trip, weight=weight)
        self.dispatched(sent)

    @rule(forwards=st.booleans())
    def lease(self, forwards: bool) -> None:
        self.dispatched(self.router.set_forwards(self.now, forwards=forwards))

    @rule(tier=st.integers(0, 1))
    def join(self, tier: int) -> None:
        if len(self.far) < 4:
            before = self.numbers
            number = self.router.add(Backend("member", tier, far=True))
            assert number not in before
            assert not self.router.backends[number].up

    @precondition(lambda self: self.far)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(self.far))
        moved = self.router.remove(self.now, number)
        self.sent = [(backend, tag) for backend, tag in self.sent if backend != number]  # its connection is closed
        self.dispatched(moved)

    @precondition(lambda self: self.far)
    @rule(data=st.data(), tier=st.integers(0, 1))
    def change_group(self, data: st.DataObject, tier: int) -> None:
        self.router.backends[data.draw(st.sampled_from(self.far))].tier = tier

    @rule(ago=st.floats(0, 3))
    def seal(self, ago: float) -> None:
        before = list(self.router.waiting)
        self.router.unserved(self.now - ago, SEALED)
        assert list(self.router.waiting) == [request for request in before if request.begun >= self.now - ago]

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for request, error in self.router.expire(self.now):
            assert self.alive.pop(request.tag) is request, "a request ended twice"
            if isinstance(error, DeadlineExceeded):
                assert request.deadline <= self.now
            elif request.open:
                assert isinstance(error, Busy)
                assert request.writes
            elif error is SEALED:
                assert request.backend is None
            else:
                assert isinstance(error, Unreachable)
                assert request.patience <= self.now or request.moves > MOVES or request.foreign
        assert all(request.deadline > self.now for request in self.alive.values()), "one outlived its deadline"

    @invariant()
    def every_request_is_in_one_place(self) -> None:
        if not hasattr(self, "router"):
            return
        router = self.router
        held = [request for backend in router.backends for request in backend.outstanding.values()]
        held += [*router.waiting, *(request for request, _ in router._given_up)]
        assert sorted(request.tag for request in held) == sorted(self.alive)
        assert router.requests == len(held)
        assert router.bytes == sum(request.size for request in held)
        clients = {request.client for request in held}
        assert router.clients == {one: sum(request.client == one for request in held) for one in clients}
        for number, backend in enumerate(router.backends):
            assert backend.work == sum(request.work for request in backend.outstanding.values())
            assert backend.up or not backend.outstanding, "a backend that is down holds work"
            assert all(request.backend == number for request in backend.outstanding.values())
            assert not any(request.stays for request in backend.outstanding.values() if backend.far)
        own = any(self.is_candidate(number) for number in self.own)
        far = router.forwards and any(self.is_candidate(number) for number in self.far)
        assert not any(own or (far and not request.stays) for request in router.waiting), "one waits though it need not"
        assert not any(request.foreign for request in router.waiting), "what another member sent waits"


Accounts.TestCase.settings = settings(max_examples=sized(80), stateful_step_count=60, deadline=None)
TestAccounts = Accounts.TestCase


def router(*backends: Backend) -> Router:
    """All up; a member takes work, and is told to be next door."""
    made = Router([backend for backend in backends if not backend.far])
    for backend in backends:
        if backend.far:
            made.add(backend)
    for number, backend in enumerate(made.backends):
        made.up(0.0, number)
        if backend.far:
            made.report(0.0, number, takes=True, round_trip=0.001, weight=backend.weight)
    made.set_forwards(0.0, forwards=True)
    return made


def ask(made: Router, now: float, operation: str = "key.sign") -> Request:
    return made.admit(now, b"c", [b"", b"", b""], operation, now + 100)


@given(st.lists(st.sampled_from(OPERATIONS), max_size=60), st.integers(1, 5))
def test_no_backend_gets_work_while_another_has_less(operations: list[str], count: int) -> None:
    made = router(*(Backend(str(n)) for n in range(count)))
    for operation in operations:
        least = min(backend.work for backend in made.backends)
        chosen = ask(made, 0.0, operation).backend
        assert chosen is not None
        assert (
            made.backends[chosen].work - least
            == made.backends[chosen].outstanding[list(made.backends[chosen].outstanding)[-1]].work
        )


def test_a_key_pair_being_generated_keeps_signatures_away() -> None:
    made = router(Backend("0"), Backend("1"))
    busy = ask(made, 0.0, "object.generate-pair").backend
    assert all(ask(made, 0.0).backend != busy for _ in range(60))


def test_another_group_is_used_only_when_this_one_has_nobody() -> None:
    made = router(Backend("worker"), Backend("near", far=True), Backend("other", tier=1, far=True))
    assert 2 not in {ask(made, 0.0).backend for _ in range(100)}
    assert {request.backend for request in made.down(0.0, 0)} == {1}
    assert {request.backend for request in made.down(0.0, 1)} == {2}
    made.up(0.0, 0)
    assert ask(made, 0.0).backend == 0


def test_a_member_with_little_to_do_does_it_itself() -> None:
    made = router(Backend("worker"), Backend("member", weight=8, far=True))
    few = int(FORWARD_SMALL_ABOVE / UNIT)
    assert {ask(made, 0.0).backend for _ in range(few)} == {0}
    assert ask(made, 0.0).backend == 1


def test_what_takes_a_worker_long_is_forwarded_sooner() -> None:
    made = router(Backend("worker"), Backend("member", far=True))
    made.backends[0].unit = WORTH_A_HOP
    assert FORWARD_ABOVE < 2 * WORTH_A_HOP < FORWARD_SMALL_ABOVE
    assert [ask(made, 0.0).backend for _ in range(2)] == [0, 1], "an idle worker does it, however long it takes"


@pytest.mark.parametrize(("seconds", "is_kept"), [(0.0006, True), (0.05, False)])
def test_key_pairs_are_forwarded_only_if_they_take_a_worker_long(seconds: float, is_kept: bool) -> None:
    """64 are asked for at any time, and answered a group at a time, as many as a worker made since the last commit."""
    made = router(Backend("worker"), Backend("member", far=True))
    chosen = []
    now, free = 0.0, 0.0
    for _ in range(60):
        while made.requests < 64:
            request = ask(made, now, "object.generate-pair")
            chosen.append(request.backend)
        now += max(0.02, seconds)
        answered = [tag for tag, request in made.backends[0].outstanding.items() if request.sent < now][
            : int((now - free) / seconds)
        ]
        free = now
        for tag in answered:
            made.settle(now, 0, tag)
        for tag in list(made.backends[1].outstanding):
            made.settle(now, 1, tag)
    assert (1 not in chosen[-64:]) is is_kept


def test_a_distant_member_gets_less() -> None:
    chosen = {}
    for round_trip in (0.001, 0.012, 0.05):
        made = router(Backend("worker"), Backend("member", far=True))
        made.report(0.0, 1, takes=True, round_trip=round_trip)
        chosen[round_trip] = [ask(made, 0.0).backend for _ in range(95)].count(1)
    assert chosen[0.001] > chosen[0.012] > chosen[0.05] == 0


def test_a_member_that_comes_up_gets_a_few_requests_at_a_time_until_it_answers() -> None:
    made = router(Backend("worker"), Backend("member", far=True))
    for _ in range(400):
        ask(made, 0.0)
    sent = list(made.backends[1].outstanding)
    assert len(sent) == WINDOW
    for tag in sent:
        made.settle(0.01, 1, tag)
    for _ in range(400):
        ask(made, 0.01)
    assert len(made.backends[1].outstanding) == 2 * WINDOW


def test_a_slow_member_gets_less_but_not_nothing() -> None:
    """Each answers what it has in turn, one of them ten times as slowly; the load is steady for ten seconds."""
    made = router(Backend("worker"), Backend("quick", far=True), Backend("slow", far=True))
    seconds = {0: 0.001, 1: 0.001, 2: 0.01}
    free = dict.fromkeys(seconds, 0.0)
    done = dict.fromkeys(seconds, 0)
    latest = 0.0
    for step in range(10_000):
        now = step * 0.001
        while made.requests < 40:
            ask(made, now)
        for number, each in seconds.items():
            while made.backends[number].outstanding and free[number] <= now:
                made.settle(now, number, next(iter(made.backends[number].outstanding)))
                free[number] = max(free[number], now - 0.001) + each
                done[number] += 1
                latest = now if number == 2 else latest
    assert done[0] > 5 * done[2]
    assert done[1] > 5 * done[2]
    assert done[2] > 100
    assert latest > 9


def test_what_was_measured_long_ago_counts_for_little() -> None:
    made = router(Backend("worker"), Backend("member", far=True))
    made.backends[1].unit, made.backends[1].unit_at = 0.1, 0.0
    for _ in range(30):
        ask(made, 0.1)
    assert not made.backends[1].outstanding
    for _ in range(30):
        ask(made, 60.0)
    assert made.backends[1].outstanding


def test_a_member_that_refuses_gets_nothing_until_it_says_that_it_takes_work() -> None:
    made = router(Backend("worker"), Backend("member", far=True))
    made.down(0.0, 0)
    refused = ask(made, 0.0)
    assert refused.backend == 1
    assert made.rejected(0.0, 1, refused.tag) is refused
    assert refused.backend is None
    assert ask(made, 0.1).backend is None
    assert {request.backend for request in made.report(0.2, 1, takes=True, round_trip=0.001)} == {1}


def test_a_request_that_lost_its_member_goes_to_an_own_worker() -> None:
    made = router(Backend("worker"), Backend("one", far=True), Backend("two", far=True))
    for _ in range(100):
        ask(made, 0.0)
    lost = len(made.backends[1].outstanding)
    assert lost
    assert [request.backend for request in made.down(0.0, 1)] == [0] * lost


@pytest.mark.parametrize("foreign", [False, True])
def test_a_write_that_lost_its_worker_is_its_clients_to_send_again(foreign: bool) -> None:
    """It may have been done: whoever is asked next, and is read-only, cannot know, and would say that it was not."""
    made = router(Backend("worker"), Backend("another"))
    write = made.admit(0.0, PEER, [b"", b"", b""], "object.generate", 9.0, foreign=foreign)
    read = made.admit(0.0, PEER, [b"", b"", b""], "key.sign", 9.0, foreign=foreign)
    assert write.backend is not None
    moved = made.down(0.0, write.backend)
    assert write not in moved
    ((given_up, error),) = made.expire(0.0)
    assert given_up is write
    assert write.open
    assert isinstance(error, Busy)
    assert made.requests == 1
    assert made.settle(0.0, read.backend or 0, read.tag) is read


def test_what_another_member_sent_goes_no_further_and_does_not_wait() -> None:
    made = router(Backend("worker"), Backend("member", weight=8, far=True))
    sent = [made.admit(0.0, PEER, [b"", b"", b""], "key.sign", 9.0, foreign=True) for _ in range(100)]
    assert {request.backend for request in sent} == {0}
    assert made.down(0.0, 0) == []
    assert not made.waiting
    assert [request for request, _ in made.expire(0.0)] == sent
    with pytest.raises(Unreachable):
        made.admit(0.0, PEER, [b"", b"", b""], "key.sign", 9.0, foreign=True)


def test_a_member_that_comes_back_gets_nothing_before_it_says_that_it_takes_work() -> None:
    made = router(Backend("worker"), Backend("member", far=True))
    made.down(0.0, 0)
    made.down(0.0, 1)
    assert ask(made, 0.0).backend is None
    assert made.up(0.1, 1) == []
    assert len(made.report(0.1, 1, takes=True, round_trip=0.001)) == 1


def test_a_read_only_member_serves_alone() -> None:
    made = router(Backend("worker"), Backend("member", far=True))
    made.set_forwards(0.0, forwards=False)
    assert {ask(made, 0.0).backend for _ in range(100)} == {0}
    assert made.down(0.0, 0) == []
    assert len(made.waiting) == 100
    assert {request.backend for request in made.set_forwards(0.1, forwards=True)} == {1}


def test_a_backend_of_twice_the_weight_gets_twice_the_work() -> None:
    made = router(Backend("small"), Backend("large", weight=2))
    chosen = [ask(made, 0.0).backend for _ in range(300)]
    assert chosen.count(1) == 200


def test_a_silent_place_is_passed_over_until_it_answers() -> None:
    made = router(Backend("0"), Backend("1"))
    stuck = ask(made, 0.0)
    assert stuck.backend == 0
    later = SILENT_AFTER + 0.1
    busy = [ask(made, later) for _ in range(5)]
    assert {request.backend for request in busy} == {1}
    made.settle(later, 0, stuck.tag)
    assert ask(made, later).backend == 0


def test_a_second_answer_is_dropped() -> None:
    made = router(Backend("0"), Backend("1"))
    request = ask(made, 0.0)
    made.down(0.0, 0)
    assert made.settle(0.0, 1, request.tag) is request
    assert made.settle(0.0, 0, request.tag) is None
    assert made.settle(0.0, 1, request.tag) is None


def test_a_request_without_a_place_waits_for_a_bounded_time() -> None:
    made = Router([Backend("0")])
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
