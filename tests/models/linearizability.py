"""Whether a history of overlapping operations is linearizable: Wing and Gong (1993) with Lowe's (2017) cache.

A history is linearizable if every operation can be given one moment between its call and its end, so that in the
order of these moments each has the result that was seen. The search takes an operation that could be next -
called before any other's end -, and goes back where that leads nowhere. What it remembers is the pair (which
operations are placed, the state they lead to): whoever comes to a pair again knows that it leads nowhere.

Two shortcuts keep the search small and leave its answer as it is: an operation that only looks is placed as soon as
it fits, and one of unknown outcome is placed only where it changes something.
Operations that share no key, directly or through others, are looked at apart.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

UNKNOWN: Final = math.inf  # the `end` of an operation that may take effect at any later time, or never

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True)
class Operation:
    """What was asked and what came of it.

    Args:
        call, end: moments on one clock; two that are equal are taken to overlap. UNKNOWN as `end`: `result`
            says nothing, and the operation may still take effect.
        hint: the search tries what has a lower one first; where this is the true order, it never has to go back.
    """

    call: float
    end: float
    action: Any
    result: Any = None
    who: str = ""
    hint: float = 0.0

    @property
    def is_known(self) -> bool:
        return self.end != UNKNOWN


class Model(Protocol[S]):
    """A sequential object."""

    def keys(self, operation: Operation) -> Iterable[Hashable]:
        """Which parts of the state it looks at or changes; at least one."""

    def initial(self, keys: Sequence[Hashable]) -> S:
        """The state of these parts at the start."""

    def only_looks(self, operation: Operation) -> bool:
        """Whether it, with its result, leaves every state as it is."""

    def step(self, state: S, operation: Operation) -> S | None:
        """The state after it; None where it cannot have its result in `state`. One of unknown outcome always can."""


@dataclass(frozen=True)
class Violation:
    """Why a history is not linearizable: the longest order that fits, and what could be next but does not fit."""

    placed: tuple[Operation, ...]
    stuck: tuple[Operation, ...]
    state: Any
    decided: bool

    def __str__(self) -> str:
        verdict = "not linearizable" if self.decided else "no order found in time"
        lines = [f"{verdict}: {len(self.placed)} operations fit, then none of these, in {self.state}:"]
        lines += [f"    {_line(operation)}" for operation in self.stuck]
        lines += ["  the last that fit:", *(f"    {_line(operation)}" for operation in self.placed[-12:])]
        return "\n".join(lines)


def _line(operation: Operation) -> str:
    end = f"{operation.end:.4f}" if operation.is_known else "?"
    return f"[{operation.call:.4f}, {end}] {operation.who} {operation.action} -> {operation.result}"


def check(history: Iterable[Operation], model: Model[S], patience: float = math.inf) -> Violation | None:
    """None if the history is linearizable; after `patience` steps of the search a Violation that is not `decided`."""
    for keys, operations in _apart(list(history), model):
        violation = _Search(operations, model.initial(keys), model).run(patience)
        if violation is not None:
            return violation
    return None


def _apart(history: list[Operation], model: Model[S]) -> list[tuple[list[Hashable], list[Operation]]]:
    """The operations grouped so that no two groups share a key, each with its keys in order of appearance."""
    leader: dict[Hashable, Hashable] = {}

    def find(key: Hashable) -> Hashable:
        leader.setdefault(key, key)
        while leader[key] != key:
            leader[key] = leader[leader[key]]
            key = leader[key]
        return key

    firsts = []
    for operation in history:
        first, *others = model.keys(operation)
        firsts.append(first)
        for other in (first, *others):
            leader[find(other)] = find(first)
    groups: dict[Hashable, tuple[list[Hashable], list[Operation]]] = {}
    for key in leader:
        groups.setdefault(find(key), ([], []))[0].append(key)
    for first, operation in zip(firsts, history, strict=True):
        groups[find(first)][1].append(operation)
    return list(groups.values())


@dataclass
class _Level:
    """A choice of the search: what was before it, and what is left to choose."""

    state: Any
    mask: int
    choices: list[tuple[int, Any]]  # nodes and the states they lead to; the next one last
    node: int = 0  # the one chosen


class _Search:
    """One group's search. Calls and ends are nodes of a list in time's order, from which what is placed is taken out."""

    def __init__(self, operations: list[Operation], initial: Any, model: Model[Any]) -> None:
        self.operations = operations
        self.initial = initial
        self.model = model
        moments = [(operation.call, 0, number) for number, operation in enumerate(operations)]
        moments += [(operation.end, 1, number) for number, operation in enumerate(operations) if operation.is_known]
        moments.sort()
        self.node_count = len(moments)
        # Node 0 is before the first and after the last one.
        self.of = [-1] + [number for _, _, number in moments]
        self.is_end = [True] + [bool(end) for _, end, _ in moments]
        self.end_of = {number: node for node, (_, end, number) in enumerate(moments, start=1) if end}
        self.following = [*range(1, self.node_count + 1), 0]
        self.preceding = [self.node_count, *range(self.node_count)]

    def run(self, patience: float) -> Violation | None:
        state, mask = self.initial, 0
        left = len(self.end_of)
        levels: list[_Level] = []
        best: tuple[tuple[int, ...], Any] = ((), state)
        seen: set[tuple[int, Any]] = set()
        choices = self._choices(state)
        tried = 0
        while left:
            tried += 1
            chosen = None
            while choices and chosen is None:
                node, after = choices.pop()
                found = (mask | 1 << self.of[node], after)
                if found not in seen:
                    chosen = node, found
            if chosen is not None:
                node, found = chosen
                seen.add(found)
                levels.append(_Level(state, mask, choices, node))
                left -= self._take_out(node)
                mask, state = found
                choices = self._choices(state)
                continue
            if len(levels) > len(best[0]):
                best = (tuple(self.of[level.node] for level in levels), state)
            if not levels or tried > patience:
                return self._violation(*best, decided=not levels)
            level = levels.pop()
            state, mask, choices = level.state, level.mask, level.choices
            left += self._put_back(level.node)
        return None

    def _choices(self, state: Any) -> list[tuple[int, Any]]:
        """What could be next, the likeliest last."""
        found = []
        node = self.following[0]
        while not self.is_end[node]:
            operation = self.operations[self.of[node]]
            after = self.model.step(state, operation)
            if after is not None:
                if operation.is_known and self.model.only_looks(operation):
                    return [(node, after)]
                if operation.is_known or after != state:
                    found.append((node, after))
            node = self.following[node]
        found.sort(key=self._unlikely, reverse=True)
        return found

    def _unlikely(self, choice: tuple[int, Any]) -> tuple[float, float]:
        operation = self.operations[self.of[choice[0]]]
        return operation.hint, operation.end

    def _take_out(self, node: int) -> int:
        """Answers how many known operations that were."""
        end = self.end_of.get(self.of[node])
        for each in (node,) if end is None else (node, end):
            before, after = self.preceding[each], self.following[each]
            self.following[before], self.preceding[after] = after, before
        return 0 if end is None else 1

    def _put_back(self, node: int) -> int:
        end = self.end_of.get(self.of[node])
        for each in (node,) if end is None else (end, node):
            before, after = self.preceding[each], self.following[each]
            self.following[before] = self.preceding[after] = each
        return 0 if end is None else 1

    def _violation(self, order: tuple[int, ...], state: Any, *, decided: bool) -> Violation:
        placed = set(order)
        waiting = [operation for number, operation in enumerate(self.operations) if number not in placed]
        first_end = min(operation.end for operation in waiting)
        stuck = tuple(operation for operation in waiting if operation.call <= first_end)
        return Violation(tuple(self.operations[number] for number in order), stuck, state, decided)
