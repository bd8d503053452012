"""An independent, naive model of what the store's state machine should answer: it forgets nothing."""

from __future__ import annotations

import copy

from lnh_common import limits
from lnh_common.errors import (
    DeadlineExceeded,
    LimitReached,
    LnhError,
    NameTaken,
    NotPossible,
    ObjectUnknown,
    OutcomeUnknown,
    VersionConflict,
)
from lnh_common.messages.store import (
    Commit,
    Delete,
    DeleteScope,
    Item,
    Key,
    Put,
    Stage,
    Sweep,
    Switch,
    Unchanged,
    versions_hash,
)
from lnh_services.store.machine.apply import Answer


class Naive:
    """Remembers every request for ever, so that it can tell what a forgetful store must and may answer."""

    def __init__(self) -> None:
        self.items: dict[Key, Item] = {}
        self.staging: bytes | None = None
        self.staged: dict[Key, Item] = {}
        self.seen: bytes | None = None
        self.staged_at = 0
        self.acted: dict[tuple[bytes, bytes, int], tuple[int, int, Answer]] = {}  # place in client's order, time
        self.orders: dict[bytes, int] = {}

    def allowed(self, index: int, log_time: int, commit: Commit) -> list[Answer]:
        """Applies the commit; answers what a correct store may say, the surest first."""
        name = (commit.client, commit.session, commit.sequence)
        if name in self.acted:
            order, time, answer = self.acted[name]
            age, behind = log_time - time, self.orders[commit.client] - order
            if age <= limits.DUPLICATE_WINDOW * 1000 or behind < limits.DUPLICATE_RECORDS:
                return [answer]
            return [answer, OutcomeUnknown()]
        age = log_time - commit.issued_at
        if age > limits.DUPLICATE_WINDOW * 1000:
            return [DeadlineExceeded(), OutcomeUnknown()]
        return [self._act(index, log_time, commit)]

    def never_acted(self, commit: Commit) -> bool:
        return (commit.client, commit.session, commit.sequence) not in self.acted

    def _act(self, index: int, log_time: int, commit: Commit) -> Answer:
        before = copy.copy(self.items), self.staging, dict(self.staged), self.seen, self.staged_at
        answer: Answer = index
        try:
            for change in commit.changes:
                self._change(change, log_time)
        except LnhError as error:
            self.items, self.staging, self.staged, self.seen, self.staged_at = before
            answer = error
        order = self.orders[commit.client] = self.orders.get(commit.client, 0) + 1
        self.acted[commit.client, commit.session, commit.sequence] = (order, log_time, answer)
        return answer

    def _restore(self, change: Stage | Switch | Sweep, log_time: int) -> None:
        if isinstance(change, Sweep):
            if self.staging and log_time - self.staged_at > 30 * 60 * 1000:
                self.staging = None
            return
        if isinstance(change, Stage) and change.begins and change.restore not in (self.staging, self.seen):
            self.staging, self.staged = change.restore, {}
        if self.staging != change.restore:
            raise NotPossible
        if isinstance(change, Stage):
            self.staged |= {item.key: item for item in change.items}
            self.staged_at = log_time
            return
        kept = {key: item for key, item in self.items.items() if key.table in change.carried}
        self.items = {key: item for key, item in self.staged.items() if key.table not in change.carried} | kept
        self.staging, self.seen, self.staged = None, change.restore, {}

    def _change(self, change: object, log_time: int) -> None:
        if isinstance(change, Stage | Switch | Sweep):
            self._restore(change, log_time)
            return
        if isinstance(change, DeleteScope):
            self.items = {k: i for k, i in self.items.items() if not _same_scope(k, change.key)}
            return
        if isinstance(change, Unchanged):
            there = sorted((k.id, i.version) for k, i in self.items.items() if _same_scope(k, change.key))
            if versions_hash(there) != change.hash:
                raise VersionConflict
            return
        old = self.items.get(change.key)  # type: ignore[attr-defined]
        version = old.version if old else 0
        if isinstance(change, Put):
            scope = [i for k, i in self.items.items() if _same_scope(k, change.key)]
            if version != change.expected:
                raise VersionConflict
            if any(i.key != change.key and set(i.tags) & set(change.unique) for i in scope):
                raise NameTaken
            if change.limit is not None and old is None and len(scope) + 1 > change.limit:
                raise LimitReached
            self.items[change.key] = Item(
                key=change.key, version=version + 1, head=change.head, body=change.body, tags=change.tags
            )
        elif isinstance(change, Delete):
            if old is None:
                raise ObjectUnknown
            if change.expected not in (None, version):
                raise VersionConflict
            del self.items[change.key]
        elif version != change.version:  # type: ignore[attr-defined]
            raise VersionConflict


def _same_scope(one: Key, other: Key) -> bool:
    return (one.table, one.scope) == (other.table, other.scope)


def kind(answer: Answer) -> object:
    """What two answers must share: the index, or the sort of error."""
    return answer if isinstance(answer, int) else type(answer)
