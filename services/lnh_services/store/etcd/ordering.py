"""Orders one member's entries through etcd. Pure: events in, effects out.

etcd decides the order, the primary and its fence (`place.py`), and keeps the log's tail. Everything else is as the
replica has it (`replication/replica.py`), whose parts this one is made of: entries, the durable step, caches, reads,
requests, snapshots; the primary feeds the members, a commit waits for all of the in-sync set, and leases make members
read-write.

    Observer: follows; takes the lead when the primary is silent, or asks for it    (observer.py)
    Leader: has etcd order what is appended, under its fence; renews its authority   (leader.py)
    Stopped: etcd does not hold what is applied here                                (stopped.py)

So an entry is acknowledged once it is in etcd *and* every member of the set has it on disk, and its caches have dropped
what it touches. Only ordered entries reach a disk: logs never part, nothing is ever dropped, and a promise is but the
newest epoch a member has heard of.

What must hold, beside what replica.py says:

- entries are written under the current fence alone, and follow the head;
- an entry in etcd is in the log of whoever takes the lead;
- every lease ends before the authority of the primary that granted it, and the authority before another takes the lead
  unasked;
- what may have been ordered is proposed again as it is, or never;
- a member that etcd contradicts stops.
"""

from __future__ import annotations

from lnh_common.messages.store import MemberInfo
from lnh_services.store.etcd.leader import Leader
from lnh_services.store.etcd.observer import Founding, Observer
from lnh_services.store.etcd.requests import EtcdId, Outcome
from lnh_services.store.etcd.stopped import Stopped
from lnh_services.store.log import entries
from lnh_services.store.log.entries import ClusterId, Entry, Epoch, MemberId, Milliseconds
from lnh_services.store.log.window import Base, Configuration
from lnh_services.store.replication.durability import Step
from lnh_services.store.replication.messages import (
    Effect,
    Instant,
    Keep,
    Message,
    Persist,
    Prepare,
    RequestId,
)
from lnh_services.store.replication.replica import Replica
from lnh_services.store.replication.role import Handing, Role


class EtcdOrdering(Replica):
    """One member's end of a log that etcd orders; `incarnation` is drawn at random at each start."""

    @property
    def is_stopped(self) -> bool:
        """Tell whether this member stopped, because etcd does not hold what it has applied."""
        return isinstance(self.role, Stopped)

    # Beginning

    def create(self, now: Instant, request: RequestId, cluster: ClusterId, member: MemberInfo) -> list[Effect]:
        """Found a cluster of this member alone: nothing is on disk before etcd has it."""
        assert self.role is None, "a beginning over a cluster"
        base = Base(entries.genesis(cluster), Milliseconds(0), Configuration())
        self._known.found(cluster, MemberId(member.id), base)
        self._disk.try_again()
        self._local.invalidate_everything()
        self.role = Observer(self._local, self, now, founding=Founding(request, cluster, member, base))
        return self._done(now)

    # What is asked

    def take_over(self, now: Instant, request: RequestId, lost: frozenset[MemberId], *, force: bool) -> list[Effect]:
        """Become primary in place of a member that is lost for good, and remove the lost. Answered by one Reply.

        Args:
            lost: members that will be none any more, the primary among them.
            force: as for any engine; here nothing is ever lost with a member.
        """
        refusal = self._why_not_take_over(now, lost, force=force)
        if refusal is not None:
            self._out.answer(request, refusal)
        else:
            assert isinstance(self.role, Observer), "an ordinary member takes over"
            self.role.take_over(now, request, lost)
        return self._done(now)

    # What happens

    def receive(self, now: Instant, sender: MemberId, message: Message) -> list[Effect]:
        """Take in a message of another store; a member that stopped heeds none."""
        return self._done(now) if self.is_stopped else super().receive(now, sender, message)

    def _open_for(self, now: Instant, sender: MemberId, message: Prepare | Keep) -> None:
        """Do nothing: etcd names the primary, and nobody else's word is asked for."""

    def etcd_answered(self, now: Instant, id_: EtcdId, outcome: Outcome) -> list[Effect]:
        """Take in the outcome of a request; nobody waits for that of a role which acts no more."""
        if isinstance(self.role, Observer | Leader) and self.expelled is None:
            self.role.asks.answered(now, id_, outcome)
        return self._done(now)

    def may_withdraw(self, step: Step) -> bool:
        """Tell whether a step that the disk refused never was: what etcd ordered always was."""
        return isinstance(step, Persist) and step.found is not None and not step.entries

    def _dropped_for(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """Return nothing: what leaves the log for a snapshot is ordered, and part of it."""
        return ()

    # Roles

    def _following(self, now: Instant, handing: Handing | None = None, *, leased: bool = False) -> Role:
        """Make the role of an ordinary member."""
        return Observer(self._local, self, now, handing, leased=leased)

    def reopen(self, now: Instant, above: Epoch) -> None:
        """Take the lead again, above `above`, if it is still this member's."""
        before, self.role = self.role, Observer(self._local, self, now, above=above.term)
        if before is not None:
            before.leave(now)

    def give_way(self, now: Instant, epoch: Epoch) -> None:
        """Become an ordinary member, in the epoch of another primary."""
        if epoch > self.promised:
            self.follow(now, epoch)
        else:
            self.rest(now)

    def stop(self, now: Instant) -> None:
        """Stop for good, because etcd does not hold what this member has applied."""
        before, self.role = self.role, Stopped(self._local, self, now)
        if before is not None:
            before.leave(now)
        self._local.clear_caches()
        self._out.say("stopped: etcd went back", index=self.history.last.index)

    def give_up(self) -> None:
        """Hold no cluster, because none could be founded."""
        self._clear()
