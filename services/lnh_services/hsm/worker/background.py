"""Does slow work in one thread, while the worker's loop serves other requests.

An RSA key takes up to many seconds, and OpenSSL lets go of the interpreter while it looks for primes. The queue is
bounded, and a full one answers Busy. A request that comes again while its first copy is being worked on waits for that
one.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from lnh_common import limits
from lnh_common.errors import Busy

T = TypeVar("T")

_SKIPPED: Final = object()  # nobody waited when its turn came


@dataclass(eq=False)
class _Job(Generic[T]):
    """One computation, and the requests that wait for it; none does once all have given up."""

    key: Hashable
    compute: Callable[[], object]
    waiting: list[T]
    outcome: Any = field(default=_SKIPPED, repr=False)  # a result, or the exception raised instead


class SlowWork(Generic[T]):
    """The computations under way, each with the requests that wait for it.

    Only the computing is done in another thread; everything else is for one thread, the loop's.

    Args:
        most: jobs at once, of which one is worked on.
    """

    def __init__(self, most: int = limits.SLOW_JOBS) -> None:
        self._most: Final = most
        self._jobs: Final[dict[Hashable, _Job[T]]] = {}
        self._todo: Final[queue.SimpleQueue[_Job[T]]] = queue.SimpleQueue()
        self._done: Final[queue.SimpleQueue[_Job[T]]] = queue.SimpleQueue()
        self.descriptor, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return len(self._jobs)

    def begin(self, key: Hashable, compute: Callable[[], object], who: T) -> None:
        """Begin a computation for `who`; `descriptor` is readable when it is done.

        Args:
            key: a computation that is under way under the same key is not begun again.

        Raises Busy.
        """
        job = self._jobs.get(key)
        if job is not None:
            job.waiting.append(who)
            return
        if len(self._jobs) >= self._most:
            raise Busy(f"{self._most} slow requests wait in this worker, which is the limit")
        job = self._jobs[key] = _Job(key, compute, [who])
        if self._thread is None:
            # A daemon: a member that stops does not wait for primes.
            self._thread = threading.Thread(target=self._work, name="slow", daemon=True)
            self._thread.start()
        self._todo.put(job)

    def take(self) -> list[tuple[T, Any]]:
        """Return the requests whose computations are done by now, each with the result or the exception."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)
        taken: list[tuple[T, Any]] = []
        with contextlib.suppress(queue.Empty):
            while True:
                job = self._done.get_nowait()
                if job.outcome is _SKIPPED and job.waiting:
                    self._todo.put(job)  # a request came for it at the last moment
                    continue
                del self._jobs[job.key]
                taken += [(who, job.outcome) for who in job.waiting]
        return taken

    def waiting(self) -> list[T]:
        """Return all that wait."""
        return [who for job in self._jobs.values() for who in job.waiting]

    def give_up(self, who: T) -> None:
        """Let a request wait no longer; a computation that nobody waits for is not begun."""
        for job in self._jobs.values():
            if who in job.waiting:
                job.waiting.remove(who)

    def _work(self) -> None:
        while True:
            job = self._todo.get()
            if job.waiting:
                try:
                    job.outcome = job.compute()
                except Exception as error:
                    job.outcome = error
            self._done.put(job)
            with contextlib.suppress(BlockingIOError):  # a full pipe wakes the loop as well
                os.write(self._bell, b"\0")
