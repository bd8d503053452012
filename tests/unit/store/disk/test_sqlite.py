"""The store's database: what it keeps, what it notices, what it answers."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from lnh_common import limits
from lnh_common.errors import SealBroken, StorageFailed
from lnh_common.messages.store import Change, Commit, Delete, Key, MemberInfo, Put, Scan
from lnh_services.store.disk import dropped as divergent
from lnh_services.store.disk import items
from lnh_services.store.disk.snapshots import CHUNK_BYTES, Incoming, SnapshotGone
from lnh_services.store.disk.sqlite import Disk, LastStop, Outcome
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import (
    ClusterId,
    Entry,
    Epoch,
    LeaseSettings,
    MemberId,
    Members,
    Milliseconds,
    Open,
    Position,
    SetChange,
    Write,
)
from lnh_services.store.log.window import Base, Configuration, History, Removed
from lnh_services.store.replication.messages import Durable, Install, Persist
from lowered import lower

CLUSTER, ME, OTHER = ClusterId(b"C" * 16), MemberId(b"M" * 16), MemberId(b"N" * 16)
EPOCH = Epoch(1, ME)
NOW = 1_700_000_000_000
FIRST = Base(log.genesis(CLUSTER), Milliseconds(0), Configuration())


def info(member: MemberId) -> MemberInfo:
    return MemberInfo(id=member, name=member.hex()[:4], host="127.0.0.1", port=7000, key=b"k" * 32)


class Store:
    """An engine, and the log it is given."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.engine = Disk(directory)
        self.history = History(FIRST)
        self.steps = 0

    @property
    def last(self) -> Position:
        return self.history.last

    def found(self, member: MemberId = ME) -> None:
        entry = self.append(Open((info(ME),), (ME,)))
        self.step(found=(CLUSTER, member, FIRST), promised=EPOCH, entries=(entry,), committed=entry.index)

    def append(self, payload: log.Payload, epoch: Epoch = EPOCH) -> Entry:
        entry = log.make_entry(self.last, epoch, Milliseconds(NOW + self.last.index), payload)
        self.history.extend((entry,))
        return entry

    def put(
        self, id_: bytes, body: bytes = b"body", tags: tuple[bytes, ...] = (), *, version: int = 0, epoch: Epoch = EPOCH
    ) -> Entry:
        change = Put(key=Key(table="t", scope=b"s", id=id_), expected=version, head=b"head", body=body, tags=tags)
        commit = Commit(
            client=b"c" * 16, session=b"s" * 16, sequence=self.last.index + 1, issued_at=NOW, changes=(change,)
        )
        return self.append(Write(commit), epoch)

    def step(self, **fields: Any) -> Outcome:
        self.steps += 1
        return self.engine.persist(Persist(number=self.steps, **fields), "boot")

    def commit(self, *entries: Entry) -> Outcome:
        return self.step(entries=entries, committed=entries[-1].index)

    def shorten(self, until: int) -> None:
        self.step(committed=self.last.index, base=self.history.shorten(until))

    def stream(self) -> list[bytes]:
        outgoing = self.engine.send()
        chunks = []
        while (chunk := outgoing.next()) is not None:
            chunks.append(chunk)
        chunks.append(outgoing.hash)
        self.engine.release(outgoing)
        return chunks

    def receive(self, chunks: list[bytes]) -> tuple[Incoming, Base]:
        incoming = self.engine.receive(CLUSTER)
        for chunk in chunks[:-1]:
            incoming.take(chunk)
        return incoming, incoming.finish(chunks[-1])

    def install(self, chunks: list[bytes], *, aside: bool = False, dropped: tuple[Entry, ...] = ()) -> Base:
        incoming, base = self.receive(chunks)
        self.steps += 1
        self.engine.install(Install(self.steps, 1, base, aside, dropped), incoming)
        self.history = History(base)
        return base

    def reopen(self) -> tuple[Durable, LastStop]:
        self.engine.close()
        self.engine = Disk(self.directory)
        found = self.engine.load()
        assert found is not None
        return found

    def names(self) -> set[str]:
        """Of the files that belong to no open database."""
        return {path.name for path in self.directory.iterdir() if not path.name.endswith(("-wal", "-shm"))}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.found()
    return store


def test_a_directory_without_a_database_holds_no_cluster(tmp_path: Path) -> None:
    assert Disk(tmp_path).load() is None


def test_what_was_persisted_is_there_after_a_restart(store: Store) -> None:
    store.commit(store.put(b"1", tags=(b"x", b"y")), store.put(b"2"))
    found, stop = store.reopen()
    assert found == Durable(CLUSTER, ME, EPOCH, FIRST, tuple(store.history.entries), 3)
    assert stop == LastStop("boot", None)
    item = store.engine.get(Key(table="t", scope=b"s", id=b"1"), body=True)
    assert item is not None
    assert (item.version, item.head, item.body, item.tags) == (1, b"head", b"body", (b"x", b"y"))


def test_the_database_is_its_owners_alone(store: Store, tmp_path: Path) -> None:
    store.commit(store.put(b"1"))
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_joiner_begins_without_entries_and_with_the_members_it_was_told(tmp_path: Path) -> None:
    base = Base(log.genesis(CLUSTER), Milliseconds(0), Configuration(members=(info(ME), info(OTHER))))
    store = Store(tmp_path)
    store.step(found=(CLUSTER, OTHER, base), committed=0)
    found, _ = store.reopen()
    assert found == Durable(CLUSTER, OTHER, log.NO_EPOCH, base, (), 0)


def test_everything_a_step_says_is_kept(store: Store) -> None:
    higher = Epoch(7, OTHER)
    kept = log.make_entry(Position(EPOCH, 40, b"h" * 32), higher, Milliseconds(NOW), Open((info(OTHER),), (OTHER,)))
    removed = Removed(ME, higher, 44)
    store.step(committed=1, promised=higher, kept=kept, expelled=removed, diverged=True)
    store.engine.note_stop("other boot", 12.5)
    found, stop = store.reopen()
    assert (found.promised, found.kept, found.expelled, found.diverged) == (higher, kept, removed, True)
    assert stop == LastStop("other boot", 12.5)
    store.step(committed=1, diverged=False)
    store.engine.note_start("third boot")
    found, stop = store.reopen()
    assert (found.promised, found.diverged, stop) == (higher, False, LastStop("third boot", None))


def test_entries_that_are_not_committed_are_kept_and_applied_later(store: Store) -> None:
    one, two = store.put(b"1"), store.put(b"2")
    assert store.step(entries=(one, two), committed=1).answers == {}
    found, _ = store.reopen()
    assert (found.entries[-1].index, found.committed) == (3, 1)
    assert store.engine.count("t", b"s") == 0
    assert store.step(committed=2, sync=False).answers == {2: 2}
    three = store.put(b"3")
    assert store.step(entries=(three,), committed=4).answers == {3: 3, 4: 4}
    assert store.engine.count("t", b"s") == 3


def test_dropped_entries_are_saved_before_others_take_their_place(store: Store) -> None:
    gone = (store.put(b"1"), store.put(b"2"))
    store.step(entries=gone, committed=1)
    store.history.truncate(1)
    higher = Epoch(2, OTHER)
    new = store.put(b"other", epoch=higher)
    store.step(committed=1, promised=higher, dropped=gone, entries=(new,))
    found, _ = store.reopen()
    assert found.entries[-1] == new
    (listed,) = divergent.find(store.directory)
    assert listed.path.name == f"divergent-1.{ME.hex()}-3.cbor"
    assert listed.saved == divergent.Saved(1, CLUSTER, ME, gone)
    assert listed.path.stat().st_mode & 0o777 == 0o600


def test_runs_of_dropped_entries_are_files_and_a_shorter_one_replaces_none(store: Store) -> None:
    first = (store.put(b"1"), store.put(b"2"), store.put(b"3"))
    store.history.truncate(2)
    second = (store.put(b"4", epoch=Epoch(2, OTHER)),)
    divergent.save(store.directory, CLUSTER, ME, (*first, *second))
    divergent.save(store.directory, CLUSTER, ME, first[1:])
    divergent.save(store.directory, CLUSTER, ME, first[:2])
    found = {tuple(listed.saved.entries) for listed in divergent.find(store.directory) if listed.saved}
    assert found == {first, second, first[:2]}


def test_a_file_of_dropped_entries_that_was_changed_is_told(store: Store) -> None:
    divergent.save(store.directory, CLUSTER, ME, (store.put(b"1", body=b"x" * 50),))
    (path,) = store.directory.glob("divergent-*")
    path.write_bytes(path.read_bytes().replace(b"x" * 50, b"y" * 50))
    (listed,) = divergent.find(store.directory)
    assert listed.saved is None
    assert "changed" in listed.problem


def test_a_creation_that_never_became_durable_is_no_cluster(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "store.db").execute("PRAGMA journal_mode = WAL").connection.close()
    engine = Disk(tmp_path)
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
        "UPDATE meta SET value = x'01' WHERE name = 'format'",
        "UPDATE meta SET value = x'00' WHERE name = 'kept'",
        "DELETE FROM meta WHERE name = 'expelled'",
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
        Disk(tmp_path).load()


@pytest.mark.parametrize("content", [b"x" * 8192, b"SQLite format 3\0" + b"\xff" * 8176])
def test_a_file_that_is_no_database_is_told_on_start(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "store.db").write_bytes(content)
    with pytest.raises(SealBroken, match="damaged"):
        Disk(tmp_path).load()


def test_a_damaged_page_is_told_and_not_served(store: Store, tmp_path: Path) -> None:
    store.commit(*(store.put(b"%d" % n, body=b"b" * 3000) for n in range(50)))
    store.engine.close()
    path = tmp_path / "store.db"
    size = path.stat().st_size
    with path.open("r+b") as file:
        for page in range(4096, size, 4096):
            file.seek(page)
            file.write(b"\x5a" * 4096)
    engine = Disk(tmp_path)
    with pytest.raises(SealBroken):
        engine.load()


def test_a_database_that_cannot_be_opened_is_a_failed_disk(tmp_path: Path) -> None:
    (tmp_path / "store.db").mkdir()
    with pytest.raises(StorageFailed):
        Disk(tmp_path).load()


def test_a_shortened_log_is_kept_with_what_stood_at_its_base(store: Store) -> None:
    both = (info(ME), info(OTHER))
    store.commit(store.append(Members(both)), store.append(SetChange((ME, OTHER))), store.append(LeaseSettings(500, 0)))
    for n in range(20):
        store.commit(store.put(b"%d" % n))
    store.shorten(15)
    found, _ = store.reopen()
    assert (found.base, found.entries) == (store.history.base, tuple(store.history.entries))
    assert found.base.position.index == 15
    assert (found.base.configuration.members, found.base.configuration.in_sync) == (both, (ME, OTHER))
    assert found.base.configuration.lease_settings == LeaseSettings(500, 0)
    assert store.engine.count("t", b"s") == 20


def test_a_shortened_log_with_a_tampered_base_is_told(store: Store) -> None:
    for n in range(20):
        store.commit(store.put(b"%d" % n))
    store.shorten(15)
    store.engine.close()
    with sqlite3.connect(store.directory / "store.db") as connection:
        connection.execute("DELETE FROM log WHERE idx = (SELECT min(idx) FROM log)")
    connection.close()
    with pytest.raises(SealBroken, match="missing"):
        Disk(store.directory).load()


# Snapshots


@pytest.fixture
def receiver(tmp_path: Path) -> Store:
    """A member of the same cluster that has applied nothing."""
    (tmp_path / "receiver").mkdir()
    store = Store(tmp_path / "receiver")
    store.step(found=(CLUSTER, OTHER, FIRST), committed=0)
    return store


def test_a_snapshot_is_the_applied_state_and_what_stood_there(store: Store, receiver: Store) -> None:
    store.commit(store.append(Members((info(ME), info(OTHER)))))
    store.commit(
        *(store.put(b"%d" % n, os.urandom(n * 4000), tags=(b"x", b"%d" % n)) for n in range(60)),
        store.put(b"big", os.urandom(limits.REQUEST_BYTES - 100)),
        store.put(b"1", version=9),  # refused: an answer that is an error
    )
    store.step(entries=(store.put(b"not applied"),), committed=store.last.index - 1)
    chunks = store.stream()
    assert max(map(len, chunks)) <= CHUNK_BYTES
    receiver.step(committed=0, promised=Epoch(9, OTHER))
    base = receiver.install(chunks)
    assert base == Base(
        store.history.entry(base.position.index).position(), Milliseconds(NOW + 63), store.history.configuration
    )
    assert base.position.index == store.last.index - 1
    found, _ = receiver.reopen()
    assert found == Durable(CLUSTER, OTHER, Epoch(9, OTHER), base, (), base.position.index)
    everything = Scan(table="t", scope=b"s", tags=(b"x",), limit=100)
    assert receiver.engine.scan(everything) == store.engine.scan(everything)
    assert receiver.engine.count("t", b"s") == 61
    for sequence in (3, 64):
        one, two = (e.recall(b"c" * 16, b"s" * 16, sequence) for e in (store.engine, receiver.engine))
        assert str(one) == str(two)
    assert receiver.stream() == chunks


def test_a_log_goes_on_from_an_installed_snapshot(store: Store, receiver: Store) -> None:
    store.commit(store.put(b"1"), store.put(b"2"))
    receiver.install(store.stream())
    entry = store.put(b"3")
    store.commit(entry)
    assert receiver.step(entries=(entry,), committed=4).answers == {4: 4}
    assert receiver.reopen()[0].entries == (entry,)
    assert receiver.stream() == store.stream()


def test_a_snapshot_does_not_see_what_is_written_meanwhile(store: Store, receiver: Store) -> None:
    store.commit(store.put(b"1"))
    outgoing = store.engine.send()
    store.commit(store.put(b"2"))
    store.shorten(2)
    chunks = []
    while (chunk := outgoing.next()) is not None:
        chunks.append(chunk)
    assert receiver.install([*chunks, outgoing.hash]).position.index == 2
    assert receiver.engine.count("t", b"s") == 1


def test_a_snapshot_in_part_or_changed_or_of_another_cluster_is_refused(store: Store, receiver: Store) -> None:
    store.commit(*(store.put(b"%d" % n, os.urandom(9000)) for n in range(100)))
    *chunks, hash_ = store.stream()
    assert len(chunks) > 3
    wrong = [
        [*chunks[:-1], hash_],
        [*chunks, b"0" * 32],
        [chunks[0][:-1] + bytes([chunks[0][-1] ^ 1]), *chunks[1:], hash_],
        [chunks[1], hash_],
        [chunks[0], *chunks, hash_],
        [*chunks, b"rest", hash_],
    ]
    for stream in wrong:
        with pytest.raises(SealBroken):
            receiver.receive(stream)
    incoming = store.engine.receive(ClusterId(b"D" * 16))
    with pytest.raises(SealBroken, match="another cluster"):
        incoming.take(chunks[0])
    incoming.discard()
    assert store.names() == {"store.db", "receiver"}
    receiver.install([*chunks, hash_])


def test_what_a_snapshot_replaces_is_saved_and_kept_aside(store: Store, receiver: Store) -> None:
    store.commit(store.put(b"1"))
    other = Store(receiver.directory)
    other.engine, other.steps = receiver.engine, 10
    gone = other.append(Open((info(OTHER),), (OTHER,)), Epoch(1, OTHER))
    lost = other.put(b"applied here", epoch=Epoch(1, OTHER))
    unapplied = other.put(b"not applied here", epoch=Epoch(1, OTHER))
    other.step(promised=Epoch(3, ME), entries=(gone, lost, unapplied), committed=2)
    other.install(store.stream(), aside=True, dropped=(unapplied,))
    found, _ = other.reopen()
    assert (found.diverged, found.promised) == (True, Epoch(3, ME))
    aside = f"store-1.{ME.hex()}-2.aside.db"
    assert other.names() == {"store.db", aside, f"divergent-1.{OTHER.hex()}-3.cbor"}
    with sqlite3.connect(other.directory / aside) as old:
        assert old.execute("SELECT id FROM items").fetchall() == [(b"applied here",)]
    old.close()
    other.install(store.stream())
    assert other.reopen()[0].diverged  # until an administrator has looked
    assert (other.directory / aside).stat().st_nlink == 1


def test_a_snapshot_being_sent_ends_when_the_state_is_replaced_or_erased(store: Store, receiver: Store) -> None:
    store.commit(*(store.put(b"%d" % n, os.urandom(9000)) for n in range(100)))
    receiver.install(store.stream())
    for end in (lambda: receiver.install(store.stream()), receiver.engine.erase):
        outgoing = receiver.engine.send()
        assert outgoing.next()
        end()
        with pytest.raises(SnapshotGone):
            outgoing.next()


def test_a_start_removes_what_a_crash_left_half_done(store: Store) -> None:
    incoming = store.engine.receive(CLUSTER)
    incoming.take(store.stream()[0])
    aside = store.directory / "store-1.00-1.aside.db"
    aside.hardlink_to(store.directory / "store.db")
    store.reopen()
    assert store.names() == {"store.db"}


def test_an_erased_store_keeps_nothing_at_all(store: Store) -> None:
    divergent.save(store.directory, CLUSTER, ME, (store.put(b"1"),))
    store.engine.receive(CLUSTER)
    store.engine.erase()
    assert list(store.directory.iterdir()) == []


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


def test_the_scopes_of_a_table_are_listed_in_order_with_the_empty_one_first(store: Store) -> None:
    keys = [Key(table="t", scope=scope, id=b"x") for scope in (b"b", b"", b"a", b"aa")]
    others = (Put(key=Key(table="u", scope=b"z", id=b"x"), expected=0, head=b"head"), Delete(key=keys[2]))
    changes: tuple[Change, ...] = (*(Put(key=key, expected=0, head=b"head") for key in keys), *others)
    store.commit(
        store.append(Write(Commit(client=b"c" * 16, session=b"s" * 16, sequence=1, issued_at=NOW, changes=changes)))
    )
    assert store.engine.scopes("t", None, 10) == ([b"", b"aa", b"b"], False)
    assert store.engine.scopes("t", None, 2) == ([b"", b"aa"], True)
    assert store.engine.scopes("t", b"aa", 2) == ([b"b"], False)
    assert store.engine.scopes("t", b"", 1) == ([b"aa"], True)
    assert store.engine.scopes("none", None, 2) == ([], False)


def test_a_page_never_outgrows_a_message(store: Store) -> None:
    for n in range(8):
        store.commit(store.put(b"%d" % n, body=os.urandom(limits.REQUEST_BYTES // 3)))
    found, more = store.engine.scan(Scan(table="t", scope=b"s", body=True))
    assert more
    assert sum(len(item.body) for item in found) < limits.BODY_BYTES


def test_every_step_is_forced_to_disk_but_those_that_only_apply(store: Store) -> None:
    writer = store.engine._writer
    assert writer is not None
    assert writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    modes: list[int] = []

    def note(statement: str) -> None:
        if statement == "COMMIT":
            modes.append(writer.execute("PRAGMA synchronous").fetchone()[0])

    entry = store.put(b"1")
    writer.set_trace_callback(note)
    store.step(entries=(entry,), committed=1)
    store.step(committed=2, sync=False)
    before = writer.total_changes
    store.step(committed=2)  # asks for nothing but that what came before is durable
    writer.set_trace_callback(None)
    assert modes == [2, 1, 2]
    assert writer.total_changes > before  # a transaction that writes nothing would force nothing


def test_the_writes_of_a_step_ask_once_what_is_the_same_for_all(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    lower(monkeypatch, DUPLICATE_RECORDS=1)
    first = store.put(b"first")
    store.step(entries=(first,), committed=first.index)
    entries = tuple(store.put(b"%d" % number, tags=(b"tag",)) for number in range(10))
    said: list[str] = []
    assert store.engine._writer is not None
    store.engine._writer.set_trace_callback(said.append)
    store.step(entries=entries, committed=entries[-1].index)
    store.engine._writer.set_trace_callback(None)
    about = {
        table: sum(f"FROM {table} " in each or f"INTO {table} " in each for each in said)
        for table in ("scopes", "records", "items")
    }
    # Of records: the highest sequence and number and the oldest, once; and each write's own. Of items: eras, once, and
    # of each write whether it is there, and its own.
    assert about == {"scopes": 1, "records": 3 + len(entries), "items": 1 + 2 * len(entries)}
    assert store.engine.count("t", b"s") == 1 + len(entries)
    assert store.engine.recall(b"c" * 16, b"s" * 16, entries[0].index) == entries[0].index


def test_one_search_uses_the_tags_index(store: Store) -> None:
    reader = store.engine._reader
    assert reader is not None
    plan = reader.execute("EXPLAIN QUERY PLAN " + items._scan_statement(2, body=False), ("t", b"s", b"", b"x", b"y", 1))
    steps = [row[3] for row in plan]
    assert all(step.startswith(("SEARCH", "CORRELATED")) for step in steps), steps


def test_positions_name_an_entry_by_its_hash(store: Store) -> None:
    entry = store.put(b"1")
    assert entry.position() == Position(EPOCH, 2, entry.hash)
