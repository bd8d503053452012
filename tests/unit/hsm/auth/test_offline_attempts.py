"""Failed logins on a read-only member: a fixed budget that survives a restart, and is told to the cluster afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lnh_common import limits
from lnh_common.errors import PasswordLocked, SealBroken
from lnh_common.messages.hsm import AttemptStep, LoginAttempt
from lnh_common.wire import codec
from lnh_services.hsm.auth import online_attempts
from lnh_services.hsm.auth.lockout import Attempt
from lnh_services.hsm.auth.offline_attempts import OfflineAttempts
from lnh_services.hsm.auth.online_attempts import Locks
from lnh_services.hsm.records import AttemptsRecord, HolderLockRecord, LockRecord, Open

HOLDER, OTHER = b"abc", b"xyz"
CLIENTS = [bytes([number]) * 16 for number in range(20)]
NOW = 1_700_000_000
THE_PASSWORD = b"the right guess."


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "guesses.cbor"


def note(kept: OfflineAttempts, step: AttemptStep, client: bytes, guess: bytes, name: bytes = b"") -> None:
    name = name or os.urandom(16)
    kept.note(LoginAttempt(holder=HOLDER, client=client, attempt=name, step=step, guess=guess), NOW)


def fail(kept: OfflineAttempts, client: bytes, holder: bytes = HOLDER) -> None:
    tried = LoginAttempt(holder=holder, client=client, attempt=os.urandom(16), step=AttemptStep.CHECK)
    kept.note(tried, NOW)
    guess = os.urandom(16)
    for step in (AttemptStep.BEGIN, AttemptStep.WRONG):
        kept.note(msgspec.structs.replace(tried, step=step, guess=guess), NOW)


def test_right_passwords_cost_nothing_and_wrong_ones_spend_the_holders_budget(path: Path) -> None:
    kept = OfflineAttempts(path)
    for _ in range(3 * limits.FAILURES_BEFORE_LOCK):
        note(kept, AttemptStep.BEGIN, CLIENTS[0], THE_PASSWORD)
        note(kept, AttemptStep.RIGHT, CLIENTS[0], THE_PASSWORD)
    for client in CLIENTS[: limits.FAILURES_BEFORE_LOCK]:
        fail(kept, client)
    for step in (AttemptStep.CHECK, AttemptStep.BEGIN):
        with pytest.raises(PasswordLocked, match="read-only"):
            note(kept, step, CLIENTS[-1], THE_PASSWORD)
    fail(kept, CLIENTS[-1], OTHER)


def test_a_guess_is_on_disk_before_it_is_compared_and_a_restart_gives_no_new_budget(path: Path) -> None:
    for number in range(limits.FAILURES_BEFORE_LOCK):
        note(OfflineAttempts(path), AttemptStep.BEGIN, CLIENTS[0], b"%016d" % number)  # and then the process died
    with pytest.raises(PasswordLocked):
        note(OfflineAttempts(path), AttemptStep.BEGIN, CLIENTS[0], os.urandom(16))
    note(OfflineAttempts(path), AttemptStep.CHECK, CLIENTS[0], bytes(16))  # it may be one of them
    note(
        OfflineAttempts(path), AttemptStep.BEGIN, CLIENTS[1], b"%016d" % number
    )  # the same guess as before: counted already


def test_interrupted_right_passwords_are_one_guess_and_the_next_takes_it_back(
    path: Path,
) -> None:
    for client in CLIENTS:
        for _ in range(limits.FAILURES_BEFORE_LOCK):
            note(OfflineAttempts(path), AttemptStep.BEGIN, client, THE_PASSWORD)
    assert [each.failures for each in OfflineAttempts(path).all()] == [1]
    note(OfflineAttempts(path), AttemptStep.RIGHT, CLIENTS[5], THE_PASSWORD)
    assert OfflineAttempts(path).all() == ()


def test_what_the_cluster_was_told_is_owed_no_more_and_what_came_meanwhile_is(path: Path) -> None:
    kept = OfflineAttempts(path)
    for _ in range(4):
        fail(kept, CLIENTS[0])
    note(kept, AttemptStep.BEGIN, CLIENTS[0], THE_PASSWORD)
    fail(kept, CLIENTS[1])
    owed = kept.all()
    assert [(each.client, each.failures, len(each.attempts), len(each.open)) for each in owed] == [
        (CLIENTS[0], 5, 4, 1),
        (CLIENTS[1], 1, 1, 0),
    ]
    note(kept, AttemptStep.RIGHT, CLIENTS[0], THE_PASSWORD)
    fail(kept, CLIENTS[0])
    for told in owed:
        kept.told(told)
    (left,) = OfflineAttempts(path).all()
    assert (left.client, left.failures, len(left.attempts)) == (CLIENTS[0], 1, 1)
    assert left.attempts[0] not in owed[0].attempts


def test_a_message_that_comes_again_is_counted_once(path: Path) -> None:
    kept = OfflineAttempts(path)
    for _ in range(3 * limits.FAILURES_BEFORE_LOCK):
        note(kept, AttemptStep.BEGIN, CLIENTS[0], b"wrong".ljust(16), bytes(16))
        note(kept, AttemptStep.WRONG, CLIENTS[0], b"wrong".ljust(16), bytes(16))
    fail(kept, CLIENTS[0])
    assert kept.all()[0].failures == 2


@pytest.mark.parametrize(("kept", "owed"), [([3], 3), ([2, [b"n" * 16]], 2)])
def test_a_file_of_an_earlier_version_is_read(path: Path, kept: list[Any], owed: int) -> None:
    """Without names as 0.1 wrote it; without open guesses, where all that counted had names."""
    path.write_bytes(codec.encode([[HOLDER, CLIENTS[0], *kept]]))
    path.chmod(0o600)
    local = OfflineAttempts(path)
    (told,) = local.all()
    assert (told.holder, told.client, told.failures, told.open) == (HOLDER, CLIENTS[0], owed, ())
    local.told(told)
    assert local.all() == ()


def test_merged_failures_lock_the_pair_as_if_they_had_been_counted_everywhere() -> None:
    before = Locks(LockRecord(failures=4, until=1500, succeeded=7), HolderLockRecord(failures=5, last=1000))
    counted = online_attempts.merged(before, 6, 1000)
    assert (counted.pair.failures, counted.pair.succeeded) == (10, 7)
    assert counted.holder == HolderLockRecord(failures=11, last=1000)
    with pytest.raises(PasswordLocked):
        online_attempts.reserve(counted, Attempt(b"another", b"another"), 1001)


def test_what_was_counted_on_a_read_only_member_and_by_the_cluster_is_one_failure() -> None:
    """A client tries one member, hears nothing, and tries another: whichever of them counts for itself."""
    before = Locks(
        LockRecord(failures=2, until=1500),
        HolderLockRecord(failures=2, last=1000),
        of_pair=AttemptsRecord(names=(b"both",), open=(Open(b"open at both", 900),)),
        of_holder=AttemptsRecord(open=(Open(b"open at both", 900),)),
    )
    here = (Open(b"open at both", 950), Open(b"open here", 950))
    counted = online_attempts.merged(before, 4, 1000, (b"both", b"here"), here)
    assert counted.of_pair.names == (b"both", b"here")
    assert [each.guess for each in counted.of_pair.open] == [b"open at both", b"open here"]
    assert (counted.pair.failures, counted.holder.failures) == (4, 4)


def test_failures_that_were_forgiven_meanwhile_do_not_count_again() -> None:
    long_ago = Locks(LockRecord(failures=9, until=1000), HolderLockRecord(failures=9, last=0))
    counted = online_attempts.merged(long_ago, 1, 10**6)
    assert (counted.pair.failures, counted.holder) == (1, HolderLockRecord(failures=1, last=10**6))


def test_a_damaged_file_is_refused_with_what_to_do(path: Path) -> None:
    path.write_bytes(b"\xff")
    path.chmod(0o600)
    with pytest.raises(SealBroken, match="remove it"):
        OfflineAttempts(path)
