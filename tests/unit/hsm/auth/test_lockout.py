"""What counts against a password, whatever faults, repeats, members and clocks do: the rules of `hsm/auth/lockout.py`,
as used."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from lnh_common import limits
from lnh_common.errors import Busy, PasswordLocked
from lnh_common.messages.hsm import AttemptStep, LoginAttempt
from lnh_services import durable
from lnh_services.hsm.auth import online_attempts
from lnh_services.hsm.auth.lockout import Attempt, Tally
from lnh_services.hsm.auth.offline_attempts import OfflineAttempts
from lnh_services.hsm.auth.online_attempts import Locks
from lnh_services.hsm.records import AttemptsRecord, HolderLockRecord, LockRecord, Open
from sizes import sized

START = 1_700_000_000
RIGHT = 0
CLIENTS = ("a", "b")
HOLDER = b"abc"
NOWHERE = Path("/nonexistent/guesses.cbor")


def hashed(*what: object) -> bytes:
    return hashlib.sha256(repr(what).encode()).digest()[:16]


class Try(NamedTuple):
    """One message of a client: it may come more than once."""

    client: str
    password: int
    number: int

    @property
    def attempt(self) -> Attempt:
        return Attempt(hashed(self), hashed("guess", self.password))


class Running(NamedTuple):
    """It was compared, and its end is not written down yet."""

    tried: Try
    here: bool


class Cluster:
    """One role holder: what all members see, and what a read-only member keeps for itself.

    Whoever made an attempt knows its answer from the moment it may be compared, also when a fault takes its end.
    """

    def __init__(self, file: Path) -> None:
        self.now = START
        self.pairs = {client: (LockRecord(), AttemptsRecord()) for client in CLIENTS}
        self.holder = HolderLockRecord(), AttemptsRecord()
        self.local = OfflineAttempts(file)
        self.running: list[Running] = []
        self.tries: list[Try] = []
        self.known: dict[str, set[int]] = {client: set() for client in CLIENTS}
        # New wrong passwords that were compared: by pair, since its last right login, when each was; and on the read-only
        # member, since it last told the cluster, by whom first and when.
        self.learnt: dict[str, list[int]] = {client: [] for client in CLIENTS}
        self.learnt_here: dict[int, tuple[str, int]] = {}
        self.refused = 0

    def locks(self, client: str) -> Locks:
        (pair, of_pair), (holder, of_holder) = self.pairs[client], self.holder
        return Locks(pair, holder, True, of_pair, of_holder)

    def keep(self, client: str, locks: Locks) -> None:
        self.pairs[client] = locks.pair, locks.of_pair
        self.holder = locks.holder, locks.of_holder

    def note(self, tried: Try, step: AttemptStep) -> None:
        name, guess = tried.attempt
        client = hashed(tried.client)
        self.local.note(LoginAttempt(holder=HOLDER, client=client, attempt=name, step=step, guess=guess), self.now)

    def make(self, tried: Try, *, read_only: bool) -> None:
        """As a worker does it, up to the comparison."""
        locks, here = self.locks(tried.client), False
        try:
            online_attempts.check(locks, self.now, tried.attempt.name)
            if read_only:
                self.note(tried, AttemptStep.CHECK)
            counted = online_attempts.reserve(locks, tried.attempt, self.now)
            if read_only and counted != locks:
                self.note(tried, AttemptStep.BEGIN)
                here = True
            elif not read_only:
                self.keep(tried.client, counted)
        except (PasswordLocked, Busy):
            self.refused += 1
            return
        self.running.append(Running(tried, here))
        if tried.password != RIGHT and tried.password not in self.known[tried.client]:
            self.known[tried.client].add(tried.password)
            if here and tried.password not in self.learnt_here:
                assert len(self.learnt_here) < limits.FAILURES_BEFORE_LOCK, "more than a read-only member's budget"
                self.learnt_here[tried.password] = tried.client, self.now
            elif not here:
                recent = [at for at in self.learnt[tried.client] if at > self.now - limits.LOCK_SECONDS]
                assert len(recent) < limits.FAILURES_BEFORE_LOCK, "more new guesses than a lock's time allows"
                self.learnt[tried.client].append(self.now)

    def end(self, running: Running, *, read_only: bool) -> None:
        tried, right = running.tried, running.tried.password == RIGHT
        if running.here:
            self.note(tried, AttemptStep.RIGHT if right else AttemptStep.WRONG)
        elif not read_only:
            if right:
                self.learnt[tried.client].clear()
            self.keep(tried.client, online_attempts.end(self.locks(tried.client), tried.attempt, self.now, right=right))

    def merge(self) -> None:
        for failed in self.local.all():
            client = next(client for client in CLIENTS if hashed(client) == failed.client)
            open_ = tuple(Open(*each) for each in failed.open)
            merged = online_attempts.merged(self.locks(client), failed.failures, self.now, failed.attempts, open_)
            self.keep(client, merged)
            self.local.told(failed)
        for client, at in self.learnt_here.values():
            self.learnt[client].append(at)
        self.learnt_here.clear()

    def sweep(self) -> None:
        """Erase what counts nothing any more, as of a name that nobody has."""
        for client in CLIENTS:
            locks = self.locks(client)
            if locks.of_pair.tried and locks.is_over(self.now):
                self.keep(client, Locks())

    def act(self, act: Act) -> None:
        match act:
            case ("guess", str(client), int(count), bool(read_only), str(fate)):
                for _ in range(count):
                    self.attempt(client, FRESH + len(self.tries), read_only=read_only, fate=fate)
            case ("try", str(client), int(password), bool(read_only), str(fate)):
                self.attempt(client, password, read_only=read_only, fate=fate)
            case ("again", int(place), bool(read_only)) if self.tries:
                self.make(self.tries[place % len(self.tries)], read_only=read_only)
            case ("end", int(place), bool(read_only)) if self.running:
                self.end(self.running.pop(place % len(self.running)), read_only=read_only)
            case ("crash",):
                self.running.clear()
            case ("wait", int(seconds)):
                self.now += seconds
            case ("merge",):
                self.merge()
            case ("sweep",):
                self.sweep()

    def attempt(self, client: str, password: int, *, read_only: bool, fate: str) -> None:
        self.tries.append(Try(client, password, len(self.tries)))
        under_way = len(self.running)
        self.make(self.tries[-1], read_only=read_only)
        for running in self.running[under_way:]:
            if fate == "ends":
                self.end(running, read_only=read_only)
            if fate != "goes on":
                self.running.remove(running)


Act = tuple[object, ...]
FRESH = 1000  # passwords from here on are tried once
FATES = st.sampled_from(["ends", "is interrupted", "goes on"])


def acts(*passwords: int, guesses_too: bool = True) -> st.SearchStrategy[list[Act]]:
    client, member = st.sampled_from(CLIENTS), st.booleans()
    kinds: list[st.SearchStrategy[Act]] = [
        st.tuples(st.just("try"), client, st.sampled_from(passwords), member, FATES),
        st.tuples(st.just("again"), st.integers(0, 99), member),
        st.tuples(st.just("end"), st.integers(0, 99), member),
        st.just(("crash",)),
        st.tuples(st.just("wait"), st.sampled_from([1, 60, 300, 899, 900, 4000])),
        st.just(("merge",)),
        st.just(("sweep",)),
    ]
    if guesses_too:
        kinds += [st.tuples(st.just("guess"), client, st.sampled_from([1, 5, 10]), member, FATES)] * 6
    return st.lists(st.one_of(kinds), max_size=40)


def play(schedule: list[Act], file: Path) -> Cluster:
    cluster = Cluster(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "replace_file", lambda *_: None)  # what a restart finds is another test's
        for act in schedule:
            cluster.act(act)
            for _, attempts in (*cluster.pairs.values(), cluster.holder):
                assert len(attempts.open) <= limits.FAILURES_BEFORE_DELAY + limits.FAILURES_BEFORE_LOCK
    return cluster


@settings(max_examples=sized(200))
@examples(acts(RIGHT, 1, 2))
def test_no_schedule_of_faults_gives_a_guesser_more_than_the_rules_say(
    schedule: list[Act],
) -> None:
    play(schedule, NOWHERE)


@examples(acts(1, 2))
def test_nor_where_no_login_is_ever_right(schedule: list[Act]) -> None:
    play(schedule, NOWHERE)


@settings(max_examples=sized(100))
@examples(acts(RIGHT, guesses_too=False))
def test_who_uses_the_right_password_is_never_refused_whatever_is_interrupted(schedule: list[Act]) -> None:
    cluster = play(schedule, NOWHERE)
    assert cluster.refused == 0
    for client in CLIENTS:
        assert cluster.locks(client).tally(cluster.now).failures <= 1


def test_a_guess_is_open_until_it_ends_and_then_counts_by_itself() -> None:
    first, again, other = (Try("a", password, number).attempt for password, number in ((1, 1), (1, 2), (2, 3)))
    tally = Tally().begin(first, START).begin(again, START + 5).begin(other, START + 5)
    assert (tally.failures, len(tally.open)) == (2, 2), "the same password is one guess"
    tally = tally.wrong_one(first)
    assert (tally.failures, tally.names) == (2, (first.name,))
    assert tally.wrong_one(first) == tally, "told twice"
    assert tally.wrong_one(again).failures == 3, "each wrong attempt counts, at one password too"
    assert tally.expired(START + 5 + limits.LOCK_SECONDS).failures == 1


def test_a_right_one_forgives_what_began_before_it_and_not_what_began_after() -> None:
    before, right, after = (Try("a", password, password).attempt for password in range(3))
    tally = Tally(wrong=4).begin(before, START).begin(right, START).begin(after, START)
    assert [each.guess for each in tally.forgiven(right).open] == [after.guess]
    assert tally.forgiven(right).failures == 1
    assert tally.right_one(right).failures == 6
