"""Makes the sockets that clients come in on, and the threads of libzmq behind them.

libzmq decrypts in its I/O threads, a whole frame at a time, one connection after another. So there are two: one for
what clients send, in which large messages hold up one another, and one for workers, other members and everything else,
in which a request that was read, and its answer, do not wait for them (docs/adr/0032).
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import zmq

from lnh_common import limits
from lnh_common.bus import curve, quick

Socket = zmq.Socket[bytes]

_CLIENTS: Final = 1 << 0  # I/O threads, as ZMQ_AFFINITY numbers them
_ALL_ELSE: Final = 1 << 1
_ERRORS_AHEAD: Final = 256  # refusals that one connection may leave unread, beside its answers
_RECEIVED: Final = 512 << 10  # bytes of one connection that wait in the kernel: what it still brings when it is cut


def context() -> zmq.Context[Socket]:
    """Make the balancer's context; its sockets have the second thread, but for those of `client_port`."""
    made: zmq.Context[Socket] = zmq.Context(io_threads=2)
    made.setsockopt(zmq.AFFINITY, _ALL_ELSE)
    return made


def client_port(made: zmq.Context[Socket], keys: curve.KeyPair, domain: bytes, largest: int) -> Socket:
    """Make a ROUTER for clients, which is not bound yet.

    Args:
        made: by `context`.
        domain: names the socket to the authenticator.
        largest: bytes of a frame; a peer that sends a larger one is disconnected.
    """
    socket = made.socket(zmq.ROUTER)
    curve.serve(socket, keys, domain)
    socket.affinity = _CLIENTS
    socket.rcvbuf = _RECEIVED
    socket.linger = 500
    socket.router_mandatory = True
    socket.sndhwm = limits.REQUESTS_PER_CLIENT + _ERRORS_AHEAD  # of one connection: all it may have asked
    socket.rcvhwm = limits.MESSAGES_AHEAD
    socket.maxmsgsize = largest
    socket.handshake_ivl = 5_000
    # A peer that is gone, or reads nothing for long, is disconnected: by TCP, not by ZeroMQ's heartbeats, with
    # which libzmq aborts when a connection breaks of which it had stopped reading.
    socket.setsockopt(zmq.TCP_MAXRT, 15_000)
    socket.tcp_keepalive = 1
    socket.tcp_keepalive_idle, socket.tcp_keepalive_intvl, socket.tcp_keepalive_cnt = 5, 3, 3
    socket.backlog = 512
    return socket


def send(socket: Socket, client: bytes, frames: list[bytes], dropped: Counter[str]) -> None:
    """Send a client a message, if it is there and has room; count it if not."""
    try:
        quick.send(socket, (client, *frames))
    except zmq.Again:
        dropped["client does not read"] += 1
    except zmq.ZMQError as error:
        if error.errno != zmq.EHOSTUNREACH:
            raise
        dropped["client gone"] += 1
