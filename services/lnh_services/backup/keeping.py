"""Keeps the cluster's schedule on this member: looks every few seconds, claims a due run, makes it, notes the end.

`schedule.py` decides what is due, and for which member. The schedule and the last run are read from the replicated
state; the run is written there by this member's HSM, from the version that was read, so that one member alone begins
it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from lnh_common.bus.client import Client
from lnh_common.errors import LnhError, MalformedMessage, VersionConflict
from lnh_common.events import Log
from lnh_common.messages import backup, membership, store
from lnh_common.messages.backup import Run, Schedule
from lnh_common.messages.base import Empty
from lnh_common.wire import codec
from lnh_services.backup import schedule as rules
from lnh_services.backup.files import Archives
from lnh_services.backup.jobs import Jobs
from lnh_services.backup.schedule import Plan
from lnh_services.backup.work import Making

LOOK_EVERY: Final = 5.0  # seconds
ASK_SECONDS: Final = 5.0

K = TypeVar("K", Schedule, Run)

_log: Final = Log("backup.schedule")


class Kept(msgspec.Struct, frozen=True):
    """The schedule and the last run as a look found them; `version` is the run's, 0 where there is none."""

    schedule: Schedule | None = None
    run: Run | None = None
    version: int = 0
    plan: Plan | None = None
    problem: str = ""


class Keeper:
    """Keeps the schedule. Made and used within a running loop.

    Args:
        name: this member's.
        store_, hsm, membership_: ask this member's.
        now: UTC seconds.
    """

    def __init__(
        self,
        name: str,
        archives: Archives,
        jobs: Jobs,
        making: Making,
        *,
        store_: Client,
        hsm: Client,
        membership_: Client,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._name: Final = name
        self._archives: Final = archives
        self._jobs: Final = jobs
        self._making: Final = making
        self._store: Final = store_
        self._hsm: Final = hsm
        self._membership: Final = membership_
        self._now: Final = now
        self._at_it = 0  # the slot being run
        self._untold: tuple[Run, int] | None = None  # a run that ended, and the version it takes the place of
        self.kept = Kept()

    async def keep(self) -> None:
        """Look again and again, until it is cancelled."""
        while True:
            try:
                while await self.look():
                    pass  # what came of it is seen at once
            except LnhError as error:
                self.kept = replace(self.kept, problem=str(error))
                _log.debug("not looked", problem=str(error))
            except Exception as error:  # a bug must not end the schedule for good
                _log.bug("schedule failed", error)
            await asyncio.sleep(LOOK_EVERY)

    async def look(self) -> bool:
        """Look once, and make the run that is due; tells whether there was one.

        Raises what the other services answer.
        """
        await self._tell()
        schedule, _ = await self._read(backup.SCHEDULE_ID, Schedule)
        run, version = await self._read(backup.RUN_ID, Run)
        if schedule is None:
            self.kept = Kept(run=run, version=version)
            return False
        view = await self._membership.ask(membership.STATUS, Empty(), timeout=ASK_SECONDS)
        me = (await self._store.ask(store.STATUS, Empty(), timeout=ASK_SECONDS)).member
        runs = rules.runner(schedule, view.members, view.primary)
        works = rules.working(view.members)
        plan = rules.plan(schedule, run, int(self._now()), me, runs, works=works, at_it=self._at_it)
        self.kept = Kept(schedule, run, version, plan)
        due = bool(plan.slot and me and self._jobs.running is None)
        if due:
            await self._run(schedule, plan, me, version)
        return due

    async def _run(self, schedule: Schedule, plan: Plan, me: bytes, version: int) -> None:
        run = Run(slot=plan.slot, member=me, name=self._name, started=int(self._now()), tries=plan.tries)
        try:
            await self._note(run, version)
        except VersionConflict:
            return  # another member was first
        self._at_it = plan.slot
        try:
            run = await self._made(run)
        finally:
            self._at_it = 0
        self._untold = run, version + 1
        if run.archive:
            await self._retire(run.archive, schedule.keep)
        await self._tell()

    async def _made(self, run: Run) -> Run:
        """Make the archive of a run, and return the run as it ended."""
        try:
            job = await self._jobs.do("make", lambda job: self._making.make(job, scheduled=True))
        except LnhError as error:
            _log.failure("scheduled backup failed", problem=str(error))
            return replace(run, ended=int(self._now()), problem=str(error)[:512], tries=run.tries + 1)
        return replace(run, ended=int(self._now()), archive=job.archive)

    async def _retire(self, newest: str, keep: int) -> None:
        try:
            for name in await asyncio.to_thread(self._archives.retire, newest, keep):
                _log.info("retired", archive=name)
        except LnhError as error:
            _log.failure("not retired", problem=str(error))

    async def _tell(self) -> None:
        """Note the end of the last run in the replicated state; if the cluster does not take it, at the next look."""
        if self._untold is not None:
            with contextlib.suppress(VersionConflict):  # it is known, or another member took it over meanwhile
                await self._note(*self._untold)
            self._untold = None

    async def _note(self, run: Run, version: int) -> None:
        await self._hsm.ask(backup.NOTE_RUN, backup.Noting(run=run, version=version), timeout=ASK_SECONDS)

    async def _read(self, id_: bytes, kind: type[K]) -> tuple[K | None, int]:
        get = store.Get(key=store.Key(table=backup.TABLE, id=id_))
        item = (await self._store.ask(store.GET, get, timeout=ASK_SECONDS)).item
        if item is None:
            return None, 0
        fields = codec.decode(item.head)
        if not isinstance(fields, dict):
            raise MalformedMessage(f"the record {id_!r} is none")
        held = fields.get(id_.decode())
        return (None if held is None else codec.convert(held, kind)), item.version
