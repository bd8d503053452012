"""Real stores of several members, each a process with its own directory, driven through its two doors."""

from __future__ import annotations

import asyncio
import random
import secrets
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from lnh_common.bus.client import Client
from lnh_common.bus.curve import KeyPair
from lnh_common.errors import DeadlineExceeded, MemberReadOnly, NotPossible, OutcomeUnknown, Unreachable
from lnh_common.messages import store
from lnh_common.messages.base import Empty, Message, Operation
from lnh_services.configuration import Settings
from lnh_services.initialise import initialise_member
from lnh_services.paths import MemberDirectory
from processes import Processes, free_base_port
from waits import until

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

CLUSTER = b"C" * 16
PATIENCE = 30.0
SLOWNESS = 0.03  # seconds a worker may take to invalidate
UNSURE = (OutcomeUnknown, DeadlineExceeded, Unreachable)


class Member:
    """One member's store process.

    Args:
        address: that its ports are bound to.
        prefix: words before its command, to run it elsewhere.
    """

    def __init__(
        self, processes: Processes, root: Path, name: str, address: str = "127.0.0.1", prefix: tuple[str, ...] = ()
    ) -> None:
        self.processes = processes
        self.directory = MemberDirectory(root / name)
        self.name = name
        port = free_base_port()
        self.prefix = prefix
        initialise_member(self.directory, Settings(name=name, base_port=port, listen=address))
        processes.watch(self.directory.root)
        key = KeyPair.load(self.directory.member_keys).raw_public
        self.info = store.MemberInfo(id=secrets.token_bytes(16), name=name, host=address, port=port, key=key)
        self.session = secrets.token_bytes(16)
        self.sequence = 0
        self.worker = Worker(self)
        self.connect()
        self.process = self.begin()

    def connect(self) -> None:
        self.hsm = Client(self.directory.store_for_hsm, on_cast=self.worker.told)
        self.services = Client(self.directory.store_for_services)

    def begin(self) -> subprocess.Popen[bytes]:
        arguments = ("-m", "lnh_services.store", "--member-dir", str(self.directory.root))
        return self.processes.start(*arguments, under=self.prefix)

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

    async def refuses_writes(self) -> None:
        """Ask for a write, which it must refuse."""
        with pytest.raises(MemberReadOnly):
            await self.hsm.ask(store.COMMIT, self.commit(key(999_999), 0), timeout=5)

    async def order(self, operation: Operation[Q, R], message: Q) -> R:
        """Have it do something that may have to wait until all members are in step, or have their leases, again."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return await self.services.ask(operation, message, timeout=30)
            except (NotPossible, MemberReadOnly):
                if time.monotonic() > end:
                    raise
            await asyncio.sleep(0.1)

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


class Worker:
    """Reads through a cache, under leases of its member's store, as an hsm worker does, but invalidates only after a while."""

    def __init__(self, member: Member) -> None:
        self.member = member
        self.id = secrets.token_bytes(16)
        self.cache: dict[store.Key, int] = {}
        self.lease_until = 0.0
        self.read_write = False
        self.invalidations = 0
        self.hits = 0  # reads from the cache under a read-write lease

    def told(self, operation: str, message: Message) -> None:
        assert isinstance(message, store.Invalidate)
        asyncio.get_running_loop().call_later(random.uniform(0, SLOWNESS), self.invalidate, message)

    def invalidate(self, message: store.Invalidate) -> None:
        self.invalidations += 1
        if message.everything:
            self.cache.clear()
            self.lease_until = 0.0
        for key in message.keys:
            self.cache.pop(key, None)
        self.member.hsm.cast(store.INVALIDATED, store.Invalidated(sequence=message.sequence, worker=self.id))

    async def attach(self) -> None:
        """Renew the lease for ever."""
        while True:
            sent = boot_time()
            try:
                attached = await self.member.hsm.ask(store.ATTACH, store.Attach(worker=self.id), timeout=1)
            except (Unreachable, DeadlineExceeded):
                await asyncio.sleep(0.05)
                continue
            if attached.fresh or boot_time() >= self.lease_until:
                self.cache.clear()
            self.lease_until = sent + attached.lease_ms / 1000
            self.read_write = attached.read_write
            await asyncio.sleep(0.2)

    async def read(self, key: store.Key) -> tuple[int, bool]:
        """The item's version (0: none), and whether the member vouches that it is current."""
        if boot_time() >= self.lease_until:
            self.cache.clear()
        elif key in self.cache:
            self.hits += self.read_write
            return self.cache[key], self.read_write
        invalidations = self.invalidations
        got = await self.member.hsm.ask(store.GET, store.Get(key=key, body=False), timeout=5)
        version = got.item.version if got.item else 0
        # An invalidation may have come after the answer and been heeded before it.
        if (
            invalidations == self.invalidations
            and boot_time() < self.lease_until
            and (got.current or not self.read_write)
        ):
            self.cache[key] = version
        return version, got.current


class Cluster:
    """Its members, of which the first founds it."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members

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
        await through.order(store.MEMBER_SET, store.SetMember(member=member.info))
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


def boot_time() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


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
    await until(lambda: len(written) >= count, f"{count} acknowledged writes", PATIENCE)


def key(number: int) -> store.Key:
    return store.Key(table="t", id=b"%06d" % number)
