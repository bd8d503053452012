"""Opens a file in a directory where another user may have put anything: a FIFO, a device, a socket, a symbolic link.

To open a FIFO waits for its other end, for ever; to open a device may do more; to follow a link leads elsewhere. So a
file is opened without waiting, and used only if it is a regular one. And makes durable what a directory lists.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

_KINDS: Final = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
# What opening the others says, each in its own words: a link, a FIFO nobody reads or a socket, a directory.
_OTHERS: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EISDIR})


class NotRegular(OSError):
    """The path leads to something that is no regular file; `strerror` says what it is."""

    def __init__(self, path: Path, mode: int) -> None:
        super().__init__(errno.EINVAL, f"it is {kind_of(mode) or 'something else'}, not a regular file", str(path))


def kind_of(mode: int) -> str:
    """Name the kind of a file of this mode; "" for a regular one."""
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "")


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600, *, follow: bool = False) -> int:
    """Open a regular file without waiting for anything, and return its descriptor.

    Args:
        flags: of `os.open`; the file is not inherited and becomes no controlling terminal in any case.
        mode: of a file that this makes.
        follow: whether `path` may be a symbolic link to one, as settings and secrets are in some deployments.

    Raises NotRegular, and what `os.open` does.
    """
    flags |= os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags if follow else flags | os.O_NOFOLLOW, mode)
    except OSError as error:
        if error.errno in _OTHERS:
            status = path.stat() if follow and error.errno != errno.ELOOP else path.lstat()
            raise NotRegular(path, status.st_mode) from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise NotRegular(path, status.st_mode)
    return descriptor


def sync_directory(path: Path) -> None:
    """Make a rename or a new file in this directory durable; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
