"""Several members' balancers as processes, with small echo workers behind them; who is listed, and who is read-write, the
test says in place of membership."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from doors import Door
from lnh_common import codec, wire
from lnh_common.bus import curve
from lnh_common.messages import balancer, membership
from processes import Processes, wait_until

LEASE_MS = 60_000


class Views:
    """Answers what a member's balancer asks membership, with the view of then."""

    def __init__(self, address: str) -> None:
        self.view = membership.View(cluster=b"", primary=b"", epoch=0, members=(), services=())
        self.answered = 0
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(address)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            if self._socket.poll(20):
                way, header, _, _ = self._socket.recv_multipart()
                answer = wire.Header.parse(header).answer(wire.Kind.REPLY).pack()
                self._socket.send_multipart([way, answer, b"", codec.encode(self.view)])
                self.answered += 1
        self._socket.close()

    def close(self) -> None:
        self._over.set()
        self._thread.join()


class Members:
    """Members of one cluster, as far as their balancers go."""

    def __init__(self, processes: Processes, root: Path, groups: str, *mode: str) -> None:
        self.doors = [Door(processes, root / str(number)) for number in range(len(groups))]
        self.views = [Views(door.member.directory.membership_for_services) for door in self.doors]
        self.groups = list(groups)
        self.read_write = [True] * len(groups)
        self.listed = set(range(len(groups)))
        for number, door in enumerate(self.doors):
            for worker in range(2):
                door.start_worker(worker, *mode)
            self.tell(number)

    def state(self, number: int) -> membership.MemberState:
        member = self.doors[number].member
        door = curve.KeyPair.load(member.directory.client_keys).raw_public
        return membership.MemberState(
            id=bytes([number]) * 16, name=f"member-{number}", address=f"127.0.0.1:{member.settings.base_port}",
            role="secondary", state="read-write" if self.read_write[number] else "read-only",
            group=self.groups[number], product="", door=door,
        )  # fmt: skip

    def tell(self, *numbers: int) -> None:
        """Let these members, or all, know how it is now, and wait until they heard it."""
        told = numbers or range(len(self.doors))
        for number in told:
            self.views[number].view = membership.View(
                cluster=b"C" * 16, primary=b"", epoch=1, members=tuple(self.state(other) for other in sorted(self.listed)),
                services=(), lease_ms=LEASE_MS if self.read_write[number] else 0,
            )  # fmt: skip
        before = [self.views[number].answered for number in told]
        for number, count in zip(told, before, strict=True):
            if self.doors[number].process.poll() is None:
                wait_until(lambda n=number, c=count: self.views[n].answered > c + 1, "two looks at the view")  # type: ignore[misc]

    def status(self, number: int) -> balancer.Status:
        return self.doors[number].status()

    def place(self, at: int, of: int) -> balancer.PlaceView | None:
        return next((place for place in self.status(at).places if place.name == f"member-{of}"), None)

    def sees(self, at: int, of: int, state: str) -> None:
        wait_until(
            lambda: (found := self.place(at, of)) is not None and found.state == state, f"{of} as {state} at {at}"
        )

    def all_see_each_other(self) -> None:
        for at in sorted(self.listed):
            for of in sorted(self.listed - {at}):
                self.sees(at, of, "serving")

    def kill_workers(self, number: int) -> None:
        for worker in self.doors[number].workers.values():
            worker.kill()
        workers = len(self.doors[number].workers)
        wait_until(lambda: all(p.state == "down" for p in self.status(number).places[:workers]), "no worker")

    def close(self) -> None:
        for view in self.views:
            view.close()
        for door in self.doors:
            for client in door.clients:
                client.socket.close()


@pytest.fixture
def make(processes: Processes, short_path: Path) -> Iterator[Callable[..., Members]]:
    made: list[Members] = []

    def begin(groups: str, *mode: str) -> Members:
        made.append(Members(processes, short_path, groups, *mode))
        return made[-1]

    yield begin
    for members in made:
        members.close()


def ask_many(members: Members, at: int, count: int, operation: str = "key.sign") -> None:
    """Requests through a member, all in flight at once, each answered with its own body."""
    client = members.doors[at].client()
    bodies = {client.send(operation, body=b"%d" % number): b"%d" % number for number in range(count)}
    for _ in range(count):
        header, body = client.answer()
        assert body == bodies.pop(header.request_id)


def test_work_goes_to_the_members_of_the_group_and_to_others_only_when_the_group_has_nobody(
    make: Callable[..., Members],
) -> None:
    members = make("aab", "slow")
    members.all_see_each_other()
    for _ in range(10):
        ask_many(members, 0, 1)
    assert members.status(0).forwarded == 0, "an idle member does its work itself"

    ask_many(members, 0, 100)
    status = members.status(0)
    assert status.forwarded == members.status(1).taken
    assert 20 < status.forwarded < 80
    assert members.status(2).taken == 0

    members.kill_workers(1)
    members.sees(0, 1, "closed")
    ask_many(members, 0, 100)
    assert members.status(0).forwarded == status.forwarded
    members.kill_workers(0)
    ask_many(members, 0, 100)
    assert members.status(2).taken == 100
    assert members.status(2).forwarded == members.status(1).forwarded == 0

    members.doors[1].start_worker(0)
    members.sees(0, 1, "serving")
    ask_many(members, 0, 100)
    assert members.status(2).taken == 100
    assert members.status(1).taken == status.forwarded + 100
