"""A client whose member is lost goes on through another: no error, no login, the same handles; and what must fail, fails."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from bench.member import processes

import lnh
from applications import MADE, Application, History, application
from lnh.cli.local import Member
from lnh_common.bus.sync import Caller
from lnh_common.messages import store
from lnh_services.paths import MemberDirectory
from members import Members, three_members
from processes import wait_until

WITHIN = 60.0
PATIENTLY = ("--timeout", "60")


@pytest.fixture(scope="module")
def members() -> Iterator[Members]:
    with three_members() as running:
        yield running


@contextmanager
def no_login(application: Application) -> Iterator[None]:
    """Nobody uses a credential meanwhile, and the session is the same at the end."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a credential was used")

    secret, logged_in = application.session.saved()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application.connection, "call_with_credential", refuse)
        yield
    assert application.session.saved()[0] == secret
    assert application.session.saved()[1].session == logged_in.session


@contextmanager
def stopped(member: Member) -> Iterator[None]:
    """Every process of a member stands still; its connections stay."""
    supervisor = member.running()
    assert supervisor is not None
    still: list[int] = []
    try:
        for pid in processes(supervisor):  # the supervisor first, which would start again what is silent
            os.kill(pid, signal.SIGSTOP)
            still.append(pid)
        yield
    finally:
        for pid in reversed(still):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def killed(members: Members, member: Member) -> Iterator[None]:
    """Every process of a member is killed; at the end it is started again."""
    member.stop(signal.SIGKILL)
    yield
    members.steps.start(member)


def assert_everywhere(members: Members, running: tuple[Member, ...], handles: set[bytes], keyring: bytes) -> None:
    """Each of these objects is in each member's own store, and found through each member."""
    for member in running:
        with Caller(MemberDirectory(member.directory).store_for_services) as caller:
            for handle in handles:
                key = store.Key(table="object", scope=keyring, id=handle)
                got = caller.ask(store.GET, store.Get(key=key, body=False))
                assert got.item is not None, f"{member.name} lacks {handle.hex()}"
        with lnh.connect("demo", directory=member.client, failover=False) as cluster:
            password = members.place.secret("krco").read_text().strip()
            with cluster.keyring("payments").login(lnh.Role.KRCO, password) as session:
                assert handles <= {each.handle for each in session.find(label=MADE)}


def test_any_member_is_killed_or_stopped_under_load_with_no_error_and_no_login(members: Members) -> None:
    members.all_read_write()
    primary = members.primary()
    (other, *_) = (member for member in members.all if member is not primary)
    with History(members, primary).running():
        for member in members.all:
            with application(members, member) as client, no_login(client), client.running():
                moment = time.monotonic()
                with killed(members, member):
                    client.goes(home=False)
                    client.flows(f"without {member.name}", makes=member is not primary)
                    print(f"{member.name} killed: {client.pause(moment):.2f} s without a signature")
                    if member is not primary:
                        assert client.refused == [], "there is a primary, and it is reached"
                client.goes(home=True)
                client.flows(f"with {member.name} back")
            members.all_read_write()
            assert_everywhere(members, members.all, set(client.made), client.session.route)
        with application(members, other) as client, no_login(client), client.running():
            moment = time.monotonic()
            with stopped(other):
                client.goes(home=False)
                client.flows(f"while {other.name} stands still")
                print(f"{other.name} stopped: {client.pause(moment):.2f} s without a signature")
            client.goes(home=True)
            client.flows(f"with {other.name} going on")
            assert client.refused == []
    members.all_read_write()


def test_what_must_fail_without_the_primary_fails(members: Members) -> None:
    members.all_read_write()
    primary = members.primary()
    (other, *_) = (member for member in members.all if member is not primary)
    password = members.place.secret("krco").read_text().strip()
    with (
        lnh.connect("demo", directory=primary.client, failover=False, timeout=2.0) as bound,
        lnh.connect("demo", directory=other.client) as reading,
    ):
        sessions = [cluster.keyring("payments").login(lnh.Role.KRCO, password) for cluster in (bound, reading)]
        for session in sessions:
            session.abandon()
            session.random(8)
        with killed(members, primary):
            with pytest.raises(lnh.Unreachable):
                sessions[0].random(8)
            assert sessions[0].connection.alternates == ()

            def is_read_only() -> bool:
                try:
                    sessions[1].generate_key(lnh.KeyType.AES, 256)
                except lnh.MemberReadOnly:
                    return True
                except lnh.OutcomeUnknown:
                    pass
                return False

            wait_until(is_read_only, "a refused write", WITHIN)
            assert sessions[1].connection.way.address == reading.registration.member, "it is alive"
            assert len(sessions[1].random(8)) == 8
        wait_until(lambda: not is_read_only(), "writes", WITHIN)
    members.all_read_write()


@pytest.mark.skipif("LNH_SOAK" not in os.environ, reason="runs for LNH_SOAK seconds")
def test_members_are_killed_and_stopped_at_random_for_as_long_as_asked(
    members: Members, capsys: pytest.CaptureFixture[str]
) -> None:
    began, rounds = time.monotonic(), 0
    seed = int(os.environ.get("LNH_SEED", str(time.time_ns() % 1_000_000)))
    chance = random.Random(seed)
    while time.monotonic() - began < float(os.environ["LNH_SOAK"]):
        rounds += 1
        members.all_read_write()
        primary = members.primary()
        home = chance.choice(members.all)
        with (
            History(members, primary).running(),
            application(members, home) as client,
            no_login(client),
            client.running(),
        ):
            for _ in range(chance.randrange(1, 5)):
                member = chance.choice(members.all)
                fault = stopped(member) if chance.random() < 0.5 else killed(members, member)
                lasts = time.monotonic() + chance.choice((0.1, 1.0, 4.0))
                with fault:
                    wait_until(lambda: time.monotonic() > lasts or client.load.errors, "the end of a fault", WITHIN)  # noqa: B023
                client.flows("after a fault", makes=False)
            members.all_read_write()
        assert_everywhere(members, members.all, set(client.made), client.session.route)
        with capsys.disabled():
            print(f"\n{rounds} rounds (seed {seed}), {len(client.signed)} signatures, {len(client.made)} keys", end="")
