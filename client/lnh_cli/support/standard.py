"""The standard streams, in whatever state a service manager, a cron job or a container hands them over.

A closed stream leaves its descriptor free, and the next file or socket gets its number: output for the terminal is then
written there. So the three descriptors are taken first. A closed stream says that it is closed when it is used, and not
before; and text that a terminal's encoding lacks is shown escaped.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from lnh_cli.support import terminal

_LAST: Final = 2  # the descriptor of standard error


class _Closed(io.RawIOBase):
    """A stream that was closed when the process began."""

    def __init__(self, name: str) -> None:
        self._name: Final = name

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, _: object) -> NoReturn:
        self._refuse()

    def write(self, _: object) -> NoReturn:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise OSError(errno.EBADF, f"{self._name} is closed")


def secure() -> None:
    """Make the standard streams fit for use; call it before anything is opened."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_Closed("standard input")))
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(_Closed("standard output"), write_through=True)
    if sys.stderr is None:
        sys.stderr = io.TextIOWrapper(io.FileIO(_LAST, "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def refusing() -> Iterator[None]:
    """End the process with two lines where a closed stream was used outside a verb: for help, or a version."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EBADF or error.filename:
            raise
        terminal.note(f"refused: {error.strerror}")
        terminal.note("try: leave it open, or name a file")
        raise SystemExit(terminal.REFUSED) from None
