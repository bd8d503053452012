"""The message format: three frames, of which the first is read at every hop.

    [header] [token] [body]

The header is a CBOR array `[version, kind, request_id, operation, route, deadline_ms]`: small, in
clear, and enough to route by. The token names the session (empty before a login and between the
services of one member); the body is sealed end to end between a client and an hsm worker
(`channel.py`) and is passed on untouched by everything in between.

An ERROR is never sealed: between the services of one member it is the answer; for a client it is a
hint only, because whoever lies between could have made it. A sealed error travels in a REPLY.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final

import cbor2
import msgspec

from lnh_common import codec, limits
from lnh_common.errors import LnhError, MalformedMessage, UnsupportedVersion

VERSION: Final = 1
OLDEST_VERSION: Final = 1

Frames = list[bytes]


class Kind(enum.IntEnum):
    REQUEST = 0
    REPLY = 1
    ERROR = 2
    CAST = 3


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """The routing part of a message.

    Args:
        version: of this format.
        kind: request, reply, error or cast (a request that wants no answer).
        request_id: unsigned 64 bit, chosen by the asker, unique in its connection.
        operation: a name of the operation table, at most 64 characters.
        route: the 16-byte keyring id the request is about, or empty.
        deadline_ms: how long the asker still waits when it sends, in milliseconds.
    """

    version: int
    kind: Kind
    request_id: Annotated[int, msgspec.Meta(ge=0)]
    operation: Annotated[str, msgspec.Meta(max_length=limits.OPERATION_CHARACTERS)]
    route: Annotated[bytes, msgspec.Meta(max_length=16)]
    deadline_ms: Annotated[int, msgspec.Meta(ge=0, le=limits.MAX_DEADLINE_MS)]

    def pack(self) -> bytes:
        return cbor2.dumps(msgspec.structs.astuple(self))

    @classmethod
    def parse(cls, frame: bytes) -> Header:
        """Decode a header frame; raises MalformedMessage, or UnsupportedVersion for another format."""
        fields = codec.decode(frame, limits.HEADER_BYTES)
        if type(fields) is list and fields and type(fields[0]) is int:
            version = fields[0]
            if not OLDEST_VERSION <= version <= VERSION:
                raise UnsupportedVersion(f"message version {version}; this side speaks {OLDEST_VERSION}..{VERSION}")
        return codec.convert(fields, cls)

    def answer(self, kind: Kind) -> Header:
        """The header of the answer to this request."""
        return Header(self.version, kind, self.request_id, self.operation, self.route, 0)


def request(
    operation: str, request_id: int, deadline_ms: int, *, route: bytes = b"", kind: Kind = Kind.REQUEST
) -> Header:
    """The header of a new request or cast."""
    return Header(VERSION, kind, request_id, operation, route, deadline_ms)


def error_frames(header: Header, error: LnhError) -> Frames:
    """An unsealed error answer to the request with this header."""
    return [header.answer(Kind.ERROR).pack(), b"", codec.encode(error.to_wire())]


def parse_error(body: bytes) -> LnhError:
    """The error in the body of an ERROR message."""
    return LnhError.from_wire(codec.decode(body))


def check_frames(frames: list[Any]) -> None:
    """Raises MalformedMessage unless these are a header, a token and a body of allowed sizes."""
    if len(frames) != 3:
        raise MalformedMessage(f"{len(frames)} frames; a message has 3")
    if len(frames[1]) > limits.TOKEN_BYTES:
        raise MalformedMessage(f"a token of {len(frames[1])} bytes; at most {limits.TOKEN_BYTES}")
    if len(frames[2]) > limits.BODY_BYTES:
        raise MalformedMessage(f"a body of {len(frames[2])} bytes; at most {limits.BODY_BYTES}")
