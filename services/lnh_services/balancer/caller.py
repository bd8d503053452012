"""Asks another service of the member the questions of a generator: one at a time, never waiting."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

import zmq

from lnh_common import limits
from lnh_common.bus import asking
from lnh_common.bus.dealer import Dealer
from lnh_common.errors import DeadlineExceeded, LnhError
from lnh_common.wire import codec
from lnh_common.wire import frames as wire
from lnh_services.balancer.clients import PAUSE_SECONDS, Question

Steps = Generator[Question | float | None, Any, None]


class PolledCaller:
    """Asks one service, within the balancer's loop.

    Args:
        address: of the service's door for services.
        steps: yields a question, whose answer is sent in or error thrown in, or a pause in seconds (None: the usual).

    Attributes:
        asked_at: when the last question was sent.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, steps: Steps) -> None:
        socket = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.reconnect_ivl = 20
        socket.reconnect_ivl_max = 500
        socket.maxmsgsize = 64 * limits.MIB
        self.dealer: Final = Dealer(socket, address, self._on_change)
        self.asked_at = 0.0
        self._steps: Final = steps
        self._last = 0
        self._asked: Question | None = None
        self._sent = False
        self._until = 0.0  # when the question is given up, or the pause is over
        self._question(next(self._steps), 0.0)

    def tick(self, now: float) -> None:
        """Ask a question that could not be asked before, and give up one that was asked too long ago."""
        if self._asked is None:
            if now >= self._until:
                self._go_on(now, None)
        elif not self._sent:
            self._send(now)
        elif now >= self._until:
            self._go_on(now, DeadlineExceeded(f"nobody answers at {self.dealer.address}"))

    def receive(self, now: float) -> None:
        """Take in the service's answers."""
        while True:
            try:
                frames = self.dealer.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            asked = self._asked
            if asked is None:
                continue  # the late answer to something given up
            answer: Any
            try:
                body = asking.answer_to(self._last, frames)
                if body is None:
                    continue  # ... and to something earlier
                answer = codec.decode_as(body, asked.operation.reply, 64 * limits.MIB)
            except LnhError as error:
                answer = error
            self._go_on(now, answer)

    def _on_change(self, up: bool) -> None:
        if not up:
            self._until = 0.0  # whatever was asked is lost with the connection; the next `tick` says so

    def _go_on(self, now: float, answer: Any) -> None:
        asked = self._steps.throw(answer) if isinstance(answer, LnhError) else self._steps.send(answer)
        self._question(asked, now)

    def _question(self, asked: Question | float | None, now: float) -> None:
        self._sent = False
        if isinstance(asked, Question):
            self._asked = asked
            self._send(now)
        else:
            self._asked = None
            self._until = now + (PAUSE_SECONDS if asked is None else asked)

    def _send(self, now: float) -> None:
        asked = self._asked
        assert asked is not None, "there is something to ask"
        self._last += 1
        header = wire.request(asked.operation.name, self._last, int(asked.seconds * 1000))
        self._sent = self.dealer.send([header.pack(), b"", codec.encode(asked.message)])
        self.asked_at = now
        self._until = now + asked.seconds + PAUSE_SECONDS
