"""Real stores of three members: one joins, writes go through any, members die, are stopped, promoted and lost."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lnh_common.errors import DeadlineExceeded, LnhError, MemberReadOnly, NotPossible, Unreachable
from lnh_common.messages import store
from lnh_services.store.net.peers import STORE_PORT
from processes import Processes, SmallDisk, is_listened_to, talk_to
from stores import CLUSTER, Cluster, Member, key, reach, scan

pytestmark = pytest.mark.several

Scenario = Callable[[Cluster], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def play(processes: Processes, short_path: Path) -> Play:
    """Runs a scenario on a cluster of so many members, the first of which is primary."""

    async def run(scenario: Scenario, count: int) -> None:
        cluster = Cluster([Member(processes, short_path, "abcde"[number]) for number in range(count)])
        try:
            await cluster.found()
            await scenario(cluster)
        finally:
            await cluster.close()

    return lambda scenario, count=3: asyncio.run(run(scenario, count))


def test_a_write_at_any_member_is_read_at_every_member_at_once(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        for number, member in enumerate(cluster.members * 5):
            await member.put(key(number), body=member.name.encode())
            for other in cluster.members:
                item = await other.get(key(number))
                assert item is not None
                assert item.body == member.name.encode()
        await cluster.agree()

    play(scenario)


def test_many_writes_at_once_through_every_member_are_all_there(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        async def write(member: Member, start: int) -> None:
            for number in range(start, start + 20):
                await member.put(key(number))

        await asyncio.gather(
            *(write(member, 1000 * n + 100 * w) for n, member in enumerate(cluster.members) for w in range(8))
        )
        await cluster.agree()
        assert len(await scan(cluster.members[2], "t")) == 3 * 8 * 20

    play(scenario)


def test_a_dead_secondary_holds_writes_no_longer_than_a_lease_and_catches_up(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two, three = cluster.members
        three.kill()
        await two.put(key(1))
        await one.until(lambda status: three.info.id not in status.in_sync, "a set without it")
        await one.put(key(2))
        three.restart()
        await three.is_read_write()
        item = await three.get(key(2))
        assert item is not None
        await cluster.agree()

    play(scenario)


def test_a_member_comes_back_to_a_long_log(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        one, _, three = cluster.members

        async def write(start: int) -> None:
            for number in range(start, start + 50):
                await one.put(key(number))

        await asyncio.gather(*(write(1000 * n) for n in range(52)))
        three.kill()
        await one.put(key(100_000))
        three.restart()
        await three.is_read_write()
        await cluster.agree()

    play(scenario)


def test_without_the_primary_the_others_are_read_only_until_it_is_back(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two, three = cluster.members
        await two.put(key(1))
        one.kill()
        for member in (two, three):
            await member.until(lambda status: status.state == "read-only", "read-only")
            await member.refuses_writes()
            assert await member.get(key(1)) is not None
        one.restart()
        for member in cluster.members:
            await member.is_read_write()
        await three.put(key(3))
        assert {(await member.status()).epoch for member in cluster.members} == {(await one.status()).epoch}
        await cluster.agree()

    play(scenario)


def test_a_promoted_member_is_primary_and_nothing_is_lost_under_load(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two, three = cluster.members
        stop = asyncio.Event()
        written: list[int] = []

        async def write(member: Member, start: int) -> None:
            number = start
            while not stop.is_set():
                try:
                    await member.put(key(number))
                except MemberReadOnly:
                    await asyncio.sleep(0.02)
                    continue
                written.append(number)
                number += 1

        writers = [asyncio.create_task(write(member, 100_000 * n)) for n, member in enumerate(cluster.members)]
        for target in (two, three, one):
            before = len(written)
            await one.order(store.PROMOTE, store.MemberRef(member=target.info.id))
            for member in cluster.members:
                await member.follows(target)
                await member.is_read_write()
            await reach(written, before + 20)
        stop.set()
        await asyncio.gather(*writers)
        await cluster.agree()
        assert {item.key.id for item in await scan(two, "t")} == {key(number).id for number in written}

    play(scenario)


def test_a_lost_primary_is_taken_over_from_and_what_comes_back_is_expelled(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two, three = cluster.members
        await three.put(key(1))
        await two.is_read_write()
        with pytest.raises(NotPossible):  # it answers
            await two.services.ask(store.TAKE_OVER, store.TakeOver(lost=(one.info.id,)), timeout=20)
        one.kill()
        await two.until(lambda status: status.state == "read-only", "read-only")
        await two.order(store.TAKE_OVER, store.TakeOver(lost=(one.info.id,)))
        await two.is_read_write()
        await three.is_read_write()
        await three.put(key(2))
        status = await three.status()
        assert status.primary == two.info.id
        assert {info.id for info in status.members} == {two.info.id, three.info.id}
        one.restart()
        status = await one.until(lambda status: status.state == "expelled", "the news of its removal")
        assert "removed" in status.expelled
        with pytest.raises(LnhError):
            await one.get(key(1))
        await cluster.agree(two, three)

    play(scenario)


def test_a_member_is_removed_in_order_and_learns_of_it(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two, three = cluster.members
        await two.put(key(1))
        await two.order(store.MEMBER_REMOVE, store.MemberRef(member=three.info.id))
        await three.until(lambda status: status.state == "expelled", "the news of its removal")
        # Its own processes hear of it one after the other.
        await three.until(lambda _: not is_listened_to(three.info.port + STORE_PORT), "its port is closed")
        await three.until(lambda _: not talk_to(three.info.port + STORE_PORT), "nobody goes on knocking there")
        await two.put(key(2))
        await three.hsm.ask(store.DESTROY, store.Destroy(cluster=CLUSTER))
        assert (await three.status()).state == "none"
        await cluster.agree(one, two)

    play(scenario)


def test_a_member_removed_while_away_learns_of_it_from_members_started_since(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two, three = cluster.members
        three.kill()
        await one.order(store.MEMBER_REMOVE, store.MemberRef(member=three.info.id))
        for member in (one, two):
            member.kill()
        for member in (one, two):
            member.restart()
        await two.is_read_write()
        three.restart()
        await three.until(lambda status: status.state == "expelled", "the news of its removal")

    play(scenario)


def test_a_joiner_gets_a_snapshot_of_many_items_while_others_are_written(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two, _ = cluster.members
        joiner = cluster.members[2]
        commits = [
            store.Commit(
                client=b"c" * 16, session=b"s" * 16, sequence=n + 1, issued_at=int(time.time() * 1000),
                changes=tuple(
                    store.Put(
                        key=store.Key(table="big", id=b"%06d" % (100 * n + i)), expected=0, head=b"h" * 20,
                        body=os.urandom(2000), tags=(b"tag%d" % (i % 7),),
                    )
                    for i in range(100)
                ),
            )
            for n in range(100)
        ]  # fmt: skip
        for start in range(0, 100, 10):
            await asyncio.gather(*(one.hsm.ask(store.COMMIT, commit) for commit in commits[start : start + 10]))
        stop = asyncio.Event()

        async def write() -> int:
            number = 0
            while not stop.is_set():
                await two.put(key(number))
                number += 1
            return number

        writing = asyncio.create_task(write())
        await two.order(store.MEMBER_REMOVE, store.MemberRef(member=joiner.info.id))
        await joiner.until(lambda status: status.state == "expelled", "the news of its removal")
        await joiner.hsm.ask(store.DESTROY, store.Destroy(cluster=CLUSTER))
        joiner.info = store.MemberInfo(
            id=secrets.token_bytes(16), name="new", host="127.0.0.1", port=joiner.info.port, key=joiner.info.key
        )
        await cluster.join(joiner, cluster.members)
        stop.set()
        count = await writing
        await cluster.agree()
        assert (await joiner.status()).items == 10_000 + count
        tagged = store.Scan(table="big", tags=(b"tag3",), limit=4096)
        pages = [await member.services.ask(store.SCAN, tagged) for member in (one, joiner)]
        assert pages[0].items == pages[1].items

    play(scenario)


def test_a_stopped_primary_is_no_primary_and_what_it_answers_after_is_not_stale(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two, three = cluster.members
        await one.put(key(1), body=b"old")
        one.process.send_signal(signal.SIGSTOP)
        await two.until(lambda status: status.state == "read-only", "read-only")
        await two.order(store.TAKE_OVER, store.TakeOver(lost=(one.info.id,)))
        await three.is_read_write()
        await three.put(key(1), version=1, body=b"new")
        one.process.send_signal(signal.SIGCONT)
        await one.until(lambda status: status.state == "expelled", "the news of its removal")
        with pytest.raises(LnhError):
            await one.get(key(1))
        await cluster.agree(two, three)

    play(scenario)


def test_a_stopped_secondary_holds_writes_only_until_its_lease_is_over(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two, three = cluster.members
        await one.put(key(1), body=b"old")
        three.process.send_signal(signal.SIGSTOP)
        reading = asyncio.create_task(three.get(key(1)))
        await two.put(key(1), version=1, body=b"new")
        three.process.send_signal(signal.SIGCONT)
        await asyncio.wait([reading])
        await three.is_read_write()
        item = await three.get(key(1))
        assert item is not None
        assert item.body == b"new"
        await cluster.agree()

    play(scenario)


class OnSmallDisk(Member):
    """Its store's directory is a file system of a few MiB."""

    disk: SmallDisk | None = None

    def begin(self) -> subprocess.Popen[bytes]:
        self.disk = self.disk or SmallDisk(self.directory.data("store"), 48)
        self.prefix = tuple(self.disk.enter())
        return super().begin()


def test_a_secondary_whose_disk_is_full_leaves_the_set_says_so_and_comes_back(
    processes: Processes, short_path: Path
) -> None:
    async def scenario(cluster: Cluster, disk: SmallDisk) -> None:
        one, two, three = cluster.members
        await cluster.found()
        await one.put(key(1000))
        disk.fill()
        for number in range(60):
            await two.put(key(number), body=b"b" * 60_000)
        await one.until(lambda status: three.info.id not in status.in_sync, "a set without it")
        status = await three.until(lambda status: status.state == "failed", "its trouble")
        assert "full" in status.problem
        assert await three.get(key(1000)) is not None
        disk.free()
        await three.is_read_write()
        await cluster.agree()

    async def run() -> None:
        members = [Member(processes, short_path, "a"), Member(processes, short_path, "b")]
        small = OnSmallDisk(processes, short_path, "c")
        assert small.disk is not None
        cluster = Cluster([*members, small])
        try:
            if not small.disk.works:
                pytest.skip("needs root or user namespaces to mount a small file system")
            await scenario(cluster, small.disk)
        finally:
            await cluster.close()
            small.kill()
            small.disk.end()

    asyncio.run(run())


def test_all_members_killed_at_once_come_back_with_every_write(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        await asyncio.gather(*(cluster.members[n % 3].put(key(n)) for n in range(60)))
        for member in cluster.members:
            member.kill()
        for member in cluster.members:
            member.restart()
        for member in cluster.members:
            await member.is_read_write()
        assert len(await scan(cluster.members[1], "t")) == 60
        await cluster.members[1].put(key(100))
        await cluster.agree()

    play(scenario)


def test_no_read_under_a_lease_is_older_than_a_write_acknowledged_before(play: Play) -> None:
    """Workers read through their caches at full speed on every member while keys change and members come to harm."""

    async def scenario(cluster: Cluster) -> None:
        one, two, three = cluster.members
        chance = random.Random(3)
        acknowledged = [0] * 6
        reads = 0

        async def write(number: int) -> None:
            while True:
                member = chance.choice(cluster.members)
                try:
                    await member.put(key(number), acknowledged[number])
                except (MemberReadOnly, Unreachable):
                    await asyncio.sleep(0.05)
                else:
                    acknowledged[number] += 1
                    await asyncio.sleep(chance.uniform(0, 0.1))  # so that there is something to find in the caches

        async def read(member: Member) -> None:
            nonlocal reads
            while True:
                number = chance.randrange(len(acknowledged))
                at_least = acknowledged[number]
                try:
                    version, current = await member.worker.read(key(number))
                except (Unreachable, DeadlineExceeded, NotPossible):
                    await asyncio.sleep(0.05)
                    continue
                if current:
                    assert version >= at_least, f"{member.name}: version {version}; {at_least} was acknowledged before"
                    reads += 1
                await asyncio.sleep(0.001)

        async def written(count: int) -> None:
            goal = sum(acknowledged) + count
            end = time.monotonic() + 30
            while sum(acknowledged) < goal:
                assert time.monotonic() < end, "nothing is acknowledged any more"
                for task in tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(write(number)) for number in range(len(acknowledged))]
        tasks += [asyncio.create_task(read(member)) for member in cluster.members for _ in range(2)]
        tasks += [asyncio.create_task(member.worker.attach()) for member in cluster.members]
        try:
            await written(50)
            for victim in (three, one):
                victim.kill()
                await asyncio.sleep(0.3)
                victim.restart()
                await written(30)
                victim.process.send_signal(signal.SIGSTOP)
                await asyncio.sleep(2.5)
                victim.process.send_signal(signal.SIGCONT)
                await written(30)
            await one.order(store.PROMOTE, store.MemberRef(member=two.info.id))
            await written(50)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await cluster.agree()
        assert min(member.worker.hits for member in cluster.members) > 100
        assert reads > 1000

    play(scenario)
