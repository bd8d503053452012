"""The store's items as a sequential object, for the linearizability checker: what one sees of guarded commits.

It is written from messages/store.py's words alone and knows neither log nor duplicates.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

from lnh_common.errors import LnhError, ObjectUnknown, VersionConflict
from lnh_common.messages.store import Change, Delete, DeleteScope, Key, Put, Stage, Sweep, Switch, Unchanged
from models.linearizability import Operation

Value = tuple[int, bytes]  # version and head
Items = tuple[Value | None, ...]  # in the order of the model's keys


class Wrote(tuple[Change, ...]):
    """A commit's changes; the result is its success, True, or the class of the error that refused it."""

    __slots__ = ()


class Saw(tuple[Key, ...]):
    """A read of items; the result is a dict of those that were there."""

    __slots__ = ()


def order(key: Key) -> tuple[str, bytes, bytes]:
    return key.table, key.scope, key.id


class VersionedItems:
    """Items of these keys, none at first."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._all = list(keys)
        self._place = {key: place for place, key in enumerate(self._all)}

    def _in_scope(self, scope: Key) -> list[Key]:
        return [key for key in self._all if (key.table, key.scope) == (scope.table, scope.scope)]

    def keys(self, operation: Operation) -> Iterable[Hashable]:
        if isinstance(operation.action, Saw):
            return operation.action
        touched: list[Key] = []
        for change in operation.action:
            touched += self._in_scope(change.key) if isinstance(change, DeleteScope) else [change.key]
        return touched

    def initial(self, keys: Sequence[Hashable]) -> Items:
        return (None,) * len(self._all)

    def only_looks(self, operation: Operation) -> bool:
        return isinstance(operation.action, Saw) or operation.result is not True

    def step(self, state: Items, operation: Operation) -> Items | None:
        action, result = operation.action, operation.result
        if isinstance(action, Saw):
            fits = not operation.is_known or all(state[self._place[key]] == result.get(key) for key in action)
            return state if fits else None
        items = list(state)
        for change in action:
            error = self._change(items, change)
            if error is not None:
                return state if not operation.is_known or result is error else None
        return tuple(items) if not operation.is_known or result is True else None

    def _change(self, items: list[Value | None], change: Change) -> type[LnhError] | None:
        """Carry out a change, or answer what refuses it."""
        if isinstance(change, DeleteScope):
            for key in self._in_scope(change.key):
                items[self._place[key]] = None
            return None
        assert not isinstance(change, Unchanged | Stage | Switch | Sweep), "restores are not modelled"
        place = self._place[change.key]
        found = items[place]
        version = found[0] if found is not None else 0
        if isinstance(change, Delete):
            if not version:
                return ObjectUnknown
            if change.expected not in (None, version):
                return VersionConflict
            items[place] = None
        elif isinstance(change, Put):
            assert not change.unique, "unique tags are not modelled"
            assert change.limit is None, "limits are not modelled"
            if change.expected != version:
                return VersionConflict
            items[place] = (version + 1, change.head)
        elif change.version != version:
            return VersionConflict
        return None
