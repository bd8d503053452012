"""Making and verifying an archive on a disk that fails at every step, with a store and an HSM that are played."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from lnh_common.bus.client import Client
from lnh_common.errors import ArchiveInvalid, Busy, NameTaken, NameUnknown, NotPossible, StorageFailed
from lnh_common.files import sync_directory
from lnh_common.messages import backup, store
from lnh_common.messages.backup import JobView
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.wire import codec
from lnh_services.backup import files
from lnh_services.backup.files import Archives
from lnh_services.backup.jobs import Job, Jobs
from lnh_services.backup.work import Making
from lnh_services.hsm.backup import archive_keys as keys
from models.archives import cluster, written

ROW = ["user", b"", b"id", 1, b"", b"head", b"b" * 100_000]


def parts() -> list[bytes]:
    """What the store tells, in parts."""
    records = [[1, b"c" * 16, []], *(["items", [ROW]] for _ in range(10)), ["end", [10]]]
    data = b"".join(len(packed).to_bytes(4, "big") + packed for packed in map(codec.encode, records))
    return [data[at : at + 100_000] for at in range(0, len(data), 100_000)]


class Others:
    """The member's store and HSM."""

    def __init__(self) -> None:
        self.parts = parts()
        self.restored = False
        self.ended: list[bytes] = []
        self.read = 0  # parts

    async def ask(self, operation: Operation[Any, Any], message: Message, *, timeout: float) -> Message:
        match message:
            case backup.NewKey():
                key, wrapped = keys.new_key(cluster(), message.id, 1)
                return backup.ArchiveKey(
                    key=key, wrapped=wrapped, cluster=cluster().id, label="pr/od", instance=b"n" * 16, generation=1, member="A"
                )  # fmt: skip
            case backup.Sealing():
                if self.restored:
                    raise NotPossible("the cluster was restored while the archive was made")
                return backup.Sealed(seal=keys.seal_manifest(cluster(), message.header, message.manifest))
            case backup.Opening():
                return backup.DataKey(
                    key=keys.open_archive(cluster(), message.header, message.manifest, message.seal)
                )  # fmt: skip
            case store.ReadingRef():
                self.ended.append(message.id)
                return Empty()
            case store.ReadPart():
                self.read += 1
                return store.Part(data=self.parts[message.number] if message.number < len(self.parts) else b"")
        return store.Reading(id=b"r" * 16, index=7, items={"user": 10}, size=1_000_000)


def making(directory: Path) -> tuple[Making, Others]:
    others = Others()
    asked = cast("Client", others)
    return Making(Archives(directory), asked, asked, now=lambda: 1_700_000_000_000), others


def do(act: Callable[[Job], Awaitable[None]]) -> JobView:
    job = Job(JobView(id=b"j" * 16))

    async def go() -> None:
        await act(job)

    asyncio.run(go())
    return job.view


def test_an_archive_is_made_and_verified_and_damage_is_found(tmp_path: Path) -> None:
    made, _ = making(tmp_path)
    name = do(made.make).archive
    assert name == "pr-od-20231114T221320Z.lnhb"
    assert do(made.make).archive == "pr-od-20231114T221320Z-2.lnhb", "another of the same second"
    assert do(lambda job: made.make(job, scheduled=True)).archive == "pr-od-20231114T221320Z-auto.lnhb"
    done = do(lambda job: made.verify(job, name))
    assert done.done == done.total > 1_000_000
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArchiveInvalid):
        do(lambda job: made.verify(job, name))
    with pytest.raises(NameUnknown):
        do(lambda job: made.verify(job, "none.lnhb"))


class FailingDisk:
    """Counts what is asked of the disk, and fails at the n-th."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, code: int) -> None:
        self.asked = 0
        self.at, self.code = at, code
        for name in ("open", "write", "fsync", "close"):
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))
        monkeypatch.setattr(Path, "hardlink_to", self._wrapped(Path.hardlink_to))
        monkeypatch.setattr(files, "sync_directory", self._wrapped(sync_directory))

    def _wrapped(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self.asked += 1
            if self.asked == self.at:
                raise OSError(self.code, os.strerror(self.code))
            return act(*arguments, **named)

        return wrapped


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_at_any_step_leaves_no_archive_that_is_none(tmp_path: Path, code: int) -> None:
    told = set()
    for at in range(1, 100):
        directory = tmp_path / str(at)
        directory.mkdir()
        made, others = making(directory)
        with pytest.MonkeyPatch.context() as patch:
            disk = FailingDisk(patch, at, code)
            try:
                do(made.make)
            except (StorageFailed, OSError) as error:
                told.add(str(error).rpartition(": ")[2])
                assert others.ended or others.read in (0, len(others.parts) + 1), "the store need not wait for it"
            reached = disk.asked >= at
        for name in Archives(directory).names():  # named, but not known to stay so: whole all the same
            do(partial(made.verify, name=name))
        assert all(path.suffix == backup.SUFFIX for path in directory.iterdir()), "nothing is left half done"
        assert do(made.make).archive, "with room again it goes on"
        if not reached:
            break
    assert told == {os.strerror(code)}


def test_what_a_crash_left_is_removed_at_the_start_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".prod-20231114T221320Z-0a0b0c0d.part").write_bytes(b"half")
    (tmp_path / "prod.lnhb").write_bytes(written(b""))
    (tmp_path / "notes.txt").write_bytes(b"an administrator's")
    kept = Archives(tmp_path)
    kept.tidy()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "prod.lnhb"]
    assert kept.names() == ["prod.lnhb"]


def test_a_directory_that_is_gone_is_a_clear_error(tmp_path: Path) -> None:
    made, _ = making(tmp_path / "gone")
    with pytest.raises(StorageFailed, match="gone"):
        do(made.make)
    with pytest.raises(StorageFailed, match="gone"):
        Archives(tmp_path / "gone").views()


def test_an_archive_of_a_cluster_that_was_restored_meanwhile_is_none(tmp_path: Path) -> None:
    made, others = making(tmp_path)
    others.restored = True
    with pytest.raises(NotPossible):
        do(made.make)
    assert list(tmp_path.iterdir()) == []


def test_one_job_at_a_time_and_the_same_order_once(tmp_path: Path) -> None:
    async def go() -> None:
        jobs, made = Jobs(), making(tmp_path)[0]
        first = jobs.begin(b"1" * 16, "make", "", made.make)
        assert jobs.begin(b"1" * 16, "make", "", made.make).id == first.id
        with pytest.raises(Busy, match="to make an archive is under way"):
            jobs.begin(b"2" * 16, "verify", "x.lnhb", made.make)
        assert jobs._running is not None
        await jobs._running[1]
        assert jobs.view(b"1" * 16).state == "done"
        assert jobs.begin(b"1" * 16, "make", "", made.make).archive == jobs.view().archive
        assert len(Archives(tmp_path).names()) == 1
        with pytest.raises(NameUnknown):
            jobs.view(b"3" * 16)

    asyncio.run(go())


def test_an_archive_is_brought_in_pieces_and_only_a_whole_one_is_there(tmp_path: Path) -> None:
    kept, data = Archives(tmp_path), written(b"x" * 1000)
    assert kept.receive("x.lnhb", 0, len(data), b"") == 0
    assert kept.receive("x.lnhb", 0, len(data), data[:100]) == 100
    assert kept.receive("x.lnhb", 0, len(data), data[:100]) == 100, "a piece that comes again"
    assert kept.receive("x.lnhb", 500, len(data), data[500:]) == 100, "one that does not follow"
    assert kept.names() == []
    assert kept.receive("x.lnhb", 100, len(data), data[100:]) == len(data)
    assert kept.names() == ["x.lnhb"]
    with pytest.raises(NameTaken):
        kept.receive("x.lnhb", 0, len(data), data)
    with pytest.raises(ArchiveInvalid):
        kept.receive("y.lnhb", 0, 500, data[:500])
    assert [path.name for path in tmp_path.iterdir()] == ["x.lnhb"]
