"""The store's engine, as the rest of the store sees it: what orders entries, and the state that they are applied to.

What **orders** is chosen by `[engine] kind` in member.toml, and nothing outside its own room looks inside it: the
driver gives it events and carries out its effects, the status asks how it stands. It decides the order of entries, who
is primary, and for how long a member may answer by itself. One is there, `embedded`: the replica (`replication/`), the
project's own primary and backups.

The **state** is each member's own database whatever orders (`disk/`): the entries applied so far, read by key. So a
change of what orders moves no item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from lnh_common.errors import LnhError
from lnh_common.messages.store import Item, Key, MemberInfo, Scan
from lnh_services.configuration import EngineKind
from lnh_services.store.log.entries import ClusterId, Epoch, MemberId, Milliseconds
from lnh_services.store.log.window import Base, Removed
from lnh_services.store.machine.apply import Answer
from lnh_services.store.replication.messages import (
    Durable,
    Effect,
    Erase,
    Install,
    Instant,
    Message,
    Order,
    Persist,
    ReadId,
    RequestId,
)
from lnh_services.store.replication.reads import Interest
from lnh_services.store.replication.replica import Replica
from lnh_services.store.replication.standing import Phase, Standing


class Ordering(Protocol):
    """Orders entries. Pure: events come in with the time, effects come out, and the end of one is another event."""

    # What stands

    @property
    def incarnation(self) -> bytes:
        """The random id of this start."""

    @property
    def cluster(self) -> ClusterId:
        """The cluster; empty without one."""

    @property
    def member(self) -> MemberId:
        """The id of this member; empty without a cluster."""

    @property
    def phase(self) -> Phase:
        """The phase of this member."""

    @property
    def primary(self) -> MemberId:
        """The primary as this member knows it; empty while it knows none."""

    @property
    def members(self) -> tuple[MemberInfo, ...]:
        """The members in force: whom this member speaks with."""

    @property
    def listed(self) -> tuple[MemberInfo, ...]:
        """The members that the log lists; `members` may leave out some of them."""

    @property
    def removed(self) -> tuple[Removed, ...]:
        """The last members that the log removed, who are to learn of it."""

    @property
    def applied(self) -> int:
        """The index up to which all is in the state on disk."""

    @property
    def applied_time(self) -> Milliseconds:
        """The log time of the last entry that is in the state on disk."""

    @property
    def is_installing(self) -> bool:
        """Tell whether a snapshot is about to take the place of log and state."""

    def is_current(self, now: Instant) -> bool:
        """Tell whether this member is read-write: writes are taken and reads are current."""

    def current_until(self, now: Instant) -> float:
        """Return the boot seconds beyond which no worker lease may reach while this member is current."""

    def standing(self, now: Instant) -> Standing:
        """Return how this member stands, to be shown and to be asked what may be done."""

    # Beginning and end

    def create(self, now: Instant, request: RequestId, cluster: ClusterId, member: MemberInfo) -> list[Effect]:
        """Found a cluster of this member alone."""

    def adopt(
        self, now: Instant, request: RequestId, cluster: ClusterId, member: MemberInfo, members: tuple[MemberInfo, ...]
    ) -> list[Effect]:
        """Begin, empty, as a member of a cluster that has just listed this one."""

    def recover(self, now: Instant, found: Durable) -> list[Effect]:
        """Take up the state that an earlier incarnation left."""

    def destroy(self, now: Instant, request: RequestId) -> list[Effect]:
        """Erase the whole state of this member."""

    # What is asked

    def submit(self, now: Instant, request: RequestId, order: Order) -> list[Effect]:
        """Ask for a change of the cluster, answered by one Reply. It begins with the next `flush`, or earlier."""

    def flush(self, now: Instant) -> list[Effect]:
        """Begin the next step with all that was submitted, unless one is under way."""

    def take_over(self, now: Instant, request: RequestId, lost: frozenset[MemberId], *, force: bool) -> list[Effect]:
        """Become primary in place of a member that is lost for good. Answered by one Reply."""

    def acknowledge_divergence(self, now: Instant, request: RequestId) -> list[Effect]:
        """Note that an administrator has looked at the dropped entries."""

    def read(self, now: Instant, read: ReadId, interest: Interest | None) -> list[Effect]:
        """Serve a read now, or once the fate of what it looks at is known (with None: of everything)."""

    def withdraw_read(self, read: ReadId) -> None:
        """Drop a read whose deadline passed."""

    # What happens

    def receive(self, now: Instant, sender: MemberId, message: Message) -> list[Effect]:
        """Take in a message of another store."""

    def wants_snapshot(self, epoch: Epoch) -> bool:
        """Tell whether a snapshot for this epoch may be of use."""

    def offered(self, now: Instant, sender: MemberId, snapshot: int, epoch: Epoch, base: Base) -> list[Effect]:
        """Take in another member's snapshot that has arrived whole."""

    def tick(self, now: Instant) -> list[Effect]:
        """Let time pass."""

    def persisted(self, now: Instant, number: int, answers: Mapping[int, Answer]) -> list[Effect]:
        """Take in that a step is durable; `answers` are of the writes applied with it, by index."""

    def may_withdraw(self, step: Persist | Install | Erase) -> bool:
        """Tell whether a step that the disk refused may be given up; any other is tried until the disk takes it."""

    def refused(self, now: Instant, number: int, error: LnhError) -> list[Effect]:
        """Take in that the disk took nothing of a step that may be withdrawn."""

    def invalidated(self, now: Instant, number: int) -> list[Effect]:
        """Take in that every cache dropped what an invalidation named."""


class State(Protocol):
    """Reads the applied state, as the last durable step left it. Raises StorageFailed, SealBroken."""

    def get(self, key: Key, *, body: bool) -> Item | None:
        """Return an item, or None; without `body` its body is empty."""

    def scan(self, scan: Scan) -> tuple[list[Item], bool]:
        """Return a page of items, and whether there are more."""

    def scopes(self, table: str, after: bytes | None, limit: int) -> tuple[list[bytes], bool]:
        """Return a page of the scopes of a table, and whether there are more."""

    def count(self, table: str, scope: bytes) -> int:
        """Count the items of a scope."""

    def recall(self, client: bytes, session: bytes, sequence: int) -> Answer | None:
        """Return what became of a write by its name, or None."""


_ORDERINGS: Final[dict[EngineKind, Callable[[bytes], Ordering]]] = {EngineKind.EMBEDDED: Replica}


def ordering(kind: EngineKind, incarnation: bytes) -> Ordering:
    """Make what orders entries, of this kind, for a start with this incarnation."""
    return _ORDERINGS[kind](incarnation)
