"""Knows the process that a connection belongs to.

A child made by fork() has its parent's sockets, but not the threads that drive them, and locks that a thread of the
parent may have held at that moment: a child that uses them waits for ever. So the owner of sockets or locks asks first.
"""

from __future__ import annotations

import os
from typing import Final

from lnh_common.errors import ConnectionClosed


class OwnProcess:
    """Remembers the process that it was made in.

    Args:
        what: names for people what belongs to that process.
    """

    __slots__ = ("_pid", "_what")

    def __init__(self, what: str) -> None:
        self._pid: Final = os.getpid()
        self._what: Final = what

    @property
    def is_here(self) -> bool:
        """Tell whether the running process is the one that made this."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Raise ConnectionClosed in any other process."""
        if os.getpid() != self._pid:
            said = f"{self._what} belongs to process {self._pid} that made it; this is process {os.getpid()}"
            raise ConnectionClosed(said, {"advice": "open one in this process, after the fork"})
