"""The state machine's storage as dicts: the plainest thing that can be right, to compare with and to test on."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from lnh_common import limits
from lnh_common.errors import LnhError, UnknownOperation
from lnh_common.messages.base import Empty, Message
from lnh_common.messages.store import (
    Commit,
    Commits,
    Committed,
    Count,
    Counted,
    Get,
    Gets,
    Got,
    Gots,
    Item,
    Key,
    ListScopes,
    Outcomes,
    Recall,
    Recalled,
    Scan,
    Scanned,
    Scopes,
    SetLeaseSettings,
    Status,
)
from lnh_common.wire import codec
from lnh_services.store.log.entries import Milliseconds
from lnh_services.store.machine import apply
from lnh_services.store.machine.apply import Mark, Record
from lnh_services.store.machine.restore_swap import Eras, place


class DictStorage:
    def __init__(self) -> None:
        self.items: dict[tuple[str, bytes, bytes], Item] = {}
        self.aside: dict[tuple[str, str, bytes, bytes], Item] = {}  # of eras that are not seen
        self.now = Eras()
        self.records: dict[tuple[bytes, bytes, int], Record] = {}
        self.marks: dict[tuple[bytes, bytes], Mark] = {}

    @contextmanager
    def attempt(self) -> Iterator[None]:
        before = dict(self.items), dict(self.aside), self.now
        try:
            yield
        except BaseException:
            self.items, self.aside, self.now = before
            raise

    def get(self, key: Key) -> Item | None:
        return self.items.get((key.table, key.scope, key.id))

    def version(self, key: Key) -> int:
        item = self.get(key)
        return 0 if item is None else item.version

    def put(self, item: Item) -> None:
        self.items[item.key.table, item.key.scope, item.key.id] = item

    def delete(self, key: Key) -> None:
        del self.items[key.table, key.scope, key.id]

    def in_scope(self, table: str, scope: bytes) -> list[Item]:
        return [self.items[table, scope, each] for each in self.ids(table, scope)]

    def ids(self, table: str, scope: bytes) -> list[bytes]:
        return sorted([at[2] for at in self.items if at[1] == scope and at[0] == table])

    def versions(self, table: str, scope: bytes) -> list[tuple[bytes, int]]:
        return [(item.key.id, item.version) for item in self.in_scope(table, scope)]

    def count(self, table: str, scope: bytes) -> int:
        return len(self.ids(table, scope))

    def tagged(self, table: str, scope: bytes, tag: bytes) -> list[bytes]:
        return [item.key.id for item in self.in_scope(table, scope) if tag in item.tags][:2]

    def eras(self) -> Eras:
        return self.now

    def set_eras(self, eras: Eras) -> None:
        if eras.seen != self.now.seen:
            self.aside |= {(self.now.seen, *at): item for at, item in self.items.items()}
            self.items = {at[1:]: item for at, item in self.aside.items() if at[0] == eras.seen}
            self.aside = {at: item for at, item in self.aside.items() if at[0] != eras.seen}
        self.now = eras

    def stage(self, era: str, item: Item) -> None:
        self.aside[era, item.key.table, item.key.scope, item.key.id] = item

    def carry(self, era: str, table: str) -> None:
        self.aside = {at: item for at, item in self.aside.items() if at[:2] != (era, table)}
        self.aside |= {(era, *at): item for at, item in self.items.items() if at[0] == table}

    def sweep(self, limit: int) -> None:
        stale = [at for at in self.aside if at[0] != (self.now.staging or self.now.seen)]
        for at in sorted(stale, key=lambda at: (place(at[0], at[1]), at[2:]))[:limit]:
            del self.aside[at]

    def record(self, client: bytes, session: bytes, sequence: int) -> Record | None:
        return self.records.get((client, session, sequence))

    def add_record(self, record: Record) -> None:
        self.records[record.client, record.session, record.sequence] = record

    def newest_number(self, client: bytes) -> int:
        return max((record.number for record in self.records.values() if record.client == client), default=0)

    def oldest_records(self, client: bytes, at_most: int, number: int, before: Milliseconds) -> list[Record]:
        own = [record for record in self.records.values() if record.client == client]
        oldest = sorted(own, key=lambda record: record.number)[:at_most]
        return [record for record in oldest if record.number <= number and record.log_time < before]

    def drop_record(self, record: Record) -> None:
        del self.records[record.client, record.session, record.sequence]

    def mark(self, client: bytes, session: bytes) -> Mark | None:
        return self.marks.get((client, session))

    def set_mark(self, client: bytes, session: bytes, mark: Mark) -> None:
        self.marks[client, session] = mark

    def drop_marks(self, client: bytes, before: Milliseconds) -> None:
        self.marks = {at: mark for at, mark in self.marks.items() if at[0] != client or mark.issued_until >= before}


class DictStore:
    """Answers the store's messages from dicts; `invalidated` collects what every cache must drop."""

    def __init__(self) -> None:
        self.storage = DictStorage()
        self.index = 0
        self.invalidated: list[frozenset[Key]] = []
        self.current = True
        self.lease_settings = SetLeaseSettings(lease_ms=limits.LEASE_MS)

    def answer(self, message: Message, now_ms: int) -> Message:
        match message:
            case Get():
                item = self.storage.get(message.key)
                return Got(item=copy.copy(item), index=self.index, current=self.current)
            case Gets():
                return Gots(gots=tuple(cast("Got", self.answer(get, now_ms)) for get in message.gets))
            case Scan():
                matching = [
                    item
                    for item in self.storage.in_scope(message.table, message.scope)
                    if item.key.id > message.after and set(message.tags) <= set(item.tags)
                ]
                return Scanned(
                    items=tuple(matching[: message.limit]),
                    more=len(matching) > message.limit,
                    index=self.index,
                    current=self.current,
                )
            case ListScopes():
                held = {item.key.scope for item in self.storage.items.values() if item.key.table == message.table}
                scopes = sorted(scope for scope in held if message.after is None or scope > message.after)
                return Scopes(
                    scopes=tuple(scopes[: message.limit]),
                    more=len(scopes) > message.limit,
                    index=self.index,
                    current=self.current,
                )
            case SetLeaseSettings():
                self.lease_settings = message
                self.index += 1
                return Committed(index=self.index)
            case Empty():  # status, of which a worker reads the lease settings
                return Status(
                    state="read-write", cluster=bytes(16), member=bytes(16), primary=bytes(16), epoch=1, in_sync=(),
                    last_index=self.index, committed_index=self.index, applied_index=self.index,
                    items=len(self.storage.items), bytes_on_disk=0, commits_per_second=0.0, lease_settings=self.lease_settings,
                )  # fmt: skip
            case Count():
                return Counted(
                    count=self.storage.count(message.table, message.scope), index=self.index, current=self.current
                )
            case Recall():
                record = self.storage.record(message.client, message.session, message.sequence)
                if record is None:
                    return Recalled(known=False, index=0)
                if isinstance(record.answer, LnhError):
                    raise record.answer
                return Recalled(known=True, index=record.answer)
            case Commit():
                return self._commit(message, now_ms)
            case Commits():
                return Outcomes(outcomes=tuple(self._outcome(fields, now_ms) for fields in message.commits))
            case _:
                raise UnknownOperation(type(message).__name__)

    def _outcome(self, fields: dict[str, Any], now_ms: int) -> Committed | list[Any]:
        try:
            return self._commit(codec.convert(fields, Commit), now_ms)
        except LnhError as error:
            return error.to_wire()

    def _commit(self, commit: Commit, now_ms: int) -> Committed:
        apply.check(commit)
        self.index += 1
        known = self.storage.record(commit.client, commit.session, commit.sequence)
        applied = apply.apply(self.storage, self.index, Milliseconds(now_ms), commit)
        self.invalidated.append(applied.changed)
        if isinstance(applied.answer, LnhError):
            raise applied.answer
        return Committed(index=applied.answer, duplicate=known is not None)
