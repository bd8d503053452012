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
from lnh_common.messages.store import Item
from lnh_services.hsm.auth import online_attempts
from lnh_services.hsm.auth.lockout import Attempt
from lnh_services.hsm.auth.online_attempts import Locks
from lnh_services.hsm.records import AttemptsRecord, HolderLockRecord, LockRecord, Open, Records

START = 1_700_000_000
HOUR = 3600
THE_PASSWORD = b"the right guess."


class Holder:
    """One role holder and everybody who tries to be it; `pairs` and `over_all` are what a store would keep."""

    def __init__(self) -> None:
        self.now = START
        self.pairs: dict[str, tuple[LockRecord, AttemptsRecord]] = {}
        self.over_all = HolderLockRecord(), AttemptsRecord()

    def locks(self, client: str) -> Locks:
        (pair, of_pair) = self.pairs.get(client, (LockRecord(), AttemptsRecord()))
        return Locks(pair, self.over_all[0], bool(client), of_pair, self.over_all[1])

    def begin(self, client: str, guess: bytes = b"", name: bytes = b"") -> Attempt:
        attempt = Attempt(name or os.urandom(16), guess or os.urandom(16))
        online_attempts.check(self.locks(client), self.now, attempt.name)
        self._keep(client, online_attempts.reserve(self.locks(client), attempt, self.now))
        return attempt

    def end(self, client: str, attempt: Attempt, *, right: bool) -> None:
        self._keep(client, online_attempts.end(self.locks(client), attempt, self.now, right=right))

    def fail(self, client: str) -> None:
        self.end(client, self.begin(client), right=False)

    def succeed(self, client: str) -> None:
        self.end(client, self.begin(client, THE_PASSWORD), right=True)

    def failures(self, client: str = "") -> int:
        """Of a pair, or over all clients."""
        return self.locks(client).tally(self.now).failures if client else self.locks("").over_all(self.now).failures

    def _keep(self, client: str, locks: Locks) -> None:
        self.pairs[client] = locks.pair, locks.of_pair
        self.over_all = locks.holder, locks.of_holder

    def wait(self, client: str) -> int:
        """Seconds until the client may try what was never tried."""
        try:
            online_attempts.check(self.locks(client), self.now, b"another")
            online_attempts.reserve(self.locks(client), Attempt(b"another", os.urandom(16)), self.now)
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
    assert holder.failures() == 5
    for _ in range(3):
        holder.fail("mistyped")
    holder.succeed("mistyped")
    assert holder.failures("mistyped") == 0
    assert holder.failures() == 8


def test_no_more_guesses_run_at_once_than_may_fail_and_further_ones_wait() -> None:
    holder = Holder()
    running = [holder.begin("a") for _ in range(limits.FAILURES_BEFORE_LOCK)]
    with pytest.raises(Busy) as busy:
        holder.begin("a")
    assert busy.value.detail["seconds"] > 0
    holder.end("a", running.pop(), right=False)
    with pytest.raises(Busy):
        holder.begin("a")
    holder.end("a", running.pop(), right=True)
    holder.begin("a")


def test_any_number_run_at_once_with_the_same_password() -> None:
    holder = Holder()
    running = [
        (client, holder.begin(client, THE_PASSWORD))
        for client in ("a", "b")
        for _ in range(3 * limits.FAILURES_BEFORE_LOCK)
    ]
    assert holder.failures("a") == holder.failures("b") == holder.failures() == 1
    for client, attempt in running:
        holder.end(client, attempt, right=True)
    assert holder.failures("a") == holder.failures("b") == holder.failures() == 0


def test_when_all_that_ran_failed_the_pair_is_locked() -> None:
    holder = Holder()
    running = [holder.begin("a") for _ in range(limits.FAILURES_BEFORE_LOCK)]
    for begun in running:
        holder.end("a", begun, right=False)
    assert holder.wait("a") == limits.LOCK_SECONDS


def test_over_all_clients_guesses_at_the_same_time_are_reserved_too() -> None:
    holder = Holder()
    running = [(f"client {number}", holder.begin(f"client {number}")) for number in range(limits.FAILURES_BEFORE_DELAY)]
    with pytest.raises(Busy):
        holder.begin("one more")
    for client, begun in running:
        holder.end(client, begun, right=True)
    holder.succeed("one more")
    assert holder.failures() == 0


def test_guesses_of_which_nothing_is_heard_have_failed_until_each_expires() -> None:
    holder = Holder()
    for _ in range(limits.FAILURES_BEFORE_LOCK):
        holder.now += 1
        holder.begin("a")
    holder.now += limits.ATTEMPT_SECONDS
    assert holder.wait("a") == limits.LOCK_SECONDS - limits.ATTEMPT_SECONDS
    holder.now = START + 1 + limits.LOCK_SECONDS
    holder.fail("a")
    assert holder.wait("a") > 0, "the others are open yet"


def test_interrupted_right_logins_keep_nobody_out_and_the_next_forgives_them() -> None:
    holder = Holder()
    for client in ("a", "b", "c"):
        for _ in range(5 * limits.FAILURES_BEFORE_DELAY):
            holder.now += 1
            holder.begin(client, THE_PASSWORD)
    assert holder.failures("a") == holder.failures() == 1
    for client in ("a", "b", "c"):
        holder.succeed(client)
        assert holder.failures(client) == 0
    assert holder.failures() == 0


def test_a_right_password_interrupted_before_others_guessed_goes_through_their_lock() -> None:
    """It was counted before; and what its try tells could be known since then."""
    holder = Holder()
    holder.begin("a", THE_PASSWORD)
    for _ in range(limits.FAILURES_BEFORE_LOCK - 1):
        holder.fail("a")
    with pytest.raises(Busy):
        holder.begin("a")
    holder.now += limits.ATTEMPT_SECONDS
    assert holder.wait("a") > 0
    holder.fail_from_new_clients(limits.FAILURES_BEFORE_DELAY)
    holder.succeed("a")
    assert holder.failures("a") == 0


def test_a_right_login_forgives_what_its_own_pair_left_unfinished_before() -> None:
    holder = Holder()
    for client in ("a", "b"):
        for _ in range(3):
            holder.begin(client)
    holder.succeed("a")
    assert (holder.failures("a"), holder.failures("b"), holder.failures()) == (0, 3, 6)


def test_open_guesses_over_all_clients_are_bounded_and_count_all_the_same() -> None:
    holder = Holder()
    for number in range(2 * limits.FAILURES_BEFORE_DELAY):
        holder.now += limits.ATTEMPT_SECONDS
        holder.now += holder.wait(f"client {number}")
        holder.begin(f"client {number}")
    assert len(holder.over_all[1].open) == limits.FAILURES_BEFORE_DELAY
    assert holder.over_all[0].failures == holder.failures()
    holder.now += limits.ATTEMPT_SECONDS
    assert holder.wait("another") > 0


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
def test_a_wait_is_bounded_and_at_most_ten_of_a_pair_run_in_a_lock_time(
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


def test_a_wrong_message_that_comes_again_counts_no_more_also_when_locked() -> None:
    holder = Holder()
    for number in range(limits.FAILURES_BEFORE_LOCK):
        guess, name = b"guess %d" % number, b"name %d" % number
        for _ in range(2):
            holder.end("a", holder.begin("a", guess, name), right=False)
    assert holder.failures("a") == holder.failures() == limits.FAILURES_BEFORE_LOCK
    holder.end("a", holder.begin("a", guess, name), right=False)
    assert holder.failures("a") == limits.FAILURES_BEFORE_LOCK
    assert holder.wait("a") > 0
    assert holder.locks("b").of_pair.names == (), "another client's is another attempt"


def test_as_many_wrong_attempts_are_known_as_may_fail_and_no_more_are_kept() -> None:
    holder = Holder()
    for _ in range(3 * limits.FAILURES_BEFORE_LOCK):
        holder.now += limits.LOCK_SECONDS
        holder.fail("a")
    assert len(holder.locks("a").of_pair.names) == limits.FAILURES_BEFORE_LOCK


def test_the_version_before_reads_open_guesses_and_leaves_what_counts_here() -> None:
    holder = Holder()
    holder.fail("a")
    holder.begin("a")
    assert (holder.pairs["a"][0].failures, holder.over_all[0].failures) == (2, 2)
    theirs = LockRecord(failures=10, until=START + limits.LOCK_SECONDS, running=10, begun=START)
    holder.pairs["b"] = theirs, AttemptsRecord()
    with pytest.raises(Busy, match="10 logins"):
        holder.begin("b")
    holder.now += limits.ATTEMPT_SECONDS
    assert holder.wait("b") > 0
    holder.now = START + limits.LOCK_SECONDS
    holder.succeed("b")
    assert holder.pairs["b"][0] == LockRecord(until=holder.now + limits.LOCK_SECONDS, succeeded=holder.now, begun=START)


def test_guesses_that_the_version_before_forgave_count_here_until_they_expire() -> None:
    """It knows nothing of them, and it is the safe side."""
    locks = Locks(LockRecord(failures=0, until=START), of_pair=AttemptsRecord(open=(Open(b"g", START),)))
    assert locks.tally(START).failures == 1
    assert locks.tally(START + limits.LOCK_SECONDS).failures == 0


def test_a_guess_has_the_same_name_for_the_same_password_of_a_holder_alone() -> None:
    records, others = (Records(os.urandom(32), bytes(16), bytes(16)) for _ in range(2))
    given = Credential(role=Role.USER, name="a", password="not looked at")
    named = online_attempts.guess(records, given, bytes(32))
    assert named == online_attempts.guess(records, replace(given, password="what Argon2id made counts"), bytes(32))
    assert len({
        named,
        online_attempts.guess(records, given, b"1" * 32),
        online_attempts.guess(records, replace(given, name="b"), bytes(32)),
        online_attempts.guess(others, given, bytes(32)),
    }) == 4  # fmt: skip


def test_what_a_message_tries_names_the_attempt() -> None:
    """So that nobody tries several passwords under one name, in one message or in several."""
    records = Records(os.urandom(32), bytes(16), bytes(16))
    given = Credential(role=Role.USER, name="a", password="one")
    others = (
        (b"another message", given),
        (b"signed", replace(given, password="another")),
        (b"signed", replace(given, name="b")),
    )
    named = online_attempts.attempt(records, b"signed", given)
    assert named == online_attempts.attempt(records, b"signed", given)
    assert len({named, *(online_attempts.attempt(records, signed, other) for signed, other in others)}) == 4


def test_names_share_a_scope_only_by_a_key_nobody_outside_has() -> None:
    one, other = (Records(os.urandom(32), bytes(16), bytes(16)) for _ in range(2))
    assert online_attempts.scope(one, Role.USER, "a", b"") == online_attempts.scope(one, Role.USER, "a", b"")
    assert online_attempts.scope(one, Role.USER, "a", b"") != online_attempts.scope(other, Role.USER, "a", b"")


def test_only_what_ended_wrong_counts_for_a_lock_that_stays() -> None:
    holder = Holder()
    for number in range(50):
        holder.begin(f"client {number}", THE_PASSWORD)  # a fleet, each of which a fault interrupts
    assert holder.locks("").of_holder.failed == 0
    holder.fail("a")
    holder.succeed("b")
    assert holder.locks("").of_holder.failed == 0
    for _ in range(4):
        holder.fail("b")
    assert holder.locks("").of_holder.failed == 4
    holder.now += 365 * 24 * HOUR
    holder.fail("a")
    assert holder.locks("").of_holder.failed == 5
    attempt = holder.begin("c")
    for _ in range(3):
        holder.end("c", attempt, right=False)
    assert holder.locks("").of_holder.failed == 6, "told again it is the same attempt"


def test_what_failed_at_a_read_only_member_counts_for_a_lock_that_stays() -> None:
    locks = Holder().locks("a")
    merged = online_attempts.merged(locks, 3, START, (b"n" * 16, b"o" * 16), (Open(b"g" * 16, START),))
    assert merged.of_holder.failed == 2
    assert online_attempts.merged(merged, 2, START, (b"n" * 16, b"o" * 16)).of_holder.failed == 2


def test_a_reset_forgets_what_counts_for_a_lock_that_stays() -> None:
    records = Records(b"k" * 32, b"c" * 16, b"i" * 16)
    scope = online_attempts.scope(records, Role.USER, "olga", b"")
    put = records.put(AttemptsRecord(failed=7, lasting=True), online_attempts.HOLDER, 3, scope=scope)
    item = Item(key=put.key, version=4, head=put.head, body=put.body)
    (change,) = online_attempts.clear(records, (item,))
    left = Item(key=change.key, version=change.expected + 1, head=change.head, body=change.body)
    assert records.read(AttemptsRecord, left) == AttemptsRecord(lasting=True)
