"""Lets membership's procedures wait without I/O: a generator yields what it asks, or a pause, and is sent the answer.

So a procedure reads from top to bottom, runs in a test on hand-fed answers, and can be cut off at any step.
"""

from __future__ import annotations

import enum
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from lnh_common.messages.base import Message, Operation, Q, R

T = TypeVar("T")

ASK_SECONDS: Final = 5.0


class Here(enum.Enum):
    """A service of this member."""

    STORE = "store"
    HSM = "hsm"


@dataclass(frozen=True)
class There:
    """The membership service of another member.

    Args:
        host, port: of its membership port.
        key: its CURVE public key, 32 bytes.
    """

    host: str
    port: int
    key: bytes


@dataclass(frozen=True)
class Ask:
    """One request; its answer, or its error, is sent into the generator."""

    whom: Here | There
    operation: Operation[Any, Any]
    message: Message
    timeout: float = ASK_SECONDS


@dataclass(frozen=True)
class Pause:
    """A wait of so many seconds, answered with None."""

    seconds: float


Steps = Generator[Ask | Pause, Message | None, T]


def ask(whom: Here | There, operation: Operation[Q, R], message: Q, timeout: float = ASK_SECONDS) -> Steps[R]:
    """Ask, and return the operation's reply."""
    reply = yield Ask(whom, operation, message, timeout)
    assert isinstance(reply, operation.reply), "the shell decodes an answer as the operation's reply type"
    return reply
