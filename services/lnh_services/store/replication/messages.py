"""Defines what stores say to each other, and what the replica asks of its shell.

`Message`s travel between stores over connections that say for certain who sent them; they may be lost, delayed,
repeated and reordered. `Effect`s are the answers of `Replica`'s events, in the order in which they are to be carried
out; the end of one is reported as another event.
"""

from __future__ import annotations

from typing import NamedTuple, NewType

import msgspec

from lnh_common.messages.store import Commit, Key, MemberInfo
from lnh_services.store.etcd.requests import AskEtcd
from lnh_services.store.log.entries import (
    ClusterId,
    Entry,
    Epoch,
    LeaseSettings,
    MemberId,
    Milliseconds,
    Position,
    Write,
)
from lnh_services.store.log.window import Base, Removed
from lnh_services.store.machine.apply import Answer

RequestId = NewType("RequestId", int)
ReadId = NewType("ReadId", int)
Seconds = NewType("Seconds", float)  # CLOCK_BOOTTIME: goes on while the machine sleeps, never back


class Instant(NamedTuple):
    """The present time: `boot` decides leases and patience, `utc` is what entries are stamped with."""

    boot: Seconds
    utc: Milliseconds


# Orders: what may be asked of the cluster through any member


class SetMember(msgspec.Struct, frozen=True, tag="set-member"):
    """List a new member, or give a listed one another name or address."""

    member: MemberInfo


class SetDoor(msgspec.Struct, frozen=True, tag="set-door"):
    """Set the key of a listed member's balancer."""

    member: MemberId
    door: bytes


class CreateGroup(msgspec.Struct, frozen=True, tag="create-group"):
    """Create an affinity group."""

    group: str
    request: bytes


class DeleteGroup(msgspec.Struct, frozen=True, tag="delete-group"):
    """Delete an affinity group that has no members."""

    group: str
    request: bytes


class MoveMember(msgspec.Struct, frozen=True, tag="move-member"):
    """Move a member to another affinity group."""

    member: MemberId
    group: str
    request: bytes


class RemoveMember(msgspec.Struct, frozen=True, tag="remove-member"):
    """Take a member that is not primary out of the cluster."""

    member: MemberId


class Promote(msgspec.Struct, frozen=True, tag="promote"):
    """Make a member of the in-sync set primary."""

    member: MemberId


class SetLeaseSettings(msgspec.Struct, frozen=True, tag="set-terms"):
    """Set what leases are granted for."""

    lease_settings: LeaseSettings = msgspec.field(name="terms")


class SetFailover(msgspec.Struct, frozen=True, tag="set-failover"):
    """Say whether an administrator must order that a member takes the place of a lost primary."""

    manual: bool


Listing = SetMember | SetDoor | CreateGroup | DeleteGroup | MoveMember  # what changes the list (`member_list.py`)
Order = Commit | Listing | RemoveMember | Promote | SetLeaseSettings | SetFailover


# Messages. Each names the epoch it belongs to: what is of another epoch than the receiver's is not acted on.


class _Said(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Ping(_Said, frozen=True, tag="ping"):
    """Tells the primary, or a member that may be, that this one is here.

    `number` comes back in the Pong, and tells when this member asked.
    """

    epoch: Epoch
    incarnation: bytes
    number: int


class Pong(_Said, frozen=True, tag="pong"):
    """Answers a Ping, as the primary; `lease_ms` is 0 where it grants none."""

    epoch: Epoch
    number: int
    lease_ms: int
    committed: int


class Append(_Said, frozen=True, tag="append"):
    """Brings entries of the primary that follow `previous` (none: a sign of life), and its commit index."""

    epoch: Epoch
    previous: Position
    entries: tuple[Entry, ...]
    committed: int


class Appended(_Said, frozen=True, tag="appended"):
    """Acknowledges that the log is durable, and the caches are invalidated, up to an entry.

    `matched`: the member holds the primary's log up to here, durable or not.
    """

    epoch: Epoch
    index: int
    hash: bytes
    incarnation: bytes
    matched: int


class Behind(_Said, frozen=True, tag="behind"):
    """Asks the primary for what follows the last position that both share; `diverged`: only a snapshot helps."""

    epoch: Epoch
    incarnation: bytes
    outline: tuple[Position, ...]
    diverged: bool


class Rejected(_Said, frozen=True, tag="rejected"):
    """Tells a sender that this member promised a higher epoch than the sender's."""

    promised: Epoch


class Report(_Said, frozen=True, tag="report"):
    """Tells how a member stands; answers Ask (epoch NO_EPOCH) and, once durable, Prepare (the epoch promised).

    `primary`: it is primary with a committed `open`.
    """

    epoch: Epoch
    promised: Epoch
    last: Position
    committed: Position
    members: tuple[MemberInfo, ...]
    in_sync: tuple[MemberId, ...]
    longest_ms: int
    outline: tuple[Position, ...]
    kept: Entry | None
    primary: bool


class Ask(_Said, frozen=True, tag="ask"):
    """Asks a member how it stands; nothing is promised."""


class Prepare(_Said, frozen=True, tag="prepare"):
    """Asks a member to promise an epoch."""

    epoch: Epoch


class Fetch(_Said, frozen=True, tag="fetch"):
    """Asks the promiser with the greatest log for what follows the last position that it shares with the candidate."""

    epoch: Epoch
    outline: tuple[Position, ...]


class Fetched(_Said, frozen=True, tag="fetched"):
    """Brings the candidate the entries that it fetched, which follow `previous`."""

    epoch: Epoch
    previous: Position
    entries: tuple[Entry, ...]


class Keep(_Said, frozen=True, tag="keep"):
    """Asks the promisers to make this `open` durable now, whether or not their logs reach it."""

    open: Entry


class Kept(_Said, frozen=True, tag="kept"):
    """Tells the candidate that its `open` is durable here."""

    epoch: Epoch


class Go(_Said, frozen=True, tag="go"):
    """Tells the candidate of `epoch` to open it: the old primary has promised it, and its log ends at `last`."""

    epoch: Epoch
    last: Position


class Forward(_Said, frozen=True, tag="forward"):
    """Passes an order on to the primary of this epoch; `number` is the sender's own."""

    epoch: Epoch
    number: int
    order: Write | Listing | RemoveMember | Promote | SetLeaseSettings | SetFailover

    @classmethod
    def of(cls, epoch: Epoch, number: int, order: Order) -> Forward:
        """Make the message that passes an order on."""
        return cls(epoch, number, Write(order) if isinstance(order, Commit) else order)

    def what(self) -> Order:
        """Return the order that is passed on."""
        return self.order.commit if isinstance(self.order, Write) else self.order


class Forwarded(_Said, frozen=True, tag="forwarded"):
    """Brings the primary's answer: an index, or an error as on the wire; `entry` is the request's own entry."""

    number: int
    index: int
    error: tuple[int, str, dict[str, object]] | None
    entry: int


class Expelled(_Said, frozen=True, tag="expelled"):
    """Tells a former member that this committed entry removed it."""

    removed: Removed


Message = (
    Ping | Pong | Append | Appended | Behind | Rejected | Report | Ask | Prepare | Fetch | Fetched
    | Keep | Kept | Go | Forward | Forwarded | Expelled
)  # fmt: skip


# What a start finds, and what a snapshot brings


class Durable(msgspec.Struct, frozen=True):
    """The state that a start finds on disk.

    Args:
        kept: the `open` of the highest epoch this member was told to keep before its log reached it, if any.
        diverged: it dropped what it had applied; stays until an administrator has looked.
        expelled: the entry that removed this member, if it was.
    """

    cluster: ClusterId
    member: MemberId
    promised: Epoch
    base: Base
    entries: tuple[Entry, ...]
    committed: int
    kept: Entry | None = None
    diverged: bool = False
    expelled: Removed | None = None

    def is_sound(self) -> bool:
        """Tell whether the parts agree with one another."""
        last = self.entries[-1].position() if self.entries else self.base.position
        return self.promised >= last.epoch and self.base.position.index <= self.committed <= last.index


# Effects


class Send(msgspec.Struct, frozen=True):
    """Send a message to a member, if there is a connection; it may be lost."""

    to: MemberId
    message: Message


class Persist(msgspec.Struct, frozen=True):
    """One durable step, all of it or nothing; then `persisted(number, answers)`, in the order asked.

    Args:
        number: of this step.
        found: begin a database for this cluster and member, with this base, in place of anything there.
        promised: the epoch to promise, or None to leave it.
        dropped: entries that leave the log's end; saved first, in a file of their own.
        entries: appended then.
        committed: up to here all is applied.
        kept: an `open` to keep beside the log.
        base: the log follows it from now on: everything up to it is dropped.
        expelled: the entry that removed this member.
        diverged: False once an administrator has looked at the dropped entries.
        sync: false where losing the step in a power cut loses nothing (it only applies).
    """

    number: int
    committed: int
    found: tuple[ClusterId, MemberId, Base] | None = None
    promised: Epoch | None = None
    dropped: tuple[Entry, ...] = ()
    entries: tuple[Entry, ...] = ()
    kept: Entry | None = None
    base: Base | None = None
    expelled: Removed | None = None
    diverged: bool | None = None
    sync: bool = True


class Install(msgspec.Struct, frozen=True):
    """Put a received snapshot in place of log and state, keeping what was promised; then `persisted(number, {})`.

    Args:
        snapshot: the shell's name for it.
        aside: keep the old database: it has applied what the snapshot does not have.
    """

    number: int
    snapshot: int
    base: Base
    aside: bool
    dropped: tuple[Entry, ...]


class Erase(msgspec.Struct, frozen=True):
    """Destroy everything on disk; then `persisted(number, {})`."""

    number: int


class Invalidate(msgspec.Struct, frozen=True):
    """Make every cache of this member drop these; then `invalidated(number)`."""

    number: int
    keys: frozenset[Key]
    everything: bool = False


class Reply(msgspec.Struct, frozen=True):
    """Answer a request. `entry` is the index of its own entry: an answer that names another came from before."""

    request: RequestId
    answer: Answer
    entry: int = 0


class Serve(msgspec.Struct, frozen=True):
    """Carry out a read now, before anything else, and answer it if `is_current` is still as `current` says."""

    read: ReadId
    current: bool


class SendSnapshot(msgspec.Struct, frozen=True):
    """Send a member a snapshot of the applied state, with its `Base`; it arrives there as `offered`."""

    to: MemberId
    epoch: Epoch


class Say(msgspec.Struct, frozen=True):
    """Log an event, with its fields, that an operator should read."""

    event: str
    fields: dict[str, str | int]


Effect = Send | Persist | Install | Erase | Invalidate | Reply | Serve | SendSnapshot | Say | AskEtcd
