"""The store's database in a process that dies at any point: the next start finds the old or the new, never a mixture."""

from __future__ import annotations

import os
import random
import select
import signal
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lnh_common.messages.store import Commit, Key, MemberInfo, Put
from lnh_services.store.disk import disk_errors, dropped, sqlite
from lnh_services.store.disk.sqlite import Disk
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import ClusterId, Entry, Epoch, MemberId, Milliseconds, Open, Write
from lnh_services.store.log.window import Base, Configuration
from lnh_services.store.replication.messages import Install, Persist

CLUSTER, ME = ClusterId(b"C" * 16), MemberId(b"M" * 16)
EPOCH, OTHERS = Epoch(2, ME), Epoch(1, MemberId(b"N" * 16))
NOW = 1_700_000_000_000
FIRST = Base(log.genesis(CLUSTER), Milliseconds(0), Configuration())
KILLS = 60


def payload(index: int, body: bytes) -> log.Payload:
    if index == 1:
        member = MemberInfo(id=ME, name="A", host="127.0.0.1", port=7000, key=b"k" * 32)
        return Open((member,), (ME,))
    put = Put(key=Key(table="t", id=b"%d" % index), expected=0, head=b"", body=body, tags=(b"x",))
    return Write(Commit(client=b"c" * 16, session=b"s" * 16, sequence=index, issued_at=NOW, changes=(put,)))


def chain(length: int, epoch: Epoch = EPOCH, body: bytes = b"b" * 2000) -> list[Entry]:
    """The log that every process here writes: entry n puts item n."""
    entries: list[Entry] = []
    last = FIRST.position
    for index in range(1, length + 1):
        entries.append(log.make_entry(last, epoch, Milliseconds(NOW + index), payload(index, body)))
        last = entries[-1].position()
    return entries


def begun(directory: Path, entries: list[Entry], committed: int) -> Disk:
    directory.mkdir(exist_ok=True)
    new = Disk(directory)
    new.persist(
        Persist(number=1, found=(CLUSTER, ME, FIRST), promised=EPOCH, entries=tuple(entries), committed=committed),
        "boot",
    )
    return new


def stream(source: Disk) -> list[bytes]:
    outgoing = source.send()
    chunks = []
    while (chunk := outgoing.next()) is not None:
        chunks.append(chunk)
    source.release(outgoing)
    return [*chunks, outgoing.hash]


def in_child(act: Callable[[], None]) -> int:
    """Run it in a process of its own; answers the process."""
    child = os.fork()
    if child == 0:
        try:
            act()
        finally:
            os._exit(1)
    return child


def state(directory: Path) -> tuple[int, int, list[bytes]]:
    """Committed, the log's end, and the items' bodies as one start finds them."""
    opened = Disk(directory)
    loaded = opened.load()
    assert loaded is not None
    found, _ = loaded
    last = found.entries[-1].index if found.entries else found.base.position.index
    assert found.promised == EPOCH
    opened.close()
    with sqlite3.connect(directory / "store.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        bodies = [body for (body,) in connection.execute("SELECT DISTINCT body FROM items")]
        (count,) = connection.execute("SELECT count(*) FROM items").fetchone()
        assert count == max(0, found.committed - 1)
        assert connection.execute("SELECT count(*) FROM tags").fetchone() == (count,)
        assert connection.execute("SELECT coalesce(sum(items), 0) FROM scopes").fetchone() == (count,)
    connection.close()
    return found.committed, last, bodies


def test_a_step_is_whole_or_not_there_whenever_the_process_is_killed(tmp_path: Path) -> None:
    chance = random.Random(7)
    entries = chain(4000, body=b"b" * 200)
    directory = tmp_path / "m"
    begun(directory, entries[:1], 1).close()
    acknowledged = committed = 1

    def write(pipe: int) -> None:
        store = Disk(directory)
        loaded = store.load()
        assert loaded is not None
        last = loaded[0].entries[-1].index
        at, number = loaded[0].committed, 2
        own = random.Random(os.getpid())
        while True:
            new = entries[last : last + own.randrange(4)]
            last += len(new)
            at = own.randrange(at, last + 1)
            store.persist(Persist(number=number, entries=tuple(new), committed=at, sync=bool(new)), "boot")
            os.write(pipe, b"%d %d\n" % (last, at))
            number += 1

    for _ in range(KILLS):
        told, tell = os.pipe()
        child = in_child(partial(write, tell))
        os.close(tell)
        said = b""
        select.select([told], [], [], 10)
        wait = chance.uniform(0, 0.03)
        while select.select([told], [], [], wait)[0] and len(said) < 100_000:
            said += os.read(told, 65536)
            wait = max(0.0, wait - chance.uniform(0, 0.005))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(told, 65536):
            said += more
        os.close(told)
        for line in said.splitlines():
            acknowledged, committed = map(int, line.split())
        found, last, _ = state(directory)
        assert found >= committed
        assert last >= acknowledged
    assert acknowledged > KILLS


def die_at(monkeypatch: pytest.MonkeyPatch, point: int) -> None:
    """Let the process die at the `point`-th call that changes files, before it or right after it."""
    calls = [0]

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == point:
                os._exit(9)
            result = real(*args, **kwargs)
            calls[0] += 1
            if calls[0] == point:
                os._exit(9)
            return result

        return call

    for where, name in (
        (sqlite, "sync_directory"), (sqlite, "sync_file"), (sqlite, "remove_database"), (sqlite, "connect"),
        (disk_errors, "sync_file"), (dropped, "replace_file"), (Path, "replace"), (Path, "hardlink_to"), (Path, "unlink"),
        (Disk, "_checkpoint"), (Disk, "_close"), (Disk, "_complete"),
    ):  # fmt: skip
        monkeypatch.setattr(where, name, dying(getattr(where, name)))


def test_an_installation_leaves_the_old_or_the_new_wherever_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = chain(30, body=b"n" * 3000)
    source = begun(tmp_path / "source", new, 30)
    chunks = stream(source)
    old = chain(12, OTHERS, b"o" * 3000)
    outcomes = []
    for point in range(1, 200):
        directory = tmp_path / str(point)
        begun(directory, old, 10).close()

        def install(directory: Path = directory, point: int = point) -> None:
            store = Disk(directory)
            store.load()
            incoming = store.receive(CLUSTER)
            for chunk in chunks[:-1]:
                incoming.take(chunk)
            base = incoming.finish(chunks[-1])
            die_at(monkeypatch, point)
            store.install(Install(2, 1, base, aside=True, dropped=tuple(old[10:])), incoming)
            os._exit(0)

        _, status = os.waitpid(in_child(install), 0)
        code = os.waitstatus_to_exitcode(status)
        assert code in (0, 9)
        found = state(directory)
        outcomes.append(found[0])
        assert found in ((10, 12, [b"o" * 3000]), (30, 30, [b"n" * 3000]))
        names = {path.name for path in directory.iterdir()}
        if found[0] == 30:  # what it took the place of is there
            (aside,) = directory.glob("store-*.aside.db")
            with sqlite3.connect(aside) as connection:
                assert connection.execute("SELECT count(*) FROM items").fetchone() == (9,)
            connection.close()
            (saved,) = dropped.find(directory)
            assert saved.saved is not None
            assert saved.saved.entries == tuple(old[10:])
        else:
            assert not any(name.startswith(("incoming", "store-")) for name in names)
        if code == 0:
            break
    assert point > 20
    assert outcomes.count(10) > 10
    assert outcomes.count(30) > 2
    assert outcomes == sorted(outcomes)
    source.close()
