"""Failed logins on a read-only member: a fixed budget that survives a restart, and is told to the cluster afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lnh_common import codec, limits
from lnh_common.errors import PasswordLocked, SealBroken
from lnh_common.messages.hsm import Guess, Guessed
from lnh_services.hsm import guesses
from lnh_services.hsm.guesses import Locks, Outcome
from lnh_services.hsm.local_guesses import LocalGuesses
from lnh_services.hsm.records import HolderLockRecord, LockRecord

HOLDER, OTHER = b"abc", b"xyz"
CLIENTS = [bytes([number]) * 16 for number in range(20)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "guesses.cbor"


def attempt(kept: LocalGuesses, client: bytes, outcome: Outcome, holder: bytes = HOLDER) -> None:
    named = os.urandom(16)
    kept.note(Guess(holder=holder, client=client, attempt=named))
    kept.note(Guess(holder=holder, client=client, attempt=named, ended=outcome.value))


def test_right_passwords_cost_nothing_and_wrong_ones_spend_the_holders_budget_whoever_guesses(path: Path) -> None:
    kept = LocalGuesses(path)
    for _ in range(3 * limits.FAILURES_BEFORE_LOCK):
        attempt(kept, CLIENTS[0], Outcome.RIGHT)
        attempt(kept, CLIENTS[0], Outcome.NOT_MADE)
    for client in CLIENTS[: limits.FAILURES_BEFORE_LOCK]:
        attempt(kept, client, Outcome.WRONG)
    with pytest.raises(PasswordLocked, match="read-only"):
        attempt(kept, CLIENTS[-1], Outcome.RIGHT)
    attempt(kept, CLIENTS[-1], Outcome.RIGHT, OTHER)


def test_an_attempt_is_on_disk_before_it_is_made_and_a_restart_gives_no_new_budget(path: Path) -> None:
    for _ in range(limits.FAILURES_BEFORE_LOCK):
        guess = Guess(holder=HOLDER, client=CLIENTS[0], attempt=os.urandom(16))
        LocalGuesses(path).note(guess)  # and then the process died
    with pytest.raises(PasswordLocked):
        LocalGuesses(path).note(Guess(holder=HOLDER, client=CLIENTS[0], attempt=os.urandom(16)))
    LocalGuesses(path).note(guess)  # the same attempt as before: counted already


def test_what_the_cluster_was_told_is_owed_no_more(path: Path) -> None:
    kept = LocalGuesses(path)
    for _ in range(4):
        attempt(kept, CLIENTS[0], Outcome.WRONG)
    attempt(kept, CLIENTS[1], Outcome.WRONG)
    owed = kept.all()
    assert [(each.client, each.failures, len(each.attempts)) for each in owed] == [
        (CLIENTS[0], 4, 4),
        (CLIENTS[1], 1, 1),
    ]
    attempt(kept, CLIENTS[0], Outcome.WRONG)  # meanwhile
    for told in owed:
        kept.told(told)
    (left,) = LocalGuesses(path).all()
    assert (left.client, left.failures) == (CLIENTS[0], 1)
    assert left.attempts[0] not in owed[0].attempts


def test_an_attempt_that_comes_again_is_counted_once_and_taken_back_once(path: Path) -> None:
    kept = LocalGuesses(path)
    begins = Guess(holder=HOLDER, client=CLIENTS[0], attempt=bytes(16))
    for _ in range(3 * limits.FAILURES_BEFORE_LOCK):
        kept.note(begins)
    attempt(kept, CLIENTS[0], Outcome.WRONG)
    assert kept.all()[0].failures == 2
    for _ in range(3):
        kept.note(Guess(holder=HOLDER, client=CLIENTS[0], attempt=bytes(16), ended=Outcome.RIGHT.value))
    assert kept.all()[0].failures == 1


def test_a_file_without_names_is_read(path: Path) -> None:
    """As version 0.1 wrote it."""
    path.write_bytes(codec.encode([[HOLDER, CLIENTS[0], 3]]))
    path.chmod(0o600)
    kept = LocalGuesses(path)
    (owed,) = kept.all()
    assert owed == Guessed(holder=HOLDER, client=CLIENTS[0], failures=3)
    kept.told(owed)
    assert kept.all() == ()


def test_merged_failures_lock_the_pair_as_if_they_had_been_counted_everywhere() -> None:
    before = Locks(LockRecord(failures=4, until=1500, succeeded=7), HolderLockRecord(failures=5, last=1000))
    counted = guesses.merged(before, 6, 1000)
    assert (counted.pair.failures, counted.pair.succeeded) == (10, 7)
    assert counted.holder == HolderLockRecord(failures=11, last=1000)
    with pytest.raises(PasswordLocked):
        guesses.reserve(Locks(counted.pair, counted.holder), 1001, b"another")


def test_what_was_counted_on_a_read_only_member_and_by_the_cluster_is_one_failure() -> None:
    """A client tries one member, hears nothing, and tries another: whichever of them counts for itself."""
    pair, holder = LockRecord(failures=1, until=1500), HolderLockRecord(failures=1, last=1000)
    before = Locks(pair, holder, registered=True, known=(b"both",))
    counted = guesses.merged(before, 2, 1000, (b"both", b"here"))
    assert (counted.pair.failures, counted.known) == (2, (b"both", b"here"))
    assert counted.holder is not None
    assert counted.holder.failures == 2


def test_failures_that_were_forgiven_meanwhile_do_not_count_again() -> None:
    long_ago = Locks(LockRecord(failures=9, until=1000), HolderLockRecord(failures=9, last=0))
    counted = guesses.merged(long_ago, 1, 10**6)
    assert (counted.pair.failures, counted.holder) == (1, HolderLockRecord(failures=1, last=10**6))


def test_a_damaged_file_is_refused_with_what_to_do(path: Path) -> None:
    path.write_bytes(b"\xff")
    path.chmod(0o600)
    with pytest.raises(SealBroken, match="remove it"):
        LocalGuesses(path)
