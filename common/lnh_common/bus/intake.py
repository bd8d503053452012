"""Reads the frames of a message on a serving socket, before anything is served. Pure.

`read` accepts a message or says why not. An error is answered if the header can be read far enough to name the request;
a message that cannot even be answered is dropped (and counted by the caller).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Final

from lnh_common import limits
from lnh_common.errors import LnhError, MalformedMessage, UnknownOperation
from lnh_common.messages.base import OPERATIONS, Message, Operation
from lnh_common.wire import codec
from lnh_common.wire import frames as wire

REQUEST_ID_MAX: Final = 2**64 - 1


@dataclass(frozen=True)
class Accepted:
    """A well-formed request or cast of an operation that is served here."""

    header: wire.Header
    operation: Operation[Message, Message]
    message: Message


@dataclass(frozen=True)
class Refused:
    """The answer to a message that is not served; `answer` is None where no request could be named."""

    error: LnhError
    answer: wire.Frames | None


def salvage(frame: bytes) -> wire.Header | None:
    """Read as much of a header as an error needs: the request id of a message that asks; None if there is none."""
    try:
        match codec.decode(frame, limits.HEADER_BYTES):
            case [int(), int(kind), int(request_id), str(operation), *_] if (
                type(kind) is type(request_id) is int  # and no bool
                and kind == wire.Kind.REQUEST
                and 0 <= request_id <= REQUEST_ID_MAX
                and len(operation) <= limits.OPERATION_CHARACTERS
            ):
                return wire.Header(wire.VERSION, wire.Kind.REQUEST, request_id, operation, b"", 0)
            case _:
                return None
    except MalformedMessage:
        return None


def refusal(frame: bytes, error: LnhError) -> Refused:
    """Make the refusal of a message from its header frame."""
    header = salvage(frame)
    return Refused(error, None if header is None else wire.error_frames(header, error))


def read(frames: wire.Frames, served: Container[str]) -> Accepted | Refused:
    """Check and decode `[header] [token] [body]` (after the routing ids)."""
    if not frames:
        return Refused(MalformedMessage("no frames"), None)
    try:
        header = wire.Header.parse(frames[0])
        if header.kind not in (wire.Kind.REQUEST, wire.Kind.CAST):
            return Refused(MalformedMessage("an answer nobody asked for"), None)
        wire.check_frames(frames)
        operation = OPERATIONS.get(header.operation)
        if operation is None or header.operation not in served:
            raise UnknownOperation(f"operation {header.operation!r} is not served here")
        return Accepted(header, operation, codec.decode_as(frames[2], operation.request))
    except LnhError as error:
        return refusal(frames[0], error)
