"""Tells apart what can be wrong with a disk, and opens the store's databases.

- DiskFull: the step was rolled back and nothing of it is durable; try again later.
- DiskUncertain: a write or fsync failed in a way that leaves open what is durable. Only a restart, which
  reads what is really there, can tell; the process must exit without answering.
- SealBroken: what is on disk is not what was written. Nothing is served from it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lnh_common.errors import LnhError, SealBroken, StorageFailed

_FULL, _CORRUPT, _NOT_A_DATABASE = 13, 11, 26  # SQLite's primary result codes
_CODES: Final = {
    "database or disk is full": _FULL,
    "database disk image is malformed": _CORRUPT,
    "file is not a database": _NOT_A_DATABASE,
}  # Python 3.10 gives no code, only the words


class DiskFull(StorageFailed):
    """The disk took nothing of the step, and what was there is untouched."""


class DiskUncertain(StorageFailed):
    """A step may or may not be durable; this process must not go on."""


@contextmanager
def told_apart(act: str) -> Iterator[None]:
    """Turn what SQLite and the system raise into one of the three troubles."""
    try:
        yield
    except LnhError as error:
        if type(error) is StorageFailed and isinstance(error.__cause__, OSError):
            raise _of_the_system(error.__cause__, act) from error
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
        raise _of_the_system(error, act) from error


def _of_the_system(error: OSError, act: str) -> StorageFailed:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"the store's disk is full ({act})")
    return DiskUncertain(f"the store's disk failed ({act}): {error.strerror}")


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection for one user at a time, whatever its thread; transactions are begun by hand."""
    connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_size = -16384")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def database_files(path: Path) -> list[Path]:
    """List the files that a database at `path` may consist of."""
    return [path, *(path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal"))]


def remove_database(path: Path) -> None:
    """Remove a database with all its files."""
    for file in database_files(path):
        file.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Make a whole file durable."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
