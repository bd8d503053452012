"""What logins that fail and sessions that end leave behind has a bound and an end, and tells nobody which names there are."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, example, settings
from hypothesis import given as examples
from hypothesis import strategies as st
from msgspec.structs import replace as replaced

from lnh_common import errors, limits
from lnh_common.messages import admin, hsm, session, store
from lnh_common.messages.base import Empty, Message
from lnh_common.messages.session import ChangePassword, Credential, Login, Logout, Role
from lnh_common.wire import frames
from lnh_common.wire.channel import Envelope, OpenedCredential
from lnh_services.hsm.auth import online_attempts
from lnh_services.hsm.auth.offline_attempts import OfflineAttempts
from lnh_services.hsm.effects import Ask, Peer, Steps, ask
from lnh_services.hsm.records import SWEPT, ClientRecord
from lnh_services.hsm.worker import sweeping
from lnh_services.hsm.worker.core import Request
from lnh_services.hsm.worker.loop import Worker, boot_time
from lnh_services.hsm.worker.passwords import merge, verify
from lnh_services.hsm.worker.rollback_guard import HighestSeen
from lnh_services.paths import MemberDirectory
from lowered import lower
from models.storage import DictStore
from models.worker import ADMIN_PASSWORD, PO_PASSWORD, START, Client, World
from sizes import sized

HOUR: Final = 3600
FEW: Final = 5
RIGHT: Final = Credential(role=Role.USER, name="admin", password=ADMIN_PASSWORD)
A_NAME: Final = 4  # records: of the pair and of the name over all clients, a lock and its attempts each
GOING: Final = sweeping.EVERY * 1.5 + limits.ISSUED_AT_TOLERANCE  # from the moment that something is over


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    lower(monkeypatch, NAMES_TRIED=FEW, SESSIONS_ENDED=FEW)
    return FEW


def attempt(client: Client, *names: str, password: str = "") -> list[str]:
    """What each login with a wrong password is told; at names that nobody has unless they are given."""
    said = []
    for name in names:
        given = Credential(role=Role.USER, name=name, password=password or os.urandom(8).hex())
        with pytest.raises((errors.PasswordIncorrect, errors.PasswordLocked)) as refused:
            client.login(given)
        said.append(str(refused.value))
    return said


def made_up(count: int) -> list[str]:
    return [os.urandom(8).hex() for _ in range(count)]


def stranger(world: World) -> Client:
    return Client(world, world.worker())


def kept(world: World) -> dict[str, int]:
    """How many records there are in the tables that are swept."""
    tables = [table for table, _, _ in world.store.storage.items]
    return {table: tables.count(table) for table in SWEPT}


def swept(world: World) -> dict[str, int]:
    world.run(sweeping.sweep(world.worker()))
    return kept(world)


def test_of_names_that_nobody_has_nothing_is_left_once_nothing_counts(world: World, client: Client) -> None:
    before = kept(world)
    for who in (client, stranger(world)):
        attempt(who, *made_up(7))
    full = kept(world)
    assert full["tried"] == before["tried"] + 14
    assert full["lock"] + full["attempt"] == before["lock"] + before["attempt"] + 14 * A_NAME
    world.now += limits.LOCK_SECONDS + GOING
    assert swept(world)["tried"] >= 14, "over all clients each counts for an hour"
    world.now += HOUR
    left = swept(world)
    assert left["tried"] == 0
    assert left["lock"] + left["attempt"] == before["lock"] + before["attempt"], "those of holders that exist stay"
    assert world.damage == []


def test_what_still_counts_is_not_swept_and_what_was_swept_can_fail_and_lock_again(
    world: World, client: Client
) -> None:
    for _ in range(3):  # other workers of the same HSM, which saw higher versions before
        assert len(set(attempt(client, *["nobody"] * limits.FAILURES_BEFORE_LOCK))) == 1
        (locked,) = attempt(client, "nobody")
        swept(world)
        assert attempt(client, "nobody") == [locked]
        world.now += limits.FAILURES_BEFORE_LOCK * HOUR + GOING
        assert swept(world)["tried"] == 0
        client = replace(client, worker=world.worker())
    assert world.damage == []


def test_a_store_cannot_take_back_what_failed_at_a_name_that_somebody_has(world: World, client: Client) -> None:
    """Its records are never erased, so an HSM that has seen them asks for them as long as it remembers."""
    attempt(client, "admin", "admin")
    older = dict(world.store.storage.items)
    attempt(client, *["admin"] * 8)
    world.now += 20 * HOUR
    swept(world)
    new = world.worker()
    for items in (older, {place: item for place, item in older.items() if place[0] not in SWEPT}):
        now = world.store.storage.items
        world.store.storage.items = dict(items)
        with pytest.raises(errors.StateRolledBack):
            replace(client, worker=new).login(RIGHT)
        world.store.storage.items = now


def test_a_store_cannot_take_back_what_a_read_only_member_counted_at_a_real_name(
    world: World, client: Client, tmp_path: Path
) -> None:
    """Or it could say that it is read-only, and then that it has the failures, and the budget would be whole again."""
    world.offline_attempts = OfflineAttempts(tmp_path / "guesses.cbor")
    before = dict(world.store.storage.items)
    world.read_only = True
    attempt(client, "admin", "nobody")
    world.read_only = False
    world.offline_attempts = OfflineAttempts(tmp_path / "guesses.cbor")  # started again
    world.run(merge(client.worker))
    world.store.storage.items = before
    attempt(client, "nobody")  # nothing depends on it
    with pytest.raises(errors.StateRolledBack):
        client.login(RIGHT)


def test_a_client_fails_at_so_many_names_and_others_are_no_concern_of_it(
    world: World, client: Client, few: int
) -> None:
    other = Client(world, world.worker()).register("other")
    other.login(RIGHT)
    wrong = attempt(client, *made_up(few))
    refused = attempt(client, "admin", *made_up(2))
    assert len({*wrong, *refused}) == 2
    assert "names" in refused[0]
    assert world.run(_count(client)) == few
    assert attempt(other, *made_up(few - 1)) == wrong[1:], "it has places of its own"
    other.login(RIGHT)
    world.now += limits.LOCK_SECONDS + HOUR + GOING
    swept(world)
    assert attempt(client, "admin") == wrong[:1]
    assert world.damage == []


def test_at_the_bound_an_attempt_costs_no_argon2id_and_nothing_is_written(
    world: World, client: Client, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt(client, *made_up(few))
    before, answer, asked = kept(world), world.answer, []

    def noted(ask: Ask) -> Message:
        asked.append(ask.operation)
        return answer(ask)

    monkeypatch.setattr(world, "answer", noted)
    attempt(client, *made_up(3))
    assert not {hsm.DERIVE, store.COMMIT} & set(asked)
    assert kept(world) == before


def test_of_logins_at_the_same_moment_no_more_have_a_place_than_there_are(
    world: World, client: Client, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = world.answer

    def too_early(ask: Ask) -> Message:
        """Answers as before the others' reservations."""
        answered = answer(ask)
        return replaced(answered, count=0) if isinstance(answered, store.Counted) else answered

    monkeypatch.setattr(world, "answer", too_early)
    told = attempt(client, *made_up(few + 2))
    assert told[few:] == [str(online_attempts.too_many_names())] * 2
    monkeypatch.setattr(world, "answer", answer)
    assert world.run(_count(client)) == few


def test_the_bound_gives_no_guess_and_takes_none(world: World, client: Client, few: int) -> None:
    """A name in a place is counted as ever, and one that was got into needs none."""
    for who in (client, stranger(world)):
        told = attempt(
            who, *["admin"] * (limits.FAILURES_BEFORE_LOCK - 1), *made_up(few), "admin", "admin", *made_up(1)
        )
        wrong, all_tried, locked = told[0], told[-1], told[-2]
        assert len({wrong, all_tried, locked}) == 3
        assert told[-3] == wrong, "the tenth"
        assert told.count(wrong) >= limits.FAILURES_BEFORE_LOCK + few - 1 - (who is not client)
    late = Client(world, world.worker())
    late.id, late.key = client.id, client.key
    world.now += limits.LOCK_SECONDS
    late.login(RIGHT)
    attempt(late, *made_up(2 * few))
    late.login(RIGHT)


def test_all_machines_that_are_not_registered_are_one_and_registered_ones_get_in(
    world: World, client: Client, few: int
) -> None:
    client.login(RIGHT)
    world.now += 2 * HOUR
    swept(world)
    for name in made_up(few):
        attempt(stranger(world), name)
    with pytest.raises(errors.PasswordLocked) as refused:
        stranger(world).login(RIGHT)
    assert refused.value.detail == {"seconds": limits.FORGIVEN_AFTER}
    client.login(RIGHT)
    Client(world, world.worker())
    given = Credential(role=Role.PO, password=PO_PASSWORD)
    client.login(given)
    with pytest.raises(errors.PasswordLocked, match="names"):
        stranger(world).ask(session.CHANGE_PASSWORD, ChangePassword(credential=RIGHT, new="a new password"))


class Cluster(World):
    """It notes what is asked of store and HSM, and starts again from where it was."""

    def __init__(self, name: str) -> None:
        self.steps: list[str] = []
        super().__init__()
        client = Client(self, self.worker()).register()
        client.as_administrator().ask(admin.USER_ADD, admin.AddUser(name=name, role="monitor", password="eve's own"))
        self.registered = ClientRecord(
            id=client.id, name="client", curve_key=b"", sign_key=b"", monitor="", registered_at=0, revoked=False
        )
        self._items = dict(self.store.storage.items)

    def answer(self, asked: Ask) -> Message:
        self.steps.append(asked.operation.name)
        return super().answer(asked)

    def start(self) -> None:
        self.now = START
        self.store = DictStore()
        self.store.storage.items = dict(self._items)
        self.seen = HighestSeen()
        self.workers.clear()
        self.verifier = self.worker()

    def told(self, name: str, *, registered: bool) -> tuple[str, list[str]]:
        """What somebody is told who gives a wrong password, and what was asked for that."""
        self.steps.clear()
        given = Credential(role=Role.USER, name=name, password=os.urandom(8).hex())
        envelope = Envelope(int(self.now * 1000), 10_000, os.urandom(16), 0, {})
        opened = OpenedCredential(b"", b"", b"", envelope, b"", os.urandom(32))
        header = frames.request(session.LOGIN.name, 1, 10_000)
        message = Login(credentials=(given,))
        request = Request(header, session.LOGIN, envelope, message, credential=opened)
        request.client = self.registered if registered else None
        with pytest.raises((errors.PasswordIncorrect, errors.PasswordLocked)) as refused:
            self.run(verify(self.verifier, request, given))
        return str(refused.value), list(self.steps)


class Twins:
    """Two clusters that are the same but for one name: in the first somebody has it, in the second nobody."""

    def __init__(self) -> None:
        self.both = Cluster("eve"), Cluster("else")

    def start(self) -> None:
        """Begin anew; the name was tried once, for an HSM remembers a record that it has read."""
        for world in self.both:
            world.start()
            world.told("eve", registered=True)

    def try_all(self, names: list[str], *, registered: bool) -> None:
        """Check that both tell and do the same."""
        for name in names:
            here, there = (world.told(name, registered=registered) for world in self.both)
            assert here == there, name

    def wait(self, seconds: int, *, sweep: bool) -> None:
        for world in self.both:
            world.now += seconds
            world.attach(world.verifier)
            if sweep:
                swept(world)


@pytest.fixture(scope="module")
def twins() -> Twins:
    return Twins()


ACTS: Final = st.one_of(
    st.tuples(st.just("eve"), st.integers(0, 1), st.sampled_from([1, 5, 11])),
    st.tuples(st.just("others"), st.integers(0, 1), st.sampled_from([1, FEW])),
    st.tuples(st.just("wait"), st.integers(0, 1), st.sampled_from([60, 1300, 4500, 12 * HOUR])),
)


@settings(max_examples=sized(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@examples(schedule=st.lists(ACTS, max_size=10))
@example(schedule=[("eve", 1, 11), ("others", 1, FEW), ("wait", 1, 1300), ("others", 1, 1)])
@example(schedule=[("eve", 0, 1), ("wait", 1, 12 * HOUR), ("others", 0, FEW), ("others", 1, FEW)])
@example(schedule=[("eve", 0, 1), ("others", 0, FEW), ("wait", 1, 4500), ("eve", 0, 11), ("others", 0, FEW)])
def test_nothing_tells_whether_a_name_exists_and_what_is_left_is_bounded(
    twins: Twins, few: int, schedule: list[tuple[str, int, int]]
) -> None:
    twins.start()
    before, stays = kept(twins.both[0]), 1  # a lock stays of who exists, when its place is free: of eve's, unregistered
    for act, who, count in schedule:
        if act == "wait":
            twins.wait(count, sweep=bool(who))
        else:
            twins.try_all(["eve"] * count if act == "eve" else made_up(count), registered=bool(who))
        for world in twins.both:
            assert kept(world)["tried"] <= 2 * few
            assert kept(world)["lock"] <= before["lock"] + stays + 2 * 2 * few
    twins.wait(30 * HOUR, sweep=True)
    for world in twins.both:
        assert kept(world)["tried"] == 0
        assert kept(world)["lock"] <= before["lock"] + stays
        assert world.damage == []


def test_logouts_are_kept_until_no_token_of_theirs_is_good(world: World, client: Client) -> None:
    for credentials in ((RIGHT,), ()):
        client.login(*credentials)
        client.ask(session.LOGOUT, Logout())
    assert (swept(world)["logout"], kept(world)["ended"]) == (2, 1)
    with pytest.raises(errors.SessionEnded):
        client.ask(session.RENEW, Empty())
    world.now += limits.SESSION_LIFETIME + limits.CLOCK_TOLERANCE + GOING
    assert (swept(world)["logout"], kept(world)["ended"]) == (0, 0)
    with pytest.raises(errors.TokenExpired):
        client.ask(session.RENEW, Empty())
    assert world.damage == []


def test_a_client_without_a_login_ends_so_many_sessions_a_day_off_the_trail(
    world: World, client: Client, few: int
) -> None:
    other = Client(world, world.worker()).register("other")
    audited = len(world.audit)
    for _ in range(few):
        client.login()
        client.ask(session.LOGOUT, Logout())
    assert len(world.audit) == audited
    for _ in range(3):
        client.login()
        with pytest.raises(errors.LimitReached, match="ends with its token"):
            client.ask(session.LOGOUT, Logout())
        client.ask(session.RENEW, Empty())
    assert [(entry.outcome, bool(entry.peer)) for entry in world.audit[audited:]] == [("LimitReached", True)] * 3
    assert kept(world)["logout"] == few
    for credentials in ((), (RIGHT,)):
        (client if credentials else other).login(*credentials)
        (client if credentials else other).ask(session.LOGOUT, Logout())
    assert world.audit[-1].outcome == "ok", "who logged in is recorded"
    world.now += limits.SESSION_LIFETIME + limits.CLOCK_TOLERANCE + GOING
    swept(world)
    client.login()
    client.ask(session.LOGOUT, Logout())


def test_what_is_swept_is_every_table_that_those_without_a_login_write(world: World, client: Client) -> None:
    before = set(world.store.storage.items)
    attempt(client, *made_up(2))
    attempt(stranger(world), *made_up(2))
    client.login()
    client.ask(session.LOGOUT, Logout())
    assert {table for table, _, _ in set(world.store.storage.items) - before} == SWEPT


def _count(client: Client) -> Steps[int]:
    counted = yield from ask(Peer.STORE, store.COUNT, store.Count(table="tried", scope=client.id))
    return counted.count


@pytest.mark.parametrize(("number", "read_write"), [(0, True), (0, False), (1, True)])
def test_the_first_worker_of_each_read_write_member_sweeps_now_and_then(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, read_write: bool
) -> None:
    with closing(Worker(MemberDirectory(short_path), number)) as worker:
        swept_at: list[float] = []
        began = now = boot_time()

        def note(_: object) -> Steps[None]:
            swept_at.append(now)
            yield from ()

        monkeypatch.setattr(sweeping, "sweep", note)
        monkeypatch.setattr(worker, "_start", lambda steps, _: next(steps, None))
        monkeypatch.setattr(worker.core, "is_read_write", lambda: read_write)
        for _ in range(400):
            worker._run_timers(now)
            now += sweeping.EVERY / 100
    if number or not read_write:
        assert swept_at == []
        return
    assert swept_at[0] <= began + sweeping.EVERY * 1.1
    assert all(0.5 <= (later - earlier) / sweeping.EVERY <= 1.6 for earlier, later in pairwise(swept_at))
    assert len(swept_at) > 1
