"""Keeps items, tags and duplicate records in SQLite: the state machine's `Storage`, and the reads of it.

One connection is one view: the writer's sees its open transaction, a reader's the last commit. Scopes are counted in a
table of their own, so that a limit is checked without counting a keyring's objects.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, LnhError, SealBroken
from lnh_common.messages.store import Item, Key, Scan
from lnh_common.wire import codec
from lnh_services.store.log.entries import Milliseconds
from lnh_services.store.machine import restore_swap as eras
from lnh_services.store.machine.apply import MAX_TAGS, Answer, Mark, Record
from lnh_services.store.machine.restore_swap import Eras

SCHEMA: Final = """
CREATE TABLE items (
    number INTEGER PRIMARY KEY, tbl TEXT NOT NULL, scope BLOB NOT NULL, id BLOB NOT NULL,
    version INTEGER NOT NULL, tags BLOB NOT NULL, head BLOB NOT NULL, body BLOB NOT NULL,
    UNIQUE (tbl, scope, id)
);
CREATE TABLE tags (
    tbl TEXT NOT NULL, scope BLOB NOT NULL, tag BLOB NOT NULL, id BLOB NOT NULL,
    PRIMARY KEY (tbl, scope, tag, id)
) WITHOUT ROWID;
CREATE TABLE scopes (
    tbl TEXT NOT NULL, scope BLOB NOT NULL, items INTEGER NOT NULL,
    PRIMARY KEY (tbl, scope)
) WITHOUT ROWID;
CREATE TABLE records (
    client BLOB NOT NULL, session BLOB NOT NULL, sequence INTEGER NOT NULL, number INTEGER NOT NULL,
    log_time INTEGER NOT NULL, issued_at INTEGER NOT NULL, answer BLOB NOT NULL,
    PRIMARY KEY (client, session, sequence)
) WITHOUT ROWID;
CREATE UNIQUE INDEX records_in_order ON records (client, number);
CREATE TABLE marks (
    client BLOB NOT NULL, session BLOB NOT NULL, sequence INTEGER NOT NULL, issued_until INTEGER NOT NULL,
    PRIMARY KEY (client, session)
) WITHOUT ROWID;
"""

# What a page of a scan may weigh: a whole item and the rest of the message still fit into a body.
PAGE_BYTES: Final = limits.REQUEST_BYTES // 2

_NEW: Final = 1  # the version of an item that was not there before
_ERAS: Final = (eras.TABLE, eras.ID)
_COLUMNS: Final = "i.id, i.version, i.tags, i.head"


def pack_tags(tags: tuple[bytes, ...]) -> bytes:
    """Join tags, each after one byte of length."""
    return b"".join(bytes((len(tag),)) + tag for tag in tags)


def parse_tags(packed: bytes) -> tuple[bytes, ...]:
    """Split tags that `pack_tags` joined; raises SealBroken for anything else."""
    tags, at = [], 0
    while at < len(packed):
        end = at + 1 + packed[at]
        if end > len(packed):
            raise SealBroken("the tags of a stored item do not decode")
        tags.append(packed[at + 1 : end])
        at = end
    return tuple(tags)


def _pack_answer(answer: Answer) -> bytes:
    return codec.encode(answer if isinstance(answer, int) else answer.to_wire())


def _parse_answer(packed: bytes) -> Answer:
    decoded = codec.decode(packed)
    return decoded if isinstance(decoded, int) else LnhError.from_wire(decoded)


class ItemReader:
    """Reads items on one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection: Final = connection
        self._known: Eras | None = None

    def eras(self) -> Eras:
        """Read which era is seen and which is staged."""
        if self._known is None:
            row = self._connection.execute("SELECT head FROM items WHERE tbl = ? AND scope = x'' AND id = ?", _ERAS)
            found = row.fetchone()
            self._known = Eras() if found is None else codec.decode_as(found[0], Eras)
        return self._known

    def _place(self, table: str) -> str:
        return eras.place(self.eras().seen, table)

    def get(self, key: Key, *, body: bool = True) -> Item | None:
        """Read an item; without `body` its body is empty. Returns None where there is none."""
        columns = f"{_COLUMNS}, i.body" if body else f"{_COLUMNS}, x''"
        row = self._connection.execute(
            f"SELECT {columns} FROM items i WHERE tbl = ? AND scope = ? AND id = ?",  # noqa: S608  # constants
            (self._place(key.table), key.scope, key.id),
        ).fetchone()
        return None if row is None else _item(key.table, key.scope, row)

    def scan(self, scan: Scan) -> tuple[list[Item], bool]:
        """Read a page, and tell whether more follows. Raises ArgumentInvalid for too many tags.

        A page ends early at PAGE_BYTES, but holds at least one item if there is one.
        """
        tags = tuple(dict.fromkeys(scan.tags))
        if len(tags) > MAX_TAGS:
            raise ArgumentInvalid(f"a search for {len(tags)} tags; at most {MAX_TAGS}")
        rows = self._connection.execute(
            _scan_statement(len(tags), body=scan.body),
            (self._place(scan.table), scan.scope, scan.after, *tags, scan.limit + 1),
        )
        items: list[Item] = []
        size = 0
        for row in rows:
            if len(items) == scan.limit:
                return items, True
            item = _item(scan.table, scan.scope, row)
            size += len(item.head) + len(item.body) + sum(map(len, item.tags)) + 128
            if items and size > PAGE_BYTES:
                return items, True
            items.append(item)
        return items, False

    def count(self, table: str, scope: bytes) -> int:
        """Count the items of a table's scope."""
        row = self._connection.execute(
            "SELECT items FROM scopes WHERE tbl = ? AND scope = ?", (self._place(table), scope)
        ).fetchone()
        return 0 if row is None else int(row[0])

    def scopes(self, table: str, after: bytes | None, limit: int) -> tuple[list[bytes], bool]:
        """Read a page of a table's scopes that hold items, and tell whether more follows.

        Args:
            after: continue behind this scope; None begins with the first, which may be the empty one.
        """
        rows = self._connection.execute(
            "SELECT scope FROM scopes WHERE tbl = ?1 AND (?2 IS NULL OR scope > ?2) ORDER BY scope LIMIT ?3",
            (self._place(table), after, limit + 1),
        )
        found = [scope for (scope,) in rows]
        return found[:limit], len(found) > limit

    def totals(self) -> tuple[dict[str, int], int]:
        """Count the items of each table, and the items that are not seen."""
        seen: Counter[str] = Counter()
        hidden = 0
        for placed, items in self._connection.execute("SELECT tbl, sum(items) FROM scopes GROUP BY tbl"):
            if eras.is_of(self.eras().seen, placed):
                seen[placed.rpartition(eras.SEPARATOR)[2]] += items
            elif placed != eras.TABLE:
                hidden += items
        return dict(seen), hidden

    def everything(self) -> Iterator[Item]:
        """Yield every item, by table, scope and id."""
        tables, _ = self.totals()
        for table in sorted(tables):
            for scope, *row in self._connection.execute(
                f"SELECT i.scope, {_COLUMNS}, i.body FROM items i WHERE tbl = ? ORDER BY scope, id",  # noqa: S608  # constants
                (self._place(table),),
            ):
                yield _item(table, scope, row)


def _item(table: str, scope: bytes, row: tuple[bytes, int, bytes, bytes, bytes] | list[object]) -> Item:
    id_, version, tags, head, body = row
    assert isinstance(id_, bytes)
    assert isinstance(version, int)
    assert isinstance(tags, bytes)
    assert isinstance(head, bytes)
    assert isinstance(body, bytes)
    key = Key(table=table, scope=scope, id=id_)
    return Item(key=key, version=version, head=head, body=body, tags=parse_tags(tags))


def _record(row: tuple[bytes, bytes, int, int, int, int, bytes]) -> Record:
    client, session, sequence, number, log_time, issued_at, answer = row
    return Record(
        client, session, sequence, number, Milliseconds(log_time), Milliseconds(issued_at), _parse_answer(answer)
    )


@cache
def _insert_tags(count: int) -> str:
    return f"INSERT INTO tags VALUES {', '.join(['(?, ?, ?, ?)'] * count)}"  # noqa: S608  # placeholders alone


def _scan_statement(tags: int, *, body: bool) -> str:
    """Write the statement of a scan.

    Its parameters are table, scope, after, each tag, limit. The first tag's index drives a search by tags.
    """
    columns = f"{_COLUMNS}, i.body" if body else f"{_COLUMNS}, x''"
    if not tags:
        return (
            f"SELECT {columns} FROM items i WHERE tbl = ?1 AND scope = ?2 AND id > ?3 "  # noqa: S608  # constants
            "ORDER BY id LIMIT ?4"
        )
    others = "".join(
        f" AND EXISTS (SELECT 1 FROM tags o WHERE o.tbl = ?1 AND o.scope = ?2 AND o.tag = ?{n} AND o.id = t.id)"  # noqa: S608
        for n in range(5, 4 + tags)
    )
    return (
        f"SELECT {columns} FROM tags t CROSS JOIN items i ON i.tbl = ?1 AND i.scope = ?2 AND i.id = t.id "  # noqa: S608
        f"WHERE t.tbl = ?1 AND t.scope = ?2 AND t.tag = ?4 AND t.id > ?3{others} ORDER BY t.id LIMIT ?{4 + tags}"
    )


class ItemStorage(ItemReader):
    """The state machine's `Storage`, within the writer's open transaction.

    Each statement costs the lock of the interpreter twice, beside a thread that uses it. So answers that many writes of
    a step ask for again are kept, and what they add to the counts of scopes is written once, by `finish`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__(connection)
        self._versions: Final[dict[Key, int]] = {}
        self._counts: Final[dict[tuple[str, bytes], int]] = {}  # by table and scope
        self._added: Final[Counter[tuple[str, bytes]]] = Counter()  # to be counted, by table as it is kept and scope
        self._numbers: Final[dict[bytes, int]] = {}  # the newest record's, by client
        self._oldest: Final[dict[bytes, tuple[int, int]]] = {}  # record's number and log time, by client
        self._sequences: Final[dict[tuple[bytes, bytes], int]] = {}  # no record has a higher, by client and session
        self._marks: Final[dict[tuple[bytes, bytes], Mark | None]] = {}  # by client and session

    def finish(self) -> None:
        """Write what is left to be written."""
        added = [(*place, items) for place, items in self._added.items()]
        self._connection.executemany(
            "INSERT INTO scopes VALUES (?, ?, ?) ON CONFLICT (tbl, scope) DO UPDATE SET items = items + excluded.items",
            added,
        )
        self._added.clear()

    def _forget(self) -> None:
        self._known = None
        for kept in (
            self._versions, self._counts, self._added, self._numbers, self._oldest, self._sequences, self._marks,
        ):  # fmt: skip
            kept.clear()

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Undo every write of the block when it raises an LnhError."""
        self.finish()
        self._connection.execute("SAVEPOINT attempt")
        try:
            yield
            self.finish()
        except LnhError:
            self._connection.execute("ROLLBACK TO attempt")
            self._connection.execute("RELEASE attempt")
            self._forget()
            raise
        # Anything else is the disk's or a bug: the whole transaction is rolled back by who began it.
        self._connection.execute("RELEASE attempt")

    def version(self, key: Key) -> int:
        """Return the version of an item; 0 where there is none."""
        known = self._versions.get(key)
        if known is None:
            row = self._connection.execute(
                "SELECT version FROM items WHERE tbl = ? AND scope = ? AND id = ?",
                (self._place(key.table), key.scope, key.id),
            ).fetchone()
            known = self._versions[key] = 0 if row is None else int(row[0])
        return known

    def count(self, table: str, scope: bytes) -> int:
        """Count the items of a table's scope."""
        known = self._counts.get((table, scope))
        if known is None:
            self.finish()
            known = self._counts[table, scope] = super().count(table, scope)
        return known

    def put(self, item: Item) -> None:
        """Create or replace an item, with its tags."""
        key = item.key
        is_new = item.version == _NEW
        self._put(self._place(key.table), item, is_new=is_new)
        self._versions[key] = item.version
        if is_new and (key.table, key.scope) in self._counts:
            self._counts[key.table, key.scope] += 1

    def stage(self, era: str, item: Item) -> None:
        """Lay an item aside in an era that is not seen."""
        self._put(eras.place(era, item.key.table), item)

    def _put(self, table: str, item: Item, *, is_new: bool = False) -> None:
        place = (table, item.key.scope)
        old = None if is_new else self._tags_of(*place, item.key.id)
        row = (*place, item.key.id, item.version, pack_tags(item.tags), item.head, item.body)
        self._connection.execute(
            "INSERT INTO items (tbl, scope, id, version, tags, head, body) VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (tbl, scope, id) DO UPDATE SET version = excluded.version, tags = excluded.tags, "
            "head = excluded.head, body = excluded.body",
            row,
        )
        if old is None:
            self._added[place] += 1
        else:
            self._drop_tags(*place, item.key.id, set(old) - set(item.tags))
        new = set(item.tags) - set(old or ())
        if new:
            self._connection.execute(
                _insert_tags(len(new)), [column for tag in sorted(new) for column in (*place, tag, item.key.id)]
            )

    def delete(self, key: Key) -> None:
        """Delete an item, with its tags."""
        self._delete(self._place(key.table), key.scope, key.id)

    def _delete(self, table: str, scope: bytes, id_: bytes) -> None:
        self.finish()
        self._forget()
        tags = self._tags_of(table, scope, id_)
        assert tags is not None, "deleting an item that is not there"
        self._drop_tags(table, scope, id_, set(tags))
        self._connection.execute("DELETE FROM items WHERE tbl = ? AND scope = ? AND id = ?", (table, scope, id_))
        self._connection.execute("UPDATE scopes SET items = items - 1 WHERE tbl = ? AND scope = ?", (table, scope))
        self._connection.execute("DELETE FROM scopes WHERE tbl = ? AND scope = ? AND items = 0", (table, scope))

    def set_eras(self, eras_: Eras) -> None:
        """Set which era is seen and which is staged."""
        self.finish()
        self._forget()
        self._connection.execute(
            "INSERT INTO items (tbl, scope, id, version, tags, head, body) VALUES (?, x'', ?, 1, x'', ?, x'') "
            "ON CONFLICT (tbl, scope, id) DO UPDATE SET head = excluded.head",
            (*_ERAS, codec.encode(eras_)),
        )
        self._connection.execute("INSERT OR REPLACE INTO scopes VALUES (?, x'', 1)", (eras.TABLE,))
        self._known = eras_

    def carry(self, era: str, table: str) -> None:
        """Copy a table of the era that is seen into another era, in place of what that has."""
        for scope, id_ in self._rows(eras.place(era, table)):
            self._delete(eras.place(era, table), scope, id_)
        for scope, id_ in self._rows(self._place(table)):
            item = self.get(Key(table=table, scope=scope, id=id_))
            assert item is not None, "an item that was just listed"
            self.stage(era, item)

    def sweep(self, limit: int) -> None:
        """Delete up to `limit` items of eras that are neither seen nor staged."""
        self.finish()
        now = self.eras()
        placed = [table for (table,) in self._connection.execute("SELECT DISTINCT tbl FROM scopes ORDER BY tbl")]
        for table in placed:
            if table == eras.TABLE or any(eras.is_of(era, table) for era in (now.seen, now.staging or now.seen)):
                continue
            for scope, id_ in self._rows(table, limit):
                self._delete(table, scope, id_)
                limit -= 1
            if not limit:
                return

    def _rows(self, table: str, limit: int = -1) -> list[tuple[bytes, bytes]]:
        rows = self._connection.execute(
            "SELECT scope, id FROM items WHERE tbl = ? ORDER BY scope, id LIMIT ?", (table, limit)
        )
        return list(rows)

    def ids(self, table: str, scope: bytes) -> list[bytes]:
        """List the ids of a scope's items, in their order."""
        rows = self._connection.execute(
            "SELECT id FROM items WHERE tbl = ? AND scope = ? ORDER BY id", (self._place(table), scope)
        )
        return [id_ for (id_,) in rows]

    def versions(self, table: str, scope: bytes) -> list[tuple[bytes, int]]:
        """List the ids and versions of a scope's items, in the order of the ids."""
        rows = self._connection.execute(
            "SELECT id, version FROM items WHERE tbl = ? AND scope = ? ORDER BY id", (self._place(table), scope)
        )
        return [(id_, version) for id_, version in rows]

    def tagged(self, table: str, scope: bytes, tag: bytes) -> list[bytes]:
        """List the ids of at most two items that carry the tag."""
        rows = self._connection.execute(
            "SELECT id FROM tags WHERE tbl = ? AND scope = ? AND tag = ? LIMIT 2", (self._place(table), scope, tag)
        )
        return [id_ for (id_,) in rows]

    def record(self, client: bytes, session: bytes, sequence: int) -> Record | None:
        """Return the record of an answered request, or None."""
        if sequence > self._highest(client, session):
            return None
        row = self._connection.execute(
            "SELECT client, session, sequence, number, log_time, issued_at, answer FROM records "
            "WHERE client = ? AND session = ? AND sequence = ?",
            (client, session, sequence),
        ).fetchone()
        return None if row is None else _record(row)

    def _highest(self, client: bytes, session: bytes) -> int:
        """Return a sequence that no record of a session is beyond."""
        known = self._sequences.get((client, session))
        if known is None:
            (known,) = self._connection.execute(
                "SELECT coalesce(max(sequence), 0) FROM records WHERE client = ? AND session = ?", (client, session)
            ).fetchone()
            self._sequences[client, session] = int(known)
        return known

    def add_record(self, record: Record) -> None:
        """Keep the record of an answered request."""
        self._connection.execute(
            "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                record.client, record.session, record.sequence, record.number, record.log_time, record.issued_at,
                _pack_answer(record.answer),
            ),
        )  # fmt: skip
        self._numbers[record.client] = record.number
        highest = self._highest(record.client, record.session)
        self._sequences[record.client, record.session] = max(highest, record.sequence)

    def newest_number(self, client: bytes) -> int:
        """Return the number of the client's newest record; 0 without any."""
        known = self._numbers.get(client)
        if known is None:
            (known,) = self._connection.execute(
                "SELECT coalesce(max(number), 0) FROM records WHERE client = ?", (client,)
            ).fetchone()
            self._numbers[client] = int(known)
        return known

    def oldest_records(self, client: bytes, at_most: int, number: int, before: Milliseconds) -> list[Record]:
        """List the client's `at_most` oldest records, but only those up to `number` and logged before `before`."""
        oldest = self._oldest.get(client)
        if oldest is not None and (oldest[0] > number or oldest[1] >= before):
            return []
        rows = self._connection.execute(
            "SELECT client, session, sequence, number, log_time, issued_at, answer FROM records "
            "WHERE client = ? ORDER BY number LIMIT ?",
            (client, at_most),
        ).fetchall()
        if rows:
            self._oldest[client] = (rows[0][3], rows[0][4])
        return [_record(row) for row in rows if row[3] <= number and row[4] < before]

    def drop_record(self, record: Record) -> None:
        """Delete a record."""
        self._connection.execute("DELETE FROM records WHERE client = ? AND number = ?", (record.client, record.number))
        self._oldest.pop(record.client, None)
        if self._numbers.get(record.client) == record.number:
            del self._numbers[record.client]

    def mark(self, client: bytes, session: bytes) -> Mark | None:
        """Return the mark of a session whose records were evicted, or None."""
        if (client, session) not in self._marks:
            row = self._connection.execute(
                "SELECT sequence, issued_until FROM marks WHERE client = ? AND session = ?", (client, session)
            ).fetchone()
            self._marks[client, session] = None if row is None else Mark(row[0], row[1])
        return self._marks[client, session]

    def set_mark(self, client: bytes, session: bytes, mark: Mark) -> None:
        """Set the mark of a session."""
        self._connection.execute(
            "INSERT OR REPLACE INTO marks VALUES (?, ?, ?, ?)", (client, session, mark.sequence, mark.issued_until)
        )
        self._marks[client, session] = mark

    def drop_marks(self, client: bytes, before: Milliseconds) -> None:
        """Delete the client's marks whose `issued_until` is before `before`."""
        self._connection.execute("DELETE FROM marks WHERE client = ? AND issued_until < ?", (client, before))
        self._marks.clear()

    def _tags_of(self, table: str, scope: bytes, id_: bytes) -> tuple[bytes, ...] | None:
        row = self._connection.execute(
            "SELECT tags FROM items WHERE tbl = ? AND scope = ? AND id = ?", (table, scope, id_)
        ).fetchone()
        return None if row is None else parse_tags(row[0])

    def _drop_tags(self, table: str, scope: bytes, id_: bytes, tags: set[bytes]) -> None:
        self._connection.executemany(
            "DELETE FROM tags WHERE tbl = ? AND scope = ? AND tag = ? AND id = ?",
            [(table, scope, tag, id_) for tag in sorted(tags)],
        )
