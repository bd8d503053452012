"""Named registers as a sequential object, for the linearizability checker: the newest value written is read."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from models.linearizability import Operation


@dataclass(frozen=True)
class Write:
    """The result is whether it was done; one that was refused changed nothing."""

    register: bytes
    value: str


@dataclass(frozen=True)
class Read:
    """The result is the value."""

    register: bytes


class Registers:
    """Any number of them, each empty at first."""

    def keys(self, operation: Operation) -> Iterable[Hashable]:
        return (operation.action.register,)

    def initial(self, keys: Sequence[Hashable]) -> str:
        assert len(keys) == 1, "registers have nothing to do with each other"
        return ""

    def only_looks(self, operation: Operation) -> bool:
        return isinstance(operation.action, Read) or operation.result is False

    def step(self, state: str, operation: Operation) -> str | None:
        action = operation.action
        if isinstance(action, Read):
            return state if not operation.is_known or operation.result == state else None
        return state if operation.result is False else str(action.value)
