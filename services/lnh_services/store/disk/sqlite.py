"""The store's disk: keeps log and applied state in one SQLite database, changed in durable steps.

One writer thread calls `persist`, `install`, `erase`, `note_start` and `note_stop`; a `Persist` is one transaction and
at most one fsync, however many entries it holds. The event loop's thread reads (`get`, `scan`, `count`, `sizes`) the
last commit, while a step is written (WAL). A third thread may read a snapshot. docs/formats/store.md describes the
tables.

**Steps without fsync.** A step that only applies what is durable already is committed with `synchronous = NORMAL`: in
WAL mode this writes the same checksummed frames and leaves out the fsync. Frames are valid only as an unbroken row, so
a power cut loses such steps from the end, never one before a later one that was kept, and the next step with FULL
forces all of them to disk with itself (it always writes something, a `probe`: a transaction without a frame forces
nothing). A checkpoint forces the WAL to disk before it copies anything, in both modes. A step lost so is applied again
from the log.

**A snapshot takes the database's place by a rename** of a file that is complete and on disk. SQLite would play an old
WAL into whatever database has its name, so first the old one is checkpointed whole, all its connections are closed, and
its WAL is removed for good.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from lnh_common import limits
from lnh_common.errors import MalformedMessage, SealBroken
from lnh_common.files import open_regular, sync_directory
from lnh_common.messages.store import Item, Key, Scan
from lnh_common.wire import codec
from lnh_services.store.disk import dropped, items
from lnh_services.store.disk.disk_errors import (
    DiskUncertain,
    connect,
    database_files,
    remove_database,
    sync_file,
    told_apart,
)
from lnh_services.store.disk.items import ItemReader, ItemStorage
from lnh_services.store.disk.snapshots import Incoming, Outgoing, SeenItems
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import ClusterId, Entry, Epoch, MemberId, Write
from lnh_services.store.log.window import Base, History, Removed
from lnh_services.store.machine import apply
from lnh_services.store.machine.apply import Answer
from lnh_services.store.replication.messages import Durable, Install, Persist

T = TypeVar("T")

FORMAT: Final = 2
_APPLICATION_ID: Final = 0x4C4E4853  # "LNHS"

_SCHEMA: Final = (
    """
CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE log (
    idx INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, opener BLOB NOT NULL, log_time INTEGER NOT NULL,
    previous BLOB NOT NULL, payload BLOB NOT NULL, hash BLOB NOT NULL
);
"""
    + items.SCHEMA
)
_ENTRIES: Final = (
    "SELECT epoch, opener, idx, log_time, previous, payload, hash FROM log WHERE idx BETWEEN ? AND ? ORDER BY idx"
)


class LastStop(msgspec.Struct, frozen=True, array_like=True):
    """The boot of the machine that the store ran in, and when the last lease it granted ends if it stopped in order."""

    boot: str
    lease_end: float | None


class Outcome(NamedTuple):
    """The result of a durable step: answers by entry index, and the keys that each applied entry really changed."""

    answers: dict[int, Answer]
    changed: list[tuple[int, frozenset[Key]]]


class Sizes(NamedTuple):
    """Items in all tables, bytes of the database's files, and items that are not seen (`machine/restore_swap.py`)."""

    items: int
    bytes: int
    hidden: int


class ItemsRead(NamedTuple):
    """A read of all items: after which entry, how many items of each table, and about how many bytes."""

    outgoing: Outgoing
    after: int
    counts: dict[str, int]
    size: int


class Disk:
    """The database of one member's store, in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory: Final = directory
        self._path: Final = directory / "store.db"
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._outgoing: set[Outgoing] = set()
        self._use: Final = threading.Lock()  # of the reader, of `_outgoing`, and of the name of the database
        self._applied = 0
        self._last_written: tuple[Entry, ...] = ()
        self._incoming = 0

    # Beginning and end

    def load(self) -> tuple[Durable, LastStop] | None:
        """Open the database and check the log; None if there is none.

        Raises SealBroken if it is damaged, StorageFailed if it cannot be opened.
        """
        with told_apart("open"):
            self._remove_leftovers()
            if not os.path.lexists(self._path):
                return None
            for file in filter(os.path.lexists, database_files(self._path)):
                os.close(open_regular(file))  # SQLite would wait for the other end of a FIFO, for ever
            self._open()
            if not self._writing.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone():
                self.erase()  # a creation that never became durable
                return None
            return self._load()

    def _load(self) -> tuple[Durable, LastStop]:
        if (found_format := self._meta("format", int)) != FORMAT:
            raise SealBroken(f"the store's database has format {found_format}; this version reads {FORMAT}")
        base = self._meta("base", Base)
        cluster = ClusterId(self._meta("cluster", bytes))
        entries = tuple(_entries(self._writing, base.position.index + 1))
        if base.position.index == 0 and base.position != log.genesis(cluster):
            raise SealBroken("the store's log does not begin where this cluster's does")
        log.check_chain(base.position, entries)
        kept = self._meta("kept", Entry | None)  # type: ignore[arg-type]
        if kept is not None:
            log.check_chain(log.Position(kept.epoch, kept.index - 1, kept.previous), (kept,))
        found = Durable(
            cluster=cluster,
            member=MemberId(self._meta("member", bytes)),
            promised=self._meta("promised", Epoch),
            base=base,
            entries=entries,
            committed=self._meta("committed", int),
            kept=kept,
            diverged=self._meta("diverged", bool),
            expelled=self._meta("expelled", Removed | None),  # type: ignore[arg-type]
        )
        if not found.is_sound():
            raise SealBroken(f"the store's log and its other records disagree at entry {found.committed}")
        self._applied = found.committed
        return found, self._meta("stop", LastStop)

    def _open(self) -> None:
        self._path.chmod(0o600)
        self._writer = connect(self._path)
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute("PRAGMA synchronous = FULL")
        self._writer.execute("PRAGMA secure_delete = FAST")
        self._writer.execute(f"PRAGMA journal_size_limit = {limits.LOG_BYTES}")
        self._reader = connect(self._path)
        self._reader.execute("PRAGMA query_only = ON")

    def _remove_leftovers(self) -> None:
        """Remove what a crash left half done: snapshots not taken over, and a second name of a database that stayed."""
        for path in self.directory.glob("incoming-*"):
            path.unlink(missing_ok=True)
        if self._path.exists():
            for path in self.directory.glob("store-*.aside.db"):
                if path.samefile(self._path):
                    path.unlink()

    def close(self) -> None:
        """Close the database; committed steps stay."""
        with self._use:
            self._close()

    def _close(self) -> None:
        for outgoing in self._outgoing:
            outgoing.close()
        self._outgoing.clear()
        self._last_written = ()
        for connection in (self._reader, self._writer):
            if connection is not None:
                with suppress(sqlite3.Error):  # nothing is uncommitted, so nothing can be lost
                    connection.close()
        self._reader = self._writer = None

    # Durable steps, called by the writer thread

    def persist(self, step: Persist, boot: str) -> Outcome:
        """Carry out one step, all of it or nothing; `boot` names this start of the machine for a new database.

        Raises DiskFull or DiskUncertain.
        """
        if step.found is not None:
            return self._found(step, boot)
        if step.dropped:
            cluster, member = ClusterId(self._meta("cluster", bytes)), MemberId(self._meta("member", bytes))
            with told_apart("save"):
                dropped.save(self.directory, cluster, member, step.dropped)
        with told_apart("write"):
            if not step.sync:
                self._writing.execute("PRAGMA synchronous = NORMAL")
            try:
                with self._transaction():
                    outcome = self._carry_out(step)
            finally:
                if not step.sync:
                    self._writing.execute("PRAGMA synchronous = FULL")
        self._applied = step.committed
        if step.entries or step.dropped:
            self._last_written = step.entries
        return outcome

    def _found(self, step: Persist, boot: str) -> Outcome:
        assert self._writer is None, "founding over an open database"
        assert step.found is not None, "a step that founds"
        cluster, member, base = step.found
        with told_apart("create"):
            try:
                remove_database(self._path)
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
                self._open()
                with self._transaction() as writer:
                    for statement in filter(str.strip, _SCHEMA.split(";")):
                        writer.execute(statement)
                    _begin_meta(writer, cluster, member, base)
                    _set_meta(writer, "stop", LastStop(boot, None))
                    self._applied = base.position.index
                    outcome = self._carry_out(step)
                sync_directory(self.directory)
            except BaseException:
                self.close()
                with suppress(OSError):  # what remains is no cluster, and the next creation begins by removing it
                    remove_database(self._path)
                raise
        self._applied = step.committed
        return outcome

    def _carry_out(self, step: Persist) -> Outcome:
        writer = self._writing
        if step.dropped:
            first = min(entry.index for entry in step.dropped)
            assert first > self._applied, "dropping what was applied"
            writer.execute("DELETE FROM log WHERE idx >= ?", (first,))
        writer.executemany(
            "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(e.index, *e.epoch, e.log_time, e.previous, e.payload, e.hash) for e in step.entries],
        )
        for name, value in (
            ("promised", step.promised),
            ("kept", step.kept),
            ("expelled", step.expelled),
            ("diverged", step.diverged),
            ("base", step.base),
        ):
            if value is not None:
                _set_meta(writer, name, value)
        outcome = self._apply(step)
        if step.base is not None:
            writer.execute("DELETE FROM log WHERE idx <= ?", (step.base.position.index,))
        if step.sync:
            _set_meta(writer, "probe", os.urandom(16))
        return outcome

    def _apply(self, step: Persist) -> Outcome:
        assert step.committed >= self._applied, "applying backwards"
        outcome = Outcome({}, [])
        if step.committed == self._applied:
            return outcome
        new = step.entries[0].index if step.entries else step.committed + 1
        earlier = self._earlier(self._applied + 1, min(new - 1, step.committed))
        storage = ItemStorage(self._writing)
        for entry in (*earlier, *step.entries):
            content = entry.content() if entry.index <= step.committed else None
            if isinstance(content, Write):
                applied = apply.apply(storage, entry.index, entry.log_time, content.commit)
                outcome.answers[entry.index] = applied.answer
                outcome.changed.append((entry.index, applied.changed))
        storage.finish()
        _set_meta(self._writing, "committed", step.committed)
        return outcome

    def _earlier(self, first: int, last: int) -> list[Entry]:
        """Read entries of earlier steps; those of the last one are still at hand."""
        known = [entry for entry in self._last_written if first <= entry.index <= last]
        return known if len(known) == last - first + 1 else _entries(self._writing, first, last)

    def note_start(self, boot: str) -> None:
        """Note that a store runs, and may grant leases from now on. Raises DiskFull or DiskUncertain."""
        self._note("stop", LastStop(boot, None))

    def note_stop(self, boot: str, lease_end: float) -> None:
        """Note that the store stopped in order; raises DiskFull or DiskUncertain."""
        self._note("stop", LastStop(boot, lease_end))

    def _note(self, name: str, value: object) -> None:
        if self._writer is not None:
            with told_apart("write"), self._transaction() as writer:
                _set_meta(writer, name, value)

    def erase(self) -> None:
        """Close and remove everything this store ever kept. Raises DiskUncertain."""
        with told_apart("erase"), self._use:
            self._close()
            self._applied = 0
            remove_database(self._path)
            for pattern in ("incoming-*", "store-*.aside.db", "divergent-*"):
                for path in self.directory.glob(pattern):
                    path.unlink(missing_ok=True)
            sync_directory(self.directory)

    # Snapshots

    def send(self) -> Outgoing:
        """Open a snapshot of the state as applied now, for any thread; `release` it.

        Raises SealBroken or DiskUncertain.
        """
        with told_apart("read"), self._use:
            outgoing = Outgoing(self._view(), _describe)
            self._outgoing.add(outgoing)
            return outgoing

    def read_items(self) -> ItemsRead:
        """Open a read, as `send` does, of the items that are seen alone, with their numbers."""
        with told_apart("read"):
            with self._use:
                outgoing = SeenItems(self._view(), _describe)
                self._outgoing.add(outgoing)
            try:
                return ItemsRead(outgoing, *outgoing.about())
            except BaseException:
                self.release(outgoing)
                raise

    def _view(self) -> sqlite3.Connection:
        """Open a connection that sees what is committed now, and no later step."""
        assert self._reader is not None, "no database is open"
        connection = connect(self._path)
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM meta").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def release(self, outgoing: Outgoing) -> None:
        """Note that a snapshot is not read any further."""
        with self._use:
            self._outgoing.discard(outgoing)
            outgoing.close()

    def receive(self, cluster: ClusterId) -> Incoming:
        """Begin to take in a snapshot, for any thread. Raises DiskFull or DiskUncertain."""
        self._incoming += 1
        return Incoming(self.directory / f"incoming-{self._incoming}.db", cluster, _SCHEMA)

    def install(self, step: Install, incoming: Incoming) -> None:
        """Put a finished snapshot in place of log and state, keeping what was promised. Called by the writer thread.

        Raises DiskFull, with everything as it was, or DiskUncertain.
        """
        cluster, member = ClusterId(self._meta("cluster", bytes)), MemberId(self._meta("member", bytes))
        with told_apart("install"):
            if step.dropped:
                dropped.save(self.directory, cluster, member, step.dropped)
            self._complete(incoming.path, step, cluster, member)
            with self._use:
                self._checkpoint()
                self._close()
                try:
                    self._replace(incoming.path, step)
                    self._open()
                except OSError as error:
                    raise DiskUncertain(f"the store's disk failed (install): {error.strerror}") from error
        self._applied = step.base.position.index

    def _complete(self, path: Path, step: Install, cluster: ClusterId, member: MemberId) -> None:
        """Give the new database everything that is not of the snapshot, and make it durable."""
        new = connect(path)
        try:
            new.execute("BEGIN IMMEDIATE")
            new.execute("DELETE FROM meta")  # of an earlier try
            _begin_meta(new, cluster, member, step.base)
            _set_meta(new, "promised", max(self._meta("promised", Epoch), step.base.position.epoch))
            for name in ("kept", "stop", "expelled"):
                (value,) = self._writing.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
                new.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
            _set_meta(new, "diverged", step.aside or self._meta("diverged", bool))
            new.execute("COMMIT")
        finally:
            new.close()
        sync_file(path)

    def _checkpoint(self) -> None:
        """Bring all of the WAL into the database."""
        for outgoing in self._outgoing:
            outgoing.close()
        busy, left, copied = self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy or left != copied:
            raise DiskUncertain("the store's WAL could not be brought into its database")

    def _replace(self, new: Path, step: Install) -> None:
        _, *rest = database_files(self._path)
        for path in rest:
            assert not (path.exists() and path.stat().st_size and path.name.endswith("-wal")), (
                "a WAL that was not empty"
            )
            path.unlink(missing_ok=True)
        sync_directory(self.directory)
        if step.aside:
            position = step.base.position
            name = f"store-{position.epoch.term}.{position.epoch.candidate.hex()}-{position.index}.aside.db"
            aside = self.directory / name
            aside.unlink(missing_ok=True)
            aside.hardlink_to(self._path)
            sync_directory(self.directory)
        new.replace(self._path)
        sync_directory(self.directory)

    # Reads, called by the event loop's thread

    def get(self, key: Key, *, body: bool) -> Item | None:
        """Read an item; without `body` its body is empty."""
        with self._reading() as reader:
            return reader.get(key, body=body)

    def scan(self, scan: Scan) -> tuple[list[Item], bool]:
        """Read a page of items, and tell whether more follows."""
        with self._reading() as reader:
            return reader.scan(scan)

    def count(self, table: str, scope: bytes) -> int:
        """Count the items of a table's scope."""
        with self._reading() as reader:
            return reader.count(table, scope)

    def scopes(self, table: str, after: bytes | None, limit: int) -> tuple[list[bytes], bool]:
        """Read a page of a table's scopes that hold items, and tell whether more follows."""
        with self._reading() as reader:
            return reader.scopes(table, after, limit)

    def recall(self, client: bytes, session: bytes, sequence: int) -> Answer | None:
        """Return the answer of an earlier request: see `apply.recall`."""
        with told_apart("read"), self._use:
            assert self._reader is not None, "no database is open"
            return apply.recall(ItemStorage(self._reader), client, session, sequence)

    def sizes(self) -> Sizes:
        """Return the sizes of the state; zeros without a cluster."""
        if self._reader is None:
            return Sizes(0, 0, 0)
        with self._reading() as reader:
            files = (path.stat().st_size for path in database_files(self._path) if path.exists())
            counts, hidden = reader.totals()
            return Sizes(sum(counts.values()), sum(files), hidden)

    @contextmanager
    def _reading(self) -> Iterator[ItemReader]:
        with told_apart("read"), self._use:
            assert self._reader is not None, "no database is open"
            yield ItemReader(self._reader)

    # The parts

    @property
    def _writing(self) -> sqlite3.Connection:
        assert self._writer is not None, "no database is open"
        return self._writer

    def _meta(self, name: str, kind: type[T]) -> T:
        return _get_meta(self._writing, name, kind)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        writer = self._writing
        writer.execute("BEGIN IMMEDIATE")
        try:
            yield writer
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise


def _begin_meta(connection: sqlite3.Connection, cluster: ClusterId, member: MemberId, base: Base) -> None:
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    for name, value in (
        ("format", FORMAT),
        ("cluster", cluster),
        ("member", member),
        ("promised", list(log.NO_EPOCH)),
        ("committed", base.position.index),
        ("base", base),
        ("kept", None),
        ("diverged", False),
        ("expelled", None),
    ):
        _set_meta(connection, name, value)


def _get_meta(connection: sqlite3.Connection, name: str, kind: type[T]) -> T:
    row = connection.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    if row is None:
        raise SealBroken(f"the store's database lacks its record {name!r}")
    try:
        return codec.decode_as(row[0], kind, 2 * log.PAYLOAD_BYTES)
    except MalformedMessage as error:
        raise SealBroken(f"the store's record {name!r} does not decode") from error


def _set_meta(connection: sqlite3.Connection, name: str, value: Any) -> None:
    packed = codec.encode(list(value) if isinstance(value, Epoch) else value)
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, packed))


def _entries(connection: sqlite3.Connection, first: int, last: int = apply.INTEGER_MAX) -> list[Entry]:
    return [Entry(Epoch(row[0], row[1]), *row[2:]) for row in connection.execute(_ENTRIES, (first, last))]


def _describe(connection: sqlite3.Connection) -> tuple[ClusterId, Base]:
    """Return the cluster, and the base of a log that goes on from the applied state."""
    cluster = ClusterId(_get_meta(connection, "cluster", bytes))
    base, committed = _get_meta(connection, "base", Base), _get_meta(connection, "committed", int)
    history = History(base, _entries(connection, base.position.index + 1, committed))
    return cluster, Base(history.last, history.last_time, history.configuration)
