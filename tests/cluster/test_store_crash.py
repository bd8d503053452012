"""The real store killed again and again under load: what it acknowledged stays, what it began is whole or not there."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import secrets
import subprocess
import time
from pathlib import Path

from lnh_common.bus.client import Client
from lnh_common.errors import (
    Busy,
    DeadlineExceeded,
    OutcomeUnknown,
    Unreachable,
)
from lnh_common.messages import store
from lnh_common.messages.base import Empty, Message
from lnh_services.configuration import Settings
from lnh_services.initialise import initialise_member
from lnh_services.paths import MemberDirectory
from processes import Processes
from waits import until

KILLS = 12  # `make soak` kills it for as long as asked
WRITERS = 12
ITEMS = 3  # in one commit: all or none
TRY_AGAIN = (Unreachable, OutcomeUnknown, DeadlineExceeded, Busy)
PATIENCE = 30.0


class Load:
    """Writers that know what was acknowledged to them, and a worker whose cache must drop what changes."""

    def __init__(self, directory: MemberDirectory) -> None:
        self.directory = directory
        self.client = Client(directory.store_for_hsm, on_cast=self.on_cast)
        self.reader = Client(directory.store_for_services)
        self.acknowledged = [0] * WRITERS
        self.begun = [0] * WRITERS
        self.session = secrets.token_bytes(16)
        self.worker = secrets.token_bytes(16)
        self.retries = 0

    def key(self, writer: int, item: int) -> store.Key:
        return store.Key(table="t", scope=b"%d" % writer, id=b"%d" % item)

    def on_cast(self, operation: str, message: Message) -> None:
        assert isinstance(message, store.Invalidate)
        self.client.cast(store.INVALIDATED, store.Invalidated(sequence=message.sequence, worker=self.worker))

    async def write(self, writer: int) -> None:
        """One version after the other; each is asked for with the same sequence until it is answered."""
        for version in itertools.count(1):
            self.begun[writer] = version
            commit = store.Commit(
                client=b"w" * 15 + bytes([writer]),
                session=self.session,
                sequence=version,
                issued_at=int(time.time() * 1000),
                changes=tuple(
                    store.Put(key=self.key(writer, n), expected=version - 1, head=b"%d" % version, tags=(b"t%d" % n,))
                    for n in range(ITEMS)
                ),
            )
            while True:
                try:
                    await self.client.ask(store.COMMIT, commit, timeout=5)
                    break
                except TRY_AGAIN:  # a VersionConflict would mean that it had acted twice
                    self.retries += 1
                    await asyncio.sleep(0.01)
            self.acknowledged[writer] = version

    async def attach(self) -> None:
        """Keep a worker's lease."""
        while True:
            try:
                await self.client.ask(store.ATTACH, store.Attach(worker=self.worker), timeout=1)
            except TRY_AGAIN:
                await asyncio.sleep(0.02)
            else:
                await asyncio.sleep(0.25)

    async def check(self) -> None:
        """Compare what is there with what was acknowledged before and begun after."""
        for writer in range(WRITERS):
            at_least = self.acknowledged[writer]
            page = await self.reader.ask(store.SCAN, store.Scan(table="t", scope=b"%d" % writer), timeout=10)
            at_most = self.begun[writer]
            versions = {(item.version, item.head) for item in page.items}
            assert len(versions) <= 1, f"writer {writer}: a commit was applied in part: {versions}"
            version = page.items[0].version if page.items else 0
            assert len(page.items) == (ITEMS if version else 0)
            assert at_least <= version <= at_most, f"writer {writer}: {version}; {at_least} was acknowledged"

    async def reach(self, total: int) -> None:
        """Wait until this many writes in all are acknowledged."""
        await until(lambda: sum(self.acknowledged) >= total, f"{total} acknowledged writes", PATIENCE)

    async def close(self) -> None:
        await self.client.close()
        await self.reader.close()


async def ready(client: Client) -> None:
    await until(lambda: client.ask(store.STATUS, Empty(), timeout=1), "the store's start", PATIENCE)


async def crash_again_and_again(processes: Processes, root: Path, seconds: float | None) -> Load:
    chance = random.Random(20_240_607)
    directory = MemberDirectory(root)
    load = Load(directory)

    def start() -> subprocess.Popen[bytes]:
        return processes.start("-m", "lnh_services.store", "--member-dir", str(root))

    process = start()
    await ready(load.reader)
    member = store.MemberInfo(id=b"M" * 16, name="A", host="127.0.0.1", port=15_000, key=b"k" * 32)
    await load.client.ask(store.CREATE, store.Create(cluster=b"C" * 16, member=member))
    tasks = [asyncio.create_task(load.write(n)) for n in range(WRITERS)] + [asyncio.create_task(load.attach())]
    try:
        end = None if seconds is None else time.monotonic() + seconds
        for kill in itertools.count():
            if kill >= KILLS if end is None else time.monotonic() > end:
                break
            if kill % 2:
                await asyncio.sleep(chance.uniform(0, 0.4))  # while it starts, promises, opens
            else:
                await load.reach(sum(load.acknowledged) + chance.randrange(1, 200))
                await asyncio.sleep(chance.uniform(0, 0.01))  # anywhere within a step
            process.kill()
            process.wait()
            process = start()
            if not kill % 4:
                await ready(load.reader)
                await load.check()
            broken = [task for task in tasks if task.done()]
            for task in broken:
                task.result()
        await load.reach(sum(load.acknowledged) + WRITERS)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    process.terminate()
    assert process.wait(20) == 0
    start()
    await ready(load.reader)
    await load.check()
    await load.close()
    return load


def test_nothing_acknowledged_is_lost_and_nothing_is_done_in_part_or_twice(
    processes: Processes, short_path: Path
) -> None:
    soak = os.environ.get("LNH_SOAK")
    root = short_path / "m"
    initialise_member(MemberDirectory(root), Settings(name="A", base_port=15_000))
    processes.watch(root)
    load = asyncio.run(crash_again_and_again(processes, root, float(soak) if soak else None))
    assert load.retries > KILLS
    assert min(load.acknowledged) > 0
