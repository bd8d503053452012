"""The bare cost of a round trip: CURVE on TCP to a forwarder, ipc to an echo, three frames; nothing of ours between.

What the product's latency and rate are measured against (docs: performance). Each part is its own process, as in a
member: `python bench/echo.py` prints both figures.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import zmq

Context = zmq.Context[zmq.Socket[bytes]]

HEADER = bytes(48)
TOKEN = bytes(300)
BODY = bytes(200)


def echo(address: str) -> None:
    """The far end: answers what it gets."""
    context: Context = zmq.Context.instance()
    socket = context.socket(zmq.ROUTER)
    socket.bind(address)
    while True:
        socket.poll()
        with contextlib.suppress(zmq.Again):
            while True:
                socket.send_multipart(socket.recv_multipart(zmq.NOBLOCK))


def forward(secret: str, port_file: str, *addresses: str) -> None:
    """The middle: frames go round the echoes in turn, and back."""
    context: Context = zmq.Context.instance()
    front = context.socket(zmq.ROUTER)
    front.curve_server = True
    front.curve_secretkey = secret.encode()
    port = front.bind_to_random_port("tcp://127.0.0.1")
    Path(port_file).write_text(f"{port}\n", "ascii")
    backs = []
    poller = zmq.Poller()
    poller.register(front, zmq.POLLIN)
    for address in addresses:
        back = context.socket(zmq.DEALER)
        back.connect(address)
        poller.register(back, zmq.POLLIN)
        backs.append(back)
    turn = 0
    while True:
        for socket, _ in poller.poll():
            with contextlib.suppress(zmq.Again):
                while True:
                    frames = socket.recv_multipart(zmq.NOBLOCK)
                    if socket is front:
                        turn = (turn + 1) % len(backs)
                        backs[turn].send_multipart(frames)
                    else:
                        front.send_multipart(frames)


@contextlib.contextmanager
def connected(echoes: int) -> Iterator[zmq.Socket[bytes]]:
    """A client's socket, connected to a running forwarder with this many echoes behind it."""
    public, secret = zmq.curve_keypair()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as running:
        addresses = [f"ipc://{directory}/{number}" for number in range(echoes)]
        port_file = f"{directory}/port"
        roles = [["echo", address] for address in addresses] + [["forward", secret.decode(), port_file, *addresses]]
        for role in roles:
            process = subprocess.Popen([sys.executable, __file__, *role])
            running.callback(process.wait)
            running.callback(process.kill)
        context: Context = zmq.Context.instance()
        client = context.socket(zmq.DEALER)
        running.callback(client.close, 0)
        client.curve_serverkey = public
        client.curve_publickey, client.curve_secretkey = zmq.curve_keypair()
        client.connect(f"tcp://127.0.0.1:{_port(port_file)}")
        exchange(client, 64, 500)
        yield client


def _port(path: str) -> int:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with contextlib.suppress(FileNotFoundError):
            text = Path(path).read_text("ascii")
            if text.endswith("\n"):
                return int(text)
        time.sleep(0.01)
    raise TimeoutError("the forwarder did not start")


def exchange(client: zmq.Socket[bytes], window: int, total: int) -> float:
    """Messages a second with this many in flight."""
    frames = [HEADER, TOKEN, BODY]
    begun = time.perf_counter()
    sent = min(window, total)
    for _ in range(sent):
        client.send_multipart(frames)
    for _ in range(total):
        if not client.poll(10_000):
            raise TimeoutError("an echo was lost")
        client.recv_multipart()
        if sent < total:
            client.send_multipart(frames)
            sent += 1
    return total / (time.perf_counter() - begun)


def latencies(client: zmq.Socket[bytes], total: int) -> list[float]:
    """Seconds of each of `total` round trips, one at a time, sorted."""
    frames = [HEADER, TOKEN, BODY]
    taken = []
    for _ in range(total):
        begun = time.perf_counter()
        client.send_multipart(frames)
        if not client.poll(10_000):
            raise TimeoutError("an echo was lost")
        client.recv_multipart()
        taken.append(time.perf_counter() - begun)
    return sorted(taken)


def one_at_a_time(total: int = 4000) -> float:
    """The median round trip in seconds, one in flight, one echo."""
    with connected(1) as client:
        return latencies(client, total)[total // 2]


def in_flight(window: int = 64, total: int = 40_000, echoes: int = 2) -> float:
    """Round trips a second with `window` in flight."""
    with connected(echoes) as client:
        return exchange(client, window, total)


def main() -> None:
    match sys.argv[1:]:
        case ["echo", address]:
            echo(address)
        case ["forward", secret, port_file, *addresses]:
            forward(secret, port_file, *addresses)
        case _:
            print(f"one at a time  p50 {one_at_a_time() * 1e6:.0f} us")
            print(f"64 in flight   {in_flight():.0f}/s")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
