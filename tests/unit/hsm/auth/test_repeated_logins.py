"""A login that comes again, to the same member or another, is one attempt: the real frames, sent twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from lnh_common import errors, limits
from lnh_common.messages import hsm, session, store
from lnh_common.messages.hsm import AttemptStep
from lnh_common.messages.session import Credential, Login, Role
from lnh_common.wire import frames as wire
from lnh_common.wire.channel import SessionKeys
from lnh_services.hsm.auth import online_attempts
from lnh_services.hsm.auth.offline_attempts import OfflineAttempts
from lnh_services.hsm.effects import Ask, Deadline, Peer
from lnh_services.hsm.records import HolderLockRecord, LockRecord
from lnh_services.hsm.worker import passwords
from lnh_services.hsm.worker.rollback_guard import HighestSeen
from models.worker import ADMIN_PASSWORD, Client, World

WRONG = Credential(role=Role.USER, name="admin", password="not this one")
RIGHT = Credential(role=Role.USER, name="admin", password=ADMIN_PASSWORD)
Sent = tuple[wire.Frames, SessionKeys]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World()
    world.offline_attempts = OfflineAttempts(tmp_path / "guesses.cbor")
    return world


def attempt(client: Client, *given: Credential) -> Sent:
    return client.sealed(session.LOGIN, Login(credentials=given))


def answer(client: Client, sent: Sent) -> Any:
    """What the client's member answers to these frames, now."""
    return client.open(session.LOGIN, *sent, client.world.serve(client.worker, sent[0]))


def interrupt(world: World, client: Client, sent: Sent, at: Callable[[Ask], bool]) -> bool:
    """A worker is killed where it would ask this; False when it had answered by then."""
    frames, _ = sent
    header = wire.Header.parse(frames[0])
    steps = client.worker.serve(header, frames[1], frames[2], Deadline(world.now + 10), forwarded=False)
    client.worker = world.worker()
    try:
        asked = steps.send(None)
        while True:
            assert isinstance(asked, Ask), "nothing here is slow work"
            if at(asked):
                return True
            try:
                answered = world.answer(asked)
            except errors.LnhError as error:
                asked = steps.throw(error)
            else:
                asked = steps.send(answered if asked.waits else None)
    except StopIteration:
        return False


def derives(asked: Ask) -> bool:
    return asked.peer is Peer.ARGON2


def has_compared(asked: Ask) -> bool:
    """Wrong passwords: before anything is told, it is recorded."""
    return asked.operation is hsm.AUDIT


def commits(asked: Ask) -> bool:
    return isinstance(asked.message, store.Commit)


def commits_again() -> Callable[[Ask], bool]:
    made = itertools.count()
    return lambda asked: commits(asked) and next(made) == 1


def ends_here(asked: Ask) -> bool:
    return isinstance(asked.message, hsm.LoginAttempt) and asked.message.step in (AttemptStep.RIGHT, AttemptStep.WRONG)


def failures(world: World, client: Client) -> tuple[int, int]:
    """Of the pair, and over all clients."""

    def look() -> Any:
        worker = client.worker
        records = yield from worker.started()
        scope = online_attempts.scope(records, Role.USER, "admin", b"")
        pair, _ = yield from worker.versioned(LockRecord, client.id, cached=False, scope=scope)
        holder, _ = yield from worker.versioned(HolderLockRecord, online_attempts.HOLDER, cached=False, scope=scope)
        return (pair or LockRecord()).failures, (holder or HolderLockRecord()).failures

    found: tuple[int, int] = world.run(look())
    return found


def test_a_wrong_password_that_is_sent_again_and_again_fails_once(world: World, client: Client) -> None:
    sent = attempt(client, WRONG)
    for _ in range(3 * limits.FAILURES_BEFORE_LOCK):
        client.worker = world.worker()
        with pytest.raises(errors.PasswordIncorrect):
            answer(client, sent)
    assert failures(world, client) == (1, 1)


def test_the_last_attempt_before_a_lock_is_answered_again_and_the_next_is_not_made(
    world: World, client: Client
) -> None:
    for _ in range(limits.FAILURES_BEFORE_LOCK):
        sent = attempt(client, WRONG)
        for _ in range(2):
            with pytest.raises(errors.PasswordIncorrect):
                answer(client, sent)
    for given in (WRONG, RIGHT):
        with pytest.raises(errors.PasswordLocked):
            answer(client, attempt(client, given))
    assert failures(world, client) == (limits.FAILURES_BEFORE_LOCK, limits.FAILURES_BEFORE_LOCK)


def test_a_right_password_that_is_sent_again_costs_nothing(world: World, client: Client) -> None:
    before = failures(world, client)
    sent = attempt(client, RIGHT)
    sessions = {answer(client, sent).session for _ in range(3)}
    assert len(sessions) == 3, "each answer is a session of its own; the client uses the one it hears of"
    assert failures(world, client) == before


@pytest.mark.parametrize("first", ["read-only", "read-write"])
def test_an_attempt_at_a_read_only_member_and_at_another_fails_once(world: World, client: Client, first: str) -> None:
    sent = attempt(client, WRONG)
    for read_only in (first == "read-only", first != "read-only"):
        world.read_only = read_only
        with pytest.raises(errors.PasswordIncorrect):
            answer(client, sent)
    world.read_only = False
    world.run(passwords.merge(client.worker))
    assert failures(world, client) == (1, 1)


def test_a_read_only_member_counts_an_attempt_that_the_cluster_does_not(world: World, client: Client) -> None:
    """The commit of its reservation had not come there when the client went over."""
    sent = attempt(client, WRONG)
    before = dict(world.store.storage.items)
    with pytest.raises(errors.PasswordIncorrect):
        answer(client, sent)
    after, world.store.storage.items = world.store.storage.items, before
    seen, world.seen = world.seen, HighestSeen()
    world.read_only = True
    with pytest.raises(errors.PasswordIncorrect):
        answer(client, sent)
    assert world.offline_attempts is not None
    assert [each.failures for each in world.offline_attempts.all()] == [1]
    world.store.storage.items, world.seen, world.read_only = after, seen, False
    world.run(passwords.merge(client.worker))
    assert failures(world, client) == (1, 1)
    assert world.offline_attempts.all() == ()


@pytest.mark.parametrize("again", [False, True], ids=["new messages", "the same message"])
def test_right_passwords_that_faults_interrupt_anywhere_lock_nobody_out(
    world: World, client: Client, *, again: bool
) -> None:
    """Many more than failures are allowed, without one that succeeded in between."""
    before = failures(world, client)
    sent = attempt(client, RIGHT)

    def interrupted(at: Callable[[Ask], bool]) -> None:
        assert interrupt(world, client, sent if again else attempt(client, RIGHT), at)
        world.now += 1

    for at in (derives, commits):
        for _ in range(2 * limits.FAILURES_BEFORE_DELAY):
            interrupted(at)
    assert failures(world, client) == before
    interrupted(commits_again())
    for _ in range(2 * limits.FAILURES_BEFORE_DELAY):
        interrupted(commits)  # the guess is written down by now, so this is its end
    assert failures(world, client) == (before[0] + 1, before[1] + 1)
    answer(client, sent if again else attempt(client, RIGHT))
    assert failures(world, client) == before


def test_wrong_passwords_that_faults_interrupt_count_each_and_the_same_one_once(world: World, client: Client) -> None:
    """Whoever had the fault made may have seen the answer."""
    for number in range(limits.FAILURES_BEFORE_LOCK):
        wrong = replace(WRONG, password=f"not this one {number}")
        for _ in range(2):
            assert interrupt(world, client, attempt(client, wrong), has_compared)
        assert interrupt(world, client, attempt(client, replace(WRONG, password="not compared")), derives)
    assert failures(world, client) == (limits.FAILURES_BEFORE_LOCK, limits.FAILURES_BEFORE_LOCK)
    with pytest.raises(errors.Busy):
        answer(client, attempt(client, RIGHT))
    world.now += limits.ATTEMPT_SECONDS
    for _ in range(2):
        with pytest.raises(errors.PasswordLocked):
            answer(client, attempt(client, RIGHT))
    world.now += limits.LOCK_SECONDS - limits.ATTEMPT_SECONDS
    answer(client, attempt(client, RIGHT))


def test_a_read_only_member_takes_interrupted_right_passwords_for_one_guess_too(world: World, client: Client) -> None:
    before = failures(world, client)
    world.read_only = True
    for _ in range(2 * limits.FAILURES_BEFORE_LOCK):
        assert interrupt(world, client, attempt(client, RIGHT), ends_here)
    assert world.offline_attempts is not None
    assert [each.failures for each in world.offline_attempts.all()] == [1]
    answer(client, attempt(client, RIGHT))
    assert world.offline_attempts.all() == ()
    world.read_only = False
    assert failures(world, client) == before
