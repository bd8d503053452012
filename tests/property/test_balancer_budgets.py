"""What classes of peers may use up: whatever the others do, each gets its share, and no request is lost or counted twice."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lnh_common.bus.connections import overdrawn
from lnh_common.errors import Busy
from lnh_common.limits import Budget
from lnh_common.rate import Rate
from lnh_services.balancer.backends import Backend, Request
from lnh_services.balancer.budgets import BUDGETS, Looks, Peer, Share
from lnh_services.balancer.routing import Router
from sizes import sized

BUDGET = Budget(requests=24, bytes=1000, held=0, unread=0, at_workers=3, work=0.05)
ACCOUNTS = [bytes([number]) for number in range(6)]


class Life(RuleBasedStateMachine):
    """Requests of several accounts of one class come, have their turns, end, and are given up while they wait."""

    def __init__(self) -> None:
        super().__init__()
        self.share: Share[int] = Share(BUDGET)
        self.now = 0.0
        self.made = 0
        self.waiting: dict[int, tuple[bytes, int]] = {}
        self.working: dict[int, tuple[bytes, int]] = {}
        self.spent = 0.0

    @rule(account=st.sampled_from(ACCOUNTS), size=st.integers(0, 300), work=st.floats(0.001, 0.02))
    def ask(self, account: bytes, size: int, work: float) -> None:
        if self.share.refusal(account, size):
            return
        self.share.begin(account, size)
        self.share.enter(account, self.made, work)
        self.waiting[self.made] = (account, size)
        self.made += 1

    @rule()
    def turn(self) -> None:
        request = self.share.next(self.now)
        if request is not None:
            self.working[request] = self.waiting.pop(request)

    @precondition(lambda self: self.working)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        account, size = self.working.pop(data.draw(st.sampled_from(sorted(self.working))))
        self.share.end(account, size, had_turn=True)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.waiting)))
        account, size = self.waiting.pop(request)
        self.share.withdraw(account, request)
        self.share.end(account, size, had_turn=False)

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def all_are_accounted_for(self) -> None:
        share = self.share
        held = [*self.waiting.values(), *self.working.values()]
        assert share.requests == len(held)
        assert share.bytes == sum(size for _, size in held)
        assert (share.waiting, share.at_workers) == (len(self.waiting), len(self.working))
        assert sorted(share.all_waiting()) == sorted(self.waiting)
        assert share.requests <= BUDGET.requests
        assert share.bytes <= BUDGET.bytes
        assert share.at_workers <= BUDGET.at_workers

    @invariant()
    def an_account_with_nothing_gets_in_whatever_the_others_hold(self) -> None:
        busy = {account for account, _ in (*self.waiting.values(), *self.working.values())}
        for account in set(ACCOUNTS) - busy:
            assert not self.share.refusal(account, 0)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=sized(60), stateful_step_count=60, deadline=None)


@given(st.dictionaries(st.sampled_from(ACCOUNTS), st.integers(1, 12), min_size=2))
def test_accounts_have_turns_one_after_another_however_many_requests_each_has(asked: dict[bytes, int]) -> None:
    share: Share[bytes] = Share(BUDGET._replace(requests=10_000, work=0.0))
    for account, count in asked.items():
        for _ in range(count):
            share.begin(account, 0)
            share.enter(account, account, 0.001)
    had: Counter[bytes] = Counter()
    for account in iter(lambda: share.next(0.0), None):
        had[account] += 1
        share.end(account, 0, had_turn=True)
        for other, count in asked.items():
            assert had[other] >= min(count, had[account] - 1), "somebody was passed over"
    assert had == asked


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 3)), max_size=60), st.floats(0.1, 10))
def test_a_rate_is_never_exceeded_by_more_than_a_second_and_one_step(
    steps: list[tuple[float, float]], rate: float
) -> None:
    bucket, now, spent, largest = Rate(rate), 0.0, 0.0, 0.0
    for seconds, amount in steps:
        now += seconds
        if bucket.has(now):
            bucket.spend(amount)
            spent, largest = spent + amount, max(largest, amount)
    assert spent <= rate * (now + 1) + largest + 1e-6


MESSAGES = st.lists(st.tuples(st.floats(0, 0.3), st.sampled_from(ACCOUNTS[:4]), st.integers(1, 32)), max_size=200)


@given(MESSAGES, st.integers(1, 100))
@settings(deadline=None)
def test_whatever_four_accounts_send_a_fifth_is_looked_at_and_all_keep_to_the_rate(
    messages: list[tuple[float, bytes, int]], times: int
) -> None:
    rate = BUDGETS[Peer.CLIENT].looks
    share: Share[int] = Share(BUDGETS[Peer.CLIENT])
    now = spent = 0.0
    for seconds, account, entries in messages:
        now += seconds
        for _ in range(times):
            if share.looks.has(now, account):
                share.looks.spend(account, entries)
                spent += entries
        assert share.looks.has(now, b"the fifth")
        assert spent <= rate * (now + 1) + 1e-3


@given(st.lists(st.integers(1, 32), min_size=2, max_size=8))
@settings(deadline=None)
def test_accounts_that_all_send_without_end_are_looked_at_alike_and_none_is_lost(entries: list[int]) -> None:
    """Each sends more than the rate, in bundles of its own size, for 20 seconds."""
    looks, rate, step = Looks(2000), 2000, 0.004
    had: Counter[int] = Counter()
    for turn in range(round(20 / step)):
        for account, size in enumerate(entries):
            if looks.has(turn * step, bytes([account])):
                looks.spend(bytes([account]), size)
                had[account] += size if turn * step > 5 else 0
    fair = min(rate / len(entries), min(entries) / step)
    assert sum(had.values()) >= 0.9 * min(rate, sum(entries) / step) * 15
    assert min(had.values()) >= 0.5 * fair * 15, had


def test_accounts_that_used_little_are_forgotten() -> None:
    looks, now = Looks(20), 0.0
    for number in range(5000):
        now += 0.05
        account = number.to_bytes(2, "big")
        if looks.has(now, account):
            looks.spend(account, 2)
        assert len(looks._accounts) <= 5 * 20


@given(st.dictionaries(st.integers(0, 40), st.integers(0, 1000)), st.integers(0, 5000))
def test_those_are_cut_that_hold_the_most_until_the_rest_fits(held: dict[int, int], budget: int) -> None:
    cut = overdrawn(held, budget)
    kept = {which: size for which, size in held.items() if which not in cut}
    assert sum(kept.values()) <= budget
    assert all(held[which] >= size for which in cut for size in kept.values()), "one that holds less was cut"
    if cut:
        assert sum(kept.values()) + held[cut[-1]] > budget, "one more than needed was cut"


ADMITTED = st.tuples(st.sampled_from([Peer.STRANGER, Peer.CLIENT]), st.sampled_from(ACCOUNTS), st.integers(0, 1 << 20))


@given(st.lists(ADMITTED, max_size=400))
@settings(max_examples=sized(40), deadline=None)
def test_whatever_strangers_and_clients_ask_a_session_and_a_member_are_admitted(
    asked: list[tuple[Peer, bytes, int]],
) -> None:
    router = Router([Backend("worker-0")])
    router.up(0.0, 0)
    for peer, account, size in asked * 4:
        with suppress(Busy):
            router.admit(0.0, account, [b"", b"", bytes(size)], "session.login", 10.0, peer=peer)
    router.due(0.0, lambda _: True)
    most = sum(BUDGETS[peer].at_workers for peer in (Peer.STRANGER, Peer.CLIENT))
    assert len(router.backends[0].outstanding) <= most
    for foreign in (False, True):
        request = router.admit(0.0, b"me", [b"", b"", bytes(1 << 20)], "key.sign", 10.0, foreign=foreign)
        assert request.backend == 0


def test_the_budgets_of_all_classes_fit_into_what_a_member_takes_on() -> None:
    bounds = Router([]).bounds
    assert sum(budget.requests for budget in BUDGETS.values()) <= bounds.requests
    assert sum(budget.bytes for budget in BUDGETS.values()) <= bounds.bytes


def test_what_a_closed_connection_left_waiting_is_thrown_away() -> None:
    router = Router([Backend("worker-0")])
    router.up(0.0, 0)
    gone: list[Request] = [
        router.admit(0.0, b"gone", [b"", b"", b""], "session.login", 10.0, peer=Peer.STRANGER) for _ in range(20)
    ]
    here = router.admit(0.0, b"here", [b"", b"", b""], "session.login", 10.0, peer=Peer.STRANGER)
    sent = router.due(0.0, lambda request: request.client != b"gone")
    assert sent == [here]
    assert router.requests == 1
    assert all(request.backend is None for request in gone)


def test_one_that_waits_its_turn_for_too_long_is_told_to_ask_again() -> None:
    router = Router([Backend("worker-0")])
    router.up(0.0, 0)
    for _ in range(BUDGETS[Peer.STRANGER].at_workers + 1):
        last = router.admit(0.0, b"a", [b"", b"", b""], "session.login", 10.0, peer=Peer.STRANGER)
    router.due(0.0, lambda _: True)
    assert last.backend is None
    ((given_up, error),) = router.expire(5.0)
    assert given_up is last
    assert isinstance(error, Busy)
    assert router.shares[Peer.STRANGER].waiting == 0
