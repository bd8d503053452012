"""The real store and its two doors: invalidation, waiting, watching, full and damaged disks, start and stop."""

from __future__ import annotations

import asyncio
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from lnh_common import limits
from lnh_common.bus.client import Client
from lnh_common.errors import (
    AlreadyDone,
    ArgumentInvalid,
    MalformedMessage,
    NoCluster,
    OutcomeUnknown,
    SealBroken,
    StorageFailed,
    UnknownOperation,
    Unreachable,
    VersionConflict,
)
from lnh_common.messages import store
from lnh_common.messages.base import Empty, Message
from lnh_services.configuration import Settings
from lnh_services.initialise import initialise_member
from lnh_services.paths import MemberDirectory
from processes import Processes, SmallDisk, is_alive
from waits import wait_until

CLUSTER = b"C" * 16
MEMBER = store.MemberInfo(id=b"M" * 16, name="A", host="127.0.0.1", port=15_000, key=b"k" * 32)
LEASE = limits.WORKER_LEASE_MS / 1000
KEY = store.Key(table="t", scope=b"s", id=b"1")


def put(key: store.Key = KEY, version: int = 0, body: bytes = b"body") -> store.Put:
    return store.Put(key=key, expected=version, head=b"head", body=body)


class Running:
    """One store process and both its doors."""

    def __init__(self, processes: Processes, directory: MemberDirectory) -> None:
        self.processes = processes
        self.directory = directory
        self.invalidations: list[store.Invalidate] = []
        self.worker = secrets.token_bytes(16)
        self.session = secrets.token_bytes(16)
        self.sequence = 0
        self.says_invalidated = True
        self.told = asyncio.Event()  # to drop something
        self.hsm = Client(directory.store_for_hsm, on_cast=self.on_cast)
        self.services = Client(directory.store_for_services)
        self.process = self.begin()

    def begin(self) -> subprocess.Popen[bytes]:
        return self.processes.start("-m", "lnh_services.store", "--member-dir", str(self.directory.root))

    def on_cast(self, operation: str, message: Message) -> None:
        assert isinstance(message, store.Invalidate)
        self.invalidations.append(message)
        self.told.set()
        if self.says_invalidated:
            self.hsm.cast(store.INVALIDATED, store.Invalidated(sequence=message.sequence, worker=self.worker))

    async def create(self) -> None:
        await self.hsm.ask(store.CREATE, store.Create(cluster=CLUSTER, member=MEMBER), timeout=15)

    async def status(self) -> store.Status:
        return await self.services.ask(store.STATUS, Empty(), timeout=10)

    async def state(self, wanted: str) -> store.Status:
        """The status, once the store is in this state."""
        end = time.monotonic() + 20
        while True:
            try:
                status = await self.status()
                if status.state == wanted:
                    return status
            except Unreachable:
                pass
            assert time.monotonic() < end, f"the store is not {wanted}"
            await asyncio.sleep(0.02)

    async def attach(self) -> store.Attached:
        return await self.hsm.ask(store.ATTACH, store.Attach(worker=self.worker))

    def commit(self, *changes: store.Change) -> store.Commit:
        self.sequence += 1
        return store.Commit(
            client=b"c" * 16, session=self.session, sequence=self.sequence, issued_at=int(time.time() * 1000),
            changes=changes,
        )  # fmt: skip

    async def write(self, *changes: store.Change) -> store.Committed:
        return await self.hsm.ask(store.COMMIT, self.commit(*changes))

    async def leased(self) -> None:
        """The worker's lease is renewed, not begun anew: the lease before it had not ended."""
        for _ in range(20):
            if not (await self.attach()).fresh:
                return
        raise AssertionError("each lease is a new one")

    async def told_by(self, changes: Callable[[int], Sequence[store.Change]]) -> tuple[store.Key, ...]:
        """The keys that the worker is to drop at such a write: tried again where its lease ended meanwhile."""
        for attempt in range(10):
            before = len(self.invalidations)
            await self.leased()
            await self.write(*changes(attempt))
            if len(self.invalidations) > before:
                (invalidation,) = self.invalidations[before:]
                return invalidation.keys
        raise AssertionError("the worker is told nothing")

    async def told_of(self, *writes: asyncio.Task[store.Committed]) -> None:
        """Wait until the worker is told to drop something; these writes are not over before."""
        told = asyncio.create_task(self.told.wait())
        await asyncio.wait((told, *writes), timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert told.done(), "the worker is told nothing"

    async def get(self, key: store.Key = KEY) -> store.Item | None:
        return (await self.services.ask(store.GET, store.Get(key=key))).item

    async def restart(self) -> None:
        """Start it anew, and wait until the new one answers."""
        self.process = self.begin()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with suppress(Unreachable):  # asked before this process heard that the old one's connection is gone
                await self.status()
                return
        raise AssertionError("the store does not answer")

    async def close(self) -> None:
        await self.hsm.close()
        await self.services.close()


Scenario = Callable[[Running], Awaitable[None]]


@pytest.fixture
def directory(processes: Processes, short_path: Path) -> MemberDirectory:
    directory = MemberDirectory(short_path / "m")
    initialise_member(directory, Settings(name="A", base_port=15_000))
    processes.watch(directory.root)
    return directory


@pytest.fixture
def play(processes: Processes, directory: MemberDirectory) -> Callable[[Scenario], None]:
    """Runs a scenario on a new store that holds a cluster."""

    async def run(scenario: Scenario) -> None:
        running = Running(processes, directory)
        try:
            await running.create()
            await scenario(running)
        finally:
            await running.close()

    return lambda scenario: asyncio.run(run(scenario))


Play = Callable[[Scenario], None]


def test_a_commit_is_read_back_through_both_doors(play: Play) -> None:
    async def scenario(s: Running) -> None:
        committed = await s.write(put())
        assert committed == store.Committed(index=2)
        item = await s.get()
        assert item is not None
        assert (item.version, item.head, item.body) == (1, b"head", b"body")
        got = await s.hsm.ask(store.GET, store.Get(key=KEY, body=False))
        assert got.item is not None
        assert (got.item.body, got.index) == (b"", 2)
        counted = await s.services.ask(store.COUNT, store.Count(table="t", scope=b"s"))
        assert counted == store.Counted(count=1, index=2, current=True)

    play(scenario)


def test_a_request_that_comes_again_acts_once_and_says_so(play: Play) -> None:
    async def scenario(s: Running) -> None:
        commit, refused = s.commit(put()), s.commit(put())
        first = await s.hsm.ask(store.COMMIT, commit)
        again = await s.hsm.ask(store.COMMIT, commit)
        assert (first.duplicate, again) == (False, store.Committed(index=first.index, duplicate=True))
        for _ in range(2):
            with pytest.raises(VersionConflict):
                await s.hsm.ask(store.COMMIT, refused)
        asked = store.Recall(client=commit.client, session=commit.session, sequence=commit.sequence)
        assert await s.hsm.ask(store.RECALL, asked) == store.Recalled(known=True, index=first.index)
        never = store.Recall(client=commit.client, session=commit.session, sequence=99)
        assert await s.hsm.ask(store.RECALL, never) == store.Recalled(known=False, index=0)
        with pytest.raises(VersionConflict):
            await s.hsm.ask(
                store.RECALL, store.Recall(client=commit.client, session=commit.session, sequence=refused.sequence)
            )

    play(scenario)


def test_commits_that_come_together_have_each_its_own_outcome(play: Play) -> None:
    async def story(running: Running) -> None:
        await running.create()
        other = store.Key(table="t", scope=b"s", id=b"2")
        first = running.commit(put())
        commits = (
            first,
            running.commit(put(version=7), put(other)),  # all or nothing
            first,  # once
            running.commit(put(version=-1)),  # what no state could accept
            running.commit(put(store.Key(table="", scope=b"", id=b""))),
            running.commit(put(version=1, body=b"second")),
        )
        outcomes = (await running.hsm.ask(store.COMMIT_EACH, store.Commits.of(commits))).outcomes
        made, conflict, again, refused, malformed, second = outcomes
        assert isinstance(made, store.Committed)
        assert again == store.Committed(index=made.index, duplicate=True)
        assert isinstance(conflict, list)
        assert conflict[0] == VersionConflict.code
        assert isinstance(refused, list)
        assert refused[0] == ArgumentInvalid.code
        assert isinstance(malformed, list)
        assert malformed[0] == MalformedMessage.code
        assert isinstance(second, store.Committed)
        assert second.index > made.index
        gets = (store.Get(key=store.Key(table="t", scope=b"s", id=b"none")), store.Get(key=KEY, body=False))
        nothing, head = (await running.hsm.ask(store.GET_EACH, store.Gets(gets=gets))).gots
        assert nothing.item is None
        assert head == await running.hsm.ask(store.GET, gets[1])
        assert nothing.current
        item = await running.get()
        assert item is not None
        assert (item.version, item.body) == (2, b"second")
        assert await running.get(other) is None

    play(story)


def test_what_no_state_could_accept_is_refused_before_it_is_appended(play: Play) -> None:
    nameless = store.Key(table="t", scope=b"s")
    wrong: tuple[store.Change, ...] = (
        put(nameless),
        put(version=-1),
        put(version=2**63),
        put(body=b"b" * limits.REQUEST_BYTES),
        store.DeleteScope(key=KEY),
        store.Put(key=KEY, expected=0, head=b"", unique=(b"x",)),
        store.Put(key=KEY, expected=0, head=b"", tags=(b"x", b"x")),
        store.Put(key=KEY, expected=0, head=b"", limit=-1),
    )

    async def scenario(s: Running) -> None:
        for change in wrong:
            with pytest.raises(ArgumentInvalid):
                await s.write(change)
        with pytest.raises(ArgumentInvalid):
            await s.hsm.ask(store.COMMIT, store.Commit(
                client=b"c" * 16, session=b"s" * 16, sequence=2**63, issued_at=0, changes=(put(),)
            ))  # fmt: skip
        assert (await s.status()).last_index == 1

    play(scenario)


def test_the_services_door_only_reads(play: Play) -> None:
    async def scenario(s: Running) -> None:
        with pytest.raises(UnknownOperation):
            await s.services.ask(store.COMMIT, s.commit(put()))
        with pytest.raises(UnknownOperation):
            await s.services.ask(store.CREATE, store.Create(cluster=CLUSTER, member=MEMBER))
        with pytest.raises(UnknownOperation):
            await s.services.ask(store.DESTROY, store.Destroy(cluster=CLUSTER))
        with pytest.raises(UnknownOperation):
            await s.services.ask(store.ATTACH, store.Attach(worker=s.worker))

    play(scenario)


def test_a_commit_is_answered_after_the_worker_has_invalidated(play: Play) -> None:
    async def scenario(s: Running) -> None:
        assert (await s.attach()).fresh
        await s.leased()
        keys = await s.told_by(lambda n: [put(store.Key(table="t", scope=b"s", id=b"%d%d" % (n, i))) for i in range(2)])
        assert {key.id[1:] for key in keys} == {b"0", b"1"}
        scope = store.Key(table="t", scope=b"s")
        assert await s.told_by(lambda _: [store.DeleteScope(key=scope)]) == (scope,)

    play(scenario)


def test_a_silent_worker_holds_a_commit_and_reads_of_it_until_its_lease_ends(play: Play) -> None:
    async def scenario(s: Running) -> None:
        s.says_invalidated = False
        begun = time.monotonic()

        def over() -> bool:
            return time.monotonic() - begun > LEASE * 0.9

        await s.attach()
        commit = asyncio.create_task(s.write(put()))
        await s.told_of(commit)
        read = asyncio.create_task(s.get())
        assert await s.get(store.Key(table="t", scope=b"other", id=b"1")) is None
        assert (await s.attach()).lease_ms <= limits.WORKER_LEASE_MS  # it owes an answer: no longer lease
        assert not commit.done() or over()
        assert not read.done() or over()
        item = await read
        assert item is not None
        assert item.version == 1
        await commit
        assert over()
        assert (await s.attach()).fresh

    play(scenario)


def test_a_restarted_store_acknowledges_nothing_while_an_older_lease_may_last(play: Play) -> None:
    async def scenario(s: Running) -> None:
        await s.write(put())
        s.process.kill()
        s.process.wait()
        begun = time.clock_gettime(time.CLOCK_BOOTTIME)
        await s.restart()
        await s.write(put(version=1))
        assert time.clock_gettime(time.CLOCK_BOOTTIME) - begun >= LEASE
        assert (await s.status()).epoch == 2

    play(scenario)


def test_a_watcher_is_told_what_changed_or_that_nothing_did(play: Play) -> None:
    async def scenario(s: Running) -> None:
        ask = store.Watch(index=1, tables=("t",))
        watching = asyncio.create_task(s.services.ask(store.WATCH, ask, timeout=10))
        await s.write(put(store.Key(table="u", id=b"1")))
        committed = await s.write(put())
        assert await watching == store.Changed(index=committed.index, keys=(KEY,))
        quiet = await s.services.ask(store.WATCH, store.Watch(index=committed.index, tables=("t",)), timeout=2)
        assert quiet == store.Changed(index=committed.index, keys=())
        ahead = await s.services.ask(store.WATCH, store.Watch(index=99, tables=("t",)), timeout=5)
        assert ahead.everything
        members = store.Watch(index=committed.index, tables=("t", store.MEMBERS.table))
        watching = asyncio.create_task(s.services.ask(store.WATCH, members, timeout=10))
        door = store.SetDoor(member=MEMBER.id, door=bytes(31) + b"1")
        said = await s.services.ask(store.MEMBER_DOOR, door)
        assert await watching == store.Changed(index=said.index, keys=(store.MEMBERS,))

    play(scenario)


def test_creating_and_destroying_may_be_repeated_but_not_mistaken(play: Play) -> None:
    async def scenario(s: Running) -> None:
        await s.create()
        with pytest.raises(AlreadyDone):
            await s.hsm.ask(store.CREATE, store.Create(cluster=b"D" * 16, member=MEMBER))
        with pytest.raises(NoCluster):
            await s.hsm.ask(store.DESTROY, store.Destroy(cluster=b"D" * 16))
        await s.write(put())
        await s.leased()
        await s.hsm.ask(store.DESTROY, store.Destroy(cluster=CLUSTER))
        assert s.invalidations[-1].everything
        assert (await s.status()).state == "none"
        await s.hsm.ask(store.DESTROY, store.Destroy(cluster=CLUSTER))
        with pytest.raises(NoCluster):
            await s.get()
        with pytest.raises(NoCluster):
            await s.write(put())
        with pytest.raises(NoCluster):
            await s.hsm.ask(store.RECALL, store.Recall(client=b"c" * 16, session=b"s" * 16, sequence=1))
        await s.create()
        await s.write(put())
        assert sorted(path.name for path in s.directory.data("store").iterdir())[:1] == ["store.db"]

    play(scenario)


def test_a_store_that_stops_in_order_answers_what_it_took(play: Play) -> None:
    async def scenario(s: Running) -> None:
        await s.attach()
        keys = [store.Key(table="t", scope=b"s", id=b"%d" % n) for n in range(25)]
        writes = [asyncio.create_task(s.write(put(key))) for key in keys]
        await s.told_of(*writes)
        watching = asyncio.create_task(
            s.services.ask(store.WATCH, store.Watch(index=10_000, tables=("u",)), timeout=20)
        )
        s.process.send_signal(signal.SIGTERM)
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        await asyncio.wait([watching])
        watching.exception()
        assert s.process.wait(10) == 0
        await s.restart()
        for key, outcome in zip(keys, outcomes, strict=True):
            if isinstance(outcome, OutcomeUnknown):
                continue
            assert isinstance(outcome, store.Committed | Unreachable)
            assert (await s.get(key) is not None) == isinstance(outcome, store.Committed)
        assert any(isinstance(outcome, store.Committed) for outcome in outcomes)

    play(scenario)


def test_a_second_store_on_the_same_directory_is_refused(play: Play) -> None:
    async def scenario(s: Running) -> None:
        other = s.begin()
        assert await asyncio.to_thread(other.wait, 20) == 2
        await s.write(put())

    play(scenario)


def test_a_damaged_database_is_said_and_not_served(play: Play) -> None:
    async def scenario(s: Running) -> None:
        await s.write(put())
        s.process.terminate()
        s.process.wait(10)
        path = s.directory.data("store") / "store.db"
        path.write_bytes(b"\x5a" * path.stat().st_size)
        await s.restart()
        status = await s.state("failed")
        assert "damaged" in status.problem
        for asked in (s.get(), s.write(put()), s.attach()):
            with pytest.raises(SealBroken):
                await asked
        assert is_alive(s.process.pid)

    play(scenario)


def test_a_directory_too_deep_for_a_socket_is_a_clear_refusal(tmp_path: Path) -> None:
    root = tmp_path / ("d" * 100)
    asked = subprocess.run(
        [sys.executable, "-m", "lnh_services.store", "--member-dir", str(root)],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert asked.returncode == 2
    assert "Traceback" not in asked.stderr


class OnSmallDisk(Running):
    def __init__(self, processes: Processes, directory: MemberDirectory, disk: SmallDisk) -> None:
        self.disk = disk
        super().__init__(processes, directory)

    def begin(self) -> subprocess.Popen[bytes]:
        arguments = ("-m", "lnh_services.store", "--member-dir", str(self.directory.root))
        return self.processes.start(*arguments, under=self.disk.enter())


def test_a_full_disk_stops_acknowledging_and_passes_by_itself(processes: Processes, directory: MemberDirectory) -> None:
    disk = SmallDisk(directory.data("store"), megabytes=4)
    if not disk.works:
        disk.end()
        pytest.skip("needs root or user namespaces to mount a small file system")

    async def scenario() -> None:
        s = OnSmallDisk(processes, directory, disk)
        try:
            await s.create()
            await s.attach()
            held = {}
            for n in range(5):
                key = store.Key(table="t", scope=b"s", id=b"held%d" % n)
                await s.write(put(key))
                held[key] = b"body"
            disk.fill()
            for n in range(400):
                key = store.Key(table="t", scope=b"s", id=b"%d" % n)
                try:
                    await s.write(put(key, body=b"b" * 20_000))
                except StorageFailed:
                    break
                held[key] = b"b" * 20_000
            else:
                raise AssertionError("the disk never filled")
            status = await s.state("failed")
            assert "full" in status.problem
            assert await s.get(key) is None
            assert is_alive(s.process.pid)
            await check(s, held)

            s.process.kill()
            s.process.wait()
            await s.restart()  # on the full disk
            status = await s.status()
            assert status.state in ("failed", "read-only", "read-write")
            if status.state == "failed":
                with pytest.raises(StorageFailed):
                    await s.write(put(key))

            disk.free()
            await s.state("read-write")
            await s.write(put(key))
            held[key] = b"body"
            await check(s, held)
        finally:
            s.process.kill()
            s.process.wait()
            await s.close()

    async def check(s: Running, held: dict[store.Key, bytes]) -> None:
        for key, body in held.items():
            item = await s.get(key)
            assert item is not None
            assert (item.version, item.body) == (1, body)

    try:
        asyncio.run(scenario())
    finally:
        disk.end()
    wait_until(lambda: not processes.left(), "the end of the store")
