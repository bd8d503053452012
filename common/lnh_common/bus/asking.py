"""Reads answers, and says what to make of none: for the blocking, the asyncio and the polled caller alike. Pure."""

from __future__ import annotations

from lnh_common.errors import DeadlineExceeded, LnhError, OutcomeUnknown, Unreachable
from lnh_common.messages.base import Effect
from lnh_common.wire import frames as wire
from lnh_common.wire.frames import Frames, Header, Kind


def read(frames: Frames) -> tuple[Header, bytes]:
    """Return header and body of what came; raises MalformedMessage."""
    header = Header.parse(frames[0])
    wire.check_frames(frames)
    return header, frames[2]


def answer_to(request_id: int, frames: Frames) -> bytes | None:
    """Return the body of the reply to a request; None for what answers an earlier one, or nothing.

    Raises what the peer answered, and MalformedMessage.
    """
    header, body = read(frames)
    if header.request_id != request_id:
        return None
    if header.kind is Kind.ERROR:
        raise wire.parse_error(body)
    return body if header.kind is Kind.REPLY else None


def late(effect: Effect, why: str) -> LnhError:
    """Make the error of a request that was sent and not answered in time."""
    return OutcomeUnknown(why) if effect is Effect.WRITE else DeadlineExceeded(why)


def lost(effect: Effect, why: str) -> LnhError:
    """Make the error of a request that was sent on a connection that is no more."""
    return OutcomeUnknown(why) if effect is Effect.WRITE else Unreachable(why)
