"""Knows what a member holds of the cluster: its log, how far that is committed, what it promised, the members. Pure."""

from __future__ import annotations

from typing import Final

from lnh_common.messages.store import MemberInfo
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import ClusterId, Entry, Epoch, MemberId, Milliseconds, Position
from lnh_services.store.log.window import Base, Configuration, History, Removed
from lnh_services.store.replication.messages import Durable, Report


class Knowledge:
    """One member's own knowledge; what of it is not on disk yet the next durable step brings there."""

    def __init__(self, incarnation: bytes) -> None:
        self.incarnation: Final = incarnation
        self.clear()

    def clear(self) -> None:
        """Know of no cluster."""
        self.cluster = ClusterId(b"")
        self.member = MemberId(b"")
        self.history = History(Base(Position(log.NO_EPOCH, 0, b""), Milliseconds(0), Configuration()))
        self.promised = log.NO_EPOCH
        self.kept: Entry | None = None
        self.diverged = False
        self.expelled: Removed | None = None
        self.committed = 0  # known to be
        self.applied = 0  # and in the state on disk
        self._ordered: int | None = None
        self._vouched_for = log.NO_EPOCH  # an epoch that a listed member has committed in

    def found(self, cluster: ClusterId, member: MemberId, base: Base) -> None:
        """Begin as a member of a cluster, with a log that follows a base."""
        self.cluster, self.member = cluster, member
        self.history = History(base)

    def recover(self, found: Durable) -> None:
        """Take up what an earlier incarnation left on disk."""
        self.cluster, self.member = found.cluster, found.member
        self.promised, self.kept = found.promised, found.kept
        self.diverged, self.expelled = found.diverged, found.expelled
        self.history = History(found.base, found.entries)
        self.committed = self.applied = found.committed

    def install(self, base: Base, *, aside: bool) -> None:
        """Take a snapshot's base in place of the log; `aside`: what was applied before is not part of it."""
        self.diverged = self.diverged or aside
        self.history = History(base)
        self.committed = self.applied = base.position.index

    # The log

    @property
    def configuration(self) -> Configuration:
        """The configuration of the cluster at the log's end, committed or not."""
        return self.history.configuration

    def committed_configuration(self) -> Configuration:
        """Return the configuration of the cluster at the commit index."""
        return self.history.configuration_at(self.committed)

    def expelling(self) -> tuple[Removed, ...]:
        """Return the members that were removed for certain: by committed entries only."""
        return self.committed_configuration().removed

    @property
    def ordered(self) -> int:
        """The index up to which the log's entries are certain of their place: all of it, unless something else orders.

        What comes after it neither the disk nor another member hears of.
        """
        return self.history.last.index if self._ordered is None else self._ordered

    @property
    def ordered_end(self) -> Position:
        """The position of the last entry that is certain of its place."""
        position = self.history.position(self.ordered)
        assert position is not None, "what is ordered last is kept, at least as the base"
        return position

    def order(self, index: int | None) -> None:
        """Note how far entries are certain of their place; None: each is as soon as it is appended."""
        self._ordered = index

    def commit(self, index: int) -> None:
        """Note that everything up to `index` is committed."""
        assert index <= self.history.last.index, "committing beyond the log"
        self.committed = max(self.committed, index)

    # The members

    @property
    def members(self) -> tuple[MemberInfo, ...]:
        """The member list in force: the log's, or that of an `open` kept before the log reached it."""
        if self.kept is not None and self.kept.epoch > self.history.last.epoch:
            content = self.kept.content()
            assert isinstance(content, log.Open), "an open is kept"
            return content.members
        return self.configuration.members

    @property
    def ids(self) -> tuple[MemberId, ...]:
        """The ids of the members in force."""
        return tuple(MemberId(member.id) for member in self.members)

    @property
    def others(self) -> tuple[MemberId, ...]:
        """The ids of the members in force but this one."""
        return tuple(id_ for id_ in self.ids if id_ != self.member)

    def heeds(self, sender: MemberId) -> bool:
        """Tell whether a sender's messages are acted on: a member's, or those of a candidate that one vouched for."""
        return sender in self.ids or sender == self.vouched_for

    @property
    def vouched_for(self) -> MemberId:
        """The candidate of an epoch above all that is held here, in which a listed member says it committed.

        Entries that are held here and not part of that epoch's log can never be committed any more, nor can the member
        list that they brought: a take-over may have left it behind whose one candidate went another way before it
        served.
        """
        held = self.history.last.epoch if self.kept is None else max(self.history.last.epoch, self.kept.epoch)
        candidate = self._vouched_for.candidate
        if self._vouched_for <= held or any(removed.member == candidate for removed in self.expelling()):
            return MemberId(b"")
        return candidate

    def vouch(self, epoch: Epoch) -> None:
        """Note that a listed member has committed an entry of this epoch."""
        self._vouched_for = max(self._vouched_for, epoch)

    def was_primary(self) -> bool:
        """Tell whether the newest epoch that this member knows to have been opened is its own."""
        kept = self.kept.epoch if self.kept is not None else log.NO_EPOCH
        return self.configuration.candidate == self.member and kept <= self.history.last.epoch

    def report(self, epoch: Epoch, *, primary: bool = False) -> Report:
        """Make the report of how this member stands.

        Args:
            epoch: the one promised with it.
            primary: this member is primary, and its `open` is committed.
        """
        committed = self.history.position(self.committed)
        assert committed is not None, "what is committed is kept, at least as the base"
        return Report(
            epoch=epoch,
            promised=self.promised,
            last=self.history.last,
            committed=committed,
            members=self.members,
            in_sync=self.configuration.in_sync,
            longest_ms=self.configuration.longest_ms,
            outline=self.history.outline(self.committed),
            kept=self.kept,
            primary=primary,
        )
