"""Three real members in two affinity groups: work is spread over a group, over others when it has nobody, and never to one
that is cut off."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import zmq

import lnh
from lnh import MemberReadOnly
from lnh_cli.demo.local import Member
from lnh_cli.demo.processes import held, kill, standing_still
from lnh_common.messages import balancer, objects, session
from lnh_common.messages.base import Empty
from lnh_common.wire import bundles, codec, frames
from lnh_common.wire.bundles import Bundle, Entry
from lnh_services.paths import MemberDirectory
from members import Load, Members, is_read_write
from processes import ask
from waits import wait_until

pytestmark = pytest.mark.several

WITHIN = 60.0
IN_FLIGHT = 24
FORWARDED = b"\x80" + bytes(6) + b"\x01"
OWN = bytes(7) + b"\x01"


@pytest.fixture
def members(members: Members) -> Iterator[Members]:
    """The third is in a group of its own."""
    third = members.all[2].name
    members.steps.run("lnh", "group", "create", "far")
    try:
        members.steps.run("lnh", "member", "move", third, "far")
        for at, others in enumerate(((1, 2), (0, 2), (0, 1))):
            for other in others:
                wait_until(lambda at=at, other=other: sees(members, at, other) == "serving", "members", WITHIN)  # type: ignore[misc]
        yield members
    finally:
        members.steps.run("lnh", "member", "move", third, "local")
        members.steps.run("lnh", "group", "delete", "far", "--yes")


def status(members: Members, number: int) -> balancer.Status:
    return ask(MemberDirectory(members.all[number].directory).balancer_status, balancer.STATUS)


def sees(members: Members, at: int, other: int) -> str:
    name = members.all[other].name
    return next((backend.state for backend in status(members, at).backends if backend.name == name), "")


def group_of(members: Members, at: int, other: int) -> str:
    name = members.all[other].name
    return next((backend.group for backend in status(members, at).backends if backend.name == name), "")


class Signing:
    """An application that came in through the first member: slow signatures in flight all the time, and keys being made."""

    def __init__(self, members: Members) -> None:
        self.signed = 0
        self.made: list[bytes] = []
        self._members = members
        self._load = Load(self._sign, self._make)

    def _sign(self) -> None:
        fields = {"handle": self._key.handle, "mechanism": lnh.Mechanism.SHA256_RSA_PKCS.value, "data": b"data"}
        calls = itertools.takewhile(lambda _: not self._load.over.is_set(), itertools.repeat((objects.SIGN, fields)))
        for _ in self._session.call_each(calls, IN_FLIGHT):
            self.signed += 1

    def _make(self) -> None:
        self.made.append(self._session.generate_key(lnh.KeyType.AES, 256, label="made").handle)

    @contextmanager
    def through(self, member: Member) -> Iterator[Signing]:
        password = self._members.place.secret("krco").read_text().strip()
        with lnh.connect("demo", directory=member.client, failover=False) as cluster:
            self._session = cluster.keyring("payments").login(lnh.Role.KRCO, password)
            _, self._key = self._session.generate_keypair(lnh.KeyType.RSA, 4096, timeout=60)
            with self._load:
                self.goes_on()
                yield self
            assert self._load.errors == []
            found = {each.handle for each in self._session.find(label="made")}
            assert set(self.made) <= found
            self._session.logout()

    def goes_on(self, signatures: int = 3 * IN_FLIGHT, keys: int = 5) -> None:
        """Wait for more of both; raises what the application met."""
        signed, made = self.signed, len(self.made)

        def on() -> bool:
            return bool(self._load.errors) or (self.signed > signed + signatures and len(self.made) > made + keys)

        wait_until(on, "signatures and keys", WITHIN)
        if self._load.errors:
            raise self._load.errors[0]


def test_work_is_spread_over_the_group_and_over_others_when_it_has_nobody(members: Members) -> None:
    first, second, _ = members.all
    before = [status(members, number) for number in range(3)]
    with members.longer_lease(), Signing(members).through(first) as application:
        application.goes_on(8 * IN_FLIGHT)
        wait_until(lambda: status(members, 1).taken - before[1].taken > IN_FLIGHT, "the second's part", WITHIN)
        after = [status(members, number) for number in range(3)]
        assert after[1].taken - before[1].taken == pytest.approx(
            after[0].forwarded - before[0].forwarded, abs=IN_FLIGHT
        )
        assert after[2].taken == before[2].taken
        assert [each.group for each in after] == ["local", "local", "far"]
        own = sum(backend.settled for backend in after[0].backends if not backend.group)
        assert own > IN_FLIGHT, "its own workers have their part"

        members.steps.run("lnh", "member", "promote", second.name)
        application.goes_on()
        members.steps.run("lnh", "member", "move", second.name, "far")
        wait_until(lambda: group_of(members, 0, 1) == "far", "the member in the other group", WITHIN)
        taken = status(members, 1).taken
        application.goes_on(4 * IN_FLIGHT)
        assert status(members, 1).taken - taken <= IN_FLIGHT, "it is in another group"
        members.steps.run("lnh", "member", "move", second.name, "local")
        members.steps.run("lnh", "member", "promote", first.name)
        wait_until(lambda: group_of(members, 0, 1) == "local", "the member in the group", WITHIN)
        application.goes_on()

        with standing_still(second.directory):
            wait_until(lambda: sees(members, 0, 1) == "down", "the member that stands still", WITHIN)
            application.goes_on()
        wait_until(lambda: sees(members, 0, 1) == "serving", "the member back", WITHIN)
        application.goes_on()
        with members.brought_back(second):
            second.kill()
            wait_until(lambda: sees(members, 0, 1) == "down", "the member dead", WITHIN)
            application.goes_on()
            assert status(members, 2).taken == before[2].taken, "the first itself is somebody of the group"

            supervisor = first.running()
            assert supervisor is not None
            with held(supervisor):  # which would start its workers again
                kill(first.directory, "lnh_services.hsm")
                application.goes_on()
                wait_until(lambda: status(members, 2).taken > before[2].taken + IN_FLIGHT, "the third's part", WITHIN)
        wait_until(lambda: sees(members, 0, 1) == "serving", "the member back", WITHIN)
        wait_until(lambda: status(members, 0).backends[0].state == "serving", "its worker back", WITHIN)
        application.goes_on()
        taken = status(members, 2).taken
        application.goes_on(6 * IN_FLIGHT)
        assert status(members, 2).taken - taken <= IN_FLIGHT, "the group has somebody again"
    members.all_read_write()


def say_hello(address: str, tag: bytes) -> Entry:
    """A worker's answer to `hello` with a tag of this kind, asked as its balancer would."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    with context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(address)
        bundle = Bundle()
        bundle.add(tag, frames.request(session.HELLO.name, 1, 5000).pack(), b"", codec.encode(Empty()))
        socket.send(bundle.take())
        assert socket.poll(10_000), "no answer came"
        (answer,) = bundles.unpack(socket.recv_multipart())
        assert answer.tag == tag
        return answer


def test_a_member_cut_off_serves_its_clients_alone_and_refuses_others_work(members: Members) -> None:
    members.all_read_write()
    primary = members.primary()
    number = next(n for n, member in enumerate(members.all) if member is not primary)
    alone = members.all[number]
    address = MemberDirectory(alone.directory).worker_address(0)
    with members.sessions() as sessions:
        through = sessions[number]
        through.abandon()
        _, key = through.generate_keypair(lnh.KeyType.RSA, 4096, timeout=60)
        key.sign(b"data", lnh.Mechanism.SHA256_RSA_PKCS)
        assert say_hello(address, FORWARDED).header != b"", "under its lease a worker serves others' clients"
        with standing_still(primary.directory):
            wait_until(lambda: status(members, number).alone != "", "a member that is alone", WITHIN)
            # Before that a write is sent to the primary, and what became of it is not known.
            wait_until(lambda: not is_read_write(alone), "the end of its lease", WITHIN)
            before = status(members, number)
            signers = [
                threading.Thread(target=key.sign, args=(b"data", lnh.Mechanism.SHA256_RSA_PKCS)) for _ in range(12)
            ]
            for signer in signers:
                signer.start()
            for signer in signers:
                signer.join(WITHIN)
            with pytest.raises(MemberReadOnly):
                through.generate_key(lnh.KeyType.AES, 256)
            after = status(members, number)
            assert after.forwarded == before.forwarded
            assert after.backends[0].settled >= before.backends[0].settled + 13
            assert say_hello(address, FORWARDED) == bundles.refusal(FORWARDED)
            assert say_hello(address, OWN).header != b""
        members.all_read_write()
        wait_until(lambda: status(members, number).alone == "", "its lease", WITHIN)
        through.generate_key(lnh.KeyType.AES, 256)
