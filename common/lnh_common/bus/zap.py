"""Authenticates CURVE peers (RFC 27/ZAP), without I/O of its own.

libzmq asks a REP socket bound to `inproc://zeromq.zap.01` in the same context; the owner of that socket passes each
request's frames through `answer`. It works in a poll loop and in asyncio alike. Bind it before any CURVE server socket
of that context, and serve it always: a handshake waits for the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import zmq
from zmq.utils import z85

NUMBER: Final = "Number"  # the property of each message that names the handshake of its connection
ENDPOINT: Final = "inproc://zeromq.zap.01"
_VERSION: Final = b"1.0"
_KEY_BYTES: Final = 32


@dataclass(frozen=True)
class Handshake:
    """A handshake of a peer that proved that it holds the secret half of `key` (Z85)."""

    domain: bytes
    address: str
    key: bytes


Decide = Callable[[Handshake], bool | None]
"""Whether a peer is admitted; None is "not now": its connection ends, and it comes again by itself."""

_numbers = 0


def numbered() -> int:
    """Return the number of this process's newest handshake."""
    return _numbers


def socket(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    """Bind the REP socket that libzmq asks; raises zmq.ZMQError when this context has one already."""
    rep = context.socket(zmq.REP)
    rep.linger = 0
    rep.bind(ENDPOINT)
    return rep


def answer(frames: list[bytes], decide: Decide) -> list[bytes]:
    """Answer one ZAP request; an admitted peer's User-Id is its Z85 key, its `NUMBER` is above all before it."""
    global _numbers
    match frames:
        case [version, request, domain, address, _, mechanism, *credentials]:
            pass
        case _:
            return [_VERSION, frames[1] if len(frames) > 1 else b"", b"500", b"malformed request", b"", b""]
    if version != _VERSION or mechanism != b"CURVE" or len(credentials) != 1 or len(credentials[0]) != _KEY_BYTES:
        return [_VERSION, request, b"400", b"only CURVE is served", b"", b""]
    key = z85.encode(credentials[0])
    admitted = decide(Handshake(domain, address.decode("ascii", "replace"), key))
    if admitted is None:
        return [_VERSION, request, b"300", b"not now", b"", b""]
    if admitted:
        _numbers += 1
        return [_VERSION, request, b"200", b"OK", key, _property(NUMBER, str(_numbers))]
    return [_VERSION, request, b"400", b"this key is not admitted", b"", b""]


def _property(name: str, value: str) -> bytes:
    """Encode one property as ZMTP's metadata has it (RFC 23)."""
    return bytes((len(name),)) + name.encode() + len(value).to_bytes(4, "big") + value.encode()


def everyone(_: Handshake) -> bool:
    """Admit every key; what it may do is decided where its requests are served."""
    return True
