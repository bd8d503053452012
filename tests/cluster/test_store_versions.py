"""A cluster that is upgraded one member at a time, with real stores: under load, and from the data of a version before."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from lnh_common.errors import MemberReadOnly
from lnh_common.messages import store
from lnh_common.messages.base import Empty
from models.carried import TABLE
from processes import Processes
from stores import Cluster, Member, key, reach, scan

pytestmark = pytest.mark.several

DATA = Path(__file__).parents[1] / "data"


class Writers:
    """Three that write through one member each, all the time; what was acknowledged is in `written`."""

    def __init__(self, cluster: Cluster) -> None:
        self.written: list[int] = []
        self.stopped = asyncio.Event()
        self.tasks = [asyncio.create_task(self._write(member, 100_000 * n)) for n, member in enumerate(cluster.members)]

    async def _write(self, member: Member, number: int) -> None:
        while not self.stopped.is_set():
            try:
                await member.put(key(number))
            except MemberReadOnly:
                await asyncio.sleep(0.02)
                continue
            self.written.append(number)
            number += 1

    async def more(self, count: int = 20) -> None:
        await reach(self.written, len(self.written) + count)

    async def stop(self) -> None:
        self.stopped.set()
        await asyncio.gather(*self.tasks)


def put_in_place(version: str, directory: Path) -> None:
    for path in (DATA / version / "store").iterdir():
        Path(shutil.copy(path, directory)).chmod(0o600)


async def stop_in_order(member: Member) -> None:
    member.process.terminate()
    assert await asyncio.to_thread(member.process.wait, 20) == 0


def test_members_are_restarted_in_turn_under_load_and_nothing_is_lost(processes: Processes, short_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two, three = cluster.members
        epoch = (await one.status()).epoch
        writers = Writers(cluster)
        await writers.more()
        for member, primary in ((three, one), (two, one), (one, two)):
            if member is one:
                assert (await two.status()).epoch == epoch, "secondaries come and go within an epoch"
                await one.order(store.PROMOTE, store.MemberRef(member=two.info.id))
                for each in cluster.members:
                    await each.follows(two)
            await stop_in_order(member)
            await writers.more()  # the others go on without it
            member.restart()
            await member.follows(primary)
            await member.is_read_write()
            await writers.more()
        await writers.stop()
        await cluster.agree()
        assert {item.key.id for item in await scan(one, "t")} == {key(number).id for number in writers.written}

    async def run() -> None:
        cluster = Cluster([Member(processes, short_path, name) for name in "abc"])
        try:
            await cluster.found()
            await scenario(cluster)
        finally:
            await cluster.close()

    asyncio.run(run())


# An item that is there at the end of each version's story (tests/data/make.py); since 0.2 it ends with a restore.
LAST_SEEN = {"0.1": (b"new", 1)}


@pytest.mark.parametrize("version", sorted(path.name for path in DATA.iterdir() if path.name[0].isdigit()))
def test_a_store_starts_from_a_versions_data_and_serves_it_read_only_alone(
    version: str, processes: Processes, short_path: Path
) -> None:
    async def run() -> None:
        member = Member(processes, short_path, "b")
        try:
            await member.until(lambda status: status.state == "none", "a store without a cluster")
            await stop_in_order(member)
            put_in_place(version, member.directory.data("store"))
            member.restart()
            status = await member.until(lambda status: status.cluster, "the data's cluster")
            assert {info.name[:7] for info in status.members} == {"member-"}
            assert len(status.members) == 3
            assert (status.state, status.diverged) == ("read-only", True)
            name, item_version = LAST_SEEN.get(version, (b"restored", 7))
            item = await member.get(store.Key(table=TABLE, id=name))
            assert item is not None
            assert (item.version, item.body) == (item_version, b"body")
            await member.refuses_writes()
            found = await member.services.ask(store.DIVERGENT, Empty(), timeout=5)
            assert [each.entries for each in found.files] == [2]
        finally:
            await member.close()

    asyncio.run(run())
