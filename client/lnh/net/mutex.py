"""A lock that no interrupted holder can leave locked.

An exception of a signal's handler may come after a lock is taken and before the block that lets it go, or after that
block's end and before the letting go: a plain lock is then locked for ever. Here it belongs to an object that lives as
long as the block. That the lock is taken and is that object's is one call in C, which no handler comes between; and
Python lets the lock go when it frees the object, on whatever way the block was left.
"""

from __future__ import annotations

import threading
import weakref
from operator import attrgetter, methodcaller
from types import TracebackType
from typing import Any, Final

_ACQUIRE: Final = methodcaller("acquire")
_RELEASE: Final = attrgetter("__exit__")  # which takes the argument that a weak reference's callback gets


class Mutex:
    """A lock for one thread at a time: `with mutex.hold(): ...`."""

    __slots__ = ("_let_go", "_lock")

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._let_go: Final[list[weakref.ref[Any]]] = []  # of who holds it; not the holder's, so that it outlives it

    def hold(self) -> Hold:
        """Make a holding, which takes the lock when its block is entered and lets it go at the end."""
        return Hold(self)

    def take(self, hold: Hold) -> None:
        """Wait until the lock belongs to this holding."""
        self._let_go[:] = map(weakref.ref, (hold,), map(_RELEASE, filter(_ACQUIRE, (self._lock,))))


class Hold:
    """One holding of the lock, which ends with this object."""

    __slots__ = ("__weakref__", "_mutex")

    def __init__(self, mutex: Mutex) -> None:
        self._mutex: Final = mutex

    def __enter__(self) -> None:
        self._mutex.take(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: the block's reference was the last, and freeing it lets the lock go."""
