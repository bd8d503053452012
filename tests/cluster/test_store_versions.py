"""A store that starts from the data of each version. Whole members do in test_versions.py."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from lnh_common.messages import store
from lnh_common.messages.base import Empty
from models.carried import TABLE
from processes import Processes
from stores import Member

pytestmark = pytest.mark.several

DATA = Path(__file__).parents[1] / "data"


def put_in_place(version: str, directory: Path) -> None:
    for path in (DATA / version / "store").iterdir():
        Path(shutil.copy(path, directory)).chmod(0o600)


async def stop_in_order(member: Member) -> None:
    member.process.terminate()
    assert await asyncio.to_thread(member.process.wait, 20) == 0


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
