"""The core's part in a restore, with a store of dicts: whole or not at all, whatever is lost or changed on the way."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import lnh_common
from lnh_common.errors import (
    ArchiveInvalid,
    Busy,
    LnhError,
    NotPossible,
    PermissionDenied,
    SealBroken,
    Unreachable,
    VersionConflict,
)
from lnh_common.messages import backup, smk, store
from lnh_common.messages.admin import Decision
from lnh_common.messages.backup import Changed, Row
from lnh_common.messages.base import Message, Operation
from lnh_common.messages.session import Role
from lnh_common.messages.store import Commit, Delete, Item, Key, Put, Switch
from lnh_common.wire import archives
from lnh_services.archived import Grouping
from lnh_services.hsm.appliance.state import Cluster
from lnh_services.hsm.auth import credentials
from lnh_services.hsm.backup import archive_keys as keys
from lnh_services.hsm.backup.archiving import Archiving
from lnh_services.hsm.backup.restore import Restoring
from lnh_services.hsm.cluster import create, smk_generations
from lnh_services.hsm.cluster.smk_keeper import fetch_shared
from lnh_services.hsm.records import (
    CLUSTER_RECORD,
    RECORD_TABLES,
    ApprovalRecord,
    ClientRecord,
    ClusterRecord,
    CredentialRecord,
    LockRecord,
    Records,
    UserRecord,
)
from lnh_services.store.disk.items import pack_tags
from models.console import OneAppliance
from models.worker import material

OBJECT = Key(table="object", scope=b"k" * 16, id=b"o" * 16)
NEW_OBJECT = Key(table="object", scope=b"k" * 16, id=b"n" * 16)
CLIENT = b"c" * 16
GROUPING = Key(table="backup", id=b"groups")  # what a restore leaves to be done


class Lost(Exception):
    """The process ends here."""


class Watched:
    """The store, which can lose the process that asks, or an answer, at the n-th commit, or do something before it."""

    def __init__(self, appliance: OneAppliance) -> None:
        self._appliance = appliance
        self.commits = 0
        self.dies_before = self.dies_after = self.loses = 0
        self.before: Callable[[Commit], Awaitable[None]] | None = None

    async def ask(self, operation: Operation[Any, Any], message: Message, *, timeout: float) -> Any:
        if not isinstance(message, Commit):
            return await self._appliance.store.ask(operation, message, timeout=timeout)
        self.commits += 1
        if self.before is not None:
            await self.before(message)
        if self.commits == self.dies_before:
            raise Lost
        answer = await self._appliance.store.ask(operation, message, timeout=timeout)
        if self.commits == self.dies_after:
            raise Lost
        if self.commits == self.loses:
            raise Unreachable("the answer was lost")
        return answer


class World:
    """A cluster, an archive of it, and what became of it since."""

    def __init__(self, directory: Path) -> None:
        self.appliance = OneAppliance(directory)
        self.grouping = Grouping()
        self._sequence = 0

    async def begin(self) -> None:
        await self.appliance.cluster()
        await self.change(
            Put(key=OBJECT, expected=0, head=b"attributes", body=b"value", tags=(b"label",)),
            self.records().put(_client(revoked=False), CLIENT, 0, unique="web-1"),
            self.records().put(LockRecord(failures=3), b"l" * 16, 0, scope=b"s" * 16),
        )
        self.archive = self.made()

    async def go_on(self) -> None:
        """A password is changed, a user comes, an object goes and another one comes."""
        records = self.records()
        where = credentials.credential_id(Role.USER, "alice")
        await self.change(
            Delete(key=OBJECT),
            Put(key=NEW_OBJECT, expected=0, head=b"attributes", body=b"value"),
            records.put(self.credential("alice"), where, 1),
            records.put(UserRecord(name="mia", role="monitor"), create.user_id("mia"), 0),
            records.put(self.credential("mia"), credentials.credential_id(Role.USER, "mia"), 0),
            Put(key=Key(table="dismissal", id=b"d" * 16), expected=0, head=b"proof"),
        )

    def credential(self, name: str) -> CredentialRecord:
        return credentials.new_record(
            material("a password"), role=Role.USER, smk=self.cluster.newest_smk(), cluster=self.cluster.id, now=1, name=name
        )  # fmt: skip

    @property
    def cluster(self) -> Cluster:
        cluster = self.appliance.vault.opened.cluster
        assert cluster is not None
        return cluster

    def records(self) -> Records:
        key = self.cluster.records().key_of(ClusterRecord, CLUSTER_RECORD)
        item = self.appliance.store.items.storage.get(key)
        assert item is not None
        return self.cluster.records_of(item)

    async def change(self, *changes: store.Change) -> None:
        self._sequence += 1
        now = int(self.appliance.now * 1000)
        commit = Commit(client=b"w" * 16, session=b"w" * 16, sequence=self._sequence, issued_at=now, changes=changes)
        await self.appliance.store.ask(store.COMMIT, commit, timeout=1)

    def seen(self) -> dict[Key, tuple[int, bytes, tuple[bytes, ...]]]:
        return {
            item.key: (item.version, item.head, item.tags) for item in self.appliance.store.items.storage.items.values()
        }

    def made(self) -> tuple[backup.Opening, list[Row]]:
        items = sorted(
            self.appliance.store.items.storage.items.values(),
            key=lambda item: (item.key.table, item.key.scope, item.key.id),
        )
        rows = [_row(item) for item in items]
        key, wrapped = keys.new_key(self.cluster, b"a" * 16, self.cluster.smk[-1].generation)
        header = archives.Header(
            archives.FORMAT, b"a" * 16, self.cluster.id, self.cluster.label, self.records().instance, 1, wrapped,
            archives.new_prefix(), 1024, 1_700_000_000_000, 7, "a", lnh_common.VERSION,
        )  # fmt: skip
        writer = archives.Writer(io.BytesIO().write, header, key)
        manifest = writer.finish(dict(Counter(row[0] for row in rows)))
        seal = keys.seal_manifest(self.cluster, writer.header_bytes, manifest)
        return backup.Opening(header=writer.header_bytes, manifest=manifest, seal=seal), rows

    def restoring(self) -> tuple[Restoring, Watched]:
        """A core that has just started."""
        watched = Watched(self.appliance)
        archiving = Archiving(self.appliance.vault, watched, "a")
        made = Restoring(archiving, watched, self.appliance.desk, clock=lambda: self.appliance.now, patience=20)
        return made, watched

    async def restore(
        self, restoring: Restoring, *, check: bool = False, rows: list[Row] | None = None, at_once: int = 2
    ) -> backup.Restored:
        """What the backup service does."""
        opening, archived = self.archive
        ticket = restoring.allow(bytes([len(self.appliance.store.asked) % 256]) * 16, "x.lnhb", check=check)
        await restoring.begin(backup.BeginRestore(ticket=ticket, opening=opening))
        rows = archived if rows is None else rows
        for number, at in enumerate(range(0, len(rows), at_once)):
            await restoring.rows(
                backup.RestoreRows(ticket=ticket, number=number, rows=tuple(rows[at : at + at_once]))
            )  # fmt: skip
        grouping = self.grouping
        return await restoring.finish(
            backup.FinishRestore(ticket=ticket, groups=grouping.groups, placed=grouping.members)
        )  # fmt: skip


def _client(*, revoked: bool) -> ClientRecord:
    return ClientRecord(
        id=CLIENT, name="web-1", curve_key=b"k" * 32, sign_key=b"s" * 32, monitor="", registered_at=1, revoked=revoked
    )  # fmt: skip


def _row(item: Item) -> Row:
    return (
        item.key.table, item.key.scope, item.key.id, item.version, pack_tags(item.tags), item.head, item.body,
    )  # fmt: skip


def play(tmp_path: Path, scene: Callable[[World], Awaitable[None]]) -> None:
    async def go() -> None:
        world = World(tmp_path)
        await world.begin()
        await world.go_on()
        await scene(world)

    tmp_path.mkdir(exist_ok=True)
    asyncio.run(go())


def check_restored(world: World) -> None:
    """Everything is as in the archive but what is made anew, and authentic in the new instance."""
    seen, records = world.seen(), world.records()
    assert OBJECT in seen
    assert NEW_OBJECT not in seen
    assert seen[Key(table="dismissal", id=b"d" * 16)][1] == b"proof", "what is known of the dismissed stays"
    expected = {Key(table=row[0], scope=row[1], id=row[2]): row for row in world.archive[1] if row[0] != "lock"}
    assert {key for key in seen if key.table not in ("dismissal", "audit") and key != GROUPING} == set(expected)
    for key, (version, head, tags) in seen.items():
        item = world.appliance.store.items.storage.get(key)
        assert item is not None
        if key.table in ("dismissal", "audit") or key == GROUPING:
            continue
        if key.table == "cluster":
            assert version > expected[key][3]
            continue
        assert (version, pack_tags(tags)) == (expected[key][3], expected[key][4])
        if key.table != "client":
            assert head == expected[key][5]
        if key.table != "object":
            records.check(item)


def test_a_restore_brings_back_what_was_in_a_new_instance(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        before = world.records()
        stale = before.put(UserRecord(name="late", role="admin"), create.user_id("late"), 0)
        restoring, _ = world.restoring()
        done = await world.restore(restoring)
        check_restored(world)
        assert done.changed == (
            Changed(role="user", name="alice", keyring="", how="changed"),
            Changed(role="user", name="mia", keyring="", how="added"),
        )
        assert world.records().instance != before.instance
        with pytest.raises(VersionConflict):
            await world.change(stale, before.fence())
        where = store.Get(key=before.key_of(UserRecord, create.user_id("alice")))
        item = (await world.appliance.store.ask(store.GET, where, timeout=1)).item
        with pytest.raises(SealBroken):
            before.check(item)

    play(tmp_path, scene)


def test_a_check_changes_nothing_and_says_what_would_be_others(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        before = world.seen()
        restoring, watched = world.restoring()
        some = [row for row in world.archive[1] if row[0] in ("cluster", "credential", "keyring")]
        done = await world.restore(restoring, check=True, rows=some)
        assert done.changes == 2
        assert (watched.commits, world.seen()) == (0, before)

    play(tmp_path, scene)


@pytest.mark.parametrize("way", ["dies_before", "dies_after", "loses"])
def test_lost_anywhere_a_restore_is_done_or_did_not_happen_and_another_goes_through(tmp_path: Path, way: str) -> None:
    outcomes = set()
    for number in range(1, 30):

        async def scene(world: World, number: int = number) -> None:
            before = world.seen()
            restoring, watched = world.restoring()
            setattr(watched, way, number)
            try:
                await world.restore(restoring, at_once=1)
            except Lost:
                done = world.seen() != before
                outcomes.add("done" if done else "nothing")
                if done:
                    check_restored(world)
            else:
                outcomes.add("through" if watched.commits < number else "done")
            again, _ = world.restoring()  # the core was started anew
            await world.restore(again)
            check_restored(world)

        play(tmp_path / str(number), scene)
        if "through" in outcomes:
            break
    assert outcomes >= ({"nothing", "through"} if way != "loses" else {"done", "through"})


def test_a_client_revoked_since_stays_revoked_up_to_the_last_moment(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        restoring, watched = world.restoring()

        async def revoke(commit: Commit) -> None:
            if any(isinstance(change, Switch) for change in commit.changes):
                watched.before = None
                await world.change(world.records().put(_client(revoked=True), CLIENT, 1, unique="web-1"))

        watched.before = revoke
        await world.restore(restoring)
        check_restored(world)
        records = world.records()
        item = world.appliance.store.items.storage.get(records.key_of(ClientRecord, CLIENT))
        assert item is not None
        assert records.read(ClientRecord, item).revoked

    play(tmp_path, scene)


def test_where_one_archive_was_approved_no_other_of_its_name_is_restored(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        restoring, _ = world.restoring()
        opening, _ = world.archive
        for archive, order in ((b"b" * 16, b"1" * 16), (b"a" * 16, b"2" * 16)):
            ticket = restoring.allow(order, "x.lnhb", check=False, archive=archive)
            begin = backup.BeginRestore(ticket=ticket, opening=opening)
            if archive == b"a" * 16:
                await restoring.begin(begin)
                continue
            with pytest.raises(PermissionDenied, match="another archive than the one that was approved"):
                await restoring.begin(begin)

    play(tmp_path, scene)


def _approval(by: str = "", *, used: bool = False) -> ApprovalRecord:
    return ApprovalRecord(
        operation="keyring.delete", route=b"", arguments={"keyring": b"k" * 16}, about="", requesters=("alice",),
        asked_by=b"r" * 16, requested_at=1, expires=2_000_000_000, used_by=b"u" * 16 if used else b"",
        decision=Decision.APPROVED if by else Decision.WAITING, deciders=(by,) if by else (),
    )  # fmt: skip


def test_what_waits_for_a_second_person_is_as_now_and_nothing_of_it_is_the_archives(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        archived, waits, late = b"a" * 16, b"w" * 16, b"l" * 16
        await world.change(world.records().put(_approval("bob"), archived, 0))
        world.archive = world.made()
        records = world.records()
        await world.change(records.put(_approval("bob", used=True), archived, 1), records.put(_approval(), waits, 0))
        restoring, watched = world.restoring()

        async def approve(commit: Commit) -> None:
            if any(isinstance(change, Switch) for change in commit.changes):
                watched.before = None
                await world.change(
                    world.records().put(_approval("mia"), waits, 1), world.records().put(_approval(), late, 0)
                )

        watched.before = approve
        await world.restore(restoring)
        records = world.records()
        kept = {
            item.key.id: records.read(ApprovalRecord, item)
            for item in world.appliance.store.items.storage.items.values()
            if item.key.table == "approval"
        }
        assert kept == {archived: _approval("bob", used=True), waits: _approval("mia"), late: _approval()}

    play(tmp_path, scene)


def test_a_record_that_is_not_genuine_or_missing_rows_are_refused(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        before = world.seen()
        rows = world.archive[1]
        at = next(number for number, row in enumerate(rows) if row[0] == "user")
        forged = rows[at][5].replace(b"alice", b"mallo")
        for wrong, words in (
            ([*rows[:at], (*rows[at][:5], forged, rows[at][6]), *rows[at + 1 :]], "does not open"),
            (rows[:-1], "missing"),
            ([*rows, rows[-1]], "missing"),
            ([row for row in rows if row[0] != "cluster"], "missing"),
        ):
            restoring, _ = world.restoring()
            with pytest.raises(ArchiveInvalid, match=words):
                await world.restore(restoring, rows=wrong)
        assert world.seen() == before

    play(tmp_path, scene)


def test_nobody_restores_without_a_ticket_and_nobody_twice(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        restoring, watched = world.restoring()
        opening = world.archive[0]
        for ticket in (b"\0" * 32, b"x" * 32):
            with pytest.raises(PermissionDenied):
                await restoring.begin(backup.BeginRestore(ticket=ticket, opening=opening))
        ticket = restoring.allow(b"1" * 16, "x.lnhb", check=False)
        assert restoring.allow(b"1" * 16, "x.lnhb", check=False) == ticket, "the same order again"
        with pytest.raises(NotPossible):
            await restoring.rows(backup.RestoreRows(ticket=ticket, number=0, rows=()))
        foreign = replace(opening, header=opening.header.replace(world.cluster.id, b"f" * 16))
        with pytest.raises(ArchiveInvalid, match="another cluster"):
            await restoring.begin(backup.BeginRestore(ticket=ticket, opening=foreign))
        await restoring.begin(backup.BeginRestore(ticket=ticket, opening=opening))
        with pytest.raises(PermissionDenied):
            await restoring.begin(backup.BeginRestore(ticket=ticket, opening=opening))
        with pytest.raises(Busy, match=r"x\.lnhb"):
            restoring.allow(b"2" * 16, "y.lnhb", check=True)
        part = backup.RestoreRows(ticket=ticket, number=0, rows=tuple(world.archive[1][:1]))
        await restoring.rows(part)
        commits = watched.commits
        await restoring.rows(part)
        assert watched.commits == commits, "rows that come again are known"
        with pytest.raises(NotPossible):
            await restoring.rows(replace(part, number=2))
        await restoring.abandon(ticket)
        with pytest.raises(LnhError):
            await restoring.finish(backup.FinishRestore(ticket=ticket))
        assert restoring.allow(b"2" * 16, "y.lnhb", check=True)

    play(tmp_path, scene)


def test_an_empty_store_is_filled_and_its_own_records_kept(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        archive = world.archive
        world.appliance.store.items.storage.items.clear()
        restoring, _ = world.restoring()
        done = await world.restore(restoring)
        assert done.changed == ()
        wanted = {Key(table=row[0], scope=row[1], id=row[2]) for row in archive[1] if row[0] != "lock"}
        assert set(world.seen()) == wanted
        world.records()

    play(tmp_path, scene)


def grouped_otherwise(world: World) -> None:
    """Members are in other groups than they were."""
    there = world.appliance.store

    def member(letter: bytes, group: str) -> store.MemberInfo:
        name = letter.decode()
        return store.MemberInfo(id=letter * 16, name=name, host="h", port=ord(letter), key=letter * 32, group=group)

    there.groups = {"local", "since", "used"}
    there.members = (member(b"a", "since"), member(b"b", "local"), member(b"n", "used"))
    world.grouping = Grouping(
        groups=("far", "local"), members=((b"a" * 16, "far"), (b"b" * 16, "local"), (b"g" * 16, "far"))
    )  # fmt: skip


def check_grouped(world: World) -> None:
    there = world.appliance.store
    assert [each.group for each in there.members] == ["far", "local", "used"]
    assert there.groups == {"far", "local", "used"}, "one that is in use stays"
    assert GROUPING not in world.seen()


def test_members_go_back_to_their_groups_and_others_stay(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        grouped_otherwise(world)
        await world.restore(world.restoring()[0])
        check_grouped(world)

    play(tmp_path, scene)


def test_a_later_primary_brings_members_back_to_groups_if_the_restorer_died(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        grouped_otherwise(world)
        restoring, watched = world.restoring()

        async def die(commit: Commit) -> None:
            if any(isinstance(change, Switch) for change in commit.changes):
                watched.dies_after = watched.commits

        watched.before = die
        with pytest.raises(Lost):
            await world.restore(restoring)
        check_restored(world)
        assert GROUPING in world.seen()
        archive = world.made()
        assert any(row[0] == "backup" for row in archive[1]), "an archive of this moment has it too"

        again, _ = world.restoring()
        await again.tidy()
        assert GROUPING in world.seen(), "this member is not primary"
        world.appliance.store.primary = world.appliance.store.member
        await again.tidy()
        assert GROUPING in world.seen(), "whoever restored may be about to do it"
        world.appliance.store.lose_answer_of = len(world.appliance.store.asked) + 5  # of the first group or move
        await again.tidy()
        assert GROUPING in world.seen(), "not all is done"
        await again.tidy()
        check_grouped(world)
        world.grouping = Grouping(members=((b"a" * 16, "local"),))
        world.archive = archive
        await world.restore(again)
        assert GROUPING not in world.seen(), "what an archive has of an earlier restore is not done again"

    play(tmp_path, scene)


def test_of_any_number_of_clients_one_revoked_at_the_last_moment_stays_revoked(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        ids = [number.to_bytes(16, "big") for number in range(1, 4200)]
        records = world.records()
        for at in range(0, len(ids), 500):
            await world.change(
                *(
                    records.put(replace(_client(revoked=False), id=id_), id_, 0, unique=id_.hex())
                    for id_ in ids[at : at + 500]
                )
            )
        world.archive = world.made()
        restoring, watched = world.restoring()

        async def revoke(commit: Commit) -> None:
            if any(isinstance(change, Switch) for change in commit.changes):
                watched.before = None
                last = replace(_client(revoked=True), id=ids[-1])
                await world.change(world.records().put(last, ids[-1], 1, unique=ids[-1].hex()))

        watched.before = revoke
        await world.restore(restoring, at_once=1000)
        records = world.records()
        found = {}
        for id_ in (ids[-1], ids[-2], ids[0]):
            item = world.appliance.store.items.storage.get(records.key_of(ClientRecord, id_))
            assert item is not None
            found[id_] = records.read(ClientRecord, item).revoked
        assert found == {ids[-1]: True, ids[-2]: False, ids[0]: False}

    play(tmp_path, scene)


def test_what_a_backup_service_that_died_had_begun_stands_in_nobodys_way(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        restoring, _ = world.restoring()
        ticket = restoring.allow(b"1" * 16, "x.lnhb", check=False)
        await restoring.abandon(backup.NO_TICKET)  # the service is started: nothing was begun
        await restoring.begin(backup.BeginRestore(ticket=ticket, opening=world.archive[0]))
        await restoring.rows(backup.RestoreRows(ticket=ticket, number=0, rows=tuple(world.archive[1][:1])))
        with pytest.raises(Busy):
            restoring.allow(b"2" * 16, "x.lnhb", check=False)
        await restoring.abandon(backup.NO_TICKET)
        with pytest.raises(PermissionDenied):
            await restoring.rows(backup.RestoreRows(ticket=ticket, number=1, rows=()))
        await world.restore(restoring)
        check_restored(world)

    play(tmp_path, scene)


def test_an_archive_of_an_older_generation_comes_back_and_is_sealed_anew(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        await world.appliance.roll_over()
        assert world.records().generation == 2
        restoring, _ = world.restoring()
        await world.restore(restoring)
        assert world.records().generation == 2
        assert Key(table="smk", id=smk_generations.KEY.id) in world.seen(), "what HSMs share is not the archive's"
        await world.appliance.look_at_smks()
        records, found = world.records(), 0
        for item in world.appliance.store.items.storage.items.values():
            if item.key.table in RECORD_TABLES:
                assert smk_generations.resealed(item, records, world.cluster) is None
                records.check(item)
                found += 1
        assert found > 5

    play(tmp_path, scene)


def test_an_archive_of_a_retired_generation_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        await world.appliance.roll_over()
        await world.appliance.smks.retire(smk.OrderSmk(id=b"r" * 16, newest=2))
        before = world.seen()
        restoring, _ = world.restoring()
        with pytest.raises(ArchiveInvalid, match="generation 1, which this HSM does not hold"):
            await world.restore(restoring)
        assert world.seen() == before

    play(tmp_path, scene)


def test_what_is_retired_while_an_archive_comes_back_ends_the_restore(tmp_path: Path) -> None:
    """Else the cluster would be sealed under a key that nobody has."""

    async def scene(world: World) -> None:
        await world.appliance.roll_over()
        restoring, watched = world.restoring()

        async def retired(commit: Commit) -> None:
            if any(isinstance(change, Switch) for change in commit.changes):
                watched.before = None
                await world.appliance.smks.retire(smk.OrderSmk(id=b"r" * 16, newest=2))

        watched.before = retired
        with pytest.raises(NotPossible, match="before 2 were retired since"):
            await world.restore(restoring)
        await world.appliance.look_at_smks()
        assert [each.generation for each in world.cluster.smk] == [2]
        for item in world.appliance.store.items.storage.items.values():
            if item.key.table in RECORD_TABLES:
                world.records().check(item)

    play(tmp_path, scene)


def test_an_archive_names_the_oldest_generation_that_it_needs(tmp_path: Path) -> None:
    async def scene(world: World) -> None:
        cluster, records = world.cluster, world.records()
        assert smk_generations.needed_by_an_archive(None, cluster, records) == 1
        await world.appliance.roll_over()
        shared, _ = await fetch_shared(world.appliance.store, world.cluster)
        assert shared is not None
        assert smk_generations.needed_by_an_archive(shared, world.cluster, world.records()) == 2
        under_way = replace(shared, whole=b"")
        assert smk_generations.needed_by_an_archive(under_way, world.cluster, world.records()) == 1

    play(tmp_path, scene)
