"""Calls of many tasks on one connection, against members of one thread each: answers, cancellations, deadlines, ends."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lnh.aio.net import pool
from lnh.aio.net.connection import Connection, Link
from lnh.aio.sessions import Session
from lnh.net import failover
from lnh.net.requests import Requests
from lnh_common.bus import curve
from lnh_common.errors import (
    ArgumentInvalid,
    Busy,
    ConnectionClosed,
    DeadlineExceeded,
    LnhError,
    ObjectUnknown,
    OutcomeUnknown,
)
from lnh_common.messages.base import Operation
from lnh_common.messages.objects import DESTROY, SHOW
from lnh_common.messages.session import HELLO, RENEW, LoggedIn
from lnh_common.wire.frames import Header
from models import loopback
from models.loopback import KEYS, WITHIN, Member
from waits import exit_code_of, until

HANDLE = b"h" * 16


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that is alive is not taken for dead where this machine stands still for a moment."""
    monkeypatch.setattr(failover, "CONNECT_WITHIN", WITHIN / 2)
    monkeypatch.setattr(failover, "PROVE_WITHIN", WITHIN / 2)


@pytest.fixture
def member() -> Iterator[Member]:
    with Member() as member:
        yield member


@asynccontextmanager
async def connected(*members: Member) -> AsyncIterator[Connection]:
    first, *others = members
    link = Link(first.endpoint.address, first.keys.public, curve.KeyPair.generate())
    async with Connection(
        link, loopback.PUBLIC, loopback.CLUSTER, client=b"k" * 16, alternates=[each.endpoint for each in others]
    ) as connection:
        yield connection


async def ask(connection: Connection, operation: Operation[Any, Any] = SHOW, timeout: float = WITHIN) -> dict[str, Any]:
    return await connection.call(operation, {"handle": HANDLE}, timeout, token=b"token", seal=KEYS)


def a_session(connection: Connection) -> Session:
    session = Session(connection, b"s" * 32, LoggedIn(token=b"token", session=b"x" * 16, expires=1 << 40, ends=1 << 41))
    session._credentials = b"token", KEYS
    return session


async def heard(member: Member, requests: int = 1) -> None:
    """Wait until so many requests have come to a member."""
    await until(lambda: len(member.asked) >= requests, f"{requests} requests")


def run(work: Awaitable[None]) -> None:
    """Run a test's tasks; none is left at its end, and no thread was made for them."""

    async def all_of_it() -> None:
        await work
        assert asyncio.all_tasks() == {asyncio.current_task()}

    threads = set(threading.enumerate())
    asyncio.run(all_of_it())
    assert set(threading.enumerate()) <= threads


def test_many_tasks_ask_on_one_connection_and_each_gets_its_own_answer() -> None:
    with Member(serve=lambda header: {"number": header.request_id}) as member:

        async def work() -> None:
            async with connected(member) as connection:
                answers = await asyncio.gather(*(ask(connection) for _ in range(200)))
                assert len({answer["number"] for answer in answers}) == 200
                assert set(member.asked.values()) == {1}

        run(work())


def test_an_error_is_that_of_the_task_that_asked() -> None:
    def serve(header: Header) -> loopback.Answer:
        return ObjectUnknown("none") if header.operation == DESTROY.name else {"by": "it"}

    with Member(serve=serve) as member:

        async def work() -> None:
            async with connected(member) as connection:
                found = await asyncio.gather(ask(connection, DESTROY), ask(connection), return_exceptions=True)
                assert isinstance(found[0], ObjectUnknown)
                assert found[1] == {"by": "it"}

        run(work())


@pytest.mark.parametrize("operation", [SHOW, DESTROY, HELLO])
def test_a_call_cancelled_at_any_moment_leaves_the_connection_usable(
    member: Member, operation: Operation[Any, Any]
) -> None:
    async def one(connection: Connection) -> object:
        return await (connection.statement(WITHIN) if operation is HELLO else ask(connection, operation))

    async def work() -> None:
        async with connected(member) as connection:
            turns, done = 0, False
            while not done:
                connection._statement = None
                task = asyncio.create_task(one(connection))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                (left,) = await asyncio.gather(task, return_exceptions=True)
                done = turns > 50 and not isinstance(left, asyncio.CancelledError)
                assert not connection._pool._lent
                driver = connection._pool._driver
                assert driver is None or (not driver._shares and len(driver._channel.requests) == 0)
                assert await ask(connection) == {"by": "it"}
                turns += 1 if turns < 50 else turns

    run(work())


def test_a_cancelled_write_that_may_have_been_done_says_so_and_another_does_not() -> None:
    with Member(serve=lambda header: None if header.operation == DESTROY.name else {"by": "it"}) as member:

        async def left_by(work: Awaitable[object], condition: Callable[[], Awaitable[object]]) -> BaseException:
            task = asyncio.ensure_future(work)
            await condition()
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as left:
                await task
            return left.value

        async def work() -> None:
            async with connected(member) as connection:
                unsent = await left_by(ask(connection, DESTROY), lambda: asyncio.sleep(0))
                assert unsent.__cause__ is None
                await ask(connection)
                sent = await left_by(ask(connection, DESTROY), lambda: heard(member, 2))
                assert isinstance(sent.__cause__, OutcomeUnknown)
                assert "object.destroy: sent, but no proven answer" in str(sent.__cause__)
                with pytest.raises(asyncio.TimeoutError) as late:
                    await asyncio.wait_for(ask(connection, DESTROY), 0.5)
                assert isinstance(late.value.__cause__, asyncio.CancelledError)
                assert isinstance(late.value.__cause__.__cause__, OutcomeUnknown)
                assert sorted(member.asked.values()) == [1, 1, 1]

        run(work())


def test_a_read_that_is_cancelled_says_nothing(member: Member) -> None:
    member.deaf = True

    async def work() -> None:
        async with connected(member) as connection:
            task = asyncio.create_task(ask(connection))
            await heard(member)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as left:
                await task
            assert left.value.__cause__ is None

    run(work())


@pytest.mark.parametrize(("operation", "kind"), [(SHOW, DeadlineExceeded), (DESTROY, OutcomeUnknown)])
def test_a_call_ends_at_its_deadline_as_one_of_the_blocking_sdk_does(
    operation: Operation[Any, Any], kind: type[LnhError]
) -> None:
    with Member(serve=lambda _: None) as member:

        async def work() -> None:
            async with connected(member) as connection:
                with pytest.raises(kind) as late:
                    await ask(connection, operation, 0.3)
                assert "no answer within 0.3 s" in str(late.value) or "no proven answer within 0.3 s" in str(late.value)

        run(work())
        with loopback.connected(member) as connection, pytest.raises(kind):
            connection.call(operation, {"handle": HANDLE}, 0.3, token=b"token", seal=KEYS)


def test_what_is_under_way_when_a_member_goes_is_answered_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "CONNECT_WITHIN", 0.5)
    with Member(serve=lambda _: None) as first, Member(serve=lambda _: {"by": "another"}) as second:

        async def work() -> None:
            async with connected(first, second) as connection:
                tasks = [asyncio.create_task(ask(connection)) for _ in range(20)]
                await heard(first, 20)
                first.end()
                assert await asyncio.gather(*tasks) == [{"by": "another"}] * 20
                assert connection.endpoint == second.endpoint
                assert await ask(connection) == {"by": "another"}

        run(work())


def test_a_connection_comes_back_by_itself_to_a_member_that_starts_anew(member: Member) -> None:
    async def work() -> None:
        async with connected(member) as connection:
            await ask(connection)
            member.end()
            task = asyncio.create_task(ask(connection))
            with Member(keys=member.keys, port=member.port, serve=lambda _: {"by": "it again"}):
                assert await task == {"by": "it again"}

    run(work())


def test_a_closed_connection_ends_what_is_under_way_and_takes_no_more(member: Member) -> None:
    member.kept = True

    async def work() -> None:
        async with connected(member) as connection:
            under_way = asyncio.create_task(ask(connection))
            await heard(member)
            await connection.close()
            await connection.close()
            with pytest.raises(ConnectionClosed):
                await ask(connection)
            driver = connection._pool._driver
            assert driver is not None
            member.kept = False
            assert await under_way == {"by": "it"}
            assert connection._pool._driver is None
            assert all(line.socket.closed for line in driver._channel.lines)

    run(work())


def test_a_closed_connection_leaves_nothing_in_its_loop(member: Member) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        read: set[int] = set()
        add, remove = loop.add_reader, loop.remove_reader

        def added(descriptor: int, *arguments: Any) -> None:
            read.add(descriptor)
            add(descriptor, *arguments)

        def removed(descriptor: int) -> bool:
            read.discard(descriptor)
            return remove(descriptor)

        loop.add_reader, loop.remove_reader = added, removed  # type: ignore[method-assign,assignment]
        async with connected(member) as connection:
            await ask(connection)
            assert read
            driver = connection._pool._driver
            assert driver is not None
        assert not read
        assert driver._timer is None or driver._timer.cancelled()

    run(work())


def test_what_comes_after_its_deadline_keeps_no_loop_busy(member: Member) -> None:
    member.kept = True

    async def work() -> None:
        async with connected(member) as connection:
            with pytest.raises(DeadlineExceeded):
                await ask(connection, timeout=0.2)
            driver = connection._pool._driver
            assert driver is not None
            steps = 0
            step = driver._step

            def counted(*, watches: bool) -> None:
                nonlocal steps
                steps += 1
                step(watches=watches)

            driver._step = counted  # type: ignore[method-assign]
            member.kept = False
            await until(lambda: steps, "the late answer")  # nothing else wakes it
            for _ in range(500):
                await asyncio.sleep(0)
            assert steps < 50
            assert await ask(connection) == {"by": "it"}

    run(work())


def test_a_loop_that_stands_still_takes_no_member_for_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "PROVE_WITHIN", 2.0)
    with Member() as first, Member(serve=lambda _: {"by": "another"}) as second:
        first.kept = True

        async def work() -> None:
            async with connected(first, second) as connection:
                task = asyncio.create_task(ask(connection))
                await heard(first)
                await until(lambda: first.probes, "a probe")
                threading.Event().wait(2.5)  # longer than a member has to prove that it is there
                for _ in range(100):
                    await asyncio.sleep(0)
                assert connection.endpoint == first.endpoint
                first.kept = False
                assert await task == {"by": "it"}

        run(work())


def test_a_fault_of_the_channel_is_told_to_all_and_the_next_call_has_another(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with connected(member) as connection:
            await ask(connection)
            with monkeypatch.context() as patched:
                patched.setattr(Requests, "turn", lambda *_: 1 / 0)
                found = await asyncio.gather(*(ask(connection) for _ in range(3)), return_exceptions=True)
                assert [type(each) for each in found] == [ZeroDivisionError] * 3
            assert await ask(connection) == {"by": "it"}

    run(work())


def test_two_clusters_are_used_in_one_loop_beside_the_blocking_sdk(member: Member) -> None:
    with Member(serve=lambda _: {"by": "the other"}) as other, loopback.connected(other) as blocking:

        async def work() -> None:
            async with connected(member) as one, connected(other) as two:
                answers = await asyncio.gather(*(ask(each) for _ in range(20) for each in (one, two)))
                assert answers == [{"by": "it"}, {"by": "the other"}] * 20
                call = functools.partial(blocking.call, SHOW, {"handle": HANDLE}, WITHIN, token=b"token", seal=KEYS)
                assert call() == {"by": "the other"}

        run(work())


def test_a_connection_belongs_to_the_loop_that_first_used_it(member: Member) -> None:
    opened: list[Connection] = []

    async def first() -> None:
        link = Link(member.endpoint.address, member.keys.public, curve.KeyPair.generate())
        opened.append(Connection(link, loopback.PUBLIC, loopback.CLUSTER))  # outside a call nothing is bound to a loop
        await ask(opened[0])

    async def second() -> None:
        with pytest.raises(ConnectionClosed, match="event loop"):
            await ask(opened[0])
        await opened[0].close()

    run(first())
    run(second())


def test_a_child_is_told_that_a_connection_is_its_parents(member: Member) -> None:
    async def work() -> None:
        async with connected(member) as connection:
            await ask(connection)
            child = os.fork()
            if child == 0:
                call = ask(connection)
                try:
                    call.send(None)
                except ConnectionClosed:
                    os._exit(0)
                os._exit(1)
            assert exit_code_of(child, WITHIN) == 0
            assert await ask(connection) == {"by": "it"}

    run(work())


def test_tasks_beyond_the_limit_wait_and_are_told_when_none_comes_back(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "TASKS", 2)
    member.kept = True

    async def work() -> None:
        async with connected(member) as connection:
            first = [asyncio.create_task(ask(connection)) for _ in range(2)]
            await heard(member, 2)
            with pytest.raises(Busy, match="2 tasks"):
                await ask(connection, timeout=0.05)
            waiting = [asyncio.create_task(ask(connection)) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[0].cancel()
            member.kept = False
            assert await asyncio.gather(*first, *waiting[1:]) == [{"by": "it"}] * 4
            assert not connection._pool._waiting

    run(work())


def test_a_stopped_iteration_leaves_nothing_under_way(member: Member) -> None:
    member.serve = lambda header: {"by": "it"} if header.request_id < 4 else None

    async def work() -> None:
        async with connected(member) as connection:
            answers = a_session(connection).call_each(((SHOW, {"handle": HANDLE}) for _ in range(100)), 8)
            assert await anext(answers) == {"by": "it"}
            driver = connection._pool._driver
            assert driver is not None
            assert len(driver._channel.requests) > 0
            await answers.aclose()  # type: ignore[attr-defined]  # a generator
            assert len(driver._channel.requests) == 0
            member.serve = lambda _: {"by": "it"}
            assert await ask(connection) == {"by": "it"}

    run(work())


def test_many_answers_come_in_the_order_of_their_questions() -> None:
    with Member(serve=lambda header: {"number": header.request_id}) as member:

        async def work() -> None:
            async with connected(member) as connection:
                calls = ((SHOW, {"handle": HANDLE}) for _ in range(300))
                numbers = [each["number"] async for each in a_session(connection).call_each(calls, 16)]
                assert len(numbers) == 300
                assert numbers == sorted(numbers)

        run(work())


def test_a_session_is_renewed_once_for_all_the_tasks_that_use_it() -> None:
    renewals: list[Header] = []

    def serve(header: Header) -> loopback.Answer:
        if header.operation == RENEW.name:
            renewals.append(header)
            return {"token": b"token", "session": b"x" * 16, "expires": 1 << 40, "ends": 1 << 41}
        return {"by": "it"}

    with Member(serve=serve) as member:

        async def work() -> None:
            async with connected(member) as connection:
                session = a_session(connection)
                session._renew_at = session._look_at = 0.0
                cancelled = asyncio.create_task(session.credentials())
                await asyncio.sleep(0)
                cancelled.cancel()
                await asyncio.gather(cancelled, return_exceptions=True)
                assert cancelled.cancelled()
                assert session._renew_at == 0.0
                session._look_at = 0.0
                await asyncio.gather(*(session.credentials() for _ in range(50)))
                assert len({header.request_id for header in renewals}) == 1
                assert session._renew_at > 0

        run(work())


def test_a_wrong_argument_is_told_where_it_is_awaited(member: Member) -> None:
    async def work() -> None:
        async with connected(member) as connection:
            wrong = a_session(connection).random("8")  # type: ignore[arg-type]
            with pytest.raises(ArgumentInvalid, match="random: length is str"):
                await wrong
        assert not member.asked

    run(work())
