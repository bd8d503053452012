"""Answers `hello`, whose answer is the same for everybody: a worker makes one for all that ask meanwhile. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from lnh_common import limits
from lnh_common.errors import Busy

A = TypeVar("A")


class Greetings(Generic[A]):
    """Gives a fresh answer to all that ask, and has one made where there is none.

    Args:
        make: asks a worker for an answer, which is then to be `told`.
        give: gives an asker an answer, and whether it is one or an error.
        most: how many may wait for one.
    """

    def __init__(
        self,
        make: Callable[[float], None],
        give: Callable[[A, bytes, bool], None],
        most: int = limits.STRANGERS.requests,
    ) -> None:
        self._make: Final = make
        self._give: Final = give
        self._most: Final = most
        self._waiting: list[A] = []
        self._answer = b""
        self._until = 0.0

    def ask(self, now: float, asker: A) -> None:
        """Answer at once or as soon as there is an answer. Raises Busy when too many wait for one."""
        if now < self._until:
            self._give(asker, self._answer, True)
        elif len(self._waiting) >= self._most:
            raise Busy(f"{self._most} others wait for an answer to hello")
        else:
            self._waiting.append(asker)
            if len(self._waiting) == 1:
                self._make(now)

    def told(self, now: float, answer: bytes, *, good: bool) -> None:
        """Give the word of a worker, or of the balancer in its place, to all that wait; an error is not kept."""
        if good:
            self._answer, self._until = answer, now + limits.HELLO_FRESH
        waiting, self._waiting = self._waiting, []
        for asker in waiting:
            self._give(asker, answer, good)
