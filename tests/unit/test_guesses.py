"""How often a password may be guessed: the rules alone, in virtual time."""

from __future__ import annotations

import os

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st
from msgspec.structs import replace

from lnh_common import limits
from lnh_common.errors import Busy, PasswordLocked
from lnh_common.messages.session import Credential, Role
from lnh_services.hsm import guesses
from lnh_services.hsm.guesses import Counted, Locks, Outcome
from lnh_services.hsm.records import HolderLockRecord, LockRecord, Records

START = 1_700_000_000
HOUR = 3600


class Holder:
    """One role holder and everybody who tries to be it; `pairs` and `holder` are what a store would keep."""

    def __init__(self) -> None:
        self.now = START
        self.pairs: dict[str, LockRecord] = {}
        self.known: dict[str, tuple[bytes, ...]] = {}
        self.holder = HolderLockRecord()

    def locks(self, client: str) -> Locks:
        known = self.known.get(client, ())
        return Locks(self.pairs.get(client, LockRecord()), self.holder, bool(client), known)

    def begin(self, client: str, named: bytes = b"") -> tuple[bytes, Counted]:
        named = named or os.urandom(16)
        counted = guesses.reserve(self.locks(client), self.now, named)
        self._keep(client, counted)
        return named, counted

    def end(self, client: str, begun: tuple[bytes, Counted], outcome: Outcome) -> None:
        named, counted = begun
        over_all = counted.holder is not None
        self._keep(client, guesses.end(self.locks(client), outcome, self.now, named, over_all=over_all))

    def fail(self, client: str) -> None:
        self.end(client, self.begin(client), Outcome.WRONG)

    def succeed(self, client: str) -> None:
        self.end(client, self.begin(client), Outcome.RIGHT)

    def _keep(self, client: str, counted: Counted) -> None:
        self.pairs[client], self.known[client] = counted.pair, counted.known
        self.holder = counted.holder or self.holder

    def wait(self, client: str) -> int:
        """Seconds until the client may try."""
        try:
            guesses.reserve(self.locks(client), self.now, b"another")
        except PasswordLocked as locked:
            return int(locked.detail["seconds"])
        return 0

    def fail_from_new_clients(self, count: int) -> None:
        for number in range(count):
            client = f"attacker {self.now} {number}"
            self.now += self.wait(client)
            self.fail(client)


def test_ten_failures_lock_the_pair_and_no_other() -> None:
    holder = Holder()
    for _ in range(limits.FAILURES_BEFORE_LOCK):
        holder.fail("a")
    assert holder.wait("a") == limits.LOCK_SECONDS
    assert holder.wait("b") == 0
    holder.now += limits.LOCK_SECONDS
    holder.succeed("a")


def test_across_clients_the_wait_doubles_up_to_an_hour() -> None:
    holder = Holder()
    waits = []
    for number in range(limits.FAILURES_BEFORE_DELAY + 16):
        waits.append(holder.wait(f"client {number}"))
        holder.now += waits[-1]
        holder.fail(f"client {number}")
    free, delayed = waits[: limits.FAILURES_BEFORE_DELAY], waits[limits.FAILURES_BEFORE_DELAY :]
    assert set(free) == {0}
    assert delayed[:12] == [1 << power for power in range(12)]
    assert max(delayed) == limits.DELAY_MAX
    assert delayed[-1] == limits.DELAY_MAX


def test_a_day_of_guessing_from_any_number_of_clients_is_a_few_dozen_guesses() -> None:
    holder = Holder()
    guessed = 0
    while holder.now < START + 24 * HOUR:
        holder.fail_from_new_clients(1)
        guessed += 1
    assert guessed < limits.FAILURES_BEFORE_DELAY + 12 + 24 + 2


def test_a_client_that_succeeded_lately_is_not_kept_out_by_others() -> None:
    holder = Holder()
    holder.succeed("the service")
    holder.fail_from_new_clients(limits.FAILURES_BEFORE_DELAY + 15)
    assert holder.wait("somebody new") > 0
    assert holder.wait("the service") == 0
    holder.succeed("the service")
    for _ in range(limits.FAILURES_BEFORE_LOCK):
        holder.fail("the service")
    assert holder.wait("the service") > 0, "its own failures count as ever"
    holder.now += limits.SUCCEEDED_LATELY
    holder.fail_from_new_clients(limits.FAILURES_BEFORE_DELAY + 15)
    assert holder.wait("the service") > 0, "it was long ago"


def test_success_of_the_unregistered_does_not_let_all_of_them_in() -> None:
    holder = Holder()
    holder.succeed("")
    holder.fail_from_new_clients(limits.FAILURES_BEFORE_DELAY + 15)
    assert holder.wait("") > 0


def test_success_takes_back_its_own_reservation_and_forgives_no_other_client() -> None:
    holder = Holder()
    holder.fail_from_new_clients(5)
    holder.succeed("right at once")
    assert holder.holder.failures == 5
    for _ in range(3):
        holder.fail("mistyped")
    holder.succeed("mistyped")
    assert holder.pairs["mistyped"].failures == 0
    assert holder.holder.failures == 8


def test_no_more_attempts_run_at_once_than_may_fail_and_further_ones_wait() -> None:
    holder = Holder()
    running = [holder.begin("a") for _ in range(limits.FAILURES_BEFORE_LOCK)]
    with pytest.raises(Busy):
        holder.begin("a")
    holder.end("a", running.pop(), Outcome.RIGHT)
    running.append(holder.begin("a"))
    with pytest.raises(Busy):
        holder.begin("a")
    for begun in running:
        holder.end("a", begun, Outcome.RIGHT)
    assert holder.pairs["a"].failures == 0
    assert holder.holder.failures == 0


def test_when_all_that_ran_failed_the_pair_is_locked() -> None:
    holder = Holder()
    running = [holder.begin("a") for _ in range(limits.FAILURES_BEFORE_LOCK)]
    for begun in running:
        holder.end("a", begun, Outcome.WRONG)
    assert holder.wait("a") == limits.LOCK_SECONDS


def test_over_all_clients_attempts_at_the_same_time_are_reserved_too() -> None:
    holder = Holder()
    running = [(f"client {number}", holder.begin(f"client {number}")) for number in range(limits.FAILURES_BEFORE_DELAY)]
    with pytest.raises(Busy):
        holder.begin("one more")
    for client, begun in running:
        holder.end(client, begun, Outcome.RIGHT)
    holder.succeed("one more")
    assert holder.holder.failures == 0


def test_an_attempt_of_which_nothing_is_heard_has_failed() -> None:
    holder = Holder()
    for _ in range(limits.FAILURES_BEFORE_LOCK):
        holder.begin("a")
    holder.now += limits.ATTEMPT_SECONDS
    assert holder.wait("a") == limits.LOCK_SECONDS - limits.ATTEMPT_SECONDS


def test_an_attempt_that_was_not_made_is_taken_back_and_forgives_nothing() -> None:
    holder = Holder()
    holder.fail("a")
    holder.end("a", holder.begin("a"), Outcome.NOT_MADE)
    assert holder.pairs["a"] == LockRecord(failures=1, until=START + limits.LOCK_SECONDS, begun=START)
    assert holder.holder.failures == 1


def test_failures_are_forgiven_with_time() -> None:
    holder = Holder()
    holder.fail_from_new_clients(limits.FAILURES_BEFORE_DELAY + 5)
    holder.now += 6 * limits.FORGIVEN_AFTER
    assert holder.wait("somebody new") == 0


def test_a_clock_that_went_back_locks_no_longer_than_a_lock_lasts() -> None:
    holder = Holder()
    for _ in range(limits.FAILURES_BEFORE_LOCK):
        holder.fail("a")
    holder.fail_from_new_clients(limits.FAILURES_BEFORE_DELAY + 15)
    holder.now -= 10 * 24 * HOUR
    assert holder.wait("a") <= limits.LOCK_SECONDS
    assert holder.wait("b") <= limits.DELAY_MAX


@examples(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2000), st.booleans()), max_size=60))
def test_whatever_happens_a_wait_is_bounded_and_no_more_than_ten_of_a_pair_run_in_a_lock_time(
    acts: list[tuple[str, int, bool]],
) -> None:
    holder = Holder()
    failed: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for client, seconds, right in acts:
        holder.now += seconds
        wait = holder.wait(client)
        assert 0 <= wait <= max(limits.LOCK_SECONDS, limits.DELAY_MAX)
        if wait:
            continue
        if right:
            holder.succeed(client)
            failed[client].clear()
        else:
            holder.fail(client)
            failed[client].append(holder.now)
            recent = [at for at in failed[client] if at > holder.now - limits.LOCK_SECONDS]
            assert len(recent) <= limits.FAILURES_BEFORE_LOCK


def test_an_attempt_is_known_again_until_it_succeeded_or_was_not_made() -> None:
    holder = Holder()
    for outcome, known in ((Outcome.WRONG, True), (Outcome.RIGHT, False), (Outcome.NOT_MADE, False)):
        named = outcome.value.encode()
        begun = holder.begin("a", named)
        assert guesses.is_counted(holder.locks("a"), named)
        assert not guesses.is_counted(holder.locks("b"), named), "another client's is another attempt"
        holder.end("a", begun, outcome)
        assert guesses.is_counted(holder.locks("a"), named) == known


def test_as_many_attempts_are_known_as_may_fail_and_no_more_are_kept() -> None:
    holder = Holder()
    for number in range(3 * limits.FAILURES_BEFORE_LOCK):
        holder.now += limits.LOCK_SECONDS
        holder.end("a", holder.begin("a", b"%d" % number), Outcome.WRONG)
    assert len(holder.known["a"]) == limits.FAILURES_BEFORE_LOCK
    assert guesses.is_counted(holder.locks("a"), b"%d" % number)


def test_what_a_message_tries_names_the_attempt() -> None:
    """So that nobody tries several passwords under one name, in one message or in several."""
    records = Records(os.urandom(32), bytes(16), bytes(16))
    given = Credential(role=Role.USER, name="a", password="one")
    others = (
        (b"another message", given),
        (b"signed", replace(given, password="another")),
        (b"signed", replace(given, name="b")),
    )
    named = guesses.attempt(records, b"signed", given)
    assert named == guesses.attempt(records, b"signed", given)
    assert len({named, *(guesses.attempt(records, signed, other) for signed, other in others)}) == 4


def test_names_share_a_scope_only_by_a_key_nobody_outside_has() -> None:
    one, other = (Records(os.urandom(32), bytes(16), bytes(16)) for _ in range(2))
    assert guesses.scope(one, Role.USER, "a", b"") == guesses.scope(one, Role.USER, "a", b"")
    assert guesses.scope(one, Role.USER, "a", b"") != guesses.scope(other, Role.USER, "a", b"")
