"""The shell that keeps the schedule, with the other services played: what is claimed, made, told and retired."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from lnh_common.bus.client import Client
from lnh_common.errors import MemberReadOnly, StorageFailed, VersionConflict
from lnh_common.messages import backup, membership, store
from lnh_common.messages.backup import Every, Run, Schedule
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.wire import codec
from lnh_services.backup import keeping
from lnh_services.backup.files import Archives
from lnh_services.backup.jobs import Job, Jobs
from lnh_services.backup.keeping import Keeper
from lnh_services.backup.work import Making
from models.archives import cluster, written
from waits import until

A, B = b"a" * 16, b"b" * 16
SINCE = 1_577_836_800
SLOT = SINCE + 86_400


class Cluster:
    """What members share: schedule and run, changed from the version that was read."""

    def __init__(self) -> None:
        self.schedule: Schedule | None = Schedule(every=Every.DAY, since=SINCE, keep=2)
        self.run: Run | None = None
        self.version = 0
        self.primary = A
        self.there = {A, B}
        self.made: list[bytes] = []
        self.fails = False
        self.refuses = False  # to have anything noted
        self.noted: Callable[[], None] | None = None  # called once, when something is
        self.now = float(SLOT + 60)


class Side:
    """One member's other services."""

    def __init__(self, cluster: Cluster, me: bytes) -> None:
        self.cluster, self.me = cluster, me

    async def ask(self, operation: Operation[Any, Any], message: Message, *, timeout: float) -> Message:
        cluster = self.cluster
        await asyncio.sleep(0)
        match message:
            case store.Get():
                name = message.key.id.decode()
                held, version = (cluster.schedule, 1) if name == "schedule" else (cluster.run, cluster.version)
                item = store.Item(key=message.key, version=version, head=codec.encode({name: _plain(held)}))
                return store.Got(item=item if version else None, index=1, current=True)
            case backup.Noting():
                if cluster.refuses:
                    raise MemberReadOnly("the primary is away")
                if message.version != cluster.version:
                    raise VersionConflict("somebody was first")
                cluster.run, cluster.version = message.run, cluster.version + 1
                if cluster.noted is not None:
                    cluster.noted()
                    cluster.noted = None
                return Empty()
        if operation is membership.STATUS:
            return membership.View(cluster=b"c", primary=cluster.primary, epoch=1, services=(), members=tuple(
                membership.MemberState(id=id_, name="", address="", role="", state="read-write" if id_ in cluster.there
                                       else "unreachable", group="local", product="") for id_ in (A, B)))  # fmt: skip
        return store.Status(
            state="read-write", cluster=b"c", member=self.me, primary=A, epoch=1, in_sync=(), last_index=0,
            committed_index=0, applied_index=0, items=0, bytes_on_disk=0, commits_per_second=0.0,
        )  # fmt: skip


def _plain(value: Message | None) -> object:
    return None if value is None else codec.decode(codec.encode(value))


class Maker:
    def __init__(self, cluster: Cluster, me: bytes, directory: Path) -> None:
        self.cluster, self.me, self.directory = cluster, me, directory
        self.before_the_end: Callable[[], None] | None = None

    async def make(self, job: Job, *, scheduled: bool) -> None:
        assert scheduled
        await asyncio.sleep(0)
        if self.cluster.fails:
            raise StorageFailed("the disk is full")
        self.cluster.made.append(self.me)
        name, number = f"{len(self.cluster.made)}-auto.lnhb", len(self.cluster.made)
        archive = self.directory / name
        archive.write_bytes(written(b"", index=number, created=int(self.cluster.now * 1000)))
        os.utime(archive, (self.cluster.now, self.cluster.now))
        if self.before_the_end is not None:
            self.before_the_end()
        job.tell(archive=name)


def keeper(
    cluster: Cluster, me: bytes, directory: Path, maker: Maker | None = None, jobs: Jobs | None = None
) -> Keeper:
    side = cast("Client", Side(cluster, me))
    making = cast("Making", maker or Maker(cluster, me, directory))
    name, now = me[:1].decode(), lambda: cluster.now
    return Keeper(
        name, Archives(directory), jobs or Jobs(), making, store_=side, hsm=side, membership_=side, now=now
    )  # fmt: skip


def test_what_is_due_is_claimed_made_and_told(tmp_path: Path) -> None:
    async def play() -> None:
        cluster = Cluster()
        a, b = keeper(cluster, A, tmp_path), keeper(cluster, B, tmp_path)
        await b.look()
        assert cluster.run is None, "not the runner's"
        await a.look()
        assert cluster.run == Run(
            slot=SLOT, member=A, name="a", started=SLOT + 60, ended=SLOT + 60, archive="1-auto.lnhb"
        )
        await a.look()
        await b.look()
        assert cluster.made == [A]
        assert b.kept.plan is not None
        assert (b.kept.plan.next, b.kept.plan.overdue) == (SLOT + 86_400, False)

    asyncio.run(play())


def test_what_came_of_a_run_is_seen_when_it_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "LOOK_EVERY", 3600.0)

    async def play() -> None:
        cluster = Cluster()
        a = keeper(cluster, A, tmp_path)

        task = asyncio.create_task(a.keep())
        try:
            await until(lambda: a.kept.run is not None and a.kept.run.ended, "the end of the run")
        finally:
            task.cancel()
        assert a.kept.plan is not None
        assert (a.kept.plan.slot, a.kept.plan.overdue) == (0, False)

    asyncio.run(play())


def test_of_two_that_take_themselves_for_the_runner_one_makes_it(tmp_path: Path) -> None:
    async def play() -> None:
        cluster = Cluster()
        a, b = keeper(cluster, A, tmp_path), keeper(cluster, B, tmp_path)

        async def as_b() -> None:
            await asyncio.sleep(0)
            cluster.primary = B  # as B's membership sees it, A's a moment before
            await b.look()

        await asyncio.gather(a.look(), as_b())
        assert len(cluster.made) == 1

    asyncio.run(play())


def test_a_run_whose_member_is_gone_is_taken_over(tmp_path: Path) -> None:
    async def play() -> None:
        cluster = Cluster()
        cluster.run, cluster.version = Run(slot=SLOT, member=A, name="a", started=SLOT), 1
        cluster.primary = B
        b = keeper(cluster, B, tmp_path)
        await b.look()
        assert cluster.made == [], "A is there, and at it"
        cluster.there = {B}
        await b.look()
        assert cluster.made == [B]
        assert cluster.run is not None
        assert cluster.run.member == B

    asyncio.run(play())


def test_a_failure_is_told_and_the_next_run_waits_for_no_other(tmp_path: Path) -> None:
    async def play() -> None:
        cluster = Cluster()
        cluster.fails = True
        a = keeper(cluster, A, tmp_path)
        await a.look()
        assert cluster.run is not None
        assert (cluster.run.problem, cluster.run.tries) == ("the disk is full", 1)
        await a.look()
        assert a.kept.plan is not None
        assert a.kept.plan.overdue
        cluster.fails = False
        cluster.now = SLOT + 3600
        later = keeper(cluster, A, tmp_path)
        await later.look()
        assert (cluster.run.problem, cluster.made) == ("", [A])
        cluster.schedule = None
        await later.look()
        assert later.kept.plan is None

    asyncio.run(play())


def test_an_end_that_cannot_be_noted_is_noted_later_and_nothing_is_made_twice(tmp_path: Path) -> None:
    async def play() -> None:
        cluster = Cluster()
        maker = Maker(cluster, A, tmp_path)
        a = keeper(cluster, A, tmp_path, maker)

        def lose_the_primary() -> None:
            cluster.refuses = True

        maker.before_the_end = lose_the_primary
        for _ in range(3):
            with pytest.raises(MemberReadOnly):
                await a.look()
        assert cluster.run is not None
        assert cluster.run.ended == 0
        cluster.refuses = False
        await a.look()
        assert (cluster.run.archive, cluster.made) == ("1-auto.lnhb", [A])

    asyncio.run(play())


def test_a_scheduled_backup_waits_for_what_an_administrator_began(tmp_path: Path) -> None:
    async def play() -> None:
        cluster, jobs = Cluster(), Jobs()
        a = keeper(cluster, A, tmp_path, jobs=jobs)
        begun, ends = asyncio.Event(), asyncio.Event()

        async def verify(job: Job) -> None:
            await ends.wait()

        def begin() -> None:
            begun.set()
            jobs.begin(b"1" * 16, "verify", "x.lnhb", verify)

        cluster.noted = begin  # the slot is claimed, and its run not begun yet
        looking = asyncio.create_task(a.look())
        await begun.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert not looking.done()
        assert cluster.run is not None
        ends.set()
        await looking
        assert (cluster.run.archive, cluster.run.problem) == ("1-auto.lnhb", "")

    asyncio.run(play())


DAY = 86_400


@pytest.mark.parametrize("wrong", [-400 * DAY, -DAY, 2 * DAY, 400 * DAY])
def test_a_clock_that_was_wrong_stops_no_backup_and_costs_no_new_archive(tmp_path: Path, wrong: int) -> None:
    async def play() -> None:
        cluster = Cluster()
        assert cluster.schedule is not None
        start = SINCE + 500 * DAY + 60
        a = keeper(cluster, A, tmp_path)

        async def days(first: int, count: int) -> None:
            for day in range(count):
                cluster.now = start + first + day * DAY
                before = len(cluster.made)
                for _ in range(3):
                    await a.look()
                assert len(cluster.made) - before <= 1, "one a day"

        await days(0, 3)
        await days(wrong, 5)
        made = len(cluster.made)
        await days(3 * DAY, 5)
        assert len(cluster.made) - made >= 4, "it goes on"
        newest = [f"{number}-auto.lnhb" for number in range(len(cluster.made) - 1, len(cluster.made) + 1)]
        assert sorted(Archives(tmp_path).names()) == sorted(newest), "those made last stay, whatever time they bear"

    asyncio.run(play())


def test_a_schedule_set_by_a_clock_that_was_ahead_does_not_wait_for_that_time(tmp_path: Path) -> None:
    async def play() -> None:
        cluster = Cluster()
        for every in Every:
            cluster.schedule = Schedule(every=every, hours=6, since=SLOT + 900 * DAY + 60)
            cluster.run = None
            a, made = keeper(cluster, A, tmp_path), len(cluster.made)
            for day in range(15):
                cluster.now = float(SLOT + day * DAY + 60)
                await a.look()
            assert len(cluster.made) - made >= 2
            assert a.kept.plan is not None
            assert a.kept.plan.next <= cluster.now + 7 * DAY

    asyncio.run(play())


def test_of_the_schedules_own_archives_the_newest_stay(tmp_path: Path) -> None:
    archives = Archives(tmp_path)
    names = [f"prod-{number}-auto.lnhb" for number in range(5)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(written(b"", index=10 + number, created=1_700_000_000_000 - number))
    elsewhere = {"prod-by-hand.lnhb": written(b"", index=1), "foreign-auto.lnhb": b"not an archive"}
    elsewhere["other-auto.lnhb"] = written(b"", whose=cluster(2))
    for name, data in elsewhere.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "before-auto.lnhb").write_bytes(written(b"", instance=b"o" * 16, index=1000))
    removed = archives.retire(names[-1], 2)
    assert removed == ["before-auto.lnhb", *names[:3]], "of before a restore; then by the log, whatever clocks said"
    assert set(archives.names()) == {*names[3:], *elsewhere}
    assert archives.retire(names[-1], 2) == []
    assert archives.retire(names[-2], 1) == [names[-1]], "what was just made stays"
