"""The store's disk: log and applied state in one SQLite database, changed in durable steps.

One writer thread calls `found`, `promise`, `persist`, `erase` and `probe`; each is one transaction and one
fsync, however many entries it holds. The event loop's thread reads (`get`, `scan`, `count`, `status`) what was
last committed, while a step is written (WAL). docs/formats/store.md describes the tables.

Three things can be wrong with a disk, and they are told apart:
- DiskFull: the transaction was rolled back and nothing of it is durable; try again later.
- DiskUncertain: a write or fsync failed in a way that leaves open what is durable. Only a restart, which
  reads what is really there, can tell; the process must exit without answering.
- SealBroken: what is on disk is not what was written. Nothing is served from it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from lnh_common import codec, limits
from lnh_common.errors import LnhError, MalformedMessage, SealBroken, StorageFailed
from lnh_common.messages.store import Item, Key, Scan
from lnh_services.store import items, log, state
from lnh_services.store.items import ItemReader, ItemStorage
from lnh_services.store.log import ClusterId, Entry, Epoch, MemberId, Milliseconds, Open, Position, SetChange, Write
from lnh_services.store.replica import Durable, InSync
from lnh_services.store.state import Answer

T = TypeVar("T")

FORMAT: Final = 1
_APPLICATION_ID: Final = 0x4C4E4853  # "LNHS"
_FULL, _CORRUPT, _NOT_A_DATABASE = 13, 11, 26  # SQLite's primary result codes
_CODES: Final = {
    "database or disk is full": _FULL,
    "database disk image is malformed": _CORRUPT,
    "file is not a database": _NOT_A_DATABASE,
}  # Python 3.10 gives no code, only the words

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


class DiskFull(StorageFailed):
    """The disk took nothing of the step, and what was there is untouched."""


class DiskUncertain(StorageFailed):
    """Whether the step is durable is not known; this process must not go on."""


class Base(msgspec.Struct, frozen=True, array_like=True):
    """What the kept log follows: the last entry dropped, and what was in force at it."""

    index: int
    epoch: int
    opener: bytes
    hash: bytes
    log_time: int
    members: tuple[MemberId, ...]
    in_sync: tuple[MemberId, ...]

    def position(self) -> Position:
        return Position(Epoch(self.epoch, MemberId(self.opener)), self.index, self.hash)


class LastStop(msgspec.Struct, frozen=True, array_like=True):
    """Since which boot of the machine the store ran, and when the last lease it granted ends if it stopped in order."""

    boot: str
    lease_end: float | None


class Outcome(NamedTuple):
    """What a durable step came to: answers by entry index, and what each applied entry really changed."""

    answers: dict[int, Answer]
    changed: list[tuple[int, frozenset[Key]]]


class Sizes(NamedTuple):
    """Items in all tables, and bytes of the database's files."""

    items: int
    bytes: int


class Engine:
    """The database of one member's store, in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory: Final = directory
        self._path: Final = directory / "store.db"
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._applied = 0
        self._log_sizes: deque[tuple[int, int]] = deque()  # (index, payload bytes) of the kept log
        self._log_bytes = 0

    # Beginning and end

    def load(self) -> tuple[Durable, LastStop] | None:
        """Open the database and check the log; None if there is none.

        Raises SealBroken if it is damaged, StorageFailed if it cannot be opened.
        """
        if not self._path.exists():
            return None
        with _told_apart("open"):
            self._open()
            if not self._writing.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchone():
                self.erase()  # a creation that never became durable
                return None
            return self._load()

    def _load(self) -> tuple[Durable, LastStop]:
        if (found_format := self._meta("format", int)) != FORMAT:
            raise SealBroken(f"the store's database has format {found_format}; this version reads {FORMAT}")
        cluster, member = ClusterId(self._meta("cluster", bytes)), MemberId(self._meta("member", bytes))
        promised = self._meta("promised", Epoch)
        committed = self._meta("committed", int)
        base = self._base()
        members, sets = base.members, [InSync(base.index, base.in_sync)] if base.index else []
        entries = self._entries(base.index + 1)
        last = log.check_chain(base.position() if base.index else log.genesis(cluster), entries)
        for entry in entries:
            content = entry.content()
            if isinstance(content, Open):
                members = content.members
            if isinstance(content, Open | SetChange):
                sets.append(InSync(entry.index, content.in_sync))
        in_force = max((i for i, s in enumerate(sets) if s.index <= committed), default=0)
        last_time = entries[-1].log_time if entries else Milliseconds(base.log_time)
        self._log_sizes = deque((entry.index, len(entry.payload)) for entry in entries)
        self._log_bytes = sum(size for _, size in self._log_sizes)
        self._applied = committed
        found = Durable(cluster, member, promised, last, last_time, committed, members, tuple(sets[in_force:]))
        if not found.is_sound():
            raise SealBroken(f"the store's log and its other records disagree at entry {committed}")
        return found, self._meta("stop", LastStop)

    def _open(self) -> None:
        self._path.chmod(0o600)
        self._writer = _connect(self._path)
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute("PRAGMA synchronous = FULL")
        self._writer.execute("PRAGMA secure_delete = FAST")
        self._writer.execute(f"PRAGMA journal_size_limit = {limits.LOG_BYTES}")
        self._reader = _connect(self._path)
        self._reader.execute("PRAGMA query_only = ON")

    def close(self) -> None:
        """Close the database; what was committed stays."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                with suppress(sqlite3.Error):  # nothing is uncommitted, so nothing can be lost
                    connection.close()
        self._reader = self._writer = None

    # Durable steps, called by the writer thread

    def found(self, cluster: ClusterId, member: MemberId, promised: Epoch, entry: Entry, boot: str) -> Outcome:
        """Make the database of a new cluster with its first entry. Raises DiskFull or DiskUncertain."""
        assert self._writer is None, "founding over an open database"
        with _told_apart("create"):
            try:
                self._remove_files()
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                self._open()
                with self._transaction() as writer:
                    for statement in filter(str.strip, _SCHEMA.split(";")):
                        writer.execute(statement)
                    writer.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    self._set_meta("format", FORMAT)
                    self._set_meta("cluster", cluster)
                    self._set_meta("member", member)
                    self._set_meta("promised", list(promised))
                    self._set_meta("stop", LastStop(boot, None))
                    self._set_meta("base", Base(0, 0, b"", b"", 0, (), ()))
                    outcome = self._step((entry,), entry.index)
                _sync_directory(self._directory)
            except BaseException:
                self.close()
                with suppress(OSError):  # what remains is no cluster, and the next creation begins by removing it
                    self._remove_files()
                raise
        self._applied = entry.index
        return outcome

    def promise(self, epoch: Epoch, boot: str) -> None:
        """Make a promise durable. Raises DiskFull or DiskUncertain."""
        with _told_apart("promise"), self._transaction():
            self._set_meta("promised", list(epoch))
            self._set_meta("stop", LastStop(boot, None))

    def persist(self, entries: tuple[Entry, ...], committed: int) -> Outcome:
        """Append entries and apply all up to `committed`, in one step. Raises DiskFull or DiskUncertain."""
        kept, size = self._log_sizes.copy(), self._log_bytes
        try:
            with _told_apart("write"), self._transaction():
                outcome = self._step(entries, committed)
        except BaseException:
            self._log_sizes, self._log_bytes = kept, size
            raise
        self._applied = max(self._applied, committed)
        return outcome

    def stop(self, boot: str, lease_end: float) -> None:
        """Note that the store stopped in order; raises DiskFull or DiskUncertain."""
        if self._writer is not None:
            with _told_apart("stop"), self._transaction():
                self._set_meta("stop", LastStop(boot, lease_end))

    def probe(self) -> None:
        """Write something durable that changes nothing, to see whether the disk takes it."""
        if self._writer is not None:
            with _told_apart("write"), self._transaction():
                self._set_meta("probe", os.urandom(16))

    def erase(self) -> None:
        """Close and remove the database. Raises DiskUncertain."""
        with _told_apart("erase"):
            self.close()
            self._applied = 0
            self._log_sizes.clear()
            self._log_bytes = 0
            self._remove_files()
            _sync_directory(self._directory)

    # Reads, called by the event loop's thread

    def get(self, key: Key, *, body: bool) -> Item | None:
        with _told_apart("read"):
            return self._reading.get(key, body=body)

    def scan(self, scan: Scan) -> tuple[list[Item], bool]:
        with _told_apart("read"):
            return self._reading.scan(scan)

    def count(self, table: str, scope: bytes) -> int:
        with _told_apart("read"):
            return self._reading.count(table, scope)

    def recall(self, client: bytes, session: bytes, sequence: int) -> Answer | None:
        """What became of a request: see `state.recall`."""
        assert self._reader is not None, "no database is open"
        with _told_apart("read"):
            return state.recall(ItemStorage(self._reader), client, session, sequence)

    def sizes(self) -> Sizes:
        """Of the state; zeros without a cluster."""
        if self._reader is None:
            return Sizes(0, 0)
        with _told_apart("read"):
            return Sizes(self._reading.total(), sum(path.stat().st_size for path in self._files() if path.exists()))

    @contextmanager
    def snapshot(self) -> Iterator[tuple[int, Iterator[Item]]]:
        """The applied index and every item as of it, whatever is written meanwhile."""
        with _told_apart("read"), closing(_connect(self._path)) as connection:
            connection.execute("BEGIN")
            (packed,) = connection.execute("SELECT value FROM meta WHERE name = 'committed'").fetchone()
            yield int(codec.decode(packed)), ItemReader(connection).everything()

    # The parts

    @property
    def _writing(self) -> sqlite3.Connection:
        assert self._writer is not None, "no database is open"
        return self._writer

    @property
    def _reading(self) -> ItemReader:
        assert self._reader is not None, "no database is open"
        return ItemReader(self._reader)

    def _step(self, entries: tuple[Entry, ...], committed: int) -> Outcome:
        self._writing.executemany(
            "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(e.index, *e.epoch, e.log_time, e.previous, e.payload, e.hash) for e in entries],
        )
        for entry in entries:
            self._log_sizes.append((entry.index, len(entry.payload)))
            self._log_bytes += len(entry.payload)
        outcome = Outcome({}, [])
        earlier = self._entries(self._applied + 1, entries[0].index - 1 if entries else committed)
        storage = ItemStorage(self._writing)
        for entry in (*earlier, *entries):
            content = entry.content() if entry.index <= committed else None
            if isinstance(content, Write):
                applied = state.apply(storage, entry.index, entry.log_time, content.commit)
                outcome.answers[entry.index] = applied.answer
                outcome.changed.append((entry.index, applied.changed))
        self._set_meta("committed", committed)
        self._shorten_log(committed)
        return outcome

    def _shorten_log(self, committed: int) -> None:
        """Drop the oldest applied entries, some at a time, once the log is a quarter over its bounds."""
        if len(self._log_sizes) <= limits.LOG_ENTRIES * 5 // 4 and self._log_bytes <= limits.LOG_BYTES * 5 // 4:
            return
        last_dropped = 0
        while self._log_sizes and (len(self._log_sizes) > limits.LOG_ENTRIES or self._log_bytes > limits.LOG_BYTES):
            index, size = self._log_sizes[0]
            if index >= committed:
                break
            self._log_sizes.popleft()
            self._log_bytes -= size
            last_dropped = index
        if not last_dropped:
            return
        base = self._base()
        members, in_sync = base.members, base.in_sync
        dropped = self._entries(base.index + 1, last_dropped)
        for entry in dropped:
            content = entry.content()
            if isinstance(content, Open):
                members = content.members
            if isinstance(content, Open | SetChange):
                in_sync = content.in_sync
        last = dropped[-1]
        new = Base(last.index, last.epoch.number, last.epoch.opener, last.hash, last.log_time, members, in_sync)
        self._set_meta("base", new)
        self._writing.execute("DELETE FROM log WHERE idx <= ?", (last.index,))

    def _entries(self, first: int, last: int = state.INTEGER_MAX) -> list[Entry]:
        rows = self._writing.execute(
            "SELECT epoch, opener, idx, log_time, previous, payload, hash FROM log WHERE idx BETWEEN ? AND ? "
            "ORDER BY idx",
            (first, last),
        )
        return [Entry(Epoch(row[0], row[1]), *row[2:]) for row in rows]

    def _base(self) -> Base:
        return self._meta("base", Base)

    def _meta(self, name: str, kind: type[T]) -> T:
        row = self._writing.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise SealBroken(f"the store's database lacks its record {name!r}")
        try:
            return codec.decode_as(row[0], kind)
        except MalformedMessage as error:
            raise SealBroken(f"the store's record {name!r} does not decode") from error

    def _set_meta(self, name: str, value: object) -> None:
        self._writing.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, codec.encode(value)))

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

    def _files(self) -> list[Path]:
        return [self._path, *(self._path.with_name(self._path.name + ending) for ending in ("-wal", "-shm"))]

    def _remove_files(self) -> None:
        for path in self._files():
            path.unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_size = -16384")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _told_apart(act: str) -> Iterator[None]:
    """Turn what SQLite and the system raise into one of the three troubles."""
    try:
        yield
    except LnhError:
        raise
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None)
        primary = code & 0xFF if code is not None else _CODES.get(str(error), 0)
        if primary == _FULL:
            raise DiskFull(f"the store's disk is full ({act})") from error
        if primary in (_CORRUPT, _NOT_A_DATABASE):
            raise SealBroken(f"the store's database is damaged ({act}): {error}") from error
        raise DiskUncertain(f"the store's disk failed ({act}): {getattr(error, 'sqlite_errorname', error)}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"the store's disk is full ({act})") from error
        raise DiskUncertain(f"the store's disk failed ({act}): {error.strerror}") from error
