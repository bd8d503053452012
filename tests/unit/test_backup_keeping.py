"""The shell that keeps the schedule, with the other services played: what is claimed, made, told and retired."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from lnh_common import codec
from lnh_common.bus.client import Client
from lnh_common.errors import StorageFailed, VersionConflict
from lnh_common.messages import backup, membership, store
from lnh_common.messages.backup import Every, Run, Schedule
from lnh_common.messages.base import Empty, Message, Operation
from lnh_services.backup.files import Archives
from lnh_services.backup.jobs import Job, Jobs
from lnh_services.backup.keeping import Keeper
from lnh_services.backup.work import Making
from models.archives import written

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
                if message.version != cluster.version:
                    raise VersionConflict("somebody was first")
                cluster.run, cluster.version = message.run, cluster.version + 1
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
    def __init__(self, cluster: Cluster, me: bytes) -> None:
        self.cluster, self.me = cluster, me

    async def make(self, job: Job, *, scheduled: bool) -> None:
        assert scheduled
        await asyncio.sleep(0)
        if self.cluster.fails:
            raise StorageFailed("the disk is full")
        self.cluster.made.append(self.me)
        job.tell(archive=f"{len(self.cluster.made)}-auto.lnhb")


def keeper(cluster: Cluster, me: bytes, directory: Path, now: float = SLOT + 60) -> Keeper:
    side = cast("Client", Side(cluster, me))
    making = cast("Making", Maker(cluster, me))
    name = me[:1].decode()
    return Keeper(
        name, Archives(directory), Jobs(), making, store_=side, hsm=side, membership_=side, now=lambda: now
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
        later = keeper(cluster, A, tmp_path, SLOT + 3600)
        await later.look()
        assert (cluster.run.problem, cluster.made) == ("", [A])
        cluster.schedule = None
        await later.look()
        assert later.kept.plan is None

    asyncio.run(play())


def test_of_the_schedules_own_archives_the_newest_stay(tmp_path: Path) -> None:

    archives = Archives(tmp_path)
    names = [f"prod-{number}-auto.lnhb" for number in range(5)]
    for name in (*names, "prod-by-hand.lnhb", "foreign-auto.lnhb"):
        (tmp_path / name).write_bytes(written(b"") if name != "foreign-auto.lnhb" else b"not an archive")
    removed = archives.retire(b"\1" * 16, 2)
    assert removed == names[:3]
    assert set(archives.names()) == {*names[3:], "prod-by-hand.lnhb", "foreign-auto.lnhb"}
    assert archives.retire(b"\1" * 16, 2) == []
