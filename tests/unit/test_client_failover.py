"""A connection and its ways, against members of one thread each: what is sent to whom, and which answer counts."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
import zmq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typing_extensions import Self

import lnh.connection
import lnh.requests
from lnh import ways
from lnh.connection import Channel, Connection, Link
from lnh.ways import Way
from lnh_common import bundles, channel, codec, wire
from lnh_common.bundles import Bundle
from lnh_common.bus import curve, zap
from lnh_common.channel import SessionKeys, Statement
from lnh_common.errors import (
    ChannelInvalid,
    LnhError,
    MemberBehind,
    MemberReadOnly,
    NoCluster,
    NotActivated,
    OutcomeUnknown,
    UnknownOperation,
    Unreachable,
)
from lnh_common.messages.objects import DESTROY, FIND, SHOW
from lnh_common.messages.session import HELLO, PROBE, WAYS
from lnh_common.wire import Header, Kind
from processes import free_base_port

KEYS = SessionKeys.derive(b"s" * 32, b"token")
IDENTITY = Ed25519PrivateKey.generate()
PUBLIC = IDENTITY.public_key().public_bytes_raw()
CLUSTER = b"c" * 16
SEED = bytes(range(96))
WITHIN = 20.0

Answer = dict[str, object] | LnhError | None  # None: nothing is said


@dataclass
class Member:
    """One member's client port: refuses probes as a balancer does, and answers as its test says.

    Args:
        serve: what it answers to a request.
        keeps: answers that are kept back until `release`.
    """

    serve: Callable[[Header], Answer] = lambda _: {"by": "it"}
    epoch: int = 1
    keys: curve.KeyPair = field(default_factory=curve.KeyPair.generate)
    port: int = 0
    deaf: bool = False  # takes messages in, and says nothing at all
    kept: bool = False
    asked: Counter[int] = field(default_factory=Counter)  # requests, by id
    probes: int = 0
    ways: tuple[dict[str, object], ...] = ()

    def __enter__(self) -> Self:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._zap = zap.socket(self._context)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        curve.serve(self._socket, self.keys)
        self.port = self.port or free_base_port()
        self._socket.bind(f"tcp://127.0.0.1:{self.port}")
        self._over = threading.Event()
        self._back: list[list[bytes]] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Be gone, as a process that is killed."""
        if not self._over.is_set():
            self._over.set()
            self._thread.join()
            self._socket.close()
            self._zap.close()
            self._context.term()

    @property
    def way(self) -> Way:
        return Way(f"127.0.0.1:{self.port}", self.keys.raw_public)

    def told(self, state: str) -> dict[str, object]:
        return {"address": self.way.address, "key": self.way.key, "group": "local", "state": state}

    def _run(self) -> None:
        while not self._over.is_set():
            if self._zap.poll(0):
                self._zap.send_multipart(zap.answer(self._zap.recv_multipart(), zap.everyone))
            if not self.kept and not self.deaf:
                for message in self._back:
                    self._socket.send_multipart(message)
                self._back.clear()
            if not self._socket.poll(5):
                continue
            client, *frames = self._socket.recv_multipart()
            for entry in bundles.unpack(frames):
                self._take(client, entry)

    def _take(self, client: bytes, entry: bundles.Entry) -> None:
        header = Header.parse(entry.header)
        if header.operation == PROBE.name:
            self.probes += 1
            if not self.deaf:
                answer = Bundle()
                answer.add(entry.tag, *wire.error_frames(header, UnknownOperation("no such thing")))
                self._socket.send_multipart([client, answer.take()])
            return
        if header.operation != HELLO.name:
            self.asked[header.request_id] += 1
        frames = self._answer(header, entry.body)
        if frames is not None:
            answer = Bundle()
            answer.add(entry.tag, *frames)
            self._back.append([client, answer.take()])

    def _answer(self, header: Header, body: bytes) -> list[bytes] | None:
        if header.operation == WAYS.name:
            answer: Answer = {"ways": list(self.ways)}
        else:
            answer = self.serve(header)
        if answer is None:
            return None
        if isinstance(answer, (NoCluster, NotActivated, Unreachable)):
            return wire.error_frames(header, answer)
        if header.operation == HELLO.name:
            public = channel.channel_public_bytes(SEED)
            statement = Statement(
                channel.FORMAT, CLUSTER, "test", self.epoch, public, 2_000_000_000, b"m" * 16, self.way.key
            )
            encoded, signature = statement.sign(IDENTITY)
            fields = {"statement": encoded, "signature": signature, "identity": PUBLIC, "product": "0"}
            return [header.answer(Kind.REPLY).pack(), b"", codec.encode(fields)]
        return [header.answer(Kind.REPLY).pack(), b"", channel.seal_reply(KEYS, header, body, answer)]


@contextmanager
def connected(*members: Member, epoch: int = 0, failover: bool = True) -> Iterator[Connection]:
    first, *others = members
    link = Link(first.way.address, first.keys.public, curve.KeyPair.generate())
    with Connection(
        link,
        PUBLIC,
        CLUSTER,
        client=b"k" * 16,
        epoch=epoch,
        alternates=[each.way for each in others],
        failover=failover,
    ) as connection:
        yield connection


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that is alive is not taken for dead where this machine stands still for a moment."""
    monkeypatch.setattr(ways, "CONNECT_WITHIN", WITHIN / 2)
    monkeypatch.setattr(ways, "PROVE_WITHIN", WITHIN / 2)
    monkeypatch.setattr(lnh.connection, "_LEARN_WITHIN", WITHIN)


def step_until(one: Channel, condition: Callable[[], object]) -> None:
    """Have a channel do its work until it is so."""
    end = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < end
        one.step(0.1)


@pytest.fixture
def running() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def by(name: str) -> Callable[[Header], Answer]:
    return lambda _: {"by": name}


def show(connection: Connection, timeout: float = WITHIN) -> object:
    return connection.call(SHOW, {"handle": b"h" * 16}, timeout, token=b"token", seal=KEYS)["by"]


def test_a_request_under_way_goes_to_another_member_when_its_own_dies(running: ExitStack) -> None:
    a = running.enter_context(Member(serve=lambda _: None))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b))
    answers: list[object] = []
    with connection.channel() as one:
        under_way = [one.submit(SHOW, {"handle": b"h" * 16}, WITHIN, token=b"token", seal=KEYS) for _ in range(64)]
        frames = [list(request.frames) for request in under_way]
        step_until(one, lambda: sum(a.asked.values()) == 64)
        a.end()
        answers += [one.wait(request)["by"] for request in under_way]
        assert [list(request.frames) for request in under_way] == frames
    assert answers == ["b"] * 64
    assert set(b.asked.values()) == {1}
    assert connection.way == b.way


def test_a_member_that_is_silent_is_left_and_its_late_answer_counts_if_it_is_the_first(
    running: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = running.enter_context(Member(serve=by("a")))
    b = running.enter_context(Member(serve=by("b"), kept=True))
    connection = running.enter_context(connected(a, b))
    assert show(connection) == "a"
    a.deaf = True
    with connection.channel() as one:
        request = one.submit(SHOW, {"handle": b"h" * 16}, WITHIN, token=b"token", seal=KEYS)
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(ways, "PROVE_WITHIN", 0.3)
            step_until(one, lambda: b.asked)
        assert not request.done
        a.deaf = False
        assert one.wait(request)["by"] == "a"
        b.kept = False
        later = one.submit(SHOW, {"handle": b"h" * 16}, WITHIN, token=b"token", seal=KEYS)
        assert one.wait(later)["by"] == "b"
        assert request.result()["by"] == "a", "the second answer is dropped"
    assert a.probes


def test_a_slow_operation_is_asked_once(running: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lnh.requests, "SILENCE", (WITHIN, WITHIN))
    monkeypatch.setattr(ways, "DOUBT_AFTER", 0.02)
    a = running.enter_context(Member(serve=by("a"), kept=True))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b))
    with connection.channel() as one:
        request = one.submit(SHOW, {"handle": b"h" * 16}, WITHIN, token=b"token", seal=KEYS)
        step_until(one, lambda: a.probes >= 3)
        a.kept = False
        assert one.wait(request)["by"] == "a"
    assert a.asked == {request.header.request_id: 1}
    assert not b.asked


@pytest.mark.parametrize("refusal", [NoCluster("expelled"), NotActivated("no secret"), Unreachable("stopping")])
def test_a_member_that_serves_nobody_is_left(running: ExitStack, refusal: LnhError) -> None:
    a = running.enter_context(Member(serve=lambda _: refusal))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b))
    assert show(connection) == "b"


def test_a_statement_is_had_from_another_member_when_one_serves_nobody(running: ExitStack) -> None:
    a = running.enter_context(Member(serve=lambda _: NoCluster("not yet")))
    b = running.enter_context(Member(epoch=3))
    connection = running.enter_context(connected(a, b))
    assert connection.statement(WITHIN).epoch == 3


def test_an_older_channel_epoch_is_refused_and_a_newer_one_had_elsewhere(running: ExitStack) -> None:
    a, b = running.enter_context(Member(epoch=1)), running.enter_context(Member(epoch=2))
    connection = running.enter_context(connected(a, b, epoch=2))
    assert connection.statement(WITHIN).epoch == 2
    assert connection.way == b.way
    both = running.enter_context(connected(a, b, epoch=3))
    with pytest.raises(ChannelInvalid, match="seen 3"):
        both.statement(WITHIN)


def test_a_read_only_member_is_alive_and_stays(running: ExitStack) -> None:
    a = running.enter_context(Member(serve=lambda _: MemberReadOnly("cut off")))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b))
    with pytest.raises(MemberReadOnly):
        connection.call(DESTROY, {"handle": b"h" * 16}, WITHIN, token=b"token", seal=KEYS)
    assert connection.way == a.way
    assert not b.asked


def behind(milliseconds: int) -> LnhError:
    """What a member says that has been behind for so long."""
    return MemberBehind("not in step: no such object", {"whole_until": 1_000, "behind_ms": milliseconds})


def test_what_a_member_that_is_behind_cannot_tell_is_asked_of_another(running: ExitStack) -> None:
    a = running.enter_context(Member(serve=lambda _: behind(60_000)))
    b = running.enter_context(Member(serve=lambda _: behind(60_000)))
    c = running.enter_context(Member(serve=by("c")))
    connection = running.enter_context(connected(a, b, c))
    assert [show(connection) for _ in range(3)] == ["c"] * 3
    assert connection.way == c.way
    assert sum(a.asked.values()) == 1


def test_where_every_member_is_behind_it_is_said_at_the_deadline(running: ExitStack) -> None:
    a = running.enter_context(Member(serve=lambda _: behind(60_000)))
    b = running.enter_context(Member(serve=lambda _: behind(60_000)))
    connection = running.enter_context(connected(a, b))
    with pytest.raises(MemberBehind, match="not in step"):
        show(connection, 1.0)
    assert a.asked
    assert b.asked


def test_where_the_others_are_gone_the_one_that_is_behind_is_what_is_told_of(running: ExitStack) -> None:
    a = running.enter_context(Member(serve=lambda _: behind(60_000)))
    b = running.enter_context(Member())
    b.end()
    connection = running.enter_context(connected(a, b))
    with pytest.raises(MemberBehind):
        show(connection, 2.0)


def test_without_failover_a_member_that_is_behind_is_believed_to_be_at_once(running: ExitStack) -> None:
    a = running.enter_context(Member(serve=lambda _: behind(60_000)))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b, failover=False))
    with pytest.raises(MemberBehind):
        show(connection)
    assert set(a.asked.values()) == {1}
    assert not b.asked


def test_a_member_that_was_behind_for_a_moment_only_is_asked_again(running: ExitStack) -> None:
    answers: list[Answer] = [behind(10), behind(500), {"by": "a"}]
    a = running.enter_context(Member(serve=lambda _: answers.pop(0)))
    connection = running.enter_context(connected(a, failover=False))
    assert show(connection) == "a"


def test_what_is_under_way_at_a_member_that_is_behind_stays_there(running: ExitStack) -> None:
    def serve(header: Header) -> Answer:
        return None if header.operation == FIND.name else behind(60_000)

    a = running.enter_context(Member(serve=serve))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b))
    with connection.channel() as one:
        slow = one.submit(FIND, {}, WITHIN, token=b"token", seal=KEYS)
        step_until(one, lambda: a.asked)
        quick = one.submit(SHOW, {"handle": b"h" * 16}, WITHIN, token=b"token", seal=KEYS)
        assert one.wait(quick)["by"] == "b"
        assert b.asked == {quick.header.request_id: 1}
        assert not slow.done


@pytest.mark.parametrize("current", [False, True])
def test_a_listing_is_taken_from_a_member_that_is_behind_unless_a_current_one_is_demanded(
    running: ExitStack, current: bool
) -> None:
    listed: Answer = {"objects": [], "more": False, "behind": {"whole_until": 1_000, "behind_ms": 60_000}}
    a = running.enter_context(Member(serve=lambda _: listed))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b))
    found = connection.call(FIND, {}, WITHIN, token=b"token", seal=KEYS, current=current)
    assert found == ({"by": "b"} if current else listed)
    alone = running.enter_context(connected(a, b, failover=False))
    if current:
        with pytest.raises(MemberBehind, match=r"1970-01-01 00:00:01 UTC.* may not be all"):
            alone.call(FIND, {}, WITHIN, token=b"token", seal=KEYS, current=True)


def test_a_write_that_may_have_been_made_is_not_called_undone_by_a_member_that_is_behind(running: ExitStack) -> None:
    a = running.enter_context(Member(serve=lambda _: None))
    connection = running.enter_context(connected(a))
    with connection.channel() as one:
        request = one.submit(DESTROY, {"handle": b"h" * 16}, 6.0, token=b"token", seal=KEYS)
        step_until(one, lambda: a.asked)
        a.serve = lambda _: behind(60_000)
        step_until(one, lambda: request.done)
    with pytest.raises(OutcomeUnknown):
        request.result()


def test_a_write_that_may_have_been_made_is_not_called_undone_by_a_read_only_member(running: ExitStack) -> None:
    a = running.enter_context(Member(serve=lambda _: None))
    b = running.enter_context(Member(serve=lambda _: MemberReadOnly("cut off")))
    connection = running.enter_context(connected(a, b))
    with connection.channel() as one:
        request = one.submit(DESTROY, {"handle": b"h" * 16}, 6.0, token=b"token", seal=KEYS)
        step_until(one, lambda: a.asked)
        a.end()
        step_until(one, lambda: request.done)
    assert b.asked[request.header.request_id] > 1
    with pytest.raises(OutcomeUnknown):
        request.result()


def test_without_failover_a_client_stays_and_says_that_it_cannot_reach_its_member(running: ExitStack) -> None:
    a = running.enter_context(Member(serve=by("a")))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b, failover=False))
    assert show(connection) == "a"
    assert connection.alternates == ()
    a.end()
    with pytest.raises(Unreachable):
        show(connection, 3.0)
    assert not b.asked


def test_with_every_member_gone_requests_wait_and_the_first_to_come_back_answers(running: ExitStack) -> None:
    a = running.enter_context(Member(serve=by("a")))
    b = running.enter_context(Member(serve=by("b")))
    connection = running.enter_context(connected(a, b))
    assert show(connection) == "a"
    a.end()
    b.end()
    with pytest.raises(Unreachable):
        show(connection, 3.0)
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(show(connection)))
    thread.start()
    running.enter_context(Member(serve=by("b again"), keys=b.keys, port=b.port))
    thread.join(WITHIN)
    assert answers == ["b again"]


def test_many_threads_go_over_together_and_all_go_back(running: ExitStack) -> None:
    a = running.enter_context(Member(serve=by("a")))
    b = running.enter_context(Member(serve=by("b")))
    a.ways = b.ways = (a.told("read-write"), b.told("read-write"))
    connection = running.enter_context(connected(a))
    connection.learn(b"", b"token", KEYS)
    assert connection.alternates == (Way(b.way.address, b.way.key, "local"),)
    over = threading.Event()
    heard: Counter[object] = Counter()
    errors: list[Exception] = []

    def ask() -> None:
        try:
            while not over.is_set():
                heard[show(connection)] += 1
                connection.learn(b"", b"token", KEYS)
        except Exception as error:
            errors.append(error)

    def hears(name: str) -> None:
        before = heard[name]
        end = time.monotonic() + WITHIN
        while heard[name] < before + 32 and not errors:
            assert time.monotonic() < end, f"{name} is not heard: {heard}"
            time.sleep(0.01)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    try:
        hears("a")
        a.end()
        hears("b")
        running.enter_context(Member(serve=by("a again"), keys=a.keys, port=a.port, ways=a.ways))
        hears("a again")
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert connection.way.key == a.way.key
