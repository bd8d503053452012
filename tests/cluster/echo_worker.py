"""Stands in for an hsm worker behind the balancer: answers each request with its own token and body.

`python echo_worker.py ADDRESS [hold]`: with `hold` it takes requests and never answers them.
"""

from __future__ import annotations

import contextlib
import sys

import zmq

from lnh_common import codec, wire
from lnh_common.messages import balancer


def main(address: str, *, hold: bool) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    socket = context.socket(zmq.ROUTER)
    socket.router_mandatory = True
    socket.sndhwm = socket.rcvhwm = 8192
    socket.bind(address)
    receive, send = socket.recv, socket.send
    served = 0
    while True:
        socket.poll()
        while True:
            try:
                way = receive(zmq.NOBLOCK)
            except zmq.Again:
                break
            tag, first, token, body = receive(), receive(), receive(), receive()
            header = wire.Header.parse(first)
            if header.operation == balancer.HSM_PING.name:
                token, body = b"", codec.encode(balancer.WorkerLoad(served=served))
            elif hold:
                continue
            served += 1
            with contextlib.suppress(zmq.ZMQError):
                send(way, zmq.SNDMORE)
                send(tag, zmq.SNDMORE)
                send(header.answer(wire.Kind.REPLY).pack(), zmq.SNDMORE)
                send(token, zmq.SNDMORE)
                send(body, 0)


if __name__ == "__main__":
    main(sys.argv[1], hold="hold" in sys.argv[2:])
