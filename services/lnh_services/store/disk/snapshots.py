"""Streams the applied state as bytes, and makes a new database from that stream.

    Outgoing: a consistent read of the database, whatever is written meanwhile -> chunks
    Incoming: chunks -> a database of its own, offered only when the whole is there and its hash fits

The stream is a sequence of records, each after four bytes of its length (docs/formats/store.md); chunks cut it where
they will. Two members at one index make the same stream, byte for byte. Log entries are not in it: a log that goes on
from the state follows its `Base`.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from lnh_common import limits
from lnh_common.errors import MalformedMessage, SealBroken
from lnh_common.wire import codec
from lnh_services.store.disk.disk_errors import connect, remove_database, sync_file, told_apart
from lnh_services.store.disk.items import ItemReader, pack_tags, parse_tags
from lnh_services.store.log.entries import ClusterId
from lnh_services.store.log.window import Base

FORMAT: Final = 1
CHUNK_BYTES: Final = 256 * limits.KIB
RECORD_BYTES: Final = 2 * limits.BODY_BYTES  # one record: a batch of rows, or one row however large
BATCH_BYTES: Final = 64 * limits.KIB
_LENGTH: Final = 4

Row = tuple[Any, ...]


class _Table(msgspec.Struct, frozen=True):
    """One table of the stream: the statement that reads it, the form of a row, and where the row goes."""

    select: str
    row: Any
    insert: str


_TABLES: Final = {
    "items": _Table(
        "SELECT tbl, scope, id, version, tags, head, body FROM items ORDER BY tbl, scope, id",
        tuple[str, bytes, bytes, int, bytes, bytes, bytes],
        "INSERT INTO items (tbl, scope, id, version, tags, head, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
    ),
    "records": _Table(
        "SELECT client, session, sequence, number, log_time, issued_at, answer FROM records ORDER BY client, number",
        tuple[bytes, bytes, int, int, int, int, bytes],
        "INSERT INTO records VALUES (?, ?, ?, ?, ?, ?, ?)",
    ),
    "marks": _Table(
        "SELECT client, session, sequence, issued_until FROM marks ORDER BY client, session",
        tuple[bytes, bytes, int, int],
        "INSERT INTO marks VALUES (?, ?, ?, ?)",
    ),
}
_ROWS: Final = {name: tuple[str, list[table.row]] for name, table in _TABLES.items()}  # type: ignore[name-defined]


class Header(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The first record of the stream."""

    format: int
    cluster: bytes
    base: Base


class SnapshotGone(Exception):
    """The database that a snapshot reads was replaced or erased; the snapshot ends here."""


class Outgoing:
    """One read of a database. Used by one thread at a time; `close` may come from any.

    Args:
        connection: with a read transaction of its own.
        describe: returns the cluster, and the base of a log that goes on from the state.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        describe: Callable[[sqlite3.Connection], tuple[ClusterId, Base]],
    ) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._describe: Final = describe
        self._lock: Final = threading.Lock()
        self._hash: Final = hashlib.sha256()
        self._chunks: Final = self._cut()

    @property
    def hash(self) -> bytes:
        """Return the hash of all chunks so far."""
        return self._hash.digest()

    def next(self) -> bytes | None:
        """Return the next chunk, at most CHUNK_BYTES; None at the end.

        Raises SnapshotGone, SealBroken, DiskUncertain.
        """
        with self._lock, told_apart("read"):
            if self._connection is None:
                raise SnapshotGone("the state it is of was replaced")
            chunk = next(self._chunks, None)
            if chunk is not None:
                self._hash.update(chunk)
            return chunk

    def close(self) -> None:
        """Close the connection, whatever the reading thread does."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                self._chunks.close()
                connection.close()

    def _cut(self) -> Any:
        waiting = bytearray()
        for record in self._records():
            waiting += len(record).to_bytes(_LENGTH, "big") + record
            while len(waiting) >= CHUNK_BYTES:
                yield bytes(waiting[:CHUNK_BYTES])
                del waiting[:CHUNK_BYTES]
        if waiting:
            yield bytes(waiting)

    def _records(self) -> Iterator[bytes]:
        assert self._connection is not None, "closed under its lock only"
        yield codec.encode(Header(FORMAT, *self._describe(self._connection)))
        counts = []
        for name, rows_of in self._tables().items():
            count = 0
            for rows in _batches(rows_of):
                count += len(rows)
                yield codec.encode([name, rows])
            counts.append(count)
        yield codec.encode(["end", counts])

    def _tables(self) -> dict[str, Iterator[Row]]:
        """Return the rows of each table that is read."""
        assert self._connection is not None, "closed under its lock only"
        connection = self._connection
        return {name: iter(connection.execute(table.select)) for name, table in _TABLES.items()}


class SeenItems(Outgoing):
    """Reads only the items that are seen, in tables of the names that they are asked for by: for an archive."""

    def about(self) -> tuple[int, dict[str, int], int]:
        """Return the index of the entry it reads after, the number of items of each table, and about their bytes."""
        with self._lock:
            if self._connection is None:
                raise SnapshotGone("the state it is of was replaced")
            _, base = self._describe(self._connection)
            counts, _ = ItemReader(self._connection).totals()
            (size,) = self._connection.execute(
                "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
            ).fetchone()
            return base.position.index, counts, size

    def _tables(self) -> dict[str, Iterator[Row]]:
        assert self._connection is not None, "closed under its lock only"
        everything = ItemReader(self._connection).everything()
        return {
            "items": (
                (item.key.table, item.key.scope, item.key.id, item.version, pack_tags(item.tags), item.head, item.body)
                for item in everything
            )
        }


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(len(field) if isinstance(field, bytes | str) else 9 for field in row)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class Incoming:
    """A database at `path` that grows with the chunks of one snapshot. Used by one thread at a time.

    Nothing of it is durable before `finish`; a crash leaves a file that the next start removes.
    """

    def __init__(self, path: Path, cluster: ClusterId, schema: str) -> None:
        """Create the database; raises DiskFull or DiskUncertain."""
        self.path: Final = path
        self._cluster: Final = cluster
        self._hash: Final = hashlib.sha256()
        self._waiting = bytearray()
        self._header: Header | None = None
        self._counts = dict.fromkeys(_TABLES, 0)
        self._ended = False
        with told_apart("receive"):
            remove_database(path)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            self._connection: Final = connect(path)
            # A crash makes it worthless in any case, and `finish` forces the whole file to disk.
            self._connection.execute("PRAGMA journal_mode = OFF")
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.execute("BEGIN IMMEDIATE")
            for statement in filter(str.strip, schema.split(";")):
                self._connection.execute(statement)

    def take(self, chunk: bytes) -> None:
        """Write the next chunk.

        Raises SealBroken for bytes that are no snapshot of this cluster, DiskFull or DiskUncertain.
        """
        self._hash.update(chunk)
        self._waiting += chunk
        with told_apart("receive"):
            while (record := self._record()) is not None:
                self._take_record(record)

    def finish(self, hash_: bytes) -> Base:
        """Check that the whole is there, and make it durable. Raises as `take` does."""
        if self._header is None or not self._ended or self._waiting or hash_ != self._hash.digest():
            raise SealBroken("a snapshot came in part, or was changed on its way")
        with told_apart("receive"):
            self._connection.execute(
                "INSERT INTO scopes SELECT tbl, scope, count(*) FROM items GROUP BY tbl, scope ORDER BY tbl, scope"
            )
            self._connection.execute("COMMIT")
            self._connection.close()
            sync_file(self.path)
        return self._header.base

    def discard(self) -> None:
        """Remove the database, finished or not."""
        with told_apart("receive"):
            self._connection.close()
            remove_database(self.path)

    def _record(self) -> bytes | None:
        if len(self._waiting) < _LENGTH:
            return None
        length = int.from_bytes(self._waiting[:_LENGTH], "big")
        if length > RECORD_BYTES:
            raise SealBroken(f"a snapshot's record of {length} bytes; at most {RECORD_BYTES}")
        if len(self._waiting) < _LENGTH + length:
            return None
        record = bytes(self._waiting[_LENGTH : _LENGTH + length])
        del self._waiting[: _LENGTH + length]
        return record

    def _take_record(self, record: bytes) -> None:
        try:
            if self._header is None:
                self._take_header(codec.decode_as(record, Header, RECORD_BYTES))
                return
            match codec.decode(record, RECORD_BYTES):
                case [str(name), _] as part if name in _TABLES and not self._ended:
                    self._take_rows(name, codec.convert(part, _ROWS[name])[1])
                case ["end", list(counts)] if counts == list(self._counts.values()):
                    self._ended = True
                case _:
                    raise SealBroken("a snapshot's record is none, or rows are missing before its end")
        except MalformedMessage as error:
            raise SealBroken(f"a snapshot's record does not decode: {error}") from error

    def _take_header(self, header: Header) -> None:
        if header.format != FORMAT:
            raise SealBroken(f"a snapshot of format {header.format}; this version reads {FORMAT}")
        if header.cluster != self._cluster:
            raise SealBroken("a snapshot of another cluster")
        self._header = header

    def _take_rows(self, name: str, rows: list[Row]) -> None:
        self._counts[name] += len(rows)
        try:
            self._connection.executemany(_TABLES[name].insert, rows)
            if name == "items":
                tags = [(tbl, scope, tag, id_) for tbl, scope, id_, _, packed, *_ in rows for tag in parse_tags(packed)]
                self._connection.executemany("INSERT INTO tags VALUES (?, ?, ?, ?)", tags)
        except sqlite3.IntegrityError as error:
            raise SealBroken(f"a snapshot's {name} contradict one another") from error
        except OverflowError as error:  # CBOR has larger numbers than a database
            raise SealBroken(f"a snapshot's {name} have a number that no store writes") from error
