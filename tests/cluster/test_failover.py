"""A client whose member is lost goes on through another: no error, no login, the same handles; and what must fail, fails."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import pytest
from bench.member import processes
from typing_extensions import Self

import lnh
from lnh import MemberReadOnly, OutcomeUnknown
from lnh.cli.local import Member
from lnh_common.bus.sync import Caller
from lnh_common.messages import objects, store
from lnh_services.paths import MemberDirectory
from members import Load, Members, three_members
from processes import wait_until

WITHIN = 60.0
IN_FLIGHT = 64
THREADS = 4
DATA = bytes(32)
WRITES_MAY_FAIL_WITH = (MemberReadOnly, OutcomeUnknown)  # and only while there is no primary (replication.md)


@pytest.fixture(scope="module")
def members() -> Iterator[Members]:
    with three_members() as running:
        yield running


class Client:
    """An application on one client machine: a thread with 64 signatures in flight, some with one each, and a writer."""

    def __init__(self, session: lnh.KeyringSession, in_session: lnh.PrivateKey, key: lnh.PrivateKey) -> None:
        self.session = session
        self.connection = session.connection
        self.key = key
        self.in_session = in_session
        self.signed: list[float] = []
        self.each = [0] * THREADS
        self.made: list[bytes] = []
        self.refused: list[Exception] = []
        self.logins = 0
        self._over = threading.Event()
        acts = [self._stream, self._write, *(self._one(number) for number in range(THREADS))]
        self.load = Load(*acts)

    def _stream(self) -> None:
        fields = {"handle": self.key.handle, "mechanism": lnh.Mechanism.ECDSA.value, "data": DATA}
        calls = itertools.takewhile(lambda _: not self.load.over.is_set(), itertools.repeat((objects.SIGN, fields)))
        for _ in self.session.call_each(calls, IN_FLIGHT):
            self.signed.append(time.monotonic())

    def _one(self, number: int) -> Callable[[], None]:
        def sign() -> None:
            key = self.in_session if number % 2 else self.key
            key.sign(DATA, lnh.Mechanism.ECDSA)
            self.each[number] += 1

        return sign

    def _write(self) -> None:
        try:
            self.made.append(self.session.generate_key(lnh.KeyType.AES, 256, label="made").handle)
        except WRITES_MAY_FAIL_WITH as error:
            self.refused.append(error)

    def __enter__(self) -> Self:
        self.load.__enter__()
        self.flows("at first")
        return self

    def __exit__(self, *why: object) -> None:
        self.load.__exit__(*why)

    def flows(self, when: str, *, writes: bool = True) -> None:
        """Every thread gets on from here; raises what one ended with."""
        signed, each, made = len(self.signed), list(self.each), len(self.made)

        def on() -> bool:
            if self.load.errors:
                raise self.load.errors[0]
            return (
                len(self.signed) > signed + 2 * IN_FLIGHT
                and all(now > before + 1 for now, before in zip(self.each, each, strict=True))
                and (not writes or len(self.made) > made + 1)
            )

        wait_until(on, f"everything flows {when}", WITHIN)

    def pause(self, since: float) -> float:
        """The longest time without a signature from then on, in seconds."""
        return max(later - earlier for earlier, later in pairwise(self.signed) if later >= since)

    def is_home(self) -> bool:
        return bool(self.load.errors) or self.connection.way.address == self.connection.link.address

    def is_away(self) -> bool:
        return bool(self.load.errors) or not self.is_home()


@contextmanager
def application(members: Members, member: Member) -> Iterator[Client]:
    """An application that came in through this member, with a key of the keyring's and one of the session's."""
    password = members.place.secret("krco").read_text().strip()
    with lnh.connect("demo", directory=member.client) as cluster:
        session = cluster.keyring("payments").login(lnh.Role.KRCO, password)
        session.abandon()  # members are lost on the way
        _, key = session.generate_keypair(lnh.KeyType.EC, curve="P-256", label="signs")
        _, in_session = session.generate_keypair(lnh.KeyType.EC, curve="P-256", token=False)
        assert isinstance(key, lnh.PrivateKey)
        assert isinstance(in_session, lnh.PrivateKey)
        yield Client(session, in_session, key)


@contextmanager
def no_login(client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody logs in meanwhile."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a credential was used")

    secret, logged_in = client.session.saved()
    with monkeypatch.context() as patch:
        patch.setattr(lnh.connection.Connection, "call_with_credential", refuse)
        yield
    assert client.session.saved()[0] == secret
    assert client.session.saved()[1].session == logged_in.session


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


def everywhere(members: Members, handles: set[bytes], keyring: bytes) -> None:
    """Each of these objects is in each member's own store, and found through each member."""
    for member in members.all:
        with Caller(MemberDirectory(member.directory).store_for_services) as caller:
            for handle in handles:
                got = caller.ask(
                    store.GET, store.Get(key=store.Key(table="object", scope=keyring, id=handle), body=False)
                )
                assert got.item is not None, f"{member.name} lacks {handle.hex()}"
    with members.sessions() as sessions:
        for session in sessions:
            assert handles <= {each.handle for each in session.find(label="made")}


def test_killing_any_member_under_load_costs_no_error_and_no_login(
    members: Members, monkeypatch: pytest.MonkeyPatch
) -> None:
    for member in members.all:
        members.all_read_write()
        had_primary = member is not members.primary()
        with application(members, member) as client, no_login(client, monkeypatch), client:
            moment = time.monotonic()
            member.stop(signal.SIGKILL)
            wait_until(client.is_away, "another way", WITHIN)
            client.flows(f"without {member.name}", writes=had_primary)
            print(f"{member.name} killed: {client.pause(moment):.2f} s without a signature")
            if had_primary:
                assert client.refused == [], "there is a primary, and it is reached"
            members.steps.start(member)
            wait_until(client.is_home, "the way home", WITHIN)
            client.flows(f"with {member.name} back")
        assert client.load.errors == []
        members.all_read_write()
        everywhere(members, set(client.made), client.session.route)
