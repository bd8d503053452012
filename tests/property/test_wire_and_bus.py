"""Whatever bytes arrive: an error or a drop, and the service goes on answering."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cbor2
import msgspec
import pytest
import zmq
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lnh_common import limits
from lnh_common.bus import intake, zap
from lnh_common.bus.blocking import Caller
from lnh_common.bus.server import Call, Server
from lnh_common.errors import LnhError, MalformedMessage, UnsupportedVersion
from lnh_common.messages import store
from lnh_common.messages.base import OPERATIONS, Message
from lnh_common.wire import codec
from lnh_common.wire import frames as wire
from sizes import sized

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.floats(allow_nan=False) | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)
good_headers = st.builds(
    wire.request,
    st.sampled_from(["store.count", "store.get", "no.such", ""]),
    st.integers(0, 2**64 - 1),
    st.integers(0, limits.MAX_DEADLINE_MS),
    route=st.binary(max_size=16),
    kind=st.sampled_from(list(wire.Kind)),
)
near_headers = st.tuples(
    st.integers(-1, 3), st.integers(-1, 5), st.integers(-1, 2**70), plain, plain, st.integers(-1, 700_000)
).map(lambda fields: cbor2.dumps(list(fields)))


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A good message that something happened to."""
    data = bytearray(draw(good_headers).pack())
    match draw(st.integers(0, 3)):
        case 0:
            del data[draw(st.integers(0, len(data) - 1)) :]
        case 1:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        case 2:
            data += draw(st.binary(min_size=1, max_size=8))
        case _:
            data[0:0] = draw(st.binary(min_size=1, max_size=4))
    return bytes(data)


headers = (
    st.binary(max_size=40) | near_headers | changed() | good_headers.map(wire.Header.pack) | plain.map(cbor2.dumps)
)
bodies = st.binary(max_size=60) | plain.map(cbor2.dumps) | st.just(codec.encode(store.Count(table="t")))
messages = st.lists(headers | bodies, max_size=6) | st.tuples(headers, st.binary(max_size=8), bodies).map(list)

NASTY = [
    b"\x81" * 100 + b"\x00",  # deeply nested arrays
    b"\xa1\x00" * 100 + b"\x00",  # deeply nested maps
    b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",  # an array of 2**64 - 1 items
    b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",  # 2**63 - 1 bytes
    b"\x7b\x00\x00\x00\xff\xff\xff\xff\xff",  # text of 2**40 bytes
    b"\xbb\x00\x00\x00\x01\x00\x00\x00\x00",  # a map of 2**32 pairs
    b"\x9f\x00\xff",  # an indefinite array
    b"\x5f\x41\x00\xff",  # indefinite bytes
    b"\xa2\x61a\x00\x61a\x01",  # the same key twice
    b"\xc2\x49\x01\x00\x00\x00\x00\x00\x00\x00\x00",  # a bignum
    b"\xc0\x74" + b"2026-01-01T00:00:00Z",  # a date
    b"\xd8\x1c\x81\xd8\x1d\x00",  # a shared reference to itself
    b"\xd9\xd9\xf7\x00",  # self-described CBOR
    b"\x62\xff\xff",  # text that is not UTF-8
    b"\xf9\x7e\x00",  # NaN
    b"\xff",
    b"\x1f",
    b"\x00\x00",
]


@given(headers)
@settings(max_examples=sized(200))
def test_a_header_parses_or_is_refused(frame: bytes) -> None:
    try:
        header = wire.Header.parse(frame)
    except (MalformedMessage, UnsupportedVersion):
        return
    assert wire.Header.parse(header.pack()) == header


def _parsed(frame: bytes, parse: Callable[[bytes], wire.Header]) -> wire.Header | str:
    try:
        return parse(frame)
    except LnhError as error:
        return repr(error)


@given(good_headers, headers)
def test_what_is_remembered_of_a_header_reads_and_writes_as_cbor_does(header: wire.Header, frame: bytes) -> None:
    packed = header.pack()
    assert packed == cbor2.dumps(list(msgspec.structs.astuple(header)))
    fields = [header.version, 1, header.request_id, header.operation, header.route, bytes(32)]
    assert header.bound(wire.Kind.REPLY, bytes(32)) == cbor2.dumps(fields)
    for one in (packed, packed[:3] + frame[3:], frame):
        for _ in range(2):
            assert _parsed(one, wire.Header.parse) == _parsed(one, wire.Header._parse)


@given(good_headers)
def test_a_packed_header_parses_to_itself(header: wire.Header) -> None:
    assert wire.Header.parse(header.pack()) == header
    assert len(header.pack()) <= limits.HEADER_BYTES


@pytest.mark.parametrize("data", NASTY)
@pytest.mark.parametrize("kind", [store.Count, store.Commit, store.Item])
def test_nasty_cbor_is_no_message(data: bytes, kind: type[Message]) -> None:
    with pytest.raises(MalformedMessage):
        codec.decode_as(data, kind)


@given(st.sampled_from(sorted(OPERATIONS)), st.binary(max_size=100) | plain.map(cbor2.dumps))
@settings(max_examples=sized(200))
def test_a_body_is_its_message_or_malformed(name: str, body: bytes) -> None:
    for kind in (OPERATIONS[name].request, OPERATIONS[name].reply):
        try:
            message = codec.decode_as(body, kind)
        except MalformedMessage:
            continue
        assert isinstance(message, kind)


@given(st.binary(max_size=60) | plain.map(cbor2.dumps))
def test_an_error_from_a_peer_is_always_an_error(body: bytes) -> None:
    try:
        error = wire.parse_error(body)
    except MalformedMessage:
        return
    assert isinstance(error, LnhError)


@given(messages)
@example([cbor2.dumps([1, 0, True, "x"]), b"", b""])
@settings(max_examples=sized(200))
def test_intake_accepts_or_refuses_and_an_error_answers_its_request(frames: list[bytes]) -> None:
    taken = intake.read(frames, {"store.count"})
    if isinstance(taken, intake.Accepted):
        assert taken.header.operation == "store.count"
    elif taken.answer is not None:
        answered = wire.Header.parse(taken.answer[0])
        assert answered.kind is wire.Kind.ERROR
        assert answered.request_id == cbor2.loads(frames[0])[2]


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_a_zap_request_always_gets_seven_or_fewer_frames_and_admits_only_curve(frames: list[bytes]) -> None:
    reply = zap.answer(frames, zap.everyone)
    assert len(reply) == 6
    if reply[2] == b"200":
        assert frames[5] == b"CURVE"
        assert len(frames[6]) == 32


async def count(call: Call, request: store.Count) -> store.Counted:
    return store.Counted(count=42, index=0, current=True)


class Live:
    """A server in a thread of its own, as a client sees it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._thread.start()
        assert self._ready.wait(10)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self.raw = context.socket(zmq.DEALER)
        self.raw.linger = 0
        self.raw.connect(address)
        self.caller = Caller(address)

    async def _main(self) -> None:
        server = Server(self.address, name="fuzzed")
        server.serve(store.COUNT, count)
        server.start()
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._ready.set()
        await self._stop.wait()
        await server.close()

    def close(self) -> None:
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self.raw.close()
        self.caller.close()


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    path: Path = tmp_path_factory.mktemp("bus")
    served = Live(f"ipc://{path}/s")
    yield served
    served.close()


@given(st.lists(messages.filter(bool), max_size=5))
@settings(max_examples=sized(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_live_server_goes_on_answering(live: Live, several: list[list[bytes]]) -> None:
    for frames in several:
        live.raw.send_multipart(frames)
    assert live.caller.ask(store.COUNT, store.Count(table="t"), timeout=5).count == 42


def test_a_live_server_survives_what_is_nasty(live: Live) -> None:
    good = wire.request("store.count", 1, 1000).pack()
    for data in NASTY:
        live.raw.send_multipart([data, b"", b""])
        live.raw.send_multipart([good, b"", data])
    assert live.caller.ask(store.COUNT, store.Count(table="t"), timeout=5).count == 42
