"""Failed logins on a read-only member: a fixed budget that survives a restart, and is told to the cluster afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from lnh_common import limits
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
    kept.note(Guess(holder=holder, client=client))
    kept.note(Guess(holder=holder, client=client, ended=outcome.value))


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
        LocalGuesses(path).note(Guess(holder=HOLDER, client=CLIENTS[0]))  # and then the process died
    with pytest.raises(PasswordLocked):
        LocalGuesses(path).note(Guess(holder=HOLDER, client=CLIENTS[0]))


def test_what_the_cluster_was_told_is_owed_no_more(path: Path) -> None:
    kept = LocalGuesses(path)
    for _ in range(4):
        attempt(kept, CLIENTS[0], Outcome.WRONG)
    attempt(kept, CLIENTS[1], Outcome.WRONG)
    owed = kept.all()
    assert owed == (
        Guessed(holder=HOLDER, client=CLIENTS[0], failures=4),
        Guessed(holder=HOLDER, client=CLIENTS[1], failures=1),
    )
    attempt(kept, CLIENTS[0], Outcome.WRONG)  # meanwhile
    for told in owed:
        kept.told(told)
    assert LocalGuesses(path).all() == (Guessed(holder=HOLDER, client=CLIENTS[0], failures=1),)


def test_merged_failures_lock_the_pair_as_if_they_had_been_counted_everywhere() -> None:
    before = Locks(LockRecord(failures=4, until=1500, succeeded=7), HolderLockRecord(failures=5, last=1000))
    counted = guesses.merged(before, 6, 1000)
    assert (counted.pair.failures, counted.pair.succeeded) == (10, 7)
    assert counted.holder == HolderLockRecord(failures=11, last=1000)
    with pytest.raises(PasswordLocked):
        guesses.reserve(Locks(counted.pair, counted.holder), 1001)


def test_failures_that_were_forgiven_meanwhile_do_not_count_again() -> None:
    long_ago = Locks(LockRecord(failures=9, until=1000), HolderLockRecord(failures=9, last=0))
    counted = guesses.merged(long_ago, 1, 10**6)
    assert (counted.pair.failures, counted.holder) == (1, HolderLockRecord(failures=1, last=10**6))


def test_a_damaged_file_is_refused_with_what_to_do(path: Path) -> None:
    path.write_bytes(b"\xff")
    path.chmod(0o600)
    with pytest.raises(SealBroken, match="remove it"):
        LocalGuesses(path)
