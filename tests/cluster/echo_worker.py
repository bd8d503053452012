"""Stands in for an hsm worker behind the balancer: answers each request with its own token and body.

`python echo_worker.py ADDRESS [hold]`: with `hold` it takes requests and never answers them.
"""

from __future__ import annotations

import contextlib
import sys

import zmq

from lnh_common import bundles, codec, wire
from lnh_common.bundles import Bundle
from lnh_common.messages import balancer


def main(address: str, *, hold: bool) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    socket = context.socket(zmq.ROUTER)
    socket.router_mandatory = True
    socket.sndhwm = socket.rcvhwm = 8192
    socket.bind(address)
    served = 0
    while True:
        way, *frames = socket.recv_multipart()
        answers = Bundle()
        for entry in bundles.unpack(frames):
            header = wire.Header.parse(entry.header)
            token, body = entry.token, entry.body
            if header.operation == balancer.HSM_PING.name:
                token, body = b"", codec.encode(balancer.WorkerLoad(served=served))
            elif hold:
                continue
            served += 1
            answers.add(entry.tag, header.answer(wire.Kind.REPLY).pack(), token, body)
        if answers:
            with contextlib.suppress(zmq.ZMQError):
                socket.send_multipart([way, answers.take()], zmq.NOBLOCK)


if __name__ == "__main__":
    main(sys.argv[1], hold="hold" in sys.argv[2:])
