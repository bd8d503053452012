"""The message format: three frames, of which the first is read at every hop.

    [header] [token] [body]

The header is a CBOR array `[version, kind, request_id, operation, route, deadline_ms]`: small, in clear, and enough to
route by. The token names the session (empty before a login and between the services of one member); the body is sealed
end to end between a client and an hsm worker (`channel.py`) and is passed on untouched by everything in between.

An ERROR is never sealed: between the services of one member it is the answer; for a client it is a hint only, because
anything on the way could have made it. A sealed error travels in a REPLY.
"""

from __future__ import annotations

import enum
from functools import lru_cache
from typing import Annotated, Any, Final

import cbor2
import msgspec

from lnh_common import limits
from lnh_common.errors import DataLength, LnhError, MalformedMessage, OutcomeUnknown, UnsupportedVersion
from lnh_common.messages.base import OPERATIONS, Effect
from lnh_common.wire import codec

VERSION: Final = 1
OLDEST_VERSION: Final = 1

Frames = list[bytes]


class Kind(enum.IntEnum):
    """The kind of a message: a cast is a request that wants no answer."""

    REQUEST = 0
    REPLY = 1
    ERROR = 2
    CAST = 3


_ARRAY_OF_6: Final = 0x86
_WORDS: Final = 1000  # characters that are left of an error
_BYTES_32: Final = b"\x58\x20"
_KINDS: Final = {bytes((_ARRAY_OF_6, VERSION, kind)): kind for kind in Kind}  # by how a header begins
_REMEMBERED: Final = 1024
_UINT_BYTES: Final = {**dict.fromkeys(range(24), 0), 24: 1, 25: 2, 26: 4, 27: 8}  # behind an integer's first byte

# From one message of a connection to the next a header changes in its request id alone. What follows the id is
# therefore read and written once, and remembered by its bytes: a header costs a tenth of what CBOR does.
_read: Final[dict[bytes, tuple[str, bytes, int]]] = {}


@lru_cache(_REMEMBERED)
def _names(operation: str, route: bytes) -> bytes:
    return cbor2.dumps(operation) + cbor2.dumps(route)


@lru_cache(_REMEMBERED)
def _rest(operation: str, route: bytes, deadline_ms: int) -> bytes:
    return _names(operation, route) + cbor2.dumps(deadline_ms)


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
        """Encode the header frame."""
        rest = _rest(self.operation, self.route, self.deadline_ms)
        return bytes((_ARRAY_OF_6, self.version, self.kind)) + cbor2.dumps(self.request_id) + rest

    def bound(self, kind: Kind, last: bytes) -> bytes:
        """Encode what a seal binds: the CBOR array of version, kind, request id, operation, route and `last`, 32 bytes.

        The deadline is left out: hops may shorten it, and the one inside the seal rules.
        """
        names = _names(self.operation, self.route)
        return bytes((_ARRAY_OF_6, self.version, kind)) + cbor2.dumps(self.request_id) + names + _BYTES_32 + last

    @classmethod
    def parse(cls, frame: bytes) -> Header:
        """Decode a header frame; raises MalformedMessage, or UnsupportedVersion for another format."""
        kind = _KINDS.get(frame[:3])
        if kind is None or len(frame) < 5 or frame[3] not in _UINT_BYTES:
            return cls._parse(frame)
        end = 4 + _UINT_BYTES[frame[3]]
        read = _read.get(frame[end:])
        if read is not None:
            return cls(VERSION, kind, frame[3] if end == 4 else int.from_bytes(frame[4:end], "big"), *read)
        header = cls._parse(frame)
        if len(_read) >= _REMEMBERED:
            _read.clear()
        _read[frame[end:]] = (header.operation, header.route, header.deadline_ms)
        return header

    @classmethod
    def _parse(cls, frame: bytes) -> Header:
        fields = codec.decode(frame, limits.HEADER_BYTES)
        if type(fields) is list and fields and type(fields[0]) is int:
            version = fields[0]
            if not OLDEST_VERSION <= version <= VERSION:
                raise UnsupportedVersion(f"message version {version}; this side speaks {OLDEST_VERSION}..{VERSION}")
        return codec.convert(fields, cls)

    def answer(self, kind: Kind) -> Header:
        """Make the header of the answer to this request."""
        return Header(self.version, kind, self.request_id, self.operation, self.route, 0)


def request(
    operation: str, request_id: int, deadline_ms: int, *, route: bytes = b"", kind: Kind = Kind.REQUEST
) -> Header:
    """Make the header of a new request or cast."""
    return Header(VERSION, kind, request_id, operation, route, deadline_ms)


def deadline_ms(seconds: float) -> int:
    """Choose the deadline to send for an asker that waits so many seconds.

    It is a little sooner, so that the side that gives up first can still say why.
    """
    sooner = min(seconds * limits.SOONER, limits.SOONER_SECONDS)
    return min(int((seconds - sooner) * 1000), limits.MAX_DEADLINE_MS)


def word_within(milliseconds: int) -> float:
    """Count the seconds for which a hop waits for a server that gives up at this deadline."""
    seconds = milliseconds / 1000
    return seconds + min(seconds * limits.SOONER, limits.SOONER_SECONDS) / 2


def error_frames(header: Header, error: LnhError) -> Frames:
    """Make the unsealed error that answers the request with this header."""
    body = codec.encode(error.to_wire())
    if len(body) > limits.BODY_BYTES:
        body = codec.encode(instead(header, error, len(body)).to_wire())
    return [header.answer(Kind.ERROR).pack(), b"", body]


def reply_frames(header: Header, body: bytes) -> Frames:
    """Make the unsealed answer to the request with this header; an error where no message holds the body."""
    if len(body) > limits.BODY_BYTES:
        return error_frames(header, instead(header, None, len(body)))
    return [header.answer(Kind.REPLY).pack(), b"", body]


def instead(header: Header, error: LnhError | None, size: int) -> LnhError:
    """Make the error that replaces an answer that no message holds; without it the asker would wait in vain.

    Args:
        error: the error that is the answer; None for a reply.
        size: of the answer, in bytes.
    """
    if error is not None:
        return type(error)(f"{str(error)[:_WORDS]} ... (cut: {size} bytes)")
    said = f"{header.operation}: its answer has {size} bytes; a message holds {limits.BODY_BYTES}"
    operation = OPERATIONS.get(header.operation)
    if operation is not None and operation.effect is Effect.WRITE:
        return OutcomeUnknown(f"{said}. It was done all the same")
    return DataLength(said, {"advice": "ask for less at once"})


def parse_error(body: bytes) -> LnhError:
    """Decode the error in the body of an ERROR message."""
    return LnhError.from_wire(codec.decode(body))


def check_frames(frames: list[Any]) -> None:
    """Raise MalformedMessage unless these are a header, a token and a body of allowed sizes."""
    if len(frames) != 3:
        raise MalformedMessage(f"{len(frames)} frames; a message has 3")
    if len(frames[1]) > limits.TOKEN_BYTES:
        raise MalformedMessage(f"a token of {len(frames[1])} bytes; at most {limits.TOKEN_BYTES}")
    if len(frames[2]) > limits.BODY_BYTES:
        raise MalformedMessage(f"a body of {len(frames[2])} bytes; at most {limits.BODY_BYTES}")
