"""Messages to the store: opaque items in tables, changed by guarded, all-or-nothing commits.

The store knows no keyring and no user: an item is `(table, scope, id)` with a version, a `head` (what a listing needs),
a `body` (what only a use needs) and blind `tags` for equality search. The guards of a change say what must hold when it
is applied, so that it holds on every member alike.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Any, Final

import msgspec

from lnh_common import limits
from lnh_common.messages.base import Effect, Empty, Message, operation
from lnh_common.versions import FIRST

MemberId16 = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Id = Annotated[bytes, msgspec.Meta(max_length=64)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]

OBJECTS: Final = "object"  # the table of the keyrings' objects
Tag = Annotated[bytes, msgspec.Meta(max_length=32)]


class Key(Message):
    """Names one item. An empty `id` in an `Invalidate` names the whole scope."""

    table: Name
    scope: Id = b""
    id: Id = b""


class Item(Message):
    """One stored item; `body` is empty when the asker did not want it."""

    key: Key
    version: int
    head: bytes
    body: bytes = b""
    tags: tuple[Tag, ...] = ()


class Put(Message, tag="put"):
    """Create (`expected` 0) or replace an item.

    Args:
        expected: the version it must have now; the new one is `expected + 1`. Otherwise VersionConflict.
        unique: tags (of `tags`) that no other item of this table and scope may carry; NameTaken.
        limit: how many items this table and scope may hold afterwards; LimitReached.
    """

    key: Key
    expected: int
    head: bytes
    body: bytes = b""
    tags: tuple[Tag, ...] = ()
    unique: tuple[Tag, ...] = ()
    limit: int | None = None


class Delete(Message, tag="delete"):
    """Remove an item; `expected` None removes any version. ObjectUnknown if there is none."""

    key: Key
    expected: int | None = None


class DeleteScope(Message, tag="delete-scope"):
    """Remove every item of a table's scope (`key.id` is empty); removing none is no error."""

    key: Key


class Require(Message, tag="require"):
    """Refuse the whole commit unless the item has this version (VersionConflict); changes nothing."""

    key: Key
    version: int


class Unchanged(Message, tag="unchanged"):
    """Refuse the whole commit unless a table's scope has these items in these versions; changes nothing.

    Args:
        key: names the scope; its `id` is empty.
        hash: as `versions_hash` makes it. Otherwise VersionConflict.
    """

    key: Key
    hash: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


def versions_hash(versions: Iterable[tuple[bytes, int]]) -> bytes:
    """Hash (SHA-256) the ids and versions of a scope's items, which come in the order of their ids."""
    whole = hashlib.sha256()
    for id_, version in versions:
        whole.update(len(id_).to_bytes(1, "big") + id_ + version.to_bytes(8, "big"))
    return whole.digest()


class Stage(Message, tag="stage"):
    """Lay items aside, just as they are, for a restore; nobody sees them before its Switch.

    Args:
        restore: names it.
        begins: what another restore laid aside is given up; without it NotPossible once another one began.
    """

    restore: MemberId16
    items: Annotated[tuple[Item, ...], msgspec.Meta(max_length=65536)] = ()
    begins: bool = False


class Switch(Message, tag="switch"):
    """Put what a restore laid aside in place of everything; NotPossible unless it was the last to begin.

    Args:
        carried: tables that stay as they are.
    """

    restore: MemberId16
    carried: tuple[Name, ...] = ()


class Sweep(Message, tag="sweep"):
    """Remove up to `limit` items that nobody sees and no restore lays aside any more."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=65536)]


Change = Put | Delete | DeleteScope | Require | Unchanged | Stage | Switch | Sweep


class Commit(Message):
    """Make all of `changes`, or none, exactly once.

    Args:
        client, session, sequence: name the request; repeated, it acts once and gets the first answer. `client` is the
            id under which duplicates are kept together, `session` a random id of a connection, both 16 bytes;
            `sequence` is at least 1.
        issued_at: UTC milliseconds; one older than limits.DUPLICATE_WINDOW is refused.
    """

    client: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    session: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    sequence: Annotated[int, msgspec.Meta(ge=1)]
    issued_at: int
    changes: Annotated[tuple[Change, ...], msgspec.Meta(min_length=1, max_length=4096)]


class Committed(Message):
    """Answer with the `index` of the entry: it is durable, and every cache of this member has dropped what changed.

    `duplicate` says that the request had acted before: what it would have stored now is not what is there.
    """

    index: int
    duplicate: bool = False


class Commits(Message):
    """Make independent `Commit`s of one worker in one step; each is checked by itself."""

    commits: Annotated[tuple[dict[str, Any], ...], msgspec.Meta(min_length=1, max_length=limits.COMMITS_TOGETHER)]

    @classmethod
    def of(cls, commits: Iterable[Commit]) -> Commits:
        """Pack independent commits into one message."""
        return cls(commits=tuple(msgspec.to_builtins(each, builtin_types=(bytes,)) for each in commits))


class Outcomes(Message):
    """Answer for each commit, in order: it is committed, or its error `[code, message, detail]`."""

    outcomes: tuple[Committed | list[Any], ...]


class Recall(Message):
    """Ask what became of a request that may have come before; the fields are those of Commit."""

    client: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    session: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    sequence: Annotated[int, msgspec.Meta(ge=1)]


class Recalled(Message):
    """Answer whether the request acted; a request that was refused raises its first error again."""

    known: bool
    index: int


class Get(Message):
    """Ask for one item; without `body` only its head is read."""

    key: Key
    body: bool = True


# The cluster's own record, which HSMs write (`hsm/records.py`).
CLUSTER: Final = Key(table="cluster", id=bytes.fromhex("3570abfe1501d716db431c9f5d1fe94c"))


class ClusterVersion(Message, forbid_unknown_fields=False):
    """The part of the cluster's own record that services read: its version, MAJOR.MINOR (`lnh_common.versions`)."""

    product: str = FIRST


class Got(Message):
    """Answer with one item.

    Args:
        item: None where there is none.
        index: the applied index that the answer reflects.
        current: the answer reflects every write that was acknowledged, anywhere, before it was asked for; false on a
            read-only member.
    """

    item: Item | None
    index: int
    current: bool


class Gets(Message):
    """Ask for several items in one message."""

    gets: Annotated[tuple[Get, ...], msgspec.Meta(min_length=1, max_length=limits.GETS_TOGETHER)]


class Gots(Message):
    """Answer for each item, in their order."""

    gots: tuple[Got, ...]


class Scan(Message):
    """Ask for items of one table and scope that carry all of `tags`, in the order of their ids.

    Args:
        after: continue behind this id.
        limit: at most this many items in the answer.
    """

    table: Name
    scope: Id = b""
    tags: tuple[Tag, ...] = ()
    after: Id = b""
    limit: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 256
    body: bool = False


class Scanned(Message):
    """Answer with one page of items; `more` says that another page follows, `index` and `current` are as in `Got`."""

    items: tuple[Item, ...]
    more: bool
    index: int
    current: bool


class Count(Message):
    """Ask how many items a table's scope has."""

    table: Name
    scope: Id = b""


class Counted(Message):
    """Answer with the number of items; `index` and `current` are as in `Got`."""

    count: int
    index: int
    current: bool


class ListScopes(Message):
    """Ask for the scopes of a table that hold items, in their order; the empty one is where there are no scopes.

    Args:
        after: continue behind this scope; None begins with the first.
    """

    table: Name
    after: Id | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1024


class Scopes(Message):
    """Answer with one page of scopes; `more` says that another page follows, `index` and `current` are as in `Got`."""

    scopes: tuple[Id, ...]
    more: bool
    index: int
    current: bool


GroupLabel = Annotated[str, msgspec.Meta(min_length=1, max_length=limits.NAME_CHARACTERS)]


class MemberInfo(Message, omit_defaults=True):
    """Describe one member as every other must know it; part of the log, so that all agree on it.

    A default is left out of the encoding: version 0.1 has neither groups nor doors, and reads what has none.

    Args:
        id: 16 random bytes, never used again once the member left.
        host, port: its advertised address and base port (membership +1, store +2, balancers +3).
        key: the CURVE public key (32 bytes) of its membership and store ports.
        group: its affinity group.
        door: the CURVE public key (32 bytes) of its balancer, at the base port and +3; empty until the member told it.
    """

    id: MemberId16
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    host: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    key: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    group: GroupLabel = limits.LOCAL_GROUP
    door: Annotated[bytes, msgspec.Meta(max_length=32)] = b""


class Create(Message):
    """Open the first epoch of a new cluster with this member alone; again with the same ids: no change.

    Raises AlreadyDone when the store holds another cluster.
    """

    cluster: MemberId16
    member: MemberInfo


class Destroy(Message):
    """Erase the whole replicated state of this member (factory reset, leave)."""

    cluster: bytes


class Adopt(Message):
    """Begin, empty, as a member of a cluster that has just listed `member`; again with the same ids: no change.

    The primary sends everything from then on. Raises AlreadyDone when the store holds another cluster.
    """

    cluster: MemberId16
    member: MemberInfo
    members: Annotated[tuple[MemberInfo, ...], msgspec.Meta(min_length=1, max_length=64)]


class SetMember(Message):
    """List a new member, or change the name or address of a listed one; through any member, done by the primary.

    A listed member's group and door stay as they are.
    """

    member: MemberInfo


class SetDoor(Message):
    """Set the CURVE public key of a member's balancer."""

    member: MemberId16
    door: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class CreateGroup(Message):
    """Create an affinity group. `request` names the request, which acts once however often it comes."""

    group: GroupLabel
    request: MemberId16


class DeleteGroup(Message):
    """Delete an affinity group: not the last, and not while it has members."""

    group: GroupLabel
    request: MemberId16


class MoveMember(Message):
    """Move a member to another affinity group."""

    member: MemberId16
    group: GroupLabel
    request: MemberId16


class MemberRef(Message):
    """Name the member that an order is about."""

    member: MemberId16


class TakeOver(Message):
    """Make this member primary in place of one that is lost for good; the lost are members no more.

    Args:
        lost: the primary, and with `force` others too.
        force: go on without members that do not answer; what only they know is lost.
    """

    lost: Annotated[tuple[MemberId16, ...], msgspec.Meta(min_length=1, max_length=64)]
    force: bool = False


class SetLeaseSettings(Message):
    """Set what leases are granted for from now on.

    Args:
        lease_ms: how long a member may go on without its primary.
        alone_ms: after so long without any other member the primary of several takes no writes; 0: it always does.
    """

    lease_ms: Annotated[int, msgspec.Meta(ge=100, le=60_000)]
    alone_ms: Annotated[int, msgspec.Meta(ge=0, le=86_400_000)] = 0


class DivergentEntry(Message):
    """Describe an entry that was dropped: the request's client, and up to 16 keys that it would have changed."""

    index: int
    log_time: int
    client: bytes
    keys: tuple[Key, ...]


class DivergentFile(Message):
    """One run of dropped entries, kept in a file of this name in the store's directory.

    Args:
        saved_at: UTC milliseconds.
        epoch, opener: of the last entry.
        entries: how many; of them `writes` are shown, at most 256 in one answer.
        problem: why it cannot be read; empty if it can.
    """

    name: str
    saved_at: int
    epoch: int = 0
    opener: bytes = b""
    first: int = 0
    last: int = 0
    entries: int = 0
    writes: tuple[DivergentEntry, ...] = ()
    problem: str = ""


class Divergent(Message):
    """Answer with what this member had to drop.

    Args:
        diverged: something of it had been applied here, and no administrator has looked yet.
        files: the newest 64.
        aside: names of databases that were kept aside when a snapshot took their place.
    """

    diverged: bool
    files: tuple[DivergentFile, ...]
    aside: tuple[str, ...]


class Attach(Message):
    """Ask for a cache lease, or renew it; a worker names itself by 16 random bytes that it drew at its start."""

    worker: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class Attached(Message):
    """Answer with a lease: the worker may use its caches for `lease_ms` from when it sent the request (0: not at all).

    Args:
        fresh: the store did not know this worker: it must start with empty caches.
        read_write: under this lease only what was read as `current` may be cached; else all may, until everything is to
            be dropped.
        incarnation: drawn at each start of the store; a question to an earlier incarnation without an answer is lost.
        whole_until: UTC ms: whatever the cluster acknowledged by then is applied here; 0 where that cannot be told.
    """

    lease_ms: int
    index: int
    fresh: bool
    read_write: bool
    incarnation: bytes = b""
    whole_until: int = 0


class Invalidate(Message):
    """Tell a worker to drop these from every cache and then say `Invalidated`; `everything` ends its lease too.

    A new item of `OBJECTS` is not named: no cache may hold that an object does not exist.
    """

    sequence: int
    keys: tuple[Key, ...]
    everything: bool = False


class Invalidated(Message):
    """Tell the store that a worker has dropped what the Invalidate of this number named."""

    sequence: int
    worker: bytes


MEMBERS: Final = Key(table="~members")  # stands, where changes are watched, for who is a member and who is primary


class Watch(Message):
    """Ask for changes in `tables` after `index`; answered once there are some, or with none when time is up."""

    index: int
    tables: tuple[Name, ...]


class Changed(Message):
    """Answer with changes; `everything` says that the asker was too far behind and must read the tables anew."""

    index: int
    keys: tuple[Key, ...]
    everything: bool = False


class RemovedMember(Message):
    """Name a member that was removed, and the committed entry that removed it."""

    member: MemberId16
    epoch: int
    index: int


class Lag(Message):
    """The primary's knowledge of another member.

    Args:
        index: the member has acknowledged everything up to here.
        heard_ms: since it last said anything; -1 if it never did in this epoch.
    """

    member: bytes
    index: int
    heard_ms: int


class Status(Message):
    """Describe this member's store.

    Args:
        state: none, read-write, read-only, joining, expelled or failed; without a cluster ids are empty, numbers 0.
        members: as the log lists them.
        groups: the affinity groups, sorted.
        removed: the last members that left or were removed.
        lease_ms: what is left of the time in which this member is read-write by itself.
        lags: of the other members, where this one is primary.
        diverged: it dropped what it had applied, and no administrator has looked yet.
        lease_settings: what leases are granted for.
        hidden: items that are not seen: laid aside by a restore, or replaced by one and to be swept.
        expelled: why it is no member any more; empty if it is.
        promotable: members that may be made primary now without loss; None where this member does not decide that.
        take_over_of: members whose loss for good needs a take-over through this one.
        catching_up: members that are not counted on yet.
    """

    state: str
    cluster: bytes
    member: bytes
    primary: bytes
    epoch: int
    in_sync: tuple[bytes, ...]
    last_index: int
    committed_index: int
    applied_index: int
    items: int
    bytes_on_disk: int
    commits_per_second: float
    problem: str = ""
    members: tuple[MemberInfo, ...] = ()
    groups: tuple[str, ...] = ()
    removed: tuple[RemovedMember, ...] = ()
    lease_ms: int = 0
    lags: tuple[Lag, ...] = ()
    diverged: bool = False
    expelled: str = ""
    hidden: int = 0
    lease_settings: SetLeaseSettings = msgspec.field(default=SetLeaseSettings(lease_ms=limits.LEASE_MS), name="terms")
    promotable: tuple[bytes, ...] | None = None
    take_over_of: tuple[bytes, ...] = ()
    catching_up: tuple[bytes, ...] = ()


class Reading(Message):
    """Answer with a consistent read of the whole state for a backup; a minute without a question for a part ends it.

    Args:
        id: names the reading.
        index: it reads the state after this entry.
        items: number of items of each table.
        size: about so many bytes will come.
    """

    id: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    index: int
    items: dict[str, int]
    size: int


class ReadingRef(Message):
    """Give up a reading; one that is over already is no error."""

    id: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]


class ReadPart(Message):
    """Ask for part `number` (from 0) of a reading; the last part asked for may be asked for again."""

    id: Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
    number: Annotated[int, msgspec.Meta(ge=0)]


class Part(Message):
    """Answer with the next bytes of a reading; an empty part ends it."""

    data: bytes


GET: Final = operation("store.get", Get, Got)
GET_EACH: Final = operation("store.get-each", Gets, Gots)
READING_BEGIN: Final = operation("store.reading.begin", Empty, Reading)
READING_PART: Final = operation("store.reading.part", ReadPart, Part)
READING_END: Final = operation("store.reading.end", ReadingRef, Empty)
SCAN: Final = operation("store.scan", Scan, Scanned)
COUNT: Final = operation("store.count", Count, Counted)
SCOPES: Final = operation("store.scopes", ListScopes, Scopes)
COMMIT: Final = operation("store.commit", Commit, Committed, effect=Effect.WRITE)
COMMIT_EACH: Final = operation("store.commit-each", Commits, Outcomes, effect=Effect.WRITE)
RECALL: Final = operation("store.recall", Recall, Recalled)
CREATE: Final = operation("store.create", Create, Empty, effect=Effect.WRITE)
DESTROY: Final = operation("store.destroy", Destroy, Empty, effect=Effect.WRITE)
ADOPT: Final = operation("store.adopt", Adopt, Empty, effect=Effect.WRITE)
MEMBER_SET: Final = operation("store.member.set", SetMember, Committed, effect=Effect.WRITE)
MEMBER_DOOR: Final = operation("store.member.door", SetDoor, Committed, effect=Effect.WRITE)
MEMBER_MOVE: Final = operation("store.member.move", MoveMember, Committed, effect=Effect.WRITE)
GROUP_CREATE: Final = operation("store.group.create", CreateGroup, Committed, effect=Effect.WRITE)
GROUP_DELETE: Final = operation("store.group.delete", DeleteGroup, Committed, effect=Effect.WRITE)
MEMBER_REMOVE: Final = operation("store.member.remove", MemberRef, Committed, effect=Effect.WRITE)
PROMOTE: Final = operation("store.promote", MemberRef, Empty, effect=Effect.WRITE)
TAKE_OVER: Final = operation("store.takeover", TakeOver, Committed, effect=Effect.WRITE)
LEASE_SETTINGS: Final = operation("store.terms", SetLeaseSettings, Committed, effect=Effect.WRITE)
DIVERGENT: Final = operation("store.divergent", Empty, Divergent)
DIVERGENT_ACKNOWLEDGE: Final = operation("store.divergent.acknowledge", Empty, Empty, effect=Effect.WRITE)
ATTACH: Final = operation("store.attach", Attach, Attached)
INVALIDATE: Final = operation("store.forget", Invalidate, Empty)  # a cast, store to worker
INVALIDATED: Final = operation("store.forgotten", Invalidated, Empty)  # a cast, worker to store
WATCH: Final = operation("store.watch", Watch, Changed)
STATUS: Final = operation("store.status", Empty, Status)
