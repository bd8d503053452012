"""Replaces small files so that each is always the old one or the new one, whole, whatever moment the power fails."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from lnh_common.errors import FileModeUnsafe, StorageFailed
from lnh_common.files import open_regular, sync_directory

_MODE: Final = 0o600
_SUFFIX: Final = ".new"


def replace_file(path: Path, data: bytes) -> None:
    """Replace `path` by a file of mode 0600 with this content; it is on the disk when this returns.

    Raises StorageFailed; the old file is then still there.
    """
    temporary = path.with_name(path.name + _SUFFIX)
    try:
        temporary.unlink(missing_ok=True)  # what a crash left, or another user put there
        descriptor = open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE)
        try:
            os.fchmod(descriptor, _MODE)
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise StorageFailed(f"{path.name} could not be written: {error.strerror}") from error


def remove_file(path: Path) -> None:
    """Remove `path` if it is there, for good; raises StorageFailed."""
    try:
        path.with_name(path.name + _SUFFIX).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise StorageFailed(f"{path.name} could not be removed: {error.strerror}") from error


def read_private(path: Path, limit: int, *, follow: bool = False) -> bytes | None:
    """Read a file that only its owner may read; None where there is none.

    Args:
        limit: bytes; a longer file is refused.
        follow: whether it may be a symbolic link to one.

    Raises FileModeUnsafe when others may read it or it is another user's, StorageFailed when it cannot be read.
    """
    try:
        descriptor = open_regular(path, follow=follow)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageFailed(f"{path.name} could not be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_IMODE(status.st_mode) & 0o077 or status.st_uid not in (os.geteuid(), 0):
            raise FileModeUnsafe(
                f"{path} has mode {stat.S_IMODE(status.st_mode):04o} and owner {status.st_uid};"
                f" only its owner may have access (0600)"
            )
        try:
            data = file.read(min(limit, status.st_size) + 1)  # room is made for all that is asked for
        except OSError as error:
            raise StorageFailed(f"{path.name} could not be read: {error.strerror}") from error
    if len(data) > limit:
        raise StorageFailed(f"{path.name} has more than {limit} bytes")
    return data


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
