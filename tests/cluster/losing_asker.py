"""An asker whose peer is killed, again and again, with many messages on the way: `losing_asker.py ADDRESS KILLS`.

Ends with 0. It is a process of its own because what it shows is that libzmq does not abort it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

import zmq

from lnh_common.bus.dealer import Dealer

FRAMES = [bytes(8), bytes(40), b"", bytes(300)]
RECEIVED_BEFORE_KILL = 1500
ANSWERS = 4  # to each message, so that they queue up
PEER = "peer"


def peer(address: str) -> None:
    """Answer each message several times, as fast as possible."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    socket = context.socket(zmq.ROUTER)
    socket.bind(address)
    while True:
        frames = socket.recv_multipart()
        for _ in range(ANSWERS):
            socket.send_multipart(frames)


def lose(dealer: Dealer, address: str) -> None:
    """Start a peer, keep it busy, kill it, and go on receiving until it is gone."""
    process = subprocess.Popen([sys.executable, __file__, address, PEER])
    end = time.monotonic() + 20
    received, was_there = 0, False
    try:
        while dealer.connected or not was_there:
            assert time.monotonic() < end, "the peer's end was not noticed"
            was_there = was_there or dealer.connected
            while dealer.send(FRAMES):
                pass
            dealer.socket.poll(1)
            with contextlib.suppress(zmq.Again):
                for _ in range(100):
                    assert dealer.socket.recv_multipart(zmq.NOBLOCK) == FRAMES, "half a message"
                    received += 1
            if received > RECEIVED_BEFORE_KILL:
                process.kill()
            dealer.watch()
    finally:
        process.kill()
        process.wait()


def main(address: str, kills: int) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.reconnect_ivl = 20
    dealer = Dealer(socket, address)
    for _ in range(kills):
        lose(dealer, address)
    dealer.close()


if __name__ == "__main__":
    if sys.argv[2] == PEER:
        peer(sys.argv[1])
    else:
        main(sys.argv[1], int(sys.argv[2]))
