"""Restores an archive in the core: every record becomes one of a new instance, and all of it one entry.

    a worker, or the console    may this session restore? -> a ticket
    the backup service          the ticket and the archive's ends -> its data key; then its rows, and the end

Rows go into the replicated state as they come, aside (`store/machine/restore_swap.py`): nobody sees them. At the end
one commit puts them in place of everything, guarded by all that must not have changed meanwhile. Until then a restore
can be given up at any point and has changed nothing; after it, it is done on every member, whatever becomes of the
process that asked.

A record carries the instance in its MAC, so each is checked under the archive's instance and made anew under a fresh
one: earlier tokens, requests and changes die with the instance they were made for. Objects are sealed without it and
stay as they are. A client that was revoked since the backup stays revoked. What waits for a second person stays as it
is now, and nothing of it comes from an archive: an approval that was used since could be used again.

Affinity groups are in the log's list of members, which no commit of items changes. So the one commit leaves a note of
them too. A core that finds the note - this one at once, or the primary's a little later - has members go back to their
groups, and removes the note.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

import lnh_common
from lnh_common import limits
from lnh_common.errors import (
    ArchiveInvalid,
    Busy,
    DeadlineExceeded,
    LnhError,
    MemberReadOnly,
    NameTaken,
    NameUnknown,
    NotPossible,
    ObjectUnknown,
    OutcomeUnknown,
    PermissionDenied,
    SealBroken,
    StorageFailed,
    Unreachable,
    VersionConflict,
)
from lnh_common.events import Log
from lnh_common.messages import backup, store
from lnh_common.messages.backup import CHANGES_SHOWN, Changed, Row
from lnh_common.messages.base import Empty
from lnh_common.messages.store import Item, Key
from lnh_common.versions import check_takes_part, latest
from lnh_common.wire import archives as format_
from lnh_common.wire import codec
from lnh_common.wire.archives import Header, Manifest
from lnh_services.archived import parse_tags
from lnh_services.hsm import answers
from lnh_services.hsm.answers import Asks
from lnh_services.hsm.appliance.desk import Desk
from lnh_services.hsm.appliance.state import Cluster
from lnh_services.hsm.audit import anchor
from lnh_services.hsm.backup import archive_keys
from lnh_services.hsm.backup.archiving import Archiving
from lnh_services.hsm.cluster import removal_proof, smk_generations
from lnh_services.hsm.cluster.join import STATUS_SECONDS, STORE_SECONDS
from lnh_services.hsm.cluster.smk_keeper import fetch_shared
from lnh_services.hsm.records import (
    CLUSTER_RECORD,
    GROUPING_RECORD,
    RECORD_TABLES,
    TABLES,
    ApprovalRecord,
    AttemptsRecord,
    ChannelRecord,
    ClientRecord,
    ClusterRecord,
    CredentialRecord,
    EndedRecord,
    GroupingRecord,
    HsmRecord,
    KeyringRecord,
    LockRecord,
    LogoutRecord,
    OpeningRecord,
    Records,
    TriedRecord,
)

TICKET_SECONDS: Final = 600
IDLE_SECONDS: Final = 30  # without a word of the backup service a restore is given up
PATIENCE: Final = 60.0  # for a primary that is away
REGROUP_TRIES: Final = 16  # to put the groups back, once all else is restored
AGAIN: Final = 0.2
SWITCH_TRIES: Final = 16
SWEEP_ITEMS: Final = 2000
SWEEPS_AT_ONCE: Final = 20
_PAGE: Final = 1024
_MEANWHILE: Final = (MemberReadOnly, OutcomeUnknown, Unreachable, DeadlineExceeded, Busy)

# What belongs to the members, sessions and people there are now, and is made anew, kept as it is, or not at all.
_LEFT_OUT: Final = frozenset({smk_generations.TABLE}) | frozenset(
    TABLES[kind]
    for kind in (
        LockRecord,
        AttemptsRecord,
        TriedRecord,
        LogoutRecord,
        EndedRecord,
        HsmRecord,
        ChannelRecord,
        OpeningRecord,
        ApprovalRecord,
    )
)
# ... and what stays: what is known of the trails, of the dismissed and of the SMK's generations.
_CARRIED: Final = (anchor.TABLE, removal_proof.TABLE, smk_generations.TABLE)
# ... and what an archive may hold of a restore before it.
_GROUPING: Final = Key(table=TABLES[GroupingRecord], id=GROUPING_RECORD)
RESTS_ON: Final = frozenset({_GROUPING.table, store.MEMBERS.table})

_log: Final = Log("hsm.restore")


@dataclass
class _Ticket:
    value: bytes
    order: bytes
    name: str
    check: bool
    until: float
    archive: bytes


@dataclass
class _Restore:
    """A restore that is under way.

    Args:
        source, target: make and check records of the archive's instance, and of the new one.
        now: the present ones, None in an empty store.
        oldest: generation of the SMK that was not retired: what is restored may be sealed under it.
    """

    ticket: _Ticket
    header: Header
    manifest: Manifest
    source: Records
    target: Records
    now: Records | None
    oldest: int
    id: bytes = field(default_factory=lambda: secrets.token_bytes(16))
    sequence: int = 0
    next: int = 0
    found: Counter[str] = field(default_factory=Counter)
    credentials: dict[bytes, CredentialRecord] = field(default_factory=dict)
    labels: dict[bytes, str] = field(default_factory=dict)
    clients: dict[bytes, Item] = field(default_factory=dict)
    cluster: Item | None = None
    heard: float = 0.0


class Restoring:
    """Carries out restores for one core; made and used within a running loop.

    Args:
        desk: writes the audit trail.
        clock: UTC seconds.
        patience: seconds for a primary that is away.
    """

    def __init__(
        self,
        archiving: Archiving,
        store_: Asks,
        desk: Desk,
        *,
        clock: Callable[[], float] = time.time,
        patience: float = PATIENCE,
    ) -> None:
        self._patience: Final = patience
        self._archiving: Final = archiving
        self._store: Final = store_
        self._desk: Final = desk
        self._clock: Final = clock
        self._loop: Final = asyncio.get_running_loop()
        self._ticket: _Ticket | None = None
        self._restore: _Restore | None = None
        self._turn: Final = asyncio.Lock()
        self._regrouping: Final = asyncio.Lock()
        self._noted = 0  # the version of the note about groups that the last look found

    # --- who may

    def allow(self, order: bytes, name: str, *, check: bool, archive: bytes = b"") -> bytes:
        """Make a ticket for one restore; the same for the same order.

        Args:
            archive: the id of the only archive that it is good for; empty for any.

        Raises Busy while another one is under way.
        """
        if self._ticket is not None and self._ticket.order == order:
            return self._ticket.value
        running = self._restore
        if running is not None and self._loop.time() - running.heard < IDLE_SECONDS:
            raise Busy(f"a restore of {running.ticket.name} is under way")
        self._ticket = _Ticket(secrets.token_bytes(32), order, name, check, self._loop.time() + TICKET_SECONDS, archive)
        self._restore = None
        return self._ticket.value

    def _checked(self, ticket: bytes) -> _Ticket:
        held = self._ticket
        if held is None or not hmac.compare_digest(held.value, ticket):
            raise PermissionDenied("no such restore was allowed")
        return held

    def _running(self, ticket: bytes) -> _Restore:
        self._checked(ticket)
        if self._restore is None:
            raise NotPossible("this restore is over")
        self._restore.heard = self._loop.time()
        return self._restore

    # --- the backup service's

    async def begin(self, asked: backup.BeginRestore) -> backup.DataKey:
        """Check an archive's ends; raises ArchiveInvalid, PermissionDenied."""
        ticket = self._checked(asked.ticket)
        if self._restore is not None or self._loop.time() > ticket.until:
            raise PermissionDenied("this restore was allowed too long ago, or was begun before")
        cluster, opening = self._archiving.cluster(), asked.opening
        key = archive_keys.open_archive(cluster, opening.header, opening.manifest, opening.seal)
        header, manifest = format_.parse_header(opening.header), format_.parse_manifest(opening.manifest)
        if ticket.archive and header.id != ticket.archive:  # which the seal vouches for
            raise PermissionDenied(f"{ticket.name} is another archive than the one that was approved")
        oldest, _ = await self._oldest_smk()
        now = await self._present(cluster)
        target = cluster.records(secrets.token_bytes(16))
        if now is not None:
            target = target.at(now.generation)
        self._restore = _Restore(ticket, header, manifest, cluster.records(header.instance), target, now, oldest)
        self._restore.heard = self._loop.time()
        return backup.DataKey(key=key)

    async def _oldest_smk(self) -> tuple[int, int]:
        """Return the oldest generation of the SMK that is not retired, and the version of the item that says so."""
        cluster = self._archiving.cluster()
        shared, version = await fetch_shared(self._store, cluster)
        return (shared.oldest if shared is not None else 0), version

    async def _present(self, cluster: Cluster) -> Records | None:
        where = cluster.records().key_of(ClusterRecord, CLUSTER_RECORD)
        item = await answers.fetch(self._store, where, STORE_SECONDS)
        return cluster.records_of(item) if item else None

    async def rows(self, asked: backup.RestoreRows) -> None:
        """Take rows; raises ArchiveInvalid, and what the store answers."""
        async with self._turn:
            restore = self._running(asked.ticket)
            if asked.number == restore.next - 1:
                return  # they came again
            if asked.number != restore.next:
                raise NotPossible("rows of the archive are missing")
            items = [item for row in asked.rows if (item := self._taken(restore, row)) is not None]
            if not restore.ticket.check and (items or not restore.sequence):
                begins = not restore.sequence
                await self._commit(restore, [store.Stage(restore=restore.id, items=tuple(items), begins=begins)])
            restore.next += 1

    def _taken(self, restore: _Restore, row: Row) -> Item | None:
        """Make the item that a row becomes; None where the row is left out, or comes last."""
        table, scope, id_, version, tags, head, body = row
        restore.found[table] += 1
        item = Item(
            key=Key(table=table, scope=scope, id=id_), version=version, head=head, body=body, tags=parse_tags(tags)
        )
        if table in _LEFT_OUT or (table in _CARRIED and restore.now is not None) or item.key == _GROUPING:
            return None
        if table not in RECORD_TABLES:
            return item
        try:
            restore.source.check(item)
            if table == TABLES[CredentialRecord]:
                credential = restore.credentials[id_] = codec.decode_as(head, CredentialRecord)
                self._archiving.cluster().smk_of(credential.generation)
        except SealBroken as error:
            raise ArchiveInvalid(f"it holds a record that does not open: {error}") from None
        if table == TABLES[ClusterRecord]:
            check_takes_part(lnh_common.VERSION, codec.decode_as(head, ClusterRecord).product)
            restore.cluster = item
            return None
        if table == TABLES[KeyringRecord]:
            restore.labels[id_] = codec.decode_as(head, KeyringRecord).label
        elif table == TABLES[ClientRecord]:
            restore.clients[id_] = item
        return restore.target.remade(item)

    async def finish(self, asked: backup.FinishRestore) -> backup.Restored:
        """Put all rows in place of everything, unless this was to look only; returns the credentials that differ.

        Raises ArchiveInvalid when some rows did not come, NotPossible, and what the store answers.
        """
        async with self._turn:
            restore = self._running(asked.ticket)
            wanted = {table: count for table, count in restore.manifest.items.items() if count}
            missing = restore.cluster is None or (not restore.ticket.check and dict(restore.found) != wanted)
            if missing or restore.cluster is None:
                raise ArchiveInvalid("items are missing in it")
            changed = await self._changed(restore)
            if not restore.ticket.check:
                await self._switch(restore, restore.cluster, GroupingRecord(groups=asked.groups, placed=asked.placed))
                made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(restore.header.created_at / 1000))
                await self._regroup_patiently()
                self._desk.record(backup.RESTORE.name, f"{restore.ticket.name}, made {made}", "restored")
                _log.info("restored", archive=restore.ticket.name, index=restore.header.index)
            self._restore = self._ticket = None
            return backup.Restored(changed=tuple(changed[:CHANGES_SHOWN]), changes=len(changed))

    async def abandon(self, ticket: bytes) -> None:
        """Give up a restore, or with NO_TICKET whatever was begun; rows that were laid aside may go at once."""
        async with self._turn:
            begun = self._restore is not None and ticket == backup.NO_TICKET
            if self._ticket is None or not (begun or hmac.compare_digest(self._ticket.value, ticket)):
                return
            restore, self._restore, self._ticket = self._restore, None, None
            if restore is not None and restore.sequence:
                nothing = store.Stage(restore=secrets.token_bytes(16), begins=True)
                await self._commit(restore, [nothing], waits=False)

    # --- what must be so at the end

    async def _switch(self, restore: _Restore, archived: Item, grouping: GroupingRecord) -> None:
        note = restore.target.remade(Item(key=_GROUPING, version=1, head=codec.encode(grouping)))
        for _ in range(SWITCH_TRIES):
            now = restore.now = await self._present(self._archiving.cluster())
            if now is not None and now.instance == restore.target.instance:
                return  # it was done, and nobody heard of it
            oldest, shared_version = await self._oldest_smk()
            if oldest > max(restore.oldest, 1):
                raise NotPossible(
                    f"generations of the SMK before {oldest} were retired since this restore began",
                    {"advice": "begin the restore again; lnh backup show says which generation an archive needs"},
                )
            guards, kept = await self._revoked(restore)
            guards.append(store.Require(key=smk_generations.KEY, version=shared_version))
            waiting, approvals = await self._approvals(restore)
            kept += approvals
            for at in range(0, len(kept), 64):
                staged = store.Stage(restore=restore.id, items=tuple(kept[at : at + 64]))
                await self._commit(restore, [staged])
            version = max(archived.version, now.version if now else 0) + 1
            record = codec.decode_as(archived.head, ClusterRecord)
            product = latest([record.product, *([now.product] if now else ())])
            record = replace(record, instance=restore.target.instance, product=product)
            renewed = restore.target.remade(replace(archived, version=version, head=codec.encode(record)))
            fence = (now or restore.target).fence()
            try:
                await self._commit(
                    restore,
                    [
                        *guards,
                        *waiting,
                        fence,
                        store.Stage(restore=restore.id, items=(renewed, note)),
                        store.Switch(restore=restore.id, carried=_CARRIED if now else ()),
                    ],
                )
            except VersionConflict:
                continue  # a client was revoked, or something approved, at this moment: look again
            return
        raise Busy("clients, or what waits for a second person, are changed all the time; try again")

    async def _regroup_patiently(self) -> None:
        """Carry out this restore's note, again and again for a while; then `tidy` does, on the primary."""
        with suppress(LnhError):
            for _ in range(REGROUP_TRIES):
                if await self._regroup():
                    return
                await asyncio.sleep(AGAIN)

    async def _regroup(self, *, others: bool = False) -> bool:
        """Carry out the note of a restore, where there is one; a group that can never be made is named in the log.

        Until it is gone, workers refuse orders about groups: the note would undo them.

        Args:
            others: another member's, which carries it out itself if it lives: it has until the next look.

        Returns whether nothing is left to be done.
        """
        async with self._regrouping:
            item = await answers.fetch(self._store, _GROUPING, STORE_SECONDS)
            seen, self._noted = self._noted, item.version if item is not None else 0
            if others and self._noted != seen:
                return False
            records = await self._present(self._archiving.cluster()) if item is not None else None
            if item is None or records is None:
                return True
            try:
                await self._grouped(records.read(GroupingRecord, item))
            except (StorageFailed, *_MEANWHILE) as error:
                _log.info("groups not restored yet", problem=str(error))
                return False
            except LnhError as error:
                _log.failure("groups not restored", problem=str(error))
            with suppress(VersionConflict, ObjectUnknown, StorageFailed, *_MEANWHILE):  # it is gone, or stays for later
                await self._commit_once(records.fence(), store.Delete(key=_GROUPING, expected=item.version))
                return True
            return False

    async def _grouped(self, then: GroupingRecord) -> None:
        """Move the members that there still are back to their groups."""
        groups, placed = set(then.groups), dict(then.placed)
        status = await self._store.ask(store.STATUS, Empty(), timeout=STATUS_SECONDS)
        there = set(status.groups)
        for group in sorted(groups - there):
            new = store.CreateGroup(group=group, request=secrets.token_bytes(16))
            with suppress(NameTaken):  # another core is at it too
                await self._store.ask(store.GROUP_CREATE, new, timeout=STORE_SECONDS)
        used = set()
        for member in status.members:
            group = placed.get(member.id, member.group)
            used.add(group)
            if group != member.group:
                move = store.MoveMember(member=member.id, group=group, request=secrets.token_bytes(16))
                await self._store.ask(store.MEMBER_MOVE, move, timeout=STORE_SECONDS)
        for group in sorted(there - groups - used - {limits.LOCAL_GROUP}) if groups else ():
            gone = store.DeleteGroup(group=group, request=secrets.token_bytes(16))
            with suppress(NameUnknown):
                await self._store.ask(store.GROUP_DELETE, gone, timeout=STORE_SECONDS)

    async def _revoked(self, restore: _Restore) -> tuple[list[store.Change], list[Item]]:
        """Return the guards that must still hold, and the archive's clients that were revoked since."""
        guards: list[store.Change] = []
        revoked: list[Item] = []
        now = restore.now
        if now is None:
            return guards, revoked
        clients = await self._scanned(TABLES[ClientRecord])
        versions = store.versions_hash((item.key.id, item.version) for item in clients)
        guards.append(store.Unchanged(key=Key(table=TABLES[ClientRecord]), hash=versions))
        for item in clients:
            held = restore.clients.get(item.key.id)
            archived = codec.decode_as(held.head, ClientRecord) if held else None
            if held is None or archived is None or archived.revoked:
                continue
            if now.read(ClientRecord, item).revoked:
                head = codec.encode(replace(archived, revoked=True))
                revoked.append(restore.target.remade(replace(held, head=head)))
        return guards, revoked

    async def _approvals(self, restore: _Restore) -> tuple[list[store.Change], list[Item]]:
        """Return the guard that must still hold, and all that waits for a second person, as records to be kept."""
        if restore.now is None:
            return [], []
        found = await self._scanned(TABLES[ApprovalRecord])
        versions = store.versions_hash((item.key.id, item.version) for item in found)
        for item in found:
            restore.now.check(item)
        guard = store.Unchanged(key=Key(table=TABLES[ApprovalRecord]), hash=versions)
        return [guard], [restore.target.remade(item) for item in found]

    async def _changed(self, restore: _Restore) -> list[Changed]:
        """List credentials that differ between the archive and now."""
        if restore.now is None:
            return []
        present = {
            item.key.id: restore.now.read(CredentialRecord, item)
            for item in await self._scanned(TABLES[CredentialRecord])
        }
        labels = {
            item.key.id: restore.now.read(KeyringRecord, item).label
            for item in await self._scanned(TABLES[KeyringRecord])
        }
        labels |= restore.labels
        changed = []
        for where in sorted(present.keys() | restore.credentials.keys()):
            held, now = restore.credentials.get(where), present.get(where)
            one = held or now
            assert one is not None, "it is in one of the two"
            if held is not None and now is not None and held.id == now.id:
                continue
            how = "added" if held is None else "deleted" if now is None else "changed"
            changed.append(
                Changed(role=one.role.value, name=one.name, keyring=labels.get(one.keyring, one.keyring.hex()), how=how)
            )
        return sorted(changed, key=lambda each: (each.keyring, each.role, each.name))

    async def _scanned(self, table: str) -> list[Item]:
        found: list[Item] = []
        more = True
        while more:
            scan = store.Scan(table=table, after=found[-1].key.id if found else b"", limit=_PAGE, body=True)
            page = await answers.fetch_page(self._store, scan, STORE_SECONDS)
            found += page.items
            more = page.more
        return found

    async def _commit(self, restore: _Restore, changes: Iterable[store.Change], *, waits: bool = True) -> None:
        """Commit, again and again while the primary is away: the same request acts once."""
        restore.sequence += 1
        commit = store.Commit(
            client=self._archiving.cluster().member,
            session=restore.id,
            sequence=restore.sequence,
            issued_at=int(self._clock() * 1000),
            changes=tuple(changes),
        )
        ends = self._loop.time() + (self._patience if waits else 0.0)
        while True:
            try:
                await self._store.ask(store.COMMIT, commit, timeout=2 * STORE_SECONDS)
            except _MEANWHILE:
                if self._loop.time() > ends:
                    raise
                restore.heard = self._loop.time()
                await asyncio.sleep(AGAIN)
            else:
                return

    # --- afterwards

    async def tidy(self) -> bool:
        """Finish, on the primary, what a restore left to do, some at a time.

        Returns whether nothing is left to be done until `RESTS_ON` changes. Raises what the store answers.
        """
        try:
            cluster = self._archiving.cluster()
        except LnhError:
            return False
        before, regrouped = -1, True
        for turn in range(SWEEPS_AT_ONCE):
            status = await self._store.ask(store.STATUS, Empty(), timeout=STATUS_SECONDS)
            if status.cluster != cluster.id or status.state != "read-write":
                return False
            if status.primary != cluster.member:
                return True
            if not turn:
                regrouped = await self._regroup(others=True)
            if not status.hidden:
                return regrouped
            if status.hidden == before:
                return False
            before = status.hidden
            await self._commit_once(store.Sweep(limit=SWEEP_ITEMS))
        return False

    async def _commit_once(self, *changes: store.Change) -> None:
        commit = store.Commit(
            client=self._archiving.cluster().member,
            session=secrets.token_bytes(16),
            sequence=1,
            issued_at=int(self._clock() * 1000),
            changes=changes,
        )
        await self._store.ask(store.COMMIT, commit, timeout=STORE_SECONDS)
