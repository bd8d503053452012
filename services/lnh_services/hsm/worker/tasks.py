"""Keeps the requests that a worker's loop serves, and the questions of theirs that are not answered yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lnh_common.errors import (
    Busy,
    DeadlineExceeded,
    Internal,
    LnhError,
    MalformedMessage,
    MemberReadOnly,
    OutcomeUnknown,
)
from lnh_common.messages import store
from lnh_common.messages.base import Effect, Message, Operation
from lnh_common.wire import codec
from lnh_common.wire import frames as wire
from lnh_common.wire.frames import Header, Kind
from lnh_services.hsm.effects import Deadline, Peer, Steps

WayBack = tuple[bytes, bytes]  # the balancer's routing id, and its tag of the request


@dataclass(eq=False, slots=True)
class Task:
    """A request being served.

    Args:
        way_back: None for the worker's own.
        lapses: of the lease, when a request of another member was begun.
        unasked: the header of a request that has asked for nothing yet, and so may still be turned away.
    """

    steps: Steps[Any]
    way_back: WayBack | None
    deadline: Deadline
    lapses: int | None = None
    unasked: Header | None = None


@dataclass(eq=False)
class Waiting:
    """A question without an answer yet, and the tasks that wait for it.

    Args:
        tasks: None in the place of one that waits no more.
        sent_at: None while its peer is out of reach.
        tries: how often it was sent.
    """

    tasks: list[Task | None]
    peer: Peer
    operation: Operation[Any, Any]
    frames: list[bytes]
    sent_at: float | None = None
    tries: int = 0

    def proven(self, answer: Message | LnhError) -> Message | LnhError:
        """Return what an answer says of all tries; Busy and MemberReadOnly say only that the last one did nothing."""
        undone = isinstance(answer, MemberReadOnly | Busy)
        if undone and self.tries > 1 and self.operation.effect is Effect.WRITE:
            return OutcomeUnknown(f"asked {self.tries} times without an answer, then: {answer}")
        return answer

    def answers(self, header: Header, frames: list[bytes]) -> list[Message | LnhError]:
        """Return the answer to each of the tasks; raises MalformedMessage."""
        wire.check_frames(frames)
        if header.kind is Kind.ERROR:
            return [wire.parse_error(frames[2])] * len(self.tasks)
        answer = codec.decode_as(frames[2], self.operation.reply)
        if not isinstance(answer, store.Outcomes):
            return [answer] * len(self.tasks)
        if len(answer.outcomes) != len(self.tasks):
            raise MalformedMessage(f"{len(answer.outcomes)} outcomes of {len(self.tasks)} commits")
        return [LnhError.from_wire(each) if isinstance(each, list) else each for each in answer.outcomes]

    def unread(self, error: LnhError) -> LnhError:
        """Make the error of an answer that came and cannot be read."""
        said = f"{self.operation.name}: the answer of the {self.peer.value} cannot be read: {error}"
        return OutcomeUnknown(said) if self.operation.effect is Effect.WRITE else Internal(said)

    def too_late(self, now: float) -> LnhError:
        """Make the error of a task whose time is over, naming the service that has not answered."""
        if self.sent_at is None:
            asked = "which cannot be reached"
        else:
            asked = f"asked {self.tries} times, {now - self.sent_at:.1f} s ago the last time"
        said = f"{self.operation.name} was not answered in time by the {self.peer.value}, {asked}"
        return OutcomeUnknown(said) if self.operation.effect is Effect.WRITE else DeadlineExceeded(said)
