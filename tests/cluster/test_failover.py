"""A client whose member is lost goes on through another: no error, no login, the same handles; and what must fail, fails."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

import lnh
import lnh.aio
from applications import MADE, Application, History, application
from fleet import fleet
from lnh.console import Console
from lnh_cli.demo import local
from lnh_cli.demo.local import Member
from lnh_common.bus.blocking import Caller
from lnh_common.messages import store
from lnh_common.messages.base import Empty
from lnh_services.paths import MemberDirectory
from lookups import Lookups
from members import Members, stopped
from waits import wait_until
from wires import Wires

pytestmark = pytest.mark.several

WITHIN = 60.0
PATIENTLY = ("--timeout", "60")
FLEET = 60  # processes
LOGIN = 15.0  # seconds that each of them has


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
def killed(members: Members, member: Member) -> Iterator[None]:
    """Every process of a member is killed; at the end it is started again, and all are waited for if a test failed."""
    with members.brought_back(member):
        member.kill()
        yield


@contextmanager
def cut_off(members: Members, wires: Wires, chance: random.Random, member: Member) -> Iterator[None]:
    """A member is cut off, from all others or from one, both ways or one; at the end it is joined again."""
    other = chance.choice([each for each in members.all if each is not member])
    cuts = (
        lambda: wires.isolate(member),
        lambda: wires.cut(member, other),
        lambda: wires.cut_way(member, other),
        lambda: wires.cut_way(other, member),
    )
    chance.choice(cuts)()
    try:
        yield
    finally:
        wires.heal()


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
        with members.longer_lease(), Lookups(members, other).running():
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
    members.all_read_write()


def test_tasks_go_on_through_another_member_when_theirs_stands_still(members: Members) -> None:
    members.all_read_write()
    primary = members.primary()
    (other, *_) = (member for member in members.all if member is not primary)
    password = members.place.secret("krco").read_text().strip()

    async def work() -> None:
        async with lnh.aio.connect("demo", directory=other.client) as cluster:
            keyring = await cluster.keyring("payments")
            async with await keyring.login(lnh.Role.KRCO, password) as session:
                public, private = await session.generate_keypair(lnh.KeyType.EC, curve="P-256", token=False)
                registered = cluster.connection.endpoint
                assert cluster.connection.alternates
                with stopped(other):
                    signatures = await asyncio.gather(*(private.sign(b"%d" % number) for number in range(50)))
                    assert cluster.connection.endpoint != registered
                    found = [public.verify(b"%d" % number, each) for number, each in enumerate(signatures)]
                    assert all(await asyncio.gather(*found))

    asyncio.run(work())
    members.all_read_write()


def test_a_fleet_that_logs_in_during_a_kill_is_served_or_told_when_to_come_again(
    members: Members,
) -> None:
    members.all_read_write()
    primary = members.primary()
    (other, *_) = (member for member in members.all if member is not primary)
    password = members.place.secret("krco").read_text().strip()
    with members.longer_lease(), ExitStack() as stack:
        halves = [
            stack.enter_context(fleet(member, "payments", lnh.Role.KRCO, password, count=FLEET // 2, timeout=LOGIN))
            for member in (primary, other)
        ]
        for half in halves:
            half.go()
        with killed(members, other):
            told = [each for half in halves for each in half.told(within=LOGIN + 20)]
        print(sorted((each.outcome, round(each.seconds, 1)) for each in told))
        assert {each.outcome for each in told} <= {"served", "Busy"}, [each for each in told if each.words]
        assert not [each for each in told if each.outcome == "Busy" and not each.detail.get("seconds")]
        assert all(each.seconds < LOGIN + 1 for each in told)
        assert any(each.outcome == "served" for each in told)
        with lnh.connect("demo", directory=primary.client, timeout=LOGIN) as cluster:
            cluster.keyring("payments").login(lnh.Role.KRCO, password).logout()
    members.all_read_write()


def is_read_only(member: Member) -> bool:
    with Caller(MemberDirectory(member.directory).store_for_services) as caller:
        return caller.ask(store.STATUS, Empty()).state == "read-only"


def test_members_are_cut_off_from_one_another_under_load_and_clients_see_one_history(members: Members) -> None:
    members.all_read_write()
    primary = members.primary()
    other, third = (member for member in members.all if member is not primary)
    lookups = Lookups(members, primary)
    with (
        Wires(members) as wires,
        History(members, primary).running(),
        lookups.running(),
        application(members, other) as client,
        no_login(client),
        client.running(),
    ):
        cuts: list[tuple[Callable[[], None], tuple[Member, ...]]] = [
            (lambda: wires.cut_way(other, primary), (other,)),
            (lambda: wires.isolate(primary), (other, third)),
        ]
        for cut, behind in cuts:
            cut()
            for member in behind:
                wait_until(lambda: is_read_only(member), f"{member.name} as read-only", WITHIN)  # noqa: B023
            client.flows("while members are cut off", makes=False)
            lookups.goes_on("while members are cut off", behind)
            wires.heal()
            client.flows("when they are joined again")
    members.all_read_write()
    assert_everywhere(members, members.all, set(client.made), client.session.route)


def test_what_must_fail_without_the_primary_fails(members: Members) -> None:
    members.all_read_write()
    primary = members.primary()
    (other, *_) = (member for member in members.all if member is not primary)
    password = members.place.secret("krco").read_text().strip()
    with (
        lnh.connect("demo", directory=primary.client, failover=False, timeout=5.0) as bound,
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
            home = reading.registration.member  # which is alive
            wait_until(lambda: sessions[1].connection.endpoint.address == home, "the way home", WITHIN)
            assert len(sessions[1].random(8)) == 8
        wait_until(lambda: not is_read_only(), "writes", WITHIN)
    members.all_read_write()


def test_a_client_of_a_sealed_member_goes_elsewhere_or_is_told_at_once(
    members: Members,
) -> None:
    members.all_read_write()
    activation = members.place.secret("activation").read_bytes().strip()
    password = members.place.secret("krco").read_text().strip()
    sealed = members.all[1]
    with lnh.connect("demo", directory=sealed.client) as cluster, Console(sealed.directory) as console:
        session = cluster.keyring("payments").login(lnh.Role.KRCO, password)
        console.deactivate(activation)
        try:
            assert len(session.random(8)) == 8

            def goes_elsewhere() -> bool:
                with lnh.connect("demo", directory=sealed.client) as anew:
                    assert anew.connection.statement()
                    return anew.connection.endpoint.address != anew.registration.member

            wait_until(goes_elsewhere, "another way for new clients", WITHIN)  # a hello is told for a second
            with (
                lnh.connect("demo", directory=sealed.client, failover=False) as bound,
                pytest.raises(lnh.NotActivated, match=f"{bound.registration.member}: this member is sealed"),
            ):
                bound.connection.statement()  # within its deadline
        finally:
            console.activate(activation)
        with lnh.connect("demo", directory=sealed.client, failover=False) as bound:
            assert bound.connection.statement(), "while its workers start it is waited for"
        session.logout()


class Changes:
    """What administrators do to a cluster, and when there was no primary meanwhile."""

    def __init__(self, members: Members, joiner: Member) -> None:
        self.members = members
        self.steps = members.steps
        self.running = (*members.all, joiner)
        self.joiner = joiner
        self.without_primary: list[tuple[float, float]] = []

    def whole(self) -> None:
        self.steps.wait_for(self.running[0], {member.name: "read-write" for member in self.running})

    def join(self) -> None:
        joiner, place = self.joiner, self.members.place
        (joiner.client / "runtime").mkdir(mode=0o700, parents=True)
        local.prepare(self.steps, joiner)
        invitation = place.root / "invitation-joiner"
        self.steps.run("lnh", "member", "invite", "--output", invitation, *PATIENTLY)
        self.steps.run("lnh", "cluster", "join", "--member-dir", joiner.directory, "--invitation", invitation)
        local.register(self.steps, joiner)
        self.whole()

    def promote(self, member: Member) -> None:
        self.steps.run("lnh", "member", "promote", member.name, *PATIENTLY)
        self.whole()

    def move(self, member: Member, group: str) -> None:
        self.steps.run("lnh", "member", "move", member.name, group, *PATIENTLY)

    def restart(self, member: Member, through: Member) -> None:
        shown = json.loads(self.steps.run("lnh", "member", "list", "--json", through=through))
        (primary,) = [view["name"] for view in shown if view["role"] == "primary"]
        began = time.monotonic()
        member.stop()
        self.steps.start(member)
        self.whole()
        if primary == member.name:
            self.without_primary.append((began, time.monotonic()))

    def remove(self, member: Member) -> None:
        self.steps.run("lnh", "member", "remove", member.name, "--yes", *PATIENTLY)
        self.running = tuple(each for each in self.running if each is not member)
        self.whole()

    def check_refusals(self, client: Application) -> None:
        """A write may fail only while there is no primary (docs/operations.md): one that began or ended then."""
        for began, ended, error in client.refused:
            assert any(began <= end and ended >= begin for begin, end in self.without_primary), error


def test_members_join_leave_move_and_restart_while_clients_sign_and_make_keys(members: Members) -> None:
    members.all_read_write()
    a, b, _ = members.all
    d = Member(members.place.root, "d")
    changes = Changes(members, d)
    # A member that gets no processor for as long as its lease lasts is read-only, and rightly: L is longer here.
    with members.longer_lease(6000), ExitStack() as ends:
        ends.callback(d.stop)
        with (
            application(members, a) as one,
            application(members, b) as two,
            no_login(one),
            no_login(two),
            one.running(),
            two.running(),
        ):
            changes.join()
            members.steps.run("lnh", "group", "create", "east", *PATIENTLY)
            for member, group in ((d, "east"), (a, "east"), (a, "local")):
                changes.move(member, group)
            changes.promote(d)
            for member in changes.running:
                changes.restart(member, through=d if member is not d else a)
            changes.promote(a)
            changes.remove(d)
            members.steps.run("lnh", "group", "delete", "east", "--yes", *PATIENTLY)
            for client in (one, two):
                client.flows("at the end")
        for client in (one, two):
            changes.check_refusals(client)
            assert_everywhere(members, changes.running, set(client.made), client.session.route)
        print(f"{len(one.signed) + len(two.signed)} signatures, {len(one.made) + len(two.made)} keys, ", end="")
        print(f"{len(one.refused) + len(two.refused)} refused")


@pytest.mark.skipif("LNH_SOAK" not in os.environ, reason="runs for LNH_SOAK seconds")
def test_members_are_killed_stopped_and_cut_off_at_random_for_as_long_as_asked(
    members: Members, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("LNH_SEED", str(time.time_ns() % 1_000_000)))
    with Wires(members) as wires:
        _suffer(members, wires, random.Random(seed), seed, capsys)


def _suffer(
    members: Members, wires: Wires, chance: random.Random, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    began, rounds = time.monotonic(), 0
    while time.monotonic() - began < float(os.environ["LNH_SOAK"]):
        rounds += 1
        members.all_read_write()
        primary = members.primary()
        home = chance.choice(members.all)
        faults: tuple[Callable[[Member], AbstractContextManager[None]], ...] = (
            stopped,
            lambda member: killed(members, member),
            lambda member: cut_off(members, wires, chance, member),
        )
        with (
            History(members, primary).running(),
            Lookups(members, chance.choice(members.all)).running(),
            application(members, home) as client,
            no_login(client),
            client.running(),
        ):
            for _ in range(chance.randrange(1, 5)):
                member = chance.choice(members.all)
                fault = chance.choice(faults)(member)
                lasts = time.monotonic() + chance.choice((0.1, 1.0, 4.0))
                with fault:
                    wait_until(lambda: time.monotonic() > lasts or client.load.errors, "the end of a fault", WITHIN)  # noqa: B023
                client.flows("after a fault", makes=False)
            members.all_read_write()
        assert_everywhere(members, members.all, set(client.made), client.session.route)
        with capsys.disabled():
            print(f"\n{rounds} rounds (seed {seed}), {len(client.signed)} signatures, {len(client.made)} keys", end="")
