"""Nobody takes the service away: a balancer as a process, and peers that ask for more than their share of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import zmq

from doors import BODY, Client, Door, Records, becomes
from lnh_common import limits
from lnh_common.errors import Busy, ClientUnknown
from lnh_common.messages.base import Empty
from lnh_common.wire import codec, frames
from lnh_common.wire.bundles import ENTRIES, Bundle
from processes import Processes
from waits import wait_until

LOGGED_IN = b"logged in"  # a session's token, as the echo worker knows it
HELLO = codec.encode(Empty())


@pytest.fixture
def door(processes: Processes, short_path: Path) -> Iterator[Door]:
    """A balancer with two workers."""
    one = Door(processes, short_path / "a")
    for number in range(2):
        one.start_worker(number)
    yield one
    for client in one.clients:
        client.socket.close()


@pytest.fixture
def records(door: Door) -> Iterator[Records]:
    """The clients' records, which the balancer has read: who is not in them is a stranger."""
    found = Records(door)
    becomes(door.client(), ClientUnknown)
    yield found
    found.caller.close()


def registered(door: Door, records: Records, name: str) -> Client:
    """A client with a record of its own."""
    client = door.client()
    records.put(name, client.keys.raw_public)
    becomes(client, BODY)
    return client


def megabytes(pid: int) -> float:
    """Resident memory of a process, which any user may read."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def test_a_message_of_hundreds_of_megabytes_costs_its_sender_the_connection(door: Door, records: Records) -> None:
    client, stranger = registered(door, records, "web-1"), door.client()
    before = megabytes(door.process.pid)
    largest = before
    piece = zmq.Frame(bytes(limits.MIB))
    for at in (stranger, door.client()):
        at.socket.send_multipart([piece] * 400, copy=False)
        for _ in range(100):
            assert client.exchange() == BODY
            largest = max(largest, megabytes(door.process.pid))
    assert largest - before < 150
    wait_until(lambda: stranger.exchange("session.login") == BODY, "the stranger, connected again")


def test_a_message_of_very_many_frames_at_the_door_costs_its_sender_the_connection(door: Door) -> None:
    visitor = door.door_client()
    assert visitor.exchange("hello", HELLO) == HELLO
    before = megabytes(door.process.pid)
    visitor.socket.send_multipart([zmq.Frame(bytes(4000))] * 60_000, copy=False)
    client, largest = door.client(), before
    for _ in range(100):
        assert client.exchange() == BODY
        largest = max(largest, megabytes(door.process.pid))
    assert largest - before < 150
    assert door.door_client().exchange("hello", HELLO) == HELLO


def test_logins_of_strangers_from_the_same_address_keep_no_client_from_logging_in(door: Door, records: Records) -> None:
    client, stranger = registered(door, records, "web-1"), door.client()
    for _ in range(2):
        for _ in range(200):
            stranger.send("session.login")
        answers = [type(stranger.answer()[1]) for _ in range(200)]
    assert Busy in answers
    for _ in range(20):
        assert client.exchange("session.login") == BODY


def test_however_many_ask_for_hello_a_worker_makes_one_a_second_at_most(door: Door, records: Records) -> None:
    client = registered(door, records, "web-1")
    before, begun = sum(backend.settled for backend in door.status().backends), time.monotonic()
    visitors = [*(door.door_client() for _ in range(3)), *(door.client() for _ in range(3))]
    for visitor in visitors:
        for _ in range(300):
            visitor.send("hello", HELLO)
    for _ in range(50):
        assert client.exchange() == BODY
    assert {type(visitor.answer()[1]) for visitor in visitors for _ in range(300)} <= {bytes, Busy}
    assert visitors[0].exchange("hello", HELLO) == HELLO
    made = sum(backend.settled for backend in door.status().backends) - before - 50
    assert made <= 2 + time.monotonic() - begun


def test_hellos_that_no_worker_answers_hold_no_place_of_a_clients_request(
    processes: Processes, short_path: Path
) -> None:
    door = Door(processes, short_path / "a")
    door.start_worker(0, "hold")
    visitors = [door.door_client() for _ in range(4)]
    for visitor in visitors:
        for _ in range(1000):
            visitor.send("hello", HELLO)
    client = door.client()
    client.send()
    wait_until(lambda: door.status().in_flight == 2, "one hello, and the client's request")
    for one in door.clients:
        one.socket.close()


def has_dropped_more(door: Door, before: int) -> bool:
    return door.status().dropped > before


def test_a_client_that_asks_without_end_takes_no_other_clients_looks(door: Door, records: Records) -> None:
    flood, other = (registered(door, records, name) for name in ("flood", "other"))
    bundle = Bundle()
    header = frames.request("no.such", 1, 10_000, route=bytes(16)).pack()
    for number in range(ENTRIES):
        bundle.add(number.to_bytes(8, "big"), header, b"", b"")
    message = bundle.take()
    for count in (20_000, *[2000] * 10):
        overdraws = partial(has_dropped_more, door, door.status().dropped)
        for _ in range(count):
            flood.socket.send(message)
        wait_until(overdraws, "a flood of more than its share")
        assert other.exchange() == BODY


def test_strangers_that_bring_more_than_they_may_are_disconnected(door: Door, records: Records) -> None:
    client, small, large = registered(door, records, "web-1"), door.client(), door.client()
    becomes(small, BODY, "session.login")
    stays = small.ended
    lost = large.ended
    for _ in range(3 * limits.STRANGERS.volume // limits.MIB):
        large.send("session.login", bytes(limits.BODY_BYTES - 1024))
    assert lost.poll(20_000), "all of it was read"
    for _ in range(20):
        assert client.exchange() == BODY
    assert small.exchange("session.login") == BODY, "what is small costs nobody the connection"
    assert not stays.poll(0)
    wait_until(lambda: door.client().exchange("session.login") == BODY, "a stranger that comes anew")


def test_one_that_reads_no_answers_is_busy_until_it_reads(door: Door) -> None:
    slow = door.client(holds=1)
    count = limits.SESSIONS.unread // 2 // limits.MIB + limits.ASKED_ON // limits.MIB
    for _ in range(count):
        slow.send(body=bytes(limits.BODY_BYTES - 1024))
    wait_until(lambda: door.status().refused_per_second > 0, "that it is refused")
    answers = set()
    while slow.socket.poll(1000):  # some were lost: an answer that nobody reads is not kept
        answers.add(type(slow.answer()[1]))
    assert answers == {Busy, bytes}
    assert slow.exchange() == BODY, "once it reads, it is served as before"


def test_one_that_asks_on_and_reads_nothing_is_put_out_and_costs_little_memory(door: Door) -> None:
    quick, slow = door.client(), door.client(holds=1)
    other = door.client(keys=slow.keys)
    for client in (quick, other, slow):  # all three are in before one of them is put out
        assert client.exchange() == BODY
    before = megabytes(door.process.pid)
    seen = [before]

    def is_put_out() -> bool:
        seen.append(megabytes(door.process.pid))
        return door.status().connections == 2  # libzmq tells who does not read of it only when it does

    for _ in range(500):
        slow.send(body=bytes(limits.BODY_BYTES - 1024))
    wait_until(is_put_out, "its end")
    again = door.client(keys=slow.keys)
    again.send()
    for client in (quick, other):  # a connection of the same client that reads stays
        assert client.exchange() == BODY
    assert again.ended.poll(20_000), (
        "it was let in again at once"
    )  # libzmq says "not now" by silence until its handshake_ivl
    assert again.answer(within=limits.PUT_OUT_SECONDS + 20)[1] == BODY, "and it may come again"
    assert max(seen) - before < 200


def test_a_flood_of_a_client_without_a_login_lets_a_session_pass(processes: Processes, short_path: Path) -> None:
    door = Door(processes, short_path / "a")
    for number in range(2):
        door.start_worker(number, "slow")
    records = Records(door)
    try:
        becomes(door.client(), ClientUnknown)
        flood, session = (registered(door, records, name) for name in ("flood", "session"))
        session.send(token=LOGGED_IN)
        assert session.answer()[1] == BODY
        for _ in range(limits.CLIENTS.requests):
            flood.send()
        wait_until(lambda: door.status().in_flight > 100, "the flood")
        took = []
        for _ in range(10):
            for _ in range(100):
                flood.send()
            begun = time.monotonic()
            session.send(token=LOGGED_IN)
            assert session.answer()[1] == BODY
            took.append(time.monotonic() - begun)
        assert statistics.median(took) < 0.4, "each waits a second behind the flood, where it has no turns of its own"
    finally:
        records.caller.close()
        for client in door.clients:
            client.socket.close()
