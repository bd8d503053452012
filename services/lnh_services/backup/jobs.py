"""Runs jobs - making, verifying, restoring an archive - one after another.

An order to begin a job is answered at once, and its sender looks again later; the same order again is answered with the
job it began. A second job while one runs is refused, naming the first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, Final

from msgspec.structs import replace

from lnh_common.errors import Busy, Internal, LnhError, NameUnknown
from lnh_common.events import Log
from lnh_common.messages.backup import JobView

_KEPT: Final = 32

_log: Final = Log("backup")


class Job:
    """A job, as the code that does the work sees it."""

    def __init__(self, view: JobView) -> None:
        self.view = view
        self.stopped = False  # the service ends: what goes on in a thread looks at this

    def tell(self, **fields: Any) -> None:
        """Tell how the job stands."""
        self.view = replace(self.view, **fields)


Work = Callable[[Job], Awaitable[None]]


class Jobs:
    """The jobs of one member. Made and used within a running loop."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[bytes, Job] = OrderedDict()
        self._running: tuple[Job, asyncio.Task[None]] | None = None

    @property
    def running(self) -> JobView | None:
        """Return the job that runs."""
        return self._running[0].view if self._running else None

    def view(self, id_: bytes = b"") -> JobView:
        """View one of the last jobs, or the newest with an empty id. Raises NameUnknown."""
        if not id_:
            return next(reversed(self._jobs.values())).view if self._jobs else JobView(id=b"")
        job = self._jobs.get(id_)
        if job is None:
            raise NameUnknown("no such job here: the member's backup service was started since")
        return job.view

    def begin(self, id_: bytes, kind: str, archive: str, work: Work) -> JobView:
        """Begin a job, unless it was begun; raises Busy while another runs."""
        if id_ in self._jobs:
            return self._jobs[id_].view
        if self._running is not None:
            now = self._running[0].view
            raise Busy(f"one at a time: to {now.kind} {now.archive or 'an archive'} is under way on this member")
        job = Job(JobView(id=id_, kind=kind, state="running", archive=archive))
        self._jobs[id_] = job
        while len(self._jobs) > _KEPT:
            self._jobs.popitem(last=False)
        self._running = (job, asyncio.create_task(self._run(job, work)))
        return job.view

    async def do(self, kind: str, work: Work) -> JobView:
        """Begin a job once none runs, and wait for its end; raises the error that it ended with."""
        while self._running is not None:
            await asyncio.wait({self._running[1]})
        view = self.begin(os.urandom(16), kind, "", work)
        assert self._running is not None, "it has just begun"
        await asyncio.shield(self._running[1])
        ended = self.view(view.id)
        if ended.error is not None:
            raise LnhError.from_wire(list(ended.error))
        return ended

    async def _run(self, job: Job, work: Work) -> None:
        try:
            await work(job)
            job.tell(state="done", step="", done=job.view.total)
            _log.info("done", what=job.view.kind, archive=job.view.archive)
        except LnhError as error:
            self._failed(job, error)
        except asyncio.CancelledError:
            self._failed(job, Internal("the backup service was stopped"))
            raise
        except Exception as error:  # a bug costs this job, not the service
            _log.bug("job failed", error, what=job.view.kind)
            self._failed(job, Internal("the backup service failed; its log says why"))
        finally:
            self._running = None

    def _failed(self, job: Job, error: LnhError) -> None:
        code, text, detail = error.to_wire()
        job.tell(state="failed", step="", error=(code, text, detail))
        _log.failure("failed", what=job.view.kind, archive=job.view.archive, problem=str(error))

    async def close(self) -> None:
        """Cancel the job that runs."""
        if self._running is not None:
            job, task = self._running
            job.stopped = True
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
