"""Lets the worker's operations wait without I/O: a generator yields what it asks, and is sent the answer.

    def destroy(worker, request):
        item = yield from worker.item(request.handle)      # may ask the store
        yield from worker.commit(request, [Delete(...)])

So every operation reads from top to bottom, is tested by hand-fed answers, and the loop that feeds it for real
(`worker/loop.py`) can serve a thousand at once and `invalidate` at any moment in between.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from lnh_common.messages.base import Message, Operation, Q, R

T = TypeVar("T")


class Peer(enum.Enum):
    """A process that a worker asks."""

    STORE = "store"
    CORE = "core"
    ARGON2 = "argon2"
    MEMBERSHIP = "membership"
    BALANCER = "balancer"
    BACKUP = "backup"


@dataclass(frozen=True)
class Ask:
    """One request to another process; its answer, or its error, is sent into the generator.

    Args:
        waits: false where no answer is wanted; None is then sent at once.
    """

    peer: Peer
    operation: Operation[Any, Any]
    message: Message
    waits: bool = True


@dataclass(frozen=True)
class Work:
    """A slow computation that needs nothing of the worker: done in a thread, its result sent into the generator.

    Args:
        key: the same when the same request comes again.
    """

    key: Hashable
    compute: Callable[[], object]


class Turn(enum.Enum):
    """A point that a request comes to without having to wait, once all before it has passed.

    A driver of many requests may stop each of them there and take the next step for all of them, one after the other: a
    step that is repeated finds the processor's caches filled. None may stay there while what it was checked against can
    change: it is closed then, and begun anew.
    """

    USE = "use"  # a key is about to be used
    SEAL = "seal"  # the answer is about to be sealed


class Deadline:
    """The time at which a request's asker stops waiting, in seconds of the worker's boot clock.

    It is set anew once the request's seal is open.
    """

    __slots__ = ("at",)

    def __init__(self, at: float) -> None:
        self.at = at


# Sent None to begin with and at each Turn, then the answer to each Ask and the result of each Work.
Steps = Generator[Ask | Work | Turn, Any, T]


def ask(peer: Peer, operation: Operation[Q, R], message: Q) -> Steps[R]:
    """Ask `peer`, and return the operation's reply."""
    reply = yield Ask(peer, operation, message)
    assert isinstance(reply, operation.reply), "the loop decodes an answer as the operation's reply type"
    return reply


def tell(peer: Peer, operation: Operation[Q, Any], message: Q) -> Steps[None]:
    """Tell `peer` something, and go on at once; it may get lost."""
    yield Ask(peer, operation, message, waits=False)


def work(key: Hashable, compute: Callable[[], T]) -> Steps[T]:
    """Return the result of a slow computation.

    Other requests are served meanwhile, so look again at what may have changed.
    """
    result: T = yield Work(key, compute)
    return result
