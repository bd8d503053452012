"""What a caller makes of an answer, whichever way it waits for one."""

from __future__ import annotations

import pytest

from lnh_common.bus import asking
from lnh_common.errors import Busy, DeadlineExceeded, LnhError, MalformedMessage, OutcomeUnknown, Unreachable
from lnh_common.messages.base import Effect
from lnh_common.wire import frames as wire

ASKED = wire.request("store.get", 7, 1000)


def reply(request: wire.Header, body: bytes = b"body") -> list[bytes]:
    return [request.answer(wire.Kind.REPLY).pack(), b"", body]


def test_a_reply_is_its_body_and_an_error_is_raised() -> None:
    assert asking.answer_to(7, reply(ASKED)) == b"body"
    with pytest.raises(Busy, match="come again"):
        asking.answer_to(7, wire.error_frames(ASKED, Busy("come again")))


def test_what_answers_an_earlier_request_is_no_answer_whatever_it_says() -> None:
    earlier = wire.request("store.get", 6, 1000)
    assert asking.answer_to(7, reply(earlier)) is None
    assert asking.answer_to(7, wire.error_frames(earlier, Busy("come again"))) is None
    assert asking.answer_to(7, [ASKED.pack(), b"", b""]) is None, "a question is none either"


@pytest.mark.parametrize("frames", [[b"no header", b"", b""], [reply(ASKED)[0], b""]])
def test_what_is_no_message_is_malformed(frames: list[bytes]) -> None:
    with pytest.raises(MalformedMessage):
        asking.answer_to(7, frames)


@pytest.mark.parametrize(
    ("effect", "late", "lost"),
    [(Effect.READ, DeadlineExceeded, Unreachable), (Effect.WRITE, OutcomeUnknown, OutcomeUnknown)],
)
def test_a_write_without_an_answer_has_no_known_outcome(
    effect: Effect, late: type[LnhError], lost: type[LnhError]
) -> None:
    assert type(asking.late(effect, "why")) is late
    assert type(asking.lost(effect, "why")) is lost
