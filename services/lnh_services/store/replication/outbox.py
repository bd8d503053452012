"""Collects what a member says and answers, as effects in their order. Pure."""

from __future__ import annotations

from lnh_common.errors import LnhError
from lnh_services.store.log.entries import Epoch, MemberId
from lnh_services.store.machine.apply import Answer
from lnh_services.store.replication.messages import (
    Effect,
    Forwarded,
    Message,
    Reply,
    RequestId,
    Say,
    Send,
    SendSnapshot,
)

Origin = RequestId | tuple[MemberId, int]  # who asked: this member's shell, or another member under its number


class Outbox:
    """The effects of the event that is being taken in; `incarnation` is the member's."""

    def __init__(self, incarnation: bytes) -> None:
        self._effects: list[Effect] = []
        self._numbers = int.from_bytes(incarnation[:6], "big")  # what answers an earlier incarnation is no answer

    def put(self, effect: Effect) -> None:
        """Have an effect carried out, after those put before."""
        self._effects.append(effect)

    def take(self) -> list[Effect]:
        """Take all effects that were put."""
        effects, self._effects = self._effects, []
        return effects

    def number(self) -> int:
        """Draw a number that this member never gave to a message before."""
        self._numbers += 1
        return self._numbers

    def send(self, to: MemberId, message: Message) -> None:
        """Have a message sent to a member."""
        self.put(Send(to, message))

    def send_snapshot(self, to: MemberId, epoch: Epoch) -> None:
        """Have a snapshot sent to a member, for an epoch."""
        self.put(SendSnapshot(to, epoch))

    def say(self, event: str, **fields: str | int) -> None:
        """Have an event logged."""
        self.put(Say(event, fields))

    def answer(self, origin: Origin, answer: Answer, entry: int = 0) -> None:
        """Answer a request: of this store's own client, or the member that passed it on."""
        if not isinstance(origin, tuple):
            self.put(Reply(origin, answer, entry))
        elif isinstance(answer, LnhError):
            code, text, detail = answer.to_wire()
            self.send(origin[0], Forwarded(origin[1], 0, (code, text, detail), entry))
        else:
            self.send(origin[0], Forwarded(origin[1], answer, None, entry))
