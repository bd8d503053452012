"""Stands in for an hsm worker behind the balancer: answers each request with its own token and body.

`python echo_worker.py ADDRESS [hold | slow | stale]`: with `hold` it takes requests and never answers them, with `slow` it
works on each for 5 ms, with `stale` it declines what other members sent, as a worker without a read-write lease does.
"""

from __future__ import annotations

import contextlib
import sys
import time

import zmq

from lnh_common.messages import balancer
from lnh_common.wire import bundles, codec
from lnh_common.wire import frames as wire
from lnh_common.wire.bundles import VOUCHED, Bundle

WORK = 0.005
LOGGED_IN = b"logged in"  # the token of a session that it vouches for


def main(address: str, mode: str) -> None:
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
            elif mode == "hold":
                continue
            elif mode == "stale" and bundles.is_forwarded(entry.tag):
                answers.add(*bundles.refusal(entry.tag))
                continue
            elif mode == "slow":
                time.sleep(WORK)  # stands for a signature that takes so long
            if token == LOGGED_IN:
                token = VOUCHED
            served += 1
            answers.add(entry.tag, header.answer(wire.Kind.REPLY).pack(), token, body)
        if answers:
            with contextlib.suppress(zmq.ZMQError):
                socket.send_multipart([way, answers.take()], zmq.NOBLOCK)


if __name__ == "__main__":
    main(sys.argv[1], (sys.argv[2:] or [""])[0])
