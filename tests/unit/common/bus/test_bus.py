"""The bus between services: asking, answering, deadlines, bounds, and what a broken connection means."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq

from lnh_common import limits
from lnh_common.bus import curve, zap
from lnh_common.bus.asyncio_socket import Pump
from lnh_common.bus.blocking import Caller
from lnh_common.bus.client import Client
from lnh_common.bus.curve import KeyPair
from lnh_common.bus.gate import Gate
from lnh_common.bus.server import Call, Server
from lnh_common.errors import (
    Busy,
    ConfigurationInvalid,
    ConnectionClosed,
    DeadlineExceeded,
    FileModeUnsafe,
    Internal,
    MalformedMessage,
    NameTaken,
    OutcomeUnknown,
    UnknownOperation,
    Unreachable,
    UnsupportedVersion,
)
from lnh_common.messages import store
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.wire import codec
from lnh_common.wire import frames as wire
from waits import until

KEY = store.Key(table="t", id=b"x")


class Bus:
    """A server and a client of it."""

    def __init__(self, address: str, **server: int) -> None:
        self.address = address
        self.server = Server(address, name="test", **server)  # type: ignore[arg-type]
        self.casts: list[tuple[str, Message]] = []
        self.client = Client(address, on_cast=lambda name, message: self.casts.append((name, message)))


@asynccontextmanager
async def bus(path: Path, **server: int) -> AsyncIterator[Bus]:
    made = Bus(f"ipc://{path}/s", **server)
    try:
        yield made
    finally:
        await made.client.close()
        await made.server.close(grace=0.1)


async def counted(_: Call, request: store.Count) -> store.Counted:
    return store.Counted(count=len(request.table), index=1, current=True)


async def forever(_: Call, request: Message) -> Any:
    await asyncio.Event().wait()
    raise AssertionError("never")


def run(scene: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scene(), 20)

    asyncio.run(limited())


def test_many_requests_in_flight_each_get_their_own_answer(tmp_path: Path) -> None:
    async def scene() -> None:
        async with bus(tmp_path) as it:
            it.server.serve(store.COUNT, counted)
            it.server.start()
            answers = await asyncio.gather(
                *(it.client.ask(store.COUNT, store.Count(table="t" * (1 + n % 30))) for n in range(500))
            )
            assert [answer.count for answer in answers] == [1 + n % 30 for n in range(500)]

    run(scene)


def test_what_a_handler_raises_is_the_answer(tmp_path: Path) -> None:
    async def taken(_: Call, request: store.Count) -> store.Counted:
        raise NameTaken("the name 'a' is taken", {"name": "a"})

    async def buggy(_: Call, request: store.Get) -> store.Got:
        raise KeyError("a secret value")

    async def scene() -> None:
        async with bus(tmp_path) as it:
            it.server.serve(store.COUNT, taken)
            it.server.serve(store.GET, buggy)
            it.server.start()
            with pytest.raises(NameTaken) as refused:
                await it.client.ask(store.COUNT, store.Count(table="t"))
            assert refused.value.detail == {"name": "a"}
            with pytest.raises(Internal) as failed:
                await it.client.ask(store.GET, store.Get(key=KEY))
            assert "secret" not in str(failed.value)

    run(scene)


def test_an_operation_that_is_not_served_is_refused(tmp_path: Path) -> None:
    async def scene() -> None:
        async with bus(tmp_path) as it:
            it.server.serve(store.COUNT, counted)
            it.server.start()
            with pytest.raises(UnknownOperation):
                await it.client.ask(store.SCAN, store.Scan(table="t"))

    run(scene)


@pytest.mark.parametrize(
    ("operation", "message", "expected"),
    [
        (store.COUNT, store.Count(table="t"), DeadlineExceeded),
        (store.DESTROY, store.Destroy(cluster=b"c"), OutcomeUnknown),
    ],
)
def test_a_handler_that_runs_past_the_deadline_is_cancelled(
    tmp_path: Path, operation: Operation[Message, Message], message: Message, expected: type[Exception]
) -> None:
    async def scene() -> None:
        async with bus(tmp_path) as it:
            it.server.serve(operation, forever)
            it.server.start()
            await until(lambda: it.client.connected, "the connection")
            with pytest.raises(expected):
                await it.client.ask(operation, message, timeout=0.1)
            await until(lambda: it.server.in_flight == 0, "the end of all requests")

    run(scene)


def test_more_requests_than_the_limit_are_busy_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with bus(tmp_path, in_flight=3) as it:
            it.server.serve(store.COUNT, forever)
            it.server.start()
            asks = [asyncio.create_task(it.client.ask(store.COUNT, store.Count(table="t"))) for _ in range(3)]
            await until(lambda: it.server.in_flight == 3, "three requests")
            with pytest.raises(Busy):
                await it.client.ask(store.COUNT, store.Count(table="t"))
            await it.client.close()
            results = await asyncio.gather(*asks, return_exceptions=True)
            assert {type(result) for result in results} == {ConnectionClosed}

    run(scene)


def test_a_request_waits_for_a_server_that_starts_late(tmp_path: Path) -> None:
    async def scene() -> None:
        async with bus(tmp_path) as it:
            it.server.serve(store.COUNT, counted)
            ask = asyncio.create_task(it.client.ask(store.COUNT, store.Count(table="ab")))
            await asyncio.sleep(0)
            it.server.start()
            assert (await ask).count == 2

    run(scene)


def test_nobody_there_is_unreachable_at_the_deadline(tmp_path: Path) -> None:
    async def scene() -> None:
        async with bus(tmp_path) as it:
            with pytest.raises(Unreachable):
                await it.client.ask(store.DESTROY, store.Destroy(cluster=b""), timeout=0.05)

    run(scene)


def test_a_broken_connection_fails_what_was_sent_at_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with bus(tmp_path) as it:
            it.server.serve(store.COUNT, forever)
            it.server.serve(store.DESTROY, forever)
            it.server.start()
            read = asyncio.create_task(it.client.ask(store.COUNT, store.Count(table="t")))
            write = asyncio.create_task(it.client.ask(store.DESTROY, store.Destroy(cluster=b"")))
            await until(lambda: it.server.in_flight == 2, "two requests")
            it.server._pump.stop()  # type: ignore[union-attr]  # as if the process died: no answer is sent
            it.server._socket.close(0)
            with pytest.raises(Unreachable):
                await read
            with pytest.raises(OutcomeUnknown):
                await write
            it.server = Server(it.address, name="again")
            it.server.serve(store.COUNT, counted)
            it.server.start()
            assert (await it.client.ask(store.COUNT, store.Count(table="t"))).count == 1

    run(scene)


def test_an_answer_before_the_connection_broke_counts_and_its_owner_hears_of_both(tmp_path: Path) -> None:
    links: list[bool] = []

    def serve_once(address: str) -> None:
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            router.linger = 5000
            router.bind(address)
            for _ in range(2):  # the second is never answered
                assert router.poll(5000)
                client, *frames = router.recv_multipart()
                header = wire.Header.parse(frames[0])
                if header.request_id == 1:
                    counted = codec.encode(store.Counted(count=7, index=1, current=True))
                    router.send_multipart([client, header.answer(wire.Kind.REPLY).pack(), b"", counted])

    async def scenario() -> None:
        address = f"ipc://{tmp_path}/s"
        thread = threading.Thread(target=serve_once, args=(address,))
        client = Client(address, on_link=links.append)
        thread.start()
        try:
            await until(lambda: client.connected, "the connection")
            first = asyncio.ensure_future(client.ask(store.COUNT, store.Count(table="t", scope=b"s"), timeout=10))
            await asyncio.sleep(0)
            lost = asyncio.ensure_future(client.ask(store.COUNT, store.Count(table="t", scope=b"s"), timeout=10))
            assert (await first).count == 7
            with pytest.raises(Unreachable, match="closed the connection"):
                await lost
            await until(lambda: not client.connected, "the end of the connection")
            assert links == [True, False]
        finally:
            thread.join()
            await client.close()

    asyncio.run(scenario())


def test_what_was_given_up_before_the_peer_came_does_not_leave_any_more(tmp_path: Path) -> None:
    async def scenario() -> None:
        address = f"ipc://{tmp_path}/s"
        client = Client(address)
        with pytest.raises(Unreachable):
            await client.ask(store.COUNT, store.Count(table="t", scope=b"s"), timeout=0.05)
        served: list[int] = []

        async def count(_: Call, request: store.Count) -> store.Counted:
            served.append(len(request.table))
            return store.Counted(count=0, index=1, current=True)

        server = Server(address, name="test")
        server.serve(store.COUNT, count)
        server.start()
        try:
            await client.ask(store.COUNT, store.Count(table="later", scope=b"s"), timeout=10)
            assert served == [len("later")]
        finally:
            await client.close()
            await server.close(grace=0.1)

    asyncio.run(scenario())


def test_casts_travel_both_ways(tmp_path: Path) -> None:
    heard: list[int] = []

    async def scene() -> None:
        async with bus(tmp_path) as it:

            async def attach(call: Call, request: store.Attach) -> store.Attached:
                assert it.server.cast(call.identity, store.INVALIDATE, store.Invalidate(sequence=7, keys=(KEY,)))
                return store.Attached(lease_ms=1, index=0, fresh=True, read_write=True)

            async def invalidated(call: Call, cast: store.Invalidated) -> None:
                heard.append(cast.sequence)

            it.server.serve(store.ATTACH, attach)
            it.server.on_cast(store.INVALIDATED, invalidated)
            it.server.start()
            await it.client.ask(store.ATTACH, store.Attach(worker=bytes(16)))
            await until(lambda: bool(it.casts), "the cast")
            assert it.casts == [("store.forget", store.Invalidate(sequence=7, keys=(KEY,)))]
            assert it.client.cast(store.INVALIDATED, store.Invalidated(sequence=7, worker=bytes(16)))
            await until(lambda: heard == [7], "what the worker says")

    run(scene)


def test_a_cast_to_a_vanished_peer_is_noticed_and_harms_nobody(tmp_path: Path) -> None:
    async def scene() -> None:
        async with bus(tmp_path) as it:
            it.server.serve(store.COUNT, counted)
            it.server.start()
            assert not it.server.cast(b"nobody", store.INVALIDATE, store.Invalidate(sequence=1, keys=()))
            assert it.server.dropped["peer gone"] == 1
            assert (await it.client.ask(store.COUNT, store.Count(table="t"))).count == 1

    run(scene)


def test_close_lets_what_is_in_flight_finish(tmp_path: Path) -> None:
    async def scene() -> None:
        async with bus(tmp_path) as it:
            go = asyncio.Event()

            async def slow(_: Call, request: store.Count) -> store.Counted:
                await go.wait()
                return store.Counted(count=5, index=0, current=True)

            it.server.serve(store.COUNT, slow)
            it.server.start()
            ask = asyncio.create_task(it.client.ask(store.COUNT, store.Count(table="t")))
            await until(lambda: it.server.in_flight == 1, "a request")
            closing = asyncio.create_task(it.server.close(grace=5))
            await asyncio.sleep(0)
            with pytest.raises(Unreachable):
                await it.client.ask(store.COUNT, store.Count(table="t"))
            go.set()
            assert (await ask).count == 5
            await closing

    run(scene)


def header(version: int = 1, kind: int = 0, operation: str = "store.count") -> bytes:
    return codec.encode([version, kind, 9, operation, b"", 1000])


COUNT_BODY = codec.encode(store.Count(table="t"))


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([header(), b""], MalformedMessage),
        ([header(), b"", COUNT_BODY, b"more"], MalformedMessage),
        ([header(), bytes(limits.TOKEN_BYTES + 1), COUNT_BODY], MalformedMessage),
        ([header(), b"", bytes(limits.BODY_BYTES + 1)], MalformedMessage),
        ([header(), b"", b"\xff"], MalformedMessage),
        ([header(), b"", codec.encode({"table": "t", "extra": 1})], MalformedMessage),
        ([header(), b"", codec.encode({"table": 7})], MalformedMessage),
        ([header(version=2), b"", COUNT_BODY], UnsupportedVersion),
        ([header(version=0), b"", COUNT_BODY], UnsupportedVersion),
        ([header(operation="no.such"), b"", COUNT_BODY], UnknownOperation),
        ([header(operation="store.get"), b"", COUNT_BODY], UnknownOperation),
    ],
)
def test_a_malformed_request_gets_its_error(tmp_path: Path, frames: list[bytes], expected: type[Exception]) -> None:
    async def scene() -> None:
        async with bus(tmp_path) as it:
            it.server.serve(store.COUNT, counted)
            it.server.start()
            raw: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
            raw.linger = 0
            raw.connect(it.address)
            try:
                raw.send_multipart(frames)
                await until(lambda: bool(raw.poll(0)), "an answer")
                answer = raw.recv_multipart()
            finally:
                raw.close()
            assert wire.Header.parse(answer[0]).request_id == 9
            assert type(wire.parse_error(answer[2])) is expected

    run(scene)


def test_what_cannot_be_answered_is_dropped_and_counted(tmp_path: Path) -> None:
    async def scene() -> None:
        async with bus(tmp_path) as it:
            it.server.serve(store.COUNT, counted)
            it.server.start()
            raw: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
            raw.linger = 0
            raw.connect(it.address)
            try:
                for frames in ([b""], [b"garbage", b"", b""], [header(kind=1), b"", b""], [codec.encode([1, 0, -1])]):
                    raw.send_multipart(frames)
                await until(lambda: it.server.dropped["malformed"] == 4, "four malformed messages")
            finally:
                raw.close()
            assert (await it.client.ask(store.COUNT, store.Count(table="t"))).count == 1

    run(scene)


def test_curve_admits_with_the_right_server_key_and_explains_a_wrong_one() -> None:
    async def scene() -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        keys = KeyPair.generate()
        server = Server("tcp://127.0.0.1:*", name="curve", keys=keys, context=context)
        server.serve(store.COUNT, counted)
        server.start()
        good = Client(server.address, server_key=keys.public)
        bad = Client(server.address, server_key=KeyPair.generate().public)
        try:
            assert (await good.ask(store.COUNT, store.Count(table="t"))).count == 1
            await until(lambda: bool(bad._dealer.problem), "the refusal")
            with pytest.raises(Unreachable, match=r"handshake|key"):
                await bad.ask(store.COUNT, store.Count(table="t"), timeout=1.0)
            assert server.dropped["handshake"] > 0
        finally:
            await good.close()
            await bad.close()
            await server.close()
            context.term()

    run(scene)


def test_who_was_refused_comes_in_once_it_is_admitted() -> None:
    """Its key had not been heard of yet; both kinds of asker."""

    async def scene() -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        keys, asker = KeyPair.generate(), KeyPair.generate()
        admitted = threading.Event()
        gate = Gate(lambda _: admitted.is_set(), context)
        server = Server("tcp://127.0.0.1:*", name="curve", keys=keys, context=context)
        server.serve(store.COUNT, counted)
        server.start()

        def ask_from_a_thread() -> int:
            with Caller(server.address, server_key=keys.public, keys=asker, reach=20.0) as caller:
                return caller.ask(store.COUNT, store.Count(table="t"), timeout=20.0).count

        client = Client(server.address, server_key=keys.public, keys=asker)
        waiting = asyncio.create_task(client.ask(store.COUNT, store.Count(table="t"), timeout=20.0))
        thread = asyncio.create_task(asyncio.to_thread(ask_from_a_thread))
        try:
            await until(lambda: server.dropped["handshake"] >= 2, "two refused handshakes")
            admitted.set()
            assert (await waiting).count == 1
            assert await thread == 1
        finally:
            await asyncio.gather(waiting, thread, return_exceptions=True)
            await client.close()
            await server.close()
            gate.close()
            context.term()

    run(scene)


def test_an_authenticator_admits_by_key_and_the_refused_learn_why() -> None:
    async def scene() -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        keys, welcome, unwelcome = KeyPair.generate(), KeyPair.generate(), KeyPair.generate()
        door = zap.socket(context)
        guard = Pump(
            door,
            lambda frames: guard.send(zap.answer(frames, lambda handshake: handshake.key == welcome.public)),
        )
        server = Server("tcp://127.0.0.1:*", name="curve", keys=keys, context=context)
        server.serve(store.COUNT, counted)
        server.start()
        good = Client(server.address, server_key=keys.public, keys=welcome)
        bad = Client(server.address, server_key=keys.public, keys=unwelcome)
        try:
            assert (await good.ask(store.COUNT, store.Count(table="t"))).count == 1
            await until(lambda: bool(bad._dealer.problem), "the refusal")
            with pytest.raises(Unreachable, match="refused this key"):
                await bad.ask(store.COUNT, store.Count(table="t"), timeout=1.0)
        finally:
            await good.close()
            await bad.close()
            await server.close()
            guard.stop()
            door.close()
            context.term()

    run(scene)


def test_a_peer_that_is_told_not_now_comes_again_by_itself() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    keys, guard, verdicts = KeyPair.generate(), zap.socket(context), [True, None, None]
    server, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    server.linger = client.linger = 0
    server.handshake_ivl = 100  # after which libzmq ends a connection whose handshake did not
    curve.serve(server, keys)
    curve.connect(client, keys.public, KeyPair.generate())
    try:
        client.connect(f"tcp://127.0.0.1:{server.bind_to_random_port('tcp://127.0.0.1')}")
        client.send(b"asks")
        for left in (2, 1, 0):
            assert guard.poll(10_000)
            guard.send_multipart(zap.answer(guard.recv_multipart(), lambda _: verdicts.pop()))
            assert len(verdicts) == left
        assert server.poll(10_000)
    finally:
        for socket in (server, client, guard):
            socket.close()
        context.term()


def test_a_key_file_is_private_or_refused(tmp_path: Path) -> None:
    keys = KeyPair.generate()
    path = tmp_path / "client.curve"
    keys.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert KeyPair.load(path) == keys
    with pytest.raises(FileExistsError):
        keys.save(path)
    path.chmod(0o640)
    with pytest.raises(FileModeUnsafe):
        KeyPair.load(path)
    path.chmod(0o600)
    path.write_text("something else")
    with pytest.raises(ConfigurationInvalid):
        KeyPair.load(path)
    assert keys.secret.reveal().decode() not in repr(keys)


def test_an_empty_request_type_takes_an_empty_map_only() -> None:
    assert codec.decode_as(codec.encode(Empty()), Empty) == Empty()
    with pytest.raises(MalformedMessage):
        codec.decode_as(codec.encode({"a": 1}), Empty)
