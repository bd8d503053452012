"""The state machine: applies a committed write. Pure, and the same on every member.

A write is a list of changes, applied in order, all or none. Each carries its guards (an expected version, unique tags,
a limit), checked here and nowhere earlier, because only here every member sees the same state. The answer - the entry's
index, or the error that refused it - is kept, and a request that comes again gets it again and does nothing:

    (client, session, sequence) known            -> its first answer
    at or below the session's evicted sequences   -> OutcomeUnknown: it may have acted, its answer is gone
    issued longer ago than the duplicate window   -> refused, for every client
    otherwise                                     -> applied, its answer recorded

A record may go when it is both older than the window of log time and beyond the client's newest `DUPLICATE_RECORDS`. A
mark remains of it: the session's highest evicted sequence. A mark goes when nothing it covers was issued within
`MARK_KEPT_MS`; a request older than that is answered OutcomeUnknown without looking, so a forgotten mark never turns
into a claim that nothing happened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

import msgspec

from lnh_common import limits
from lnh_common.errors import (
    ArgumentInvalid,
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
    OBJECTS,
    Change,
    Commit,
    Delete,
    DeleteScope,
    Item,
    Key,
    Put,
    Require,
    Stage,
    Sweep,
    Switch,
    Unchanged,
    versions_hash,
)
from lnh_services.store.log.entries import Milliseconds
from lnh_services.store.machine import restore_swap as eras
from lnh_services.store.machine.restore_swap import EVERYTHING, Eras

WINDOW_MS: Final = limits.DUPLICATE_WINDOW * 1000
MARK_KEPT_MS: Final = limits.SESSION_LIFETIME * 1000
INTEGER_MAX: Final = 2**63 - 1
MAX_TAGS: Final = 64
EVICTED_AT_ONCE: Final = 8

Answer = int | LnhError  # the index of the entry that acted, or why it did not


class Record(msgspec.Struct, frozen=True):
    """One answered request. `number` counts the client's records from 1, in the order applied."""

    client: bytes
    session: bytes
    sequence: int
    number: int
    log_time: Milliseconds
    issued_at: Milliseconds
    answer: Answer


class Mark(msgspec.Struct, frozen=True):
    """Notes that records of this session up to `sequence`, issued up to `issued_until`, were evicted."""

    sequence: int
    issued_until: Milliseconds


class Storage(Protocol):
    """Keeps the state machine's items and records: a database, or dicts in a test."""

    def attempt(self) -> AbstractContextManager[None]:
        """Undo every write of the block when it raises."""

    def version(self, key: Key) -> int:
        """Return the version of an item; 0 where there is none."""

    def put(self, item: Item) -> None:
        """Create (version 1) or replace an item, with its tags."""

    def delete(self, key: Key) -> None:
        """Delete an item, with its tags."""

    def ids(self, table: str, scope: bytes) -> list[bytes]:
        """List the ids of all items of the scope."""

    def versions(self, table: str, scope: bytes) -> list[tuple[bytes, int]]:
        """List the ids and versions of all items of the scope, in the order of the ids."""

    def count(self, table: str, scope: bytes) -> int:
        """Count the items of the scope."""

    def tagged(self, table: str, scope: bytes, tag: bytes) -> list[bytes]:
        """List the ids of at most two items that carry the tag."""

    def record(self, client: bytes, session: bytes, sequence: int) -> Record | None:
        """Return the record of an answered request, or None."""

    def add_record(self, record: Record) -> None:
        """Keep the record of an answered request."""

    def newest_number(self, client: bytes) -> int:
        """Return the number of the client's newest record, 0 without any."""

    def oldest_records(self, client: bytes, at_most: int, number: int, before: Milliseconds) -> list[Record]:
        """List the client's `at_most` records of the lowest numbers, as far as they fit.

        Those fit that are numbered up to `number` and logged before `before`.
        """

    def drop_record(self, record: Record) -> None:
        """Delete a record."""

    def mark(self, client: bytes, session: bytes) -> Mark | None:
        """Return the mark of a session, or None where no record of it was evicted."""

    def set_mark(self, client: bytes, session: bytes, mark: Mark) -> None:
        """Set the mark of a session."""

    def drop_marks(self, client: bytes, before: Milliseconds) -> None:
        """Drop the client's marks whose `issued_until` is before `before`."""

    def eras(self) -> Eras:
        """Return which era is seen and which is staged."""

    def set_eras(self, eras: Eras) -> None:
        """Set which era is seen and which is staged."""

    def stage(self, era: str, item: Item) -> None:
        """Put an item into an era that is not seen."""

    def carry(self, era: str, table: str) -> None:
        """Make the table of an era that is not seen a copy of the one that is."""

    def sweep(self, limit: int) -> None:
        """Delete the first `limit` items, by table, scope and id, of eras that are neither seen nor staged."""


class Applied(msgspec.Struct, frozen=True):
    """The result of applying one write; `changed` is empty when it was refused or a repetition."""

    answer: Answer
    changed: frozenset[Key] = frozenset()


def touched(commit: Commit) -> frozenset[Key]:
    """Return the keys that the commit may change; an empty id stands for the whole scope."""
    keys: set[Key] = set()
    for change in commit.changes:
        if type(change) is Put:  # almost every one is; that something is no message of a type takes longer to tell
            keys.add(change.key)
        elif isinstance(change, Switch):
            return frozenset((EVERYTHING,))
        elif isinstance(change, Delete | DeleteScope):
            keys.add(change.key)
    return frozenset(keys)


def cached(commit: Commit) -> frozenset[Key]:
    """Return the keys that the commit may change and a cache may hold.

    A new object is none of them, since no cache holds that an object does not exist.
    """
    new = {change.key for change in commit.changes if type(change) is Put and not change.expected}
    return touched(commit) - {key for key in new if key.table == OBJECTS}


def check(commit: Commit) -> None:
    """Raise ArgumentInvalid for a commit that no state could accept, before it is appended."""
    if commit.sequence > INTEGER_MAX:
        raise ArgumentInvalid(f"sequence {commit.sequence}; at most {INTEGER_MAX}")
    if not 0 <= commit.issued_at <= INTEGER_MAX:
        raise ArgumentInvalid(f"issued_at {commit.issued_at} is no time in UTC milliseconds")
    for change in commit.changes:
        _check_change(change)


def _check_change(change: Change) -> None:
    if type(change) is Put:
        _check_put(change)
    elif isinstance(change, Stage):
        for item in change.items:
            _check_table(item.key)
    elif isinstance(change, DeleteScope | Unchanged):
        _check_table(change.key)
        if change.key.id:
            raise ArgumentInvalid("what is about a whole scope names a single item; its id must be empty")
    elif isinstance(change, Require | Delete):
        _check_guarded(change.key, change.version if isinstance(change, Require) else change.expected)


def _check_table(key: Key) -> None:
    if not eras.may_name(key.table):
        raise ArgumentInvalid(f"no table may be called {key.table!r}")


def _check_guarded(key: Key, version: int | None) -> None:
    _check_table(key)
    if not key.id:
        raise ArgumentInvalid(f"an item of table {key.table} without an id; 1 to 64 bytes")
    if version is not None and not 0 <= version < INTEGER_MAX:
        raise ArgumentInvalid(f"version {version}; 0 to {INTEGER_MAX - 1}")


def _check_put(put: Put) -> None:
    _check_guarded(put.key, put.expected)
    if put.limit is not None and not 0 <= put.limit <= INTEGER_MAX:
        raise ArgumentInvalid(f"limit {put.limit}; 0 to {INTEGER_MAX}")
    if len(put.tags) > MAX_TAGS or len(set(put.tags)) != len(put.tags):
        raise ArgumentInvalid(f"{len(put.tags)} tags; at most {MAX_TAGS}, all different")
    if not set(put.unique) <= set(put.tags):
        raise ArgumentInvalid("a unique tag that is not one of the item's tags")
    size = len(put.head) + len(put.body)
    if size > limits.REQUEST_BYTES:
        raise ArgumentInvalid(f"an item of {size} bytes; at most {limits.REQUEST_BYTES}")


def recall(storage: Storage, client: bytes, session: bytes, sequence: int) -> Answer | None:
    """Return the first answer to a request, or None if it never acted; OutcomeUnknown if that is no longer known."""
    known = storage.record(client, session, sequence)
    if known is not None:
        return known.answer
    mark = storage.mark(client, session)
    return _forgotten(sequence) if mark is not None and sequence <= mark.sequence else None


def _forgotten(sequence: int) -> OutcomeUnknown:
    return OutcomeUnknown(f"request {sequence} is too old: its first answer is no longer kept")


def apply(storage: Storage, index: int, log_time: Milliseconds, commit: Commit) -> Applied:
    """Apply the write of entry `index`, whose log time is `log_time`. Never raises an LnhError."""
    known = storage.record(commit.client, commit.session, commit.sequence)
    if known is not None:
        return Applied(known.answer)
    refusal = _refusal(storage, log_time, commit)
    if refusal is not None:
        return Applied(refusal)
    try:
        if _are_apart(commit.changes):
            changed = _make_checked(storage, commit.changes)
        else:
            with storage.attempt():
                changed = _apply_changes(storage, log_time, commit.changes)
        outcome = Applied(index, changed)
    except LnhError as error:
        outcome = Applied(error)
    _remember(storage, log_time, commit, outcome.answer)
    return outcome


def _refusal(storage: Storage, log_time: Milliseconds, commit: Commit) -> LnhError | None:
    """Say why a request that has no record must not act now; these answers are not recorded."""
    age = log_time - commit.issued_at
    mark = storage.mark(commit.client, commit.session)
    if (mark is not None and commit.sequence <= mark.sequence) or age > MARK_KEPT_MS:
        return _forgotten(commit.sequence)
    if age > WINDOW_MS:
        return DeadlineExceeded(f"the request was issued {age // 1000} s ago; at most {limits.DUPLICATE_WINDOW} s")
    return None


def _remember(storage: Storage, log_time: Milliseconds, commit: Commit, answer: Answer) -> None:
    client = commit.client
    number = storage.newest_number(client) + 1
    issued_at = Milliseconds(commit.issued_at)
    storage.add_record(Record(client, commit.session, commit.sequence, number, log_time, issued_at, answer))
    if number <= limits.DUPLICATE_RECORDS:
        return
    # Numbers and log times rise together, so what may go is a prefix; a few at a time keep a write's cost even.
    last, before = number - limits.DUPLICATE_RECORDS, Milliseconds(log_time - WINDOW_MS)
    for record in storage.oldest_records(client, EVICTED_AT_ONCE, last, before):
        mark = storage.mark(client, record.session) or Mark(0, Milliseconds(0))
        raised = Mark(max(mark.sequence, record.sequence), max(mark.issued_until, record.issued_at))
        storage.set_mark(client, record.session, raised)
        storage.drop_record(record)
        storage.drop_marks(client, Milliseconds(log_time - MARK_KEPT_MS))


def _are_apart(changes: Sequence[Change]) -> bool:
    """Tell whether no change has a say in what another's guards find, a scope's limit apart.

    Almost every commit is like this: then all guards are looked at before the first change is made, and nothing has to
    be undone.
    """
    keys: set[Key] = set()
    puts, unique = 0, False
    for change in changes:
        if type(change) is Put:
            puts += 1
            unique = unique or bool(change.unique)
        elif not isinstance(change, Require):
            return False
        keys.add(change.key)
    return len(keys) == len(changes) and not (unique and puts > 1)


def _make_checked(storage: Storage, changes: Sequence[Change]) -> frozenset[Key]:
    puts: list[Put] = []
    new: Counter[tuple[str, bytes]] = Counter()
    for change in changes:
        if type(change) is Put:
            place = (change.key.table, change.key.scope)
            _check_guards(storage, change, new[place])
            new[place] += not change.expected
            puts.append(change)
        else:
            assert isinstance(change, Require), "the only other change that stands apart"
            _require(storage, change.key, change.version)
    for put in puts:
        storage.put(_item(put))
    return frozenset([put.key for put in puts])


def _apply_changes(storage: Storage, log_time: Milliseconds, changes: Iterable[Change]) -> frozenset[Key]:
    changed: set[Key] = set()
    for change in changes:
        if type(change) is Put:
            _check_guards(storage, change)
            storage.put(_item(change))
            changed.add(change.key)
        elif isinstance(change, Require):
            _require(storage, change.key, change.version)
        elif isinstance(change, Unchanged):
            if versions_hash(storage.versions(change.key.table, change.key.scope)) != change.hash:
                raise VersionConflict(f"something of table {change.key.table} was changed")
        elif isinstance(change, Delete):
            _delete(storage, change)
            changed.add(change.key)
        elif isinstance(change, DeleteScope):
            for id_ in storage.ids(change.key.table, change.key.scope):
                storage.delete(Key(table=change.key.table, scope=change.key.scope, id=id_))
            changed.add(change.key)
        elif isinstance(change, Stage | Switch | Sweep):
            _restore(storage, log_time, change)
            if isinstance(change, Switch):
                changed.add(EVERYTHING)
    return frozenset(changed)


def _require(storage: Storage, key: Key, version: int) -> None:
    found = storage.version(key)
    if found != version:
        raise VersionConflict(f"{key.table} {key.id.hex()} has version {found}, not {version}", {"version": found})


def _check_guards(storage: Storage, put: Put, new: int = 0) -> None:
    """Raise the error that forbids a change; before it, its commit makes `new` items in the same scope."""
    key = put.key
    _require(storage, key, put.expected)
    for tag in put.unique:
        if any(id_ != key.id for id_ in storage.tagged(key.table, key.scope, tag)):
            raise NameTaken(f"there is a {key.table} of this name")
    if not put.expected and put.limit is not None and storage.count(key.table, key.scope) + new >= put.limit:
        raise LimitReached(f"{key.table}: at most {put.limit}", {"limit": put.limit})


def _item(put: Put) -> Item:
    return Item(key=put.key, version=put.expected + 1, head=put.head, body=put.body, tags=put.tags)


def _delete(storage: Storage, delete: Delete) -> None:
    if not storage.version(delete.key):
        raise ObjectUnknown(f"{delete.key.table} {delete.key.id.hex()} does not exist")
    if delete.expected is not None:
        _require(storage, delete.key, delete.expected)
    storage.delete(delete.key)


def _restore(storage: Storage, log_time: Milliseconds, change: Stage | Switch | Sweep) -> None:
    now = storage.eras()
    if isinstance(change, Sweep):
        if now.staging and log_time - now.staged_at > eras.ABANDONED_MS:
            storage.set_eras(Eras(now.seen))
        storage.sweep(change.limit)
        return
    era = eras.named(change.restore)
    if isinstance(change, Stage) and change.begins and era != now.seen:
        now = Eras(now.seen, era, log_time)
    if now.staging != era:
        raise NotPossible("this restore was given up: another one began since, or it stood still for too long")
    if isinstance(change, Stage):
        storage.set_eras(Eras(now.seen, era, log_time))
        for item in change.items:
            storage.stage(era, item)
        return
    for table in change.carried:
        storage.carry(era, table)
    storage.set_eras(Eras(era))
