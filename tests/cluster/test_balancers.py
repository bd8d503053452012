"""Several members' balancers as processes, with small echo workers behind them; who is listed, and who is read-write, the
test says in place of membership."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
import zmq
from typing_extensions import Self

import failed
from doors import BODY, Door
from lnh_common import limits
from lnh_common.bus import curve
from lnh_common.errors import Unreachable
from lnh_common.messages import balancer, membership
from lnh_common.messages.base import Empty
from lnh_common.messages.session import HELLO
from lnh_common.wire import bundles, codec
from lnh_common.wire import frames as wire
from lnh_common.wire.bundles import PING_TAG, Bundle, Entry
from lnh_services.balancer.operations import STAYS
from lnh_services.balancer.peers import GONE_AFTER, PING_EVERY
from processes import Processes, free_base_port
from waits import wait_until

pytestmark = pytest.mark.several

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
                self.answered += 1  # first, so that who counts from a new view on counts no answer with the old one
                self._socket.send_multipart([way, answer, b"", codec.encode(self.view)])
        self._socket.close()

    def close(self) -> None:
        self._over.set()
        self._thread.join()


class Members:
    """Members of one cluster, as far as their balancers go."""

    def __init__(self, processes: Processes, root: Path, groups: str, *mode: str) -> None:
        self.doors = [Door(processes, root / str(number), workers=1) for number in range(len(groups))]
        self.mode = mode
        self.views = [Views(door.member.directory.membership_for_services) for door in self.doors]
        self.groups = list(groups)
        self.read_write = [True] * len(groups)
        self.listed = set(range(len(groups)))
        self.others: list[membership.MemberState] = []  # that the test plays
        try:
            for door in self.doors:
                door.start_worker(0, *mode)
            self.tell()
        except BaseException:
            self.close()  # whose threads would go on
            raise

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
                cluster=b"C" * 16, primary=b"", epoch=1, members=(*map(self.state, sorted(self.listed)), *self.others),
                services=(), lease_ms=LEASE_MS if self.read_write[number] else 0,
            )  # fmt: skip
        before = [self.views[number].answered for number in told]
        for number, count in zip(told, before, strict=True):
            if self.doors[number].process.poll() is None:
                wait_until(lambda n=number, c=count: self.views[n].answered > c + 1, "two looks at the view")  # type: ignore[misc]

    def status(self, number: int) -> balancer.Status:
        return self.doors[number].status()

    def backend(self, at: int, of: int) -> balancer.BackendView | None:
        return next((backend for backend in self.status(at).backends if backend.name == f"member-{of}"), None)

    def requests_at(self, at: int, of: int) -> int:
        """How many requests of a member another one has."""
        backend = self.backend(at, of)
        return backend.requests if backend else 0

    def sees(self, at: int, of: int, state: str) -> None:
        wait_until(
            lambda: (found := self.backend(at, of)) is not None and found.state == state, f"{of} as {state} at {at}"
        )

    def all_see_each_other(self) -> None:
        for at in sorted(self.listed):
            for of in sorted(self.listed - {at}):
                self.sees(at, of, "serving")

    def kill_worker(self, number: int) -> None:
        self.doors[number].workers[0].kill()
        wait_until(lambda: self.status(number).backends[0].state == "down", "no worker")

    def signal(self, number: int, sign: signal.Signals) -> None:
        """To all processes of a member."""
        door = self.doors[number]
        for process in (door.process, *door.workers.values()):
            process.send_signal(sign)  # to nobody else who has the number of one that ended

    def restore(self) -> None:
        """As it was at first, whatever a test did."""
        self.groups, self.read_write = ["a"] * len(self.doors), [True] * len(self.doors)
        self.listed, self.others = set(range(len(self.doors))), []
        for number, door in enumerate(self.doors):
            self.signal(number, signal.SIGCONT)  # one that a test left standing still
            if door.process.poll() is not None:
                door.start()
            if door.workers[0].poll() is not None or door.modes[0] != self.mode:
                self.kill_worker(self.doors.index(door))
                door.start_worker(0, *self.mode)
        self.tell()
        self.all_see_each_other()

    def close(self) -> None:
        for view in self.views:
            view.close()
        for door in self.doors:
            for client in door.clients:
                client.socket.close()


class Counts:
    """What the members' own counters rose by since."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._before = [members.status(number) for number in range(len(members.doors))]

    def forwarded(self, number: int) -> int:
        return self._members.status(number).forwarded - self._before[number].forwarded

    def taken(self, number: int) -> int:
        return self._members.status(number).taken - self._before[number].taken

    def declined(self, number: int) -> int:
        return self._members.status(number).declined - self._before[number].declined


@pytest.fixture(scope="module")
def trio() -> Iterator[Members]:
    with failed.directory() as root, Processes() as processes, ExitStack() as ends:
        made = Members(processes, root, "aaa", "slow")
        ends.callback(made.close)
        yield made


@pytest.fixture
def members(trio: Members) -> Members:
    """Three members of one group, all read-write; each worker takes 5 ms a request."""
    trio.restore()
    return trio


def ask_many(members: Members, at: int, count: int, operation: str = "key.sign") -> None:
    """Requests through a member, all in flight at once, each answered with its own body."""
    client = members.doors[at].client()
    bodies = {client.send(operation, body=b"%d" % number): b"%d" % number for number in range(count)}
    for _ in range(count):
        header, body = client.answer()
        assert body == bodies.pop(header.request_id)


def ask_until(members: Members, at: int, reached: Callable[[], bool], what: str, operation: str = "key.sign") -> None:
    """Ask many and again: whether a member thinks that another has an answer sooner depends on how fast each is now."""

    def asked() -> bool:
        ask_many(members, at, 60, operation)
        return reached()

    wait_until(asked, what)


class Load(threading.Thread):
    """A client that keeps so many requests in flight through one member; every answer must be the right one."""

    def __init__(self, members: Members, at: int, in_flight: int = 40) -> None:
        super().__init__()
        self.answered = 0
        self.wrong: list[object] = []
        self._client = members.doors[at].client()
        self._in_flight = in_flight
        self._over = threading.Event()

    def run(self) -> None:
        waiting: set[int] = set()
        while waiting or not self._over.is_set():
            while len(waiting) < self._in_flight and not self._over.is_set():
                waiting.add(self._client.send(body=BODY, deadline=20))
            if not self._client.socket.poll(15_000):
                self.wrong.append(f"no answer to {len(waiting)} requests")
                return
            header, body = self._client.answer()
            waiting.remove(header.request_id)
            self.answered += 1
            if body != BODY:
                self.wrong.append(body)

    def goes_on(self, more: int = 100) -> None:
        """Wait for so many more answers."""
        before = self.answered
        wait_until(lambda: self.answered >= before + more or self.wrong, "answers")
        assert self.wrong == []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()
        assert self.wrong == []


def test_work_goes_to_others_only_when_the_group_has_nobody(members: Members) -> None:
    members.groups[2] = "b"
    members.tell()
    counts = Counts(members)
    for _ in range(10):
        ask_many(members, 0, 1)
    assert counts.forwarded(0) == 0, "an idle member does its work itself"
    with Load(members, 0) as load:
        while counts.forwarded(0) <= 30:
            load.goes_on()
    assert counts.forwarded(0) == counts.taken(1)
    assert counts.taken(2) == 0

    members.kill_worker(1)
    members.sees(0, 1, "closed")
    counts = Counts(members)
    ask_many(members, 0, 60)
    assert counts.forwarded(0) == 0
    members.kill_worker(0)
    ask_many(members, 0, 60)
    assert counts.taken(2) == 60

    members.doors[1].start_worker(0, "slow")
    members.sees(0, 1, "serving")
    ask_many(members, 0, 60)
    assert counts.taken(1) == counts.taken(2) == 60
    assert counts.forwarded(1) == counts.forwarded(2) == 0, "what was forwarded goes no further"


def test_members_that_die_stop_and_come_back_under_load_cost_no_client_an_error(members: Members) -> None:
    before = members.status(0)
    with Load(members, 0) as load:
        load.goes_on()
        wait_until(lambda: min(members.requests_at(0, of) for of in (1, 2)) > 0, "work at both")
        members.signal(1, signal.SIGSTOP)
        members.sees(0, 1, "down")
        load.goes_on()
        members.signal(1, signal.SIGCONT)
        members.sees(0, 1, "serving")
        load.goes_on()
        members.signal(2, signal.SIGKILL)
        members.sees(0, 2, "down")
        load.goes_on()
        members.kill_worker(1)
        members.sees(0, 1, "closed")
        load.goes_on()
        members.doors[1].start_worker(0, "slow")
        members.doors[2].start()
        members.doors[2].start_worker(0, "slow")
        members.all_see_each_other()
        counts = Counts(members)
        wait_until(lambda: min(counts.taken(of) for of in (1, 2)) > 0, "work at both again")
    assert members.status(0).retried > before.retried
    assert members.status(0).expired == before.expired


def test_one_that_stood_still_itself_takes_nobody_for_gone(members: Members) -> None:
    here, there = (members.doors[number] for number in (0, 1))
    log = here.member.directory.log / "balancer.log"

    def seen_away() -> int:
        return log.read_text().count('"member away"')

    for _ in range(10):
        before = seen_away()
        there.process.send_signal(signal.SIGSTOP)
        time.sleep(PING_EVERY + 0.05)  # a ping is under way when all stands still
        here.process.send_signal(signal.SIGSTOP)
        in_time = seen_away() == before
        time.sleep(GONE_AFTER * 2)  # how long it stands still is what is tested
        for door in (here, there):
            door.process.send_signal(signal.SIGCONT)
        members.sees(0, 1, "serving")
        if in_time:
            break
    assert in_time
    ask_many(members, 0, 60)
    assert seen_away() == before


def test_a_read_only_member_serves_alone_and_nobody_sends_it_work(members: Members) -> None:
    counts = Counts(members)
    members.read_write[0] = False
    members.tell(0)
    ask_many(members, 0, 60)
    assert "read-only" in members.status(0).alone
    for other in (1, 2):
        members.sees(other, 0, "closed")
    ask_many(members, 1, 60)
    assert counts.forwarded(0) == counts.taken(0) == 0
    members.kill_worker(0)
    assert type(members.doors[0].client().exchange()) is Unreachable, "that member serves its clients, and nobody else"

    members.read_write[0] = True
    members.tell(0)
    assert members.doors[0].client().exchange() == BODY
    assert counts.forwarded(0) == 1


def test_work_that_a_worker_without_a_lease_declines_is_done_elsewhere(members: Members) -> None:
    members.listed.remove(2)
    members.kill_worker(1)
    members.doors[1].start_worker(0, "stale")  # its balancer has not heard yet that the member's lease is over
    members.tell()
    members.sees(0, 1, "serving")
    counts = Counts(members)
    ask_until(members, 0, lambda: counts.declined(1) > 0, "a request that was declined")
    declined = counts.declined(1)
    ask_many(members, 1, 10)
    assert counts.declined(1) == declined, "its own clients are served"


def test_what_is_about_a_member_stays_there(members: Members) -> None:
    counts = Counts(members)
    client = members.doors[0].client()
    operations = sorted(STAYS - {HELLO.name}) * 4
    for operation in operations:
        client.send(operation)
    assert [client.answer()[1] for _ in operations] == [BODY] * len(operations)
    assert client.exchange(HELLO.name) == codec.encode(Empty()), "a worker of its own is asked for everybody"
    assert counts.forwarded(0) == 0
    ask_until(members, 0, lambda: counts.forwarded(0) > 0, "one that was forwarded", "object.generate")


def test_members_are_followed_as_they_come_go_move_and_change_keys(members: Members) -> None:
    members.kill_worker(0)
    counts = Counts(members)
    members.groups[1] = "b"
    members.tell(0)
    ask_many(members, 0, 20)
    assert (counts.taken(1), counts.taken(2)) == (0, 20)
    members.groups[0] = "b"
    members.tell(0)
    ask_many(members, 0, 20)
    assert (counts.taken(1), counts.taken(2)) == (20, 20)
    assert members.status(0).group == "b"

    members.listed.remove(1)
    members.tell(0, 2)
    assert members.backend(0, 1) is None
    ask_many(members, 0, 20)
    assert (counts.taken(1), counts.taken(2)) == (20, 40)
    for other in (0, 2):  # it lists them, but they take no notice of it
        members.sees(1, other, "down")

    door = members.doors[1]
    door.process.terminate()
    door.process.wait(10)
    members.listed.add(1)
    members.groups[2] = "c"
    members.tell(0, 2)
    door.member.directory.client_keys.unlink()
    curve.KeyPair.generate().save(door.member.directory.client_keys)
    members.tell(0, 2)
    door.start()
    members.tell(1)
    members.sees(0, 1, "serving")
    ask_many(members, 0, 20)
    assert members.status(1).taken == 20


class PlayedMember:
    """Another member's balancer, played by the test: what it says on its two sockets is the test's business."""

    def __init__(self, members: Members) -> None:
        self.members = members
        self.way = b""
        self.keys = curve.KeyPair.generate()
        self.base = free_base_port()
        self.sockets: list[zmq.Socket[bytes]] = []
        self.port = self._socket(zmq.ROUTER)
        curve.serve(self.port, self.keys)
        self.port.bind(f"tcp://127.0.0.1:{self.base + 3}")
        state = members.state(0)
        members.others = [
            msgspec.structs.replace(
                state, id=b"P" * 16, name="played", address=f"127.0.0.1:{self.base}", door=self.keys.raw_public
            )
        ]  # fmt: skip
        members.tell(0)

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        socket = context.socket(kind)
        socket.linger = 0
        self.sockets.append(socket)
        return socket

    def link(self, keys: curve.KeyPair) -> zmq.Socket[bytes]:
        """A connection to the first member's balancer port under a key."""
        member = self.members.doors[0].member
        socket = self._socket(zmq.DEALER)
        curve.connect(socket, curve.KeyPair.load(member.directory.client_keys).public, keys)
        socket.connect(f"tcp://127.0.0.1:{member.settings.peer_port}")
        return socket

    def requests(self, *, takes: bool, within: float = 10.0) -> list[Entry]:
        """The next requests that come in; pings are answered meanwhile."""
        end = time.monotonic() + within
        while time.monotonic() < end:
            if not self.port.poll(50):
                continue
            way, frame = self.port.recv_multipart()
            found = bundles.unpack([frame])
            answers = Bundle()
            for entry in found:
                if entry.tag == PING_TAG:
                    answer = wire.Header.parse(entry.header).answer(wire.Kind.REPLY).pack()
                    answers.add(PING_TAG, answer, b"", codec.encode(balancer.Load(takes=takes, workers=1)))
            if answers:
                self.port.send_multipart([way, answers.take()])
            self.way = way
            requests = [entry for entry in found if entry.tag != PING_TAG]
            if requests:
                return requests
        return []

    def close(self) -> None:
        for socket in self.sockets:
            socket.close()


@pytest.fixture
def played(members: Members) -> Iterator[PlayedMember]:
    """In a cluster with the first member alone, whose worker is dead."""
    members.kill_worker(0)
    members.listed = {0}
    played = PlayedMember(members)
    yield played
    played.close()


def test_frames_go_on_byte_for_byte_but_for_a_deadline_that_shrinks(played: PlayedMember) -> None:
    door = played.members.doors[0]
    assert played.requests(takes=False, within=1.0) == [], "one that takes no work gets none"
    client = door.client()
    client.send(body=b"waits", deadline=30)
    wait_until(lambda: door.status().waiting == 1, "the request")
    assert played.requests(takes=False, within=0.5) == []
    (waited,) = played.requests(takes=True)
    assert (waited.token, waited.body) == (b"token", b"waits")
    shown, sent = wire.Header.parse(waited.header), wire.request("key.sign", 1, 30_000, route=bytes(16))
    assert 20_000 < shown.deadline_ms < 29_600
    assert msgspec.structs.replace(shown, deadline_ms=30_000) == sent

    client.send(body=b"at once", deadline=20)
    (fresh,) = played.requests(takes=True)
    assert fresh.header == wire.request("key.sign", 2, 20_000, route=bytes(16)).pack()
    answers = Bundle()
    for number, entry in enumerate((fresh, waited)):
        header = wire.Header.parse(entry.header).answer(wire.Kind.REPLY).pack()
        answers.add(entry.tag, header, b"", b"answer %d" % number)
        answers.add(entry.tag, header, b"", b"a second one")
    played.port.send_multipart([played.way, answers.take()])
    assert {client.answer()[1] for _ in range(2)} == {b"answer 0", b"answer 1"}

    ready = door.prepare_worker(0, "slow")
    client.send(body=b"refused")
    (refused,) = played.requests(takes=True)
    answers.add(*bundles.refusal(refused.tag))
    played.port.send_multipart([played.way, answers.take()])
    (again,) = played.requests(takes=True)
    assert (again.body, again.tag) == (b"refused", refused.tag)
    ready()
    played.close()  # it dies with the request
    assert client.answer()[1] == b"refused"


def test_on_the_balancers_port_listed_members_alone_are_heard_and_nothing_stops_it(played: PlayedMember) -> None:
    door = played.members.doors[0]
    stranger, listed = played.link(curve.KeyPair.generate()), played.link(played.keys)
    good = Entry(b"12345678", wire.request("key.sign", 7, 5000).pack(), b"token", BODY)
    bad = [
        Entry(b"a" * 8, b"no header", b"", b""),
        Entry(b"b" * 8, b"", b"", b""),
        Entry(b"c" * 8, wire.request("store.commit", 1, 5000).pack(), b"", b""),
        Entry(b"d" * 8, wire.request("no.such", 1, 5000).pack(), b"", b""),
        Entry(b"e" * 8, wire.request("key.sign", 1, 5000, kind=wire.Kind.CAST).pack(), b"", b""),
        Entry(b"f" * 8, good.header, bytes(limits.TOKEN_BYTES + 1), b""),
    ]

    def told(*entries: Entry) -> list[Entry]:
        bundle = Bundle()
        for entry in entries:
            bundle.add(*entry)
        listed.send(bundle.take())
        answers: list[Entry] = []
        while len(answers) < len(entries):
            assert listed.poll(10_000), "no answer came"
            answers += bundles.unpack(listed.recv_multipart())
        return answers

    assert told(good) == [bundles.refusal(good.tag)], "without a worker"
    door.start_worker(0, "slow")
    for frames in ([b""], [b"garbage"], [os.urandom(200)], [b"two", b"frames"], [b""] * 9):
        listed.send_multipart(frames)
    assert told(*bad) == [bundles.refusal(entry.tag) for entry in bad]
    (answer,) = told(good)
    assert (answer.tag, answer.body) == (good.tag, BODY)
    bundle = Bundle()
    bundle.add(*good)
    with contextlib.suppress(zmq.Again):  # it may have been shown out already
        stranger.send(bundle.take(), zmq.NOBLOCK)
    assert not stranger.poll(300)

    played.members.others.clear()
    played.members.tell(0)
    bundle.add(*good)
    listed.send(bundle.take())
    assert not listed.poll(300), "listed no more, on the connection of before"
    assert door.client().exchange() == BODY
