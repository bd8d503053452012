"""An exception at any line of a call, as a signal's handler raises one, leaves connections whole; so does a fork."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import zmq

import lnh
import lnh_common
from lnh.cluster import Cluster
from lnh.net.connection import Connection
from lnh.net.pool import CHANNELS
from lnh.sessions import Session
from lnh_common import limits
from lnh_common.bus.blocking import Caller
from lnh_common.errors import Busy, ConnectionClosed, MalformedMessage
from lnh_common.messages.base import Empty
from lnh_common.messages.objects import DESTROY, SHOW
from lnh_common.messages.session import HELLO, LoggedIn, Welcome
from lnh_common.wire import codec
from lnh_common.wire.frames import Header, Kind
from models.loopback import KEYS, WITHIN, Member, connected
from waits import exit_code_of

HANDLE = b"h" * 16
_OURS = tuple(str(Path(each.__file__ or "").parent) for each in (lnh, lnh_common))


class Stopped(Exception):
    """What a signal's handler raises."""


class Lines:
    """Counts the lines, and the returns, of the product's own code, and raises at one of them.

    Args:
        at: which; 0 for none.
    """

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.seen = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(None)

    def _call(self, frame: FrameType, event: str, _: object) -> Any:
        caller: FrameType | None = frame
        while caller is not None:
            if caller.f_code.co_name == "__del__":
                return None  # an exception there is shown and dropped, as Python says
            caller = caller.f_back
        return self._line if frame.f_code.co_filename.startswith(_OURS) else None

    def _line(self, frame: FrameType, event: str, _: object) -> Any:
        if event in {"line", "return"}:
            self.seen += 1
            if self.seen == self.at:
                raise Stopped
        return self._line


def interrupt_each_line(call: Callable[[], object], afterwards: Callable[[], object], step: int = 1) -> int:
    """Interrupt a call at each of its lines in turn, and do something else after each; how many there were."""
    at = 1
    while True:
        lines = Lines(at)
        try:
            with lines.watched():
                call()
        except Stopped:
            pass
        else:
            if lines.seen < at:
                return at
        afterwards()
        at += step


def show(connection: Connection, timeout: float = WITHIN) -> None:
    connection.call(SHOW, {"handle": HANDLE}, timeout, token=b"token", seal=KEYS)


def a_session(connection: Connection) -> Session:
    """A session whose token is good for a day, and is due to be renewed at each look."""
    session = Session(connection, b"s" * 32, LoggedIn(token=b"token", session=b"x" * 16, expires=1 << 40, ends=1 << 41))
    session._credentials = b"token", KEYS
    return session


@pytest.fixture
def member() -> Iterator[Member]:
    with Member() as member:
        yield member


def test_a_call_interrupted_at_any_line_leaves_its_connection_usable(member: Member) -> None:
    with connected(member) as connection:
        show(connection)
        assert interrupt_each_line(lambda: show(connection), lambda: show(connection)) > 100
        assert 1 <= len(connection._pool._idle) <= len(connection._pool._loans) <= 2


def test_making_a_channel_interrupted_at_any_line_leaves_its_connection_usable(member: Member) -> None:
    """The first call makes it: sockets, handshake, monitor."""
    with connected(member) as connection:

        def afterwards() -> None:
            connection._pool._idle.clear()  # so that the next call makes one again

        assert interrupt_each_line(lambda: show(connection), afterwards, step=7) > 100
        show(connection)


def test_many_calls_at_once_interrupted_at_any_line_leave_their_connection_usable(member: Member) -> None:
    with connected(member) as connection:
        session = a_session(connection)

        def sign_some() -> None:
            for _ in session.call_each(((SHOW, {"handle": HANDLE}) for _ in range(3)), 2):
                pass

        sign_some()
        assert interrupt_each_line(sign_some, lambda: show(connection), step=3) > 100


def test_asking_who_is_there_interrupted_at_any_line_leaves_its_connection_usable(member: Member) -> None:
    with connected(member) as connection:
        connection.statement()

        def anew() -> None:
            connection._statement = None
            connection.statement()

        assert interrupt_each_line(anew, lambda: connection.statement(WITHIN), step=3) > 100


def test_a_stopped_iteration_leaves_nothing_under_way(member: Member) -> None:
    with connected(member) as connection:
        answers = a_session(connection).call_each(((SHOW, {"handle": HANDLE}) for _ in range(100)), 8)
        next(answers)
        answers.close()  # type: ignore[attr-defined]  # a generator
        assert {len(loan.channel.requests) for loan in connection._pool._idle} == {0}
        show(connection)


def test_a_write_that_was_left_before_it_was_sent_is_never_sent(member: Member) -> None:
    with connected(member) as connection:
        show(connection)
        before = dict(member.asked)
        with connection.channel() as one:
            one.submit(DESTROY, {"handle": HANDLE}, WITHIN, token=b"token", seal=KEYS)
        show(connection)
        assert sum(member.asked.values()) == sum(before.values()) + 1


def test_what_is_refused_before_it_is_sent_costs_no_connection(member: Member) -> None:
    with connected(member) as connection:
        show(connection)
        (loan,) = connection._pool._idle
        with pytest.raises(MalformedMessage):
            connection.call(SHOW, {"handle": bytes(2 * limits.BODY_BYTES)}, token=b"token", seal=KEYS)
        assert connection._pool._idle == [loan]


@pytest.fixture
def finalizers_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in a finalizer is dropped, as Python does; pytest would keep it, and all that its frames hold."""
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)


@pytest.mark.usefixtures("finalizers_drop")
def test_signals_that_raise_in_the_midst_of_calls_spoil_no_later_one(member: Member) -> None:
    armed = False
    stopped = 0

    def raise_stopped(*_: object) -> None:
        if armed:
            raise Stopped

    before = signal.signal(signal.SIGALRM, raise_stopped)
    try:
        with connected(member) as connection:
            show(connection)
            for turn in range(400):
                armed = True
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.0002 + (turn % 40) * 0.00005)
                    show(connection)
                    armed = False
                except Stopped:
                    armed = False
                    stopped += 1
            show(connection)
            assert len(connection._pool._loans) < 8
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert stopped


def test_a_lost_loan_makes_room_for_another(member: Member) -> None:
    with connected(member) as connection:
        loans = [connection._pool.borrow(1.0) for _ in range(CHANNELS)]
        with pytest.raises(Busy):
            show(connection, 0.05)
        assert len(loans) == CHANNELS
        del loans  # nobody gives them back
        show(connection)


def test_an_exception_of_whoever_serves_the_console_leaves_its_caller_usable(short_path: Path) -> None:
    address = f"ipc://{short_path / 'console'}"
    over = threading.Event()

    def serve() -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.bind(address)
            while not over.is_set():
                if router.poll(5):
                    client, *frames = router.recv_multipart()
                    header = Header.parse(frames[0])
                    fields = {"statement": b"", "signature": b"", "identity": b"", "product": str(header.request_id)}
                    router.send_multipart([client, header.answer(Kind.REPLY).pack(), b"", codec.encode(fields)])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with Caller(address) as caller:

            def ask() -> Welcome:
                return caller.ask(HELLO, Empty(), WITHIN)

            def afterwards() -> None:
                assert ask().product == str(caller._last_id)

            ask()
            assert interrupt_each_line(ask, afterwards) > 40
    finally:
        over.set()
        thread.join()


def in_a_child(work: Callable[[], None]) -> int:
    """The exit status of a forked child that does this: 0, or 1 when it raised; it has `WITHIN` seconds."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return exit_code_of(child, WITHIN)


def test_a_child_is_told_at_once_that_a_connection_is_its_parents(member: Member) -> None:
    with connected(member) as connection:
        session = a_session(connection)
        cluster = Cluster(connection, None, timeout=WITHIN)  # type: ignore[arg-type]  # of no registration
        show(connection)
        held = threading.Event(), threading.Event()

        def hold() -> None:
            """Be a thread of the parent that is in the midst of everything that has a lock."""
            with (
                connection._statement_mutex.hold(),
                connection._routes._mutex.hold(),
                session._renewing.hold(),
                cluster._session_mutex.hold(),
            ):
                held[0].set()
                held[1].wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held[0].wait()

        def use() -> None:
            uses: list[Callable[[], object]] = [
                lambda: show(connection),
                connection.statement,
                lambda: connection.endpoint,
                lambda: connection.alternates,
                lambda: session.ask(SHOW, lnh_common.messages.objects.Show(handle=HANDLE)),
                lambda: session.random(8),
                lambda: list(session.call_each([(SHOW, {"handle": HANDLE})], 1)),
                session.logout,
                lambda: list(cluster.keyrings()),
                cluster.client_session,
            ]
            for one in uses:
                with pytest.raises(ConnectionClosed, match="belongs to process"):
                    one()
            session._look_at = session._renew_at = 0.0
            with pytest.raises(ConnectionClosed):
                session.credentials()
            with session:
                pass
            connection.close()
            cluster.close()

        try:
            assert in_a_child(use) == 0
        finally:
            held[1].set()
            thread.join()
        show(connection)


def test_a_child_opens_a_connection_of_its_own(member: Member) -> None:
    with connected(member) as connection:
        show(connection)

        def use() -> None:
            with connected(member) as own:
                show(own)

        assert in_a_child(use) == 0
        show(connection)


def test_a_child_is_told_that_a_console_is_its_parents(short_path: Path) -> None:
    with Caller(f"ipc://{short_path / 'console'}") as caller:

        def use() -> None:
            with pytest.raises(ConnectionClosed, match="belongs to process"):
                caller.ask(HELLO, Empty(), WITHIN)
            caller.close()

        assert in_a_child(use) == 0


def test_a_closed_caller_says_so(short_path: Path) -> None:
    caller = Caller(f"ipc://{short_path / 'console'}")
    caller.close()
    caller.close()
    with pytest.raises(ConnectionClosed):
        caller.ask(HELLO, Empty(), WITHIN)
