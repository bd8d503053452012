"""The store's database: what it keeps, what it notices, what it answers."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from lnh_common import limits
from lnh_common.errors import SealBroken, StorageFailed
from lnh_common.messages.store import Commit, Key, Put, Scan
from lnh_services.store import items, log
from lnh_services.store.engine import Engine, LastStop
from lnh_services.store.log import ClusterId, Entry, Epoch, MemberId, Milliseconds, Open, Position, SetChange, Write
from lnh_services.store.replica import Durable

CLUSTER, ME = ClusterId(b"C" * 16), MemberId(b"M" * 16)
EPOCH = Epoch(1, ME)
NOW = 1_700_000_000_000


class Store:
    """An engine, and the entries it is given."""

    def __init__(self, directory: Path) -> None:
        self.engine = Engine(directory)
        self.last = log.genesis(CLUSTER)

    def found(self) -> None:
        entry = self.append(Open(ME, (ME,), (ME,)))
        self.engine.found(CLUSTER, ME, EPOCH, entry, "boot")

    def append(self, payload: log.Payload) -> Entry:
        entry = log.make_entry(self.last, EPOCH, Milliseconds(NOW + self.last.index), payload)
        self.last = entry.position()
        return entry

    def put(self, id_: bytes, body: bytes = b"body", tags: tuple[bytes, ...] = (), *, version: int = 0) -> Entry:
        change = Put(key=Key(table="t", scope=b"s", id=id_), expected=version, head=b"head", body=body, tags=tags)
        index = self.last.index + 1
        return self.append(
            Write(Commit(client=b"c" * 16, session=b"s" * 16, sequence=index, issued_at=NOW, changes=(change,)))
        )

    def commit(self, *entries: Entry) -> None:
        self.engine.persist(entries, entries[-1].index)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.found()
    return store


def reopened(store: Store, directory: Path) -> tuple[Durable, LastStop]:
    store.engine.close()
    store.engine = Engine(directory)
    found = store.engine.load()
    assert found is not None
    return found


def test_a_directory_without_a_database_holds_no_cluster(tmp_path: Path) -> None:
    assert Engine(tmp_path).load() is None


def test_what_was_persisted_is_there_after_a_restart(store: Store, tmp_path: Path) -> None:
    store.commit(store.put(b"1", tags=(b"x", b"y")), store.put(b"2"))
    found, stop = reopened(store, tmp_path)
    assert (found.cluster, found.member, found.promised) == (CLUSTER, ME, EPOCH)
    assert (found.last, found.committed, found.members) == (store.last, 3, (ME,))
    assert stop == LastStop("boot", None)
    item = store.engine.get(Key(table="t", scope=b"s", id=b"1"), body=True)
    assert item is not None
    assert (item.version, item.head, item.body, item.tags) == (1, b"head", b"body", (b"x", b"y"))


def test_the_database_is_its_owners_alone(store: Store, tmp_path: Path) -> None:
    store.commit(store.put(b"1"))
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_promise_and_the_end_of_the_last_lease_are_kept(store: Store, tmp_path: Path) -> None:
    store.engine.promise(Epoch(7, ME), "other boot")
    store.engine.stop("other boot", 12.5)
    found, stop = reopened(store, tmp_path)
    assert found.promised == Epoch(7, ME)
    assert stop == LastStop("other boot", 12.5)


def test_entries_that_are_not_committed_are_kept_and_applied_later(store: Store, tmp_path: Path) -> None:
    one, two = store.put(b"1"), store.put(b"2")
    assert store.engine.persist((one, two), 1).answers == {}
    found, _ = reopened(store, tmp_path)
    assert (found.last.index, found.committed) == (3, 1)
    assert store.engine.count("t", b"s") == 0
    assert store.engine.persist((), 3).answers == {2: 2, 3: 3}
    assert store.engine.count("t", b"s") == 2


def test_a_creation_that_never_became_durable_is_no_cluster(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "store.db").execute("PRAGMA journal_mode = WAL").connection.close()
    engine = Engine(tmp_path)
    assert engine.load() is None
    assert not (tmp_path / "store.db").exists()


def test_an_erased_store_leaves_no_file(store: Store, tmp_path: Path) -> None:
    store.engine.erase()
    assert list(tmp_path.iterdir()) == []
    assert store.engine.load() is None


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE log SET payload = zeroblob(length(payload)) WHERE idx = 3",
        "UPDATE log SET log_time = log_time + 1 WHERE idx = 3",
        "UPDATE log SET hash = zeroblob(32) WHERE idx = 4",
        "DELETE FROM log WHERE idx = 2",
        "DELETE FROM log WHERE idx = 4",  # the last, which was committed
        "DELETE FROM meta WHERE name = 'promised'",
        "UPDATE meta SET value = x'ff' WHERE name = 'committed'",
        "UPDATE meta SET value = x'6161' WHERE name = 'promised'",
        "UPDATE meta SET value = x'41aa' WHERE name = 'cluster'",
        "UPDATE meta SET value = x'1863' WHERE name = 'committed'",
        "UPDATE meta SET value = x'02' WHERE name = 'format'",
        "UPDATE meta SET value = x'00' WHERE name = 'stop'",
    ],
)
def test_a_tampered_log_is_told_on_start(store: Store, tmp_path: Path, tampering: str) -> None:
    store.commit(store.put(b"1"), store.put(b"2"), store.put(b"3"))
    store.engine.close()
    with sqlite3.connect(tmp_path / "store.db") as connection:
        assert connection.execute(tampering).rowcount == 1
    connection.close()
    with pytest.raises(SealBroken):
        Engine(tmp_path).load()


@pytest.mark.parametrize("content", [b"x" * 8192, b"SQLite format 3\0" + b"\xff" * 8176])
def test_a_file_that_is_no_database_is_told_on_start(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "store.db").write_bytes(content)
    with pytest.raises(SealBroken, match="damaged"):
        Engine(tmp_path).load()


def test_a_damaged_page_is_told_and_not_served(store: Store, tmp_path: Path) -> None:
    store.commit(*(store.put(b"%d" % n, body=b"b" * 3000) for n in range(50)))
    store.engine.close()
    path = tmp_path / "store.db"
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(4096, size, 4096):
            file.seek(page)
            file.write(b"\x5a" * 4096)
    engine = Engine(tmp_path)
    with pytest.raises(SealBroken):
        engine.load()


def test_a_database_that_cannot_be_opened_is_a_failed_disk(tmp_path: Path) -> None:
    (tmp_path / "store.db").mkdir()
    with pytest.raises(StorageFailed):
        Engine(tmp_path).load()


def test_the_log_is_bounded_and_what_is_kept_still_checks(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_ENTRIES", 20)
    others = (ME, MemberId(b"N" * 16))
    store.commit(store.append(SetChange(others)))
    for n in range(100):
        store.commit(store.put(b"%d" % n))
    store.engine.close()
    with sqlite3.connect(tmp_path / "store.db") as connection:
        first, kept = connection.execute("SELECT min(idx), count(*) FROM log").fetchone()
    assert kept <= 25
    found, _ = reopened(store, tmp_path)
    assert (found.last, found.members) == (store.last, (ME,))
    assert [(s.index, s.members) for s in found.sets] == [(first - 1, others)]
    assert store.engine.count("t", b"s") == 100
    connection.close()


def test_the_log_is_bounded_in_bytes_too(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_BYTES", 100_000)
    for n in range(50):
        store.commit(store.put(b"%d" % n, body=b"b" * 10_000))
    assert store.engine._log_bytes <= 125_000
    assert reopened(store, tmp_path)[0].last == store.last


def test_a_shortened_log_with_a_tampered_base_is_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_ENTRIES", 5)
    for n in range(20):
        store.commit(store.put(b"%d" % n))
    store.engine.close()
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("DELETE FROM log WHERE idx = (SELECT min(idx) FROM log)")
    connection.close()
    with pytest.raises(SealBroken, match="missing"):
        Engine(tmp_path).load()


def test_a_snapshot_does_not_see_what_is_written_meanwhile(store: Store) -> None:
    store.commit(store.put(b"1"))
    with store.engine.snapshot() as (index, seen):
        store.commit(store.put(b"2"))
        assert index == 2
        assert [item.key.id for item in seen] == [b"1"]


def test_a_search_by_tags_finds_what_carries_all_of_them_in_order(store: Store) -> None:
    store.commit(
        store.put(b"3", tags=(b"x", b"y")), store.put(b"1", tags=(b"x",)), store.put(b"2", tags=(b"y", b"x", b"z"))
    )
    found, more = store.engine.scan(Scan(table="t", scope=b"s", tags=(b"x", b"y", b"x")))
    assert ([item.key.id for item in found], more) == ([b"2", b"3"], False)
    assert {item.body for item in found} == {b""}
    store.commit(store.put(b"2", tags=(b"x",), version=1))
    found, _ = store.engine.scan(Scan(table="t", scope=b"s", tags=(b"x", b"y"), body=True))
    assert [(item.key.id, item.body) for item in found] == [(b"3", b"body")]


def test_pages_follow_one_another_without_gap_or_repetition(store: Store) -> None:
    ids = [b"%03d" % n for n in range(25)]
    store.commit(*(store.put(id_, tags=(b"x",)) for id_ in ids))
    for tags in ((), (b"x",)):
        after, pages = b"", []
        while True:
            found, more = store.engine.scan(Scan(table="t", scope=b"s", tags=tags, after=after, limit=10))
            pages.append([item.key.id for item in found])
            after = pages[-1][-1]
            if not more:
                break
        assert [len(page) for page in pages] == [10, 10, 5]
        assert [id_ for page in pages for id_ in page] == ids


def test_a_page_never_outgrows_a_message(store: Store) -> None:
    for n in range(8):
        store.commit(store.put(b"%d" % n, body=os.urandom(limits.REQUEST_BYTES // 3)))
    found, more = store.engine.scan(Scan(table="t", scope=b"s", body=True))
    assert more
    assert sum(len(item.body) for item in found) < limits.BODY_BYTES


def test_every_step_is_forced_to_disk(store: Store) -> None:
    writer = store.engine._writer
    assert writer is not None
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert writer.execute("PRAGMA synchronous").fetchone() == (2,)


def test_one_search_uses_the_tags_index(store: Store) -> None:
    reader = store.engine._reader
    assert reader is not None
    plan = reader.execute("EXPLAIN QUERY PLAN " + items._scan_statement(2, body=False), ("t", b"s", b"", b"x", b"y", 1))
    steps = [row[3] for row in plan]
    assert all(step.startswith(("SEARCH", "CORRELATED")) for step in steps), steps


def test_positions_name_an_entry_by_its_hash(store: Store) -> None:
    entry = store.put(b"1")
    assert entry.position() == Position(EPOCH, 2, entry.hash)
