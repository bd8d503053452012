"""The balancer as a process, with small echo workers behind it."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from doors import BODY, Client, Door, Records, becomes
from lnh_common import limits
from lnh_common.bus import curve
from lnh_common.errors import (
    Busy,
    ClientRevoked,
    ClientUnknown,
    DeadlineExceeded,
    LnhError,
    MalformedMessage,
    UnknownOperation,
    Unreachable,
    UnsupportedVersion,
)
from lnh_common.messages import admin
from lnh_common.messages.base import Empty
from lnh_common.wire import codec
from lnh_services.balancer.clients import REGISTERED_ONLY
from lnh_services.hsm.worker.handlers.table import SERVED
from processes import Processes
from waits import wait_until

FAILURES_LIBZMQ_KEEPS = 2000  # events that a monitor holds which nobody reads


@pytest.fixture
def empty(processes: Processes, short_path: Path) -> Iterator[Door]:
    """A balancer without a worker."""
    door = Door(processes, short_path / "a")
    yield door
    for client in door.clients:
        client.socket.close()


@pytest.fixture
def door(empty: Door) -> Door:
    """A balancer with two workers."""
    for number in range(2):
        empty.start_worker(number)
    return empty


def test_an_answer_comes_back_byte_for_byte_to_its_asker(door: Door) -> None:
    clients = [door.client() for _ in range(3)]
    for round_ in range(20):
        for number, client in enumerate(clients):
            client.send(body=b"%d of %d" % (round_, number))
    for number, client in enumerate(clients):
        answers = {header.request_id: body for header, body in (client.answer() for _ in range(20))}
        assert answers == {round_ + 1: b"%d of %d" % (round_, number) for round_ in range(20)}
    status = door.status()
    assert (status.in_flight, status.waiting) == (0, 0)
    assert status.p99 >= status.p50 > 0


def test_both_workers_are_used(door: Door) -> None:
    client = door.client()
    for _ in range(200):
        client.send()
    for _ in range(200):
        client.answer()

    def shared() -> bool:
        """Whether each has half, which is so where all is sent before one of them is taken for silent."""
        for number in range(2):
            os.kill(door.workers[number].pid, signal.SIGSTOP)
        for _ in range(10):
            client.send()
        wait_until(lambda: door.status().in_flight == 10, "ten requests in flight")
        backends = [backend.requests for backend in door.status().backends]
        for number in range(2):
            os.kill(door.workers[number].pid, signal.SIGCONT)
        for _ in range(10):
            assert client.answer()[1] == BODY
        return backends == [5, 5]

    wait_until(shared, "half of the work at each")


def header(version: object = 1, kind: object = 0, operation: object = "key.sign") -> bytes:
    return codec.encode([version, kind, 77, operation, b"", 5000])


MALFORMED: list[tuple[list[bytes], type[LnhError]]] = [
    ([header()], MalformedMessage),
    ([header(), b""], MalformedMessage),
    ([header(), b"", b"", b""], MalformedMessage),
    ([header(), *[b""] * 50], MalformedMessage),
    ([header(), bytes(limits.TOKEN_BYTES + 1), b""], MalformedMessage),
    ([header(), b"", bytes(limits.BODY_BYTES + 1)], MalformedMessage),
    ([header(version=9), b"", b""], UnsupportedVersion),
    ([header(operation="no.such"), b"", b""], UnknownOperation),
    ([header(operation="store.commit"), b"", b""], UnknownOperation),
    ([header(operation="hsm.ping"), b"", b""], UnknownOperation),
    ([codec.encode([1, 0, 77, "key.sign", bytes(17), 5000]), b"", b""], MalformedMessage),
    ([codec.encode([1, 0, 77, "key.sign", b"", -1]), b"", b""], MalformedMessage),
    ([codec.encode([1, 0, 77, "key.sign", b"", 5000, 1]), b"", b""], MalformedMessage),
]
UNANSWERABLE: list[list[bytes]] = [
    [b""],
    [b"garbage", b"", b""],
    [header(kind=1), b"", b""],
    [header(kind=3), b"", b""],
    [header(operation=7), b"", b""],
    [b"\x86" * 400, b"", b""],
    [bytes(limits.HEADER_BYTES + 1), b"", b""],
]


def test_a_malformed_message_costs_its_sender_that_message_alone(door: Door) -> None:
    client, other = door.client(), door.client()
    for frames, expected in MALFORMED:
        client.socket.send_multipart(frames)
        answered, error = client.answer()
        assert (answered.request_id, type(error)) == (77, expected)
    for frames in UNANSWERABLE:
        client.socket.send_multipart(frames)
    assert client.exchange() == BODY
    assert other.exchange() == BODY
    assert door.status().dropped == len(UNANSWERABLE)


def test_random_frames_do_not_stop_it(door: Door) -> None:
    draw = random.Random(7)  # one seed, one run
    client = door.client()
    good = header()
    for _ in range(3000):
        frames = [draw.randbytes(draw.randrange(60)) for _ in range(draw.randrange(1, 6))]
        if draw.random() < 0.5:
            changed = bytearray(good)
            changed[draw.randrange(len(changed))] = draw.randrange(256)
            frames[0] = bytes(changed)
        client.socket.send_multipart(frames)
    assert door.client().exchange() == BODY
    wait_until(lambda: door.status().in_flight == 0, "nothing in flight")


def test_garbage_and_half_open_connections_do_not_stop_it(door: Door) -> None:
    ports = (door.member.settings.client_port, door.member.settings.door_port)
    opened = [socket.create_connection(("127.0.0.1", port)) for port in ports for _ in range(50)]
    try:
        for number, one in enumerate(opened):
            if number % 2:
                one.send(os.urandom(200))
        assert door.client().exchange() == BODY
    finally:
        for one in opened:
            one.close()
    assert door.client().exchange() == BODY


def test_handshakes_that_fail_at_any_port_stop_nothing(door: Door) -> None:
    settings = door.member.settings
    client = door.client()
    for port in (settings.client_port, settings.peer_port, settings.door_port):
        for _ in range(2 * FAILURES_LIBZMQ_KEEPS // 3):
            for one in [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]:
                one.close()
        assert client.exchange() == BODY
        assert door.client().exchange() == BODY
        assert door.door_client().exchange("hello", codec.encode(Empty())) == codec.encode(Empty())


def test_a_bundle_of_a_hundred_thousand_empty_entries_costs_no_more_than_reading_it(door: Door) -> None:
    stranger, client = door.client(), door.client()
    lost = stranger.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    for _ in range(50):
        stranger.socket.send(bytes(16 * 130_000))
    begun = time.monotonic()
    for _ in range(20):
        assert client.exchange() == BODY
    assert time.monotonic() - begun < 5, "a second and a half for each of the fifty, before"
    assert lost.poll(10_000), "and its sender is disconnected"


def test_what_clients_send_is_decrypted_in_a_thread_of_its_own(door: Door) -> None:
    """So what goes to workers, and comes back from them, does not wait for large messages."""

    def spent() -> list[int]:
        tasks = Path(f"/proc/{door.process.pid}/task")
        names = {(task / "comm").read_text().strip(): task for task in tasks.iterdir()}
        return [int((names[f"ZMQbg/IO/{n}"] / "schedstat").read_text().split()[0]) for n in range(2)]

    client, before = door.client(), spent()
    for _ in range(30):
        assert isinstance(client.exchange("no.such", bytes(limits.BODY_BYTES - 1024)), UnknownOperation)
    fronts, inner = (after - begun for after, begun in zip(spent(), before, strict=True))
    assert fronts > 5_000_000
    assert inner < fronts / 3
    before = spent()
    for _ in range(100):
        door.client()
    wait_until(lambda: door.status().connections > 100, "the handshakes", every=0.2)
    fronts, inner = (after - begun for after, begun in zip(spent(), before, strict=True))
    assert fronts > 5_000_000
    assert inner < fronts / 3


def test_a_client_with_another_server_key_does_not_get_in(door: Door) -> None:
    stranger = Client(door.member.settings.client_port, curve.KeyPair.generate().public)
    door.clients.append(stranger)
    stranger.send()
    assert door.client().exchange() == BODY
    assert not stranger.socket.poll(200)


def test_a_client_that_does_not_read_does_not_stop_others(door: Door) -> None:
    slow = door.client(holds=1)
    big = bytes(limits.BODY_BYTES - 1024)
    for _ in range(100):
        slow.send(body=big)
    quick = door.client()
    wait_until(lambda: door.status().in_flight == 0, "an answer to everything the slow one asked")
    for _ in range(50):
        assert quick.exchange() == BODY


def test_more_than_one_connection_may_have_in_flight_is_busy_at_once(door: Door) -> None:
    for worker in door.workers.values():
        os.kill(worker.pid, signal.SIGSTOP)
    greedy, modest = door.client(), door.client()
    for _ in range(limits.REQUESTS_PER_CLIENT + 10):
        greedy.send()
    refused = [greedy.answer() for _ in range(10)]
    assert {type(error) for _, error in refused} == {Busy}
    modest.send()
    for worker in door.workers.values():
        os.kill(worker.pid, signal.SIGCONT)
    assert modest.answer()[1] == BODY
    answers = Counter(type(greedy.answer()[1]) for _ in range(limits.REQUESTS_PER_CLIENT))
    assert answers == {bytes: limits.REQUESTS_PER_CLIENT}


def test_requests_of_a_worker_killed_under_load_are_answered_by_another(door: Door) -> None:
    client = door.client()
    outstanding: set[int] = set()
    answered = 0
    killed = False
    while answered < 3000:
        while len(outstanding) < 64:
            outstanding.add(client.send())
        answered_header, body = client.answer(within=5)
        outstanding.remove(answered_header.request_id)
        assert body == BODY
        answered += 1
        if answered == 1000 and not killed:
            killed = True
            os.kill(door.workers[1].pid, signal.SIGSTOP)  # so that it surely has some when it dies
        if answered == 1500:
            door.workers[1].kill()
    for _ in range(len(outstanding)):
        assert client.answer(within=5)[1] == BODY
    assert door.status().retried > 0
    door.start_worker(1)
    assert client.exchange() == BODY


def test_a_request_no_worker_answers_ends_at_its_deadline(empty: Door) -> None:
    for number in range(2):
        empty.start_worker(number, "hold")
    client = empty.client()
    begun = time.monotonic()
    error = client.exchange(deadline=0.3)
    assert type(error) is DeadlineExceeded
    assert re.search(
        r"worker-\d has had it for 0\.\d s without an answer; it last answered anything 0\.\d s", str(error)
    )
    assert time.monotonic() - begun > 0.25  # and `exchange` waits no longer than 5 s more
    wait_until(lambda: empty.status().in_flight == 0, "nothing in flight")


def test_without_a_worker_a_request_waits_a_while_and_is_then_unreachable(empty: Door) -> None:
    client = empty.client()
    assert type(client.exchange()) is Unreachable
    ready = empty.prepare_worker(0)
    asked = client.send()
    wait_until(lambda: empty.status().waiting == 1, "the request")
    ready()
    answered, body = client.answer()
    assert (answered.request_id, body) == (asked, BODY)


def test_a_request_that_kills_every_worker_is_given_up(empty: Door) -> None:
    client = empty.client()
    prepared = [(number, empty.prepare_worker(number, "hold")) for number in (0, 1, 0)]
    client.send(deadline=20)
    for number, ready in prepared:
        ready()
        wait_until(lambda at=number: empty.status().backends[at].requests == 1, "the request")  # type: ignore[misc]
        empty.workers[number].kill()
    answered, error = client.answer(within=5)
    assert type(error) is Unreachable
    assert answered.request_id == 1


def test_the_door_answers_hello_alone(door: Door) -> None:
    stranger = door.door_client()
    assert stranger.exchange("hello", codec.encode(Empty())) == codec.encode(Empty())
    for operation in ("key.sign", "session.login", "client.register"):
        assert type(stranger.exchange(operation, codec.encode(Empty()))) is UnknownOperation


def test_logins_from_one_address_are_limited(door: Door) -> None:
    client = door.client()
    answers = Counter()  # type: ignore[var-annotated]
    for _ in range(3):
        for _ in range(200):
            client.send("session.login")
        answers.update(type(client.answer()[1]) for _ in range(200))
    assert answers[Busy] > 100
    assert client.exchange() == BODY


def test_a_stop_finishes_what_is_in_flight(door: Door) -> None:
    for worker in door.workers.values():
        os.kill(worker.pid, signal.SIGSTOP)
    client = door.client()
    asked = client.send()
    wait_until(lambda: door.status().in_flight == 1, "the request")
    door.process.terminate()
    wait_until(lambda: door.status().state == "stopping", "the stop")
    assert type(client.exchange()) is Unreachable
    for worker in door.workers.values():
        os.kill(worker.pid, signal.SIGCONT)
    answered, body = client.answer()
    assert (answered.request_id, body) == (asked, BODY)
    assert door.process.wait(10) == 0


def test_it_waits_without_work(door: Door) -> None:
    def spent() -> float:
        fields = Path(f"/proc/{door.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    door.client().exchange()
    before, begun = spent(), time.monotonic()
    wait_until(lambda: time.monotonic() - begun > 2, "two seconds")
    assert spent() - before < 0.1


def test_it_does_not_load_the_code_that_opens_bodies(processes: Processes, short_path: Path) -> None:
    check = "import sys, lnh_services.balancer.service as _; sys.exit('lnh_common.wire.channel' in sys.modules)"
    assert processes.start("-c", check).wait(20) == 0


def test_a_worker_killed_with_hundreds_of_answers_on_the_way_takes_nobody_along(door: Door) -> None:
    client = door.client()
    outstanding: set[int] = set()

    def keep(going: int) -> None:
        while len(outstanding) < 500:
            outstanding.add(client.send())
        for _ in range(going):
            answered, body = client.answer()
            assert body == BODY
            outstanding.discard(answered.request_id)  # one that was moved may have been answered before

    for _ in range(12):
        for _ in range(4):
            keep(250)
        door.workers[1].kill()
        keep(100)
        assert door.process.poll() is None
        door.start_worker(1)


def test_what_registered_clients_may_ask_is_refused_to_others_and_revoked_ones(door: Door) -> None:
    registered, stranger = door.client(), door.client()
    for client in (registered, stranger):
        assert client.exchange() == BODY, "a balancer that has read no clients lets the hsm decide"
    records = Records(door)
    try:
        becomes(stranger, ClientUnknown)
        becomes(registered, ClientUnknown)
        records.put("web-1", registered.keys.raw_public)
        becomes(registered, BODY)
        another = door.client(keys=registered.keys)
        assert another.exchange() == BODY
        for operation in sorted(REGISTERED_ONLY):
            assert isinstance(stranger.exchange(operation), ClientUnknown)
            assert registered.exchange(operation) == BODY
        for operation in (
            "session.login",
            "client.register",
            "session.renew",
            "keyring.create",
            admin.STATUS.name,
        ):
            assert stranger.exchange(operation) == BODY, "appliance users act from anywhere"
        assert stranger.exchange("hello") == codec.encode(Empty()), "answered for everybody at once"

        records.put("web-1", registered.keys.raw_public, revoked=True)
        for client in (registered, another):
            becomes(client, ClientRevoked)
        assert registered.exchange("session.login") == BODY, "the hsm says under its seal that it was revoked"
        records.put("web-2", registered.keys.raw_public)
        becomes(registered, BODY)
        records.put("odd", b"", damaged=True)
        records.delete("web-2")
        becomes(registered, ClientRevoked)

        records.process.kill()
        records.process.wait()
        assert isinstance(stranger.exchange(), ClientUnknown), "without the store, what was read last holds"
        records.start()
        records.put("web-3", stranger.keys.raw_public)
        becomes(stranger, BODY)
    finally:
        records.caller.close()


def test_the_balancer_knows_which_operations_are_a_registered_clients_only() -> None:
    rules = {name: served.rule for name, served in SERVED.items() if served.rule is not None}
    of_clients = {name for name, rule in rules.items() if rule.keyring and rule.permission is None and not rule.client}
    assert of_clients == REGISTERED_ONLY
