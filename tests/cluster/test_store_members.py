"""Real stores of three members: one joins, writes go through any, members die, are stopped, promoted and lost."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from lnh_common.bus.client import Client
from lnh_common.bus.curve import KeyPair
from lnh_common.errors import (
    DeadlineExceeded,
    LnhError,
    MemberReadOnly,
    NotPossible,
    OutcomeUnknown,
    Unreachable,
)
from lnh_common.messages import store
from lnh_common.messages.base import Empty, Message
from lnh_services.configuration import Settings
from lnh_services.initialise import initialise_member
from lnh_services.paths import MemberDirectory
from processes import Processes, free_base_port

CLUSTER = b"C" * 16
PATIENCE = 30.0
UNSURE = (OutcomeUnknown, DeadlineExceeded, Unreachable)


class Member:
    """One member's store process, and a worker of its that caches what it reads."""

    def __init__(self, processes: Processes, root: Path, name: str) -> None:
        self.processes = processes
        self.directory = MemberDirectory(root / name)
        self.name = name
        port = free_base_port()
        initialise_member(self.directory, Settings(name=name, base_port=port))
        processes.watch(self.directory.root)
        key = KeyPair.load(self.directory.member_keys).raw_public
        self.info = store.MemberInfo(id=secrets.token_bytes(16), name=name, host="127.0.0.1", port=port, key=key)
        self.session = secrets.token_bytes(16)
        self.sequence = 0
        self.worker = secrets.token_bytes(16)
        self.cache: dict[store.Key, store.Item | None] = {}
        self.leased_until = 0.0
        self.connect()
        self.process = self.begin()

    def connect(self) -> None:
        self.hsm = Client(self.directory.store_for_hsm, on_cast=self.on_cast)
        self.services = Client(self.directory.store_for_services)

    def begin(self) -> subprocess.Popen[bytes]:
        return self.processes.start("-m", "lnh_services.store", "--member-dir", str(self.directory.root))

    def on_cast(self, operation: str, message: Message) -> None:
        assert isinstance(message, store.Forget)
        if message.everything:
            self.cache.clear()
        for key in message.keys:
            self.cache.pop(key, None)
        self.hsm.cast(store.FORGOTTEN, store.Forgotten(sequence=message.sequence, worker=self.worker))

    # What is asked

    async def status(self) -> store.Status:
        return await self.services.ask(store.STATUS, Empty(), timeout=5)

    async def until(
        self, condition: Callable[[store.Status], object], what: str, within: float = PATIENCE
    ) -> store.Status:
        """The status, once it is so."""
        end = time.monotonic() + within
        status = None
        while True:
            try:
                status = await self.status()
                if condition(status):
                    return status
            except (Unreachable, DeadlineExceeded):
                pass
            assert time.monotonic() < end, f"{self.name}: {what} did not come: {status}"
            await asyncio.sleep(0.02)

    async def is_read_write(self) -> store.Status:
        return await self.until(lambda status: status.state == "read-write", "read-write")

    def commit(self, key: store.Key, version: int, body: bytes = b"body") -> store.Commit:
        self.sequence += 1
        change = store.Put(key=key, expected=version, head=b"", body=body)
        return store.Commit(
            client=self.info.id, session=self.session, sequence=self.sequence, issued_at=int(time.time() * 1000),
            changes=(change,),
        )  # fmt: skip

    async def put(self, key: store.Key, version: int = 0, body: bytes = b"body") -> store.Committed:
        """Write, as the SDK does: the same request again while its outcome is not known."""
        commit = self.commit(key, version, body)
        end = time.monotonic() + PATIENCE
        unsure = False
        while True:
            try:
                return await self.hsm.ask(store.COMMIT, commit, timeout=5)
            except UNSURE:
                unsure = True
            except MemberReadOnly:
                if not unsure:
                    raise  # it was never appended
            assert time.monotonic() < end, f"{self.name}: a write has no outcome"
            await asyncio.sleep(0.02)

    async def get(self, key: store.Key) -> store.Item | None:
        return (await self.services.ask(store.GET, store.Get(key=key), timeout=5)).item

    async def follows(self, primary: Member) -> None:
        await self.until(lambda status: status.primary == primary.info.id, f"{primary.name} as primary")

    # What happens to it

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.process = self.begin()

    async def close(self) -> None:
        await self.hsm.close()
        await self.services.close()


class Cluster:
    def __init__(self, processes: Processes, root: Path, count: int) -> None:
        self.members = [Member(processes, root, "abcde"[number]) for number in range(count)]

    @property
    def infos(self) -> tuple[store.MemberInfo, ...]:
        return tuple(member.info for member in self.members)

    async def found(self) -> None:
        first, *others = self.members
        await first.hsm.ask(store.CREATE, store.Create(cluster=CLUSTER, member=first.info), timeout=15)
        for number, member in enumerate(others, 2):
            await self.join(member, self.members[:number])

    async def join(self, member: Member, members: list[Member], through: Member | None = None) -> None:
        through = through or members[0]
        await through.services.ask(store.MEMBER_SET, store.SetMember(member=member.info), timeout=10)
        infos = tuple(one.info for one in members)
        adopt = store.Adopt(cluster=CLUSTER, member=member.info, members=infos)
        await member.services.ask(store.ADOPT, adopt, timeout=10)
        await through.until(lambda status: member.info.id in status.in_sync, f"{member.name} in the set")
        await member.is_read_write()

    async def agree(self, *members: Member) -> None:
        """All have applied the same, and hold the same."""
        members = members or tuple(self.members)
        end = time.monotonic() + PATIENCE
        while True:
            stati = [await member.status() for member in members]
            if len({(s.applied_index, s.last_index, s.committed_index) for s in stati}) == 1:
                break
            assert time.monotonic() < end, f"the members do not agree: {stati}"
            await asyncio.sleep(0.02)
        for member in members[1:]:
            for table in ("t", "big"):
                assert await scan(member, table) == await scan(members[0], table)

    async def close(self) -> None:
        for member in self.members:
            await member.close()


async def scan(member: Member, table: str) -> list[store.Item]:
    items: list[store.Item] = []
    while True:
        after = items[-1].key.id if items else b""
        page = await member.services.ask(store.SCAN, store.Scan(table=table, after=after, limit=1024, body=True))
        items += page.items
        if not page.more:
            return items


async def reach(written: list[int], count: int) -> None:
    """Wait until so many writes are acknowledged."""
    end = time.monotonic() + PATIENCE
    for _ in itertools.takewhile(lambda _: len(written) < count, itertools.repeat(None)):
        assert time.monotonic() < end, "nothing is acknowledged any more"
        await asyncio.sleep(0.01)


def key(number: int) -> store.Key:
    return store.Key(table="t", id=b"%06d" % number)


Scenario = Callable[[Cluster], Awaitable[None]]
Play = Callable[..., None]


@pytest.fixture
def play(processes: Processes, short_path: Path) -> Play:
    """Runs a scenario on a cluster of so many members, the first of which is primary."""

    async def run(scenario: Scenario, count: int) -> None:
        cluster = Cluster(processes, short_path, count)
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
            with pytest.raises(MemberReadOnly):
                await member.put(key(2))
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
            await one.services.ask(store.PROMOTE, store.MemberRef(member=target.info.id), timeout=20)
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
        with pytest.raises(NotPossible):  # it answers
            await two.services.ask(store.TAKE_OVER, store.TakeOver(lost=(one.info.id,)), timeout=20)
        one.kill()
        await two.until(lambda status: status.state == "read-only", "read-only")
        await two.services.ask(store.TAKE_OVER, store.TakeOver(lost=(one.info.id,)), timeout=30)
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
        await two.services.ask(store.MEMBER_REMOVE, store.MemberRef(member=three.info.id), timeout=20)
        await three.until(lambda status: status.state == "expelled", "the news of its removal")
        await two.put(key(2))
        await three.hsm.ask(store.DESTROY, store.Destroy(cluster=CLUSTER))
        assert (await three.status()).state == "none"
        await cluster.agree(one, two)

    play(scenario)


def test_a_member_removed_while_it_was_away_learns_of_it_from_members_that_were_started_since(play: Play) -> None:
    async def scenario(cluster: Cluster) -> None:
        one, two, three = cluster.members
        three.kill()
        await one.services.ask(store.MEMBER_REMOVE, store.MemberRef(member=three.info.id), timeout=20)
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
        await two.services.ask(store.MEMBER_REMOVE, store.MemberRef(member=joiner.info.id), timeout=20)
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
        await two.services.ask(store.TAKE_OVER, store.TakeOver(lost=(one.info.id,)), timeout=30)
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
