"""One member's end of the replicated log. Pure: events in, effects out.

Theory
======

Primary/backup with leases, after PacificA (Lin et al., Microsoft Research TR-2008-25); an administrator takes the
place of its configuration manager. Events come in as method calls with the time; what must be done comes out as
effects (`messages.py`). The caller carries them out - disk, caches, other members - and reports back with
further events. Nothing here looks at a clock, a socket or a disk, so the same code runs in production and in a
simulator.

An **epoch** `(term, candidate)` is one primary's time in office. A member **promises** an epoch durably before it
takes part in it, and from then on heeds nothing of a lower one. The member that opens an epoch gathers promises, takes
the greatest log among those it got, and appends the epoch's `open`: the members, and those that a commit waits for (the
**in-sync set**). A member acts by its role, and each role is a class of its own:

    NONE -- create, adopt, recover
      |
      v                    heard of a higher epoch
    Follower <--------------------------------------- Candidate, Primary
      |  restart as primary; reclaim; take over            ^
      v                                                    |
    Candidate: asks, gathers promises, fetches the greatest log, appends `open`
                                                           |
    Primary (opening): waits for the open's commit ---> serving ---> handing over

`follower.py`, `candidate.py` and `primary.py` hold the roles. What they share is in `member.py`, which is put together
of the log (`log/window.py`), what caches are told to drop (`caches.py`) and what reads wait for (`reads.py`):

**The durable step.** One at a time goes to the disk, with all that waited: promise, entries, what is dropped from the
log's end, how far all is committed. So a hundred writers cost one fsync, and no two parts of the disk disagree.

**Acknowledgement.** A member acknowledges an entry once it is durable here *and* every cache of this member has
dropped what it touches, and (a follower) only as far as its log was matched with this epoch's primary.

**Commit.** Entry k commits when every member of the last set at or before k has acknowledged k or more; that commits
everything before it. Nothing commits in an epoch before its `open`. Committed entries are applied with the next step.

**Reads.** While the fate of an entry is unknown, reads of what it touches wait: until it is applied, and in no cache
of this member, or until the lease ends and applied state is all that is promised. A read waits only for
entries that were there when it came, so no stream of writes can starve it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from lnh_common.errors import LnhError, NoCluster, NotPossible, OutcomeUnknown
from lnh_common.messages.store import MemberInfo
from lnh_services.store.log import entries
from lnh_services.store.log.entries import ClusterId, Epoch, MemberId, Milliseconds
from lnh_services.store.log.window import Base, Configuration, History, Removed
from lnh_services.store.machine.apply import Answer
from lnh_services.store.replication.caches import NOTHING_BEFORE
from lnh_services.store.replication.candidate import Candidate
from lnh_services.store.replication.follower import Follower
from lnh_services.store.replication.member import Handing, Local, Origin
from lnh_services.store.replication.messages import (
    Append,
    Ask,
    Durable,
    Effect,
    Erase,
    Expelled,
    Install,
    Instant,
    Keep,
    Kept,
    Message,
    Order,
    Persist,
    Pong,
    Prepare,
    ReadId,
    Rejected,
    Reply,
    RequestId,
)
from lnh_services.store.replication.primary import Primary
from lnh_services.store.replication.reads import Interest

__all__ = ["Interest", "Phase", "Replica"]


class Phase(enum.Enum):
    """The phase of this member: from holding no cluster to primary or expelled."""

    NONE = "none"  # no cluster
    MEMBER = "member"  # follows a primary, or looks for one
    OPENING = "opening"  # gathers promises for an epoch of its own, or has appended its `open`
    PRIMARY = "primary"  # its `open` is committed
    EXPELLED = "expelled"


class Replica(Local):
    """One member's end of the replicated log; `incarnation` is drawn at random at each start."""

    # What stands

    @property
    def phase(self) -> Phase:
        """The phase of this member."""
        if self.expelled is not None:
            return Phase.EXPELLED
        if self.role is None:
            return Phase.NONE
        if isinstance(self.role, Follower):
            return Phase.MEMBER
        return Phase.PRIMARY if self.is_serving() else Phase.OPENING

    @property
    def primary(self) -> MemberId:
        """The primary as this member knows it; empty while it knows none."""
        return self.role.primary if self.role is not None else MemberId(b"")

    def is_serving(self) -> bool:
        """Tell whether this member is primary, and its `open` is committed."""
        return isinstance(self.role, Primary) and self.role.serving

    def is_current(self, now: Instant) -> bool:
        """Tell whether this member is read-write: writes are taken and reads are current."""
        return self.expelled is None and self.role is not None and self.role.is_current(now)

    def current_until(self, now: Instant) -> float:
        """Return the boot seconds beyond which no worker lease may reach while this member is current."""
        assert self.role is not None, "a lease without a cluster"
        return self.role.current_until(now)

    # Beginning and end

    def create(self, now: Instant, request: RequestId, cluster: ClusterId, member: MemberInfo) -> list[Effect]:
        """Found a cluster of this member alone."""
        self._found(cluster, member, Configuration())
        self.promise(entries.NO_EPOCH.following(self.member))
        opening = entries.Open((member,), (self.member,))
        self.role = Primary(self, now, opening, origin=request)
        return self._done(now)

    def adopt(
        self, now: Instant, request: RequestId, cluster: ClusterId, member: MemberInfo, members: tuple[MemberInfo, ...]
    ) -> list[Effect]:
        """Begin, empty, as a member of a cluster that has just listed this one."""
        self._found(cluster, member, Configuration(members=members))
        self.role = Follower(self, now)
        self._asked[NOTHING_BEFORE] = request  # answered by whatever becomes of the beginning
        self.when_durable(lambda: self.answer(self._asked.pop(NOTHING_BEFORE), 0))
        return self._done(now)

    def _found(self, cluster: ClusterId, member: MemberInfo, configuration: Configuration) -> None:
        assert self.role is None, "a beginning over a cluster"
        self.cluster, self.member = cluster, MemberId(member.id)
        base = Base(entries.genesis(cluster), Milliseconds(0), configuration)
        self.history = History(base)
        self._refused = False
        self._wanted["found"] = (cluster, self.member, base)
        self.invalidate_everything()

    def recover(self, now: Instant, found: Durable) -> list[Effect]:
        """Take up the state that an earlier incarnation left: it has no lease, and a primary opens the next epoch."""
        assert self.role is None, "a recovery happens once, at the start"
        assert found.is_sound(), "the durable state contradicts itself"
        self.cluster, self.member = found.cluster, found.member
        self.promised, self.kept = found.promised, found.kept
        self.diverged, self.expelled = found.diverged, found.expelled
        self.history = History(found.base, found.entries)
        self.committed = self.applied = self._handed = found.committed
        self.durable = self._written = self.history.last.index
        for entry in self.history.between(self.applied, self.durable):
            self._note_touches(entry)
        self.invalidate_everything()
        self.role = Follower(self, now)
        if self.expelled is None and self.was_primary():
            self.reopen(now, self.promised)
        return self._done(now)

    def destroy(self, now: Instant, request: RequestId) -> list[Effect]:
        """Erase the whole state of this member."""
        self.release(0, OutcomeUnknown("this member's state is being erased"))
        if self.role is not None:
            self.role.leave(now)
        self.role = None
        self._erasing = request
        self._refused = False
        self.invalidate_everything()
        return self._done(now)

    # What is asked

    def submit(self, now: Instant, request: RequestId, order: Order) -> list[Effect]:
        """Ask for a change of the cluster, answered by one Reply. It begins with the next `flush`, or earlier."""
        self.take(now, request, order)
        out, self._out = self._out, []
        return out

    def take(self, now: Instant, origin: Origin, order: Order) -> None:
        """Give an order to the role; refuse it without a cluster."""
        if self.role is None:
            self.answer(origin, NoCluster("this member's store holds no cluster"))
        elif self.expelled is not None:
            self.answer(origin, NotPossible("this member was removed from the cluster"))
        else:
            self.role.take(now, origin, order)

    def flush(self, now: Instant) -> list[Effect]:
        """Begin the next step with all that was submitted, unless one is under way."""
        return self._done(now)

    def take_over(self, now: Instant, request: RequestId, lost: frozenset[MemberId], *, force: bool) -> list[Effect]:
        """Become primary in place of a member that is lost for good. Answered by one Reply.

        Args:
            lost: members that will be none any more, the primary among them.
            force: go on without the word of members that do not answer; writes that only they know are lost.
        """
        refusal = self._why_not_take_over(now, lost, force=force)
        if refusal is not None:
            self.answer(request, refusal)
        else:
            self.role = Candidate(self, now, self.promised, lost=lost, force=force, origin=request)
        return self._done(now)

    def _why_not_take_over(self, now: Instant, lost: frozenset[MemberId], *, force: bool) -> LnhError | None:
        if not isinstance(self.role, Follower) or self.expelled is not None:
            return NotPossible(f"this member is {self.phase.value}; a take-over starts at one that follows a primary")
        if not self.history.last.index:
            return NotPossible("this member holds nothing of the cluster yet; a take-over starts at one that does")
        if not lost or not lost < set(self.ids) or self.member in lost:
            return NotPossible("the lost must be members, and not all of them, nor this one")
        if self.role.is_current(now):
            return NotPossible("the primary answers: promote another member, then remove it")
        candidate = self.configuration.candidate
        if candidate in self.others and candidate not in lost:
            return NotPossible("the primary is not among the lost: remove the others through it")
        if len(lost) > 1 and not force:
            return NotPossible(f"{len(lost)} members named as lost; more than the primary needs force")
        return None

    def acknowledge_divergence(self, now: Instant, request: RequestId) -> list[Effect]:
        """Note that an administrator has looked at the dropped entries."""
        self.diverged = False
        self._wanted["diverged"] = False
        self.when_durable(lambda: self._out.append(Reply(request, 0)))
        return self._done(now)

    # Reads

    def read(self, now: Instant, read: ReadId, interest: Interest | None) -> list[Effect]:
        """Serve a read now, or once the fate of what it looks at is known (with None: of everything)."""
        self._begin_read(now, read, interest)
        return self._done(now)

    def withdraw_read(self, read: ReadId) -> None:
        """Drop a read whose deadline passed."""
        self._reads.withdraw(read)

    # What happens

    def receive(self, now: Instant, sender: MemberId, message: Message) -> list[Effect]:
        """Take in a message of another store."""
        if self.role is None or self.expelled is not None:
            return self._done(now)
        if not self.heeds(sender):
            self._hear_stranger(now, sender, message)
        elif isinstance(message, Expelled):
            self._be_expelled(now, message.removed)
        elif isinstance(message, Ask):
            self.send(sender, self.report(entries.NO_EPOCH))
        elif isinstance(message, Prepare | Keep):
            self._open_for(now, sender, message)
        else:
            if (
                isinstance(message, Append | Pong)
                and message.epoch > self.promised
                and message.epoch.candidate == sender
            ):
                self.follow(now, message.epoch)
            self.role.receive(now, sender, message)
        return self._done(now)

    def _hear_stranger(self, now: Instant, sender: MemberId, message: Message) -> None:
        """Tell a store that is of no member why it is none, and heed nothing else of it."""
        if isinstance(message, Expelled):
            # Two sides that removed each other: the higher epoch stays.
            if message.removed.epoch >= self.history.last.epoch:
                self._be_expelled(now, message.removed)
            return
        for removed in self.expelling():
            if removed.member == sender:
                self.send(sender, Expelled(removed))

    def _be_expelled(self, now: Instant, removed: Removed) -> None:
        if removed.member != self.member:
            return
        self.expelled = removed
        self._wanted["expelled"] = removed
        self.release(0, OutcomeUnknown("this member was removed from the cluster"))
        if self.role is not None:
            self.role.leave(now)
        self.clear_caches()
        self.say("expelled", epoch=str(removed.epoch), index=removed.index)

    def _open_for(self, now: Instant, sender: MemberId, message: Prepare | Keep) -> None:
        """Promise the epoch that a member opens, or keep its `open`."""
        epoch = message.epoch if isinstance(message, Prepare) else message.open.epoch
        if epoch.candidate != sender:
            return
        if epoch < self.promised:
            self.send(sender, Rejected(self.promised))
            return
        if epoch > self.promised:
            self.follow(now, epoch)
        if isinstance(message, Keep):
            self.keep(message.open)
            self.when_durable(lambda: self.send(sender, Kept(epoch)))
        else:
            self.when_durable(lambda: self._send_promise(sender, epoch))

    def _send_promise(self, sender: MemberId, epoch: Epoch) -> None:
        if epoch == self.promised:
            self.send(sender, self.report(epoch))

    def wants_snapshot(self, epoch: Epoch) -> bool:
        """Tell whether a snapshot for this epoch may be of use."""
        return self.role is not None and self.expelled is None and epoch == self.promised

    def offered(self, now: Instant, sender: MemberId, snapshot: int, epoch: Epoch, base: Base) -> list[Effect]:
        """Take in another member's snapshot that has arrived whole; it is installed by an Install, or not at all."""
        if self.wants_snapshot(epoch) and self._offer is None:
            self._offer = (sender, snapshot, base)
        return self._done(now)

    def tick(self, now: Instant) -> list[Effect]:
        """Let time pass; called every LOOKS_MS while there are other members, and after the disk refused a step."""
        self._refused = False
        if self.role is not None and self.expelled is None:
            self.role.tick(now)
        return self._done(now)

    # Outcomes

    def persisted(self, now: Instant, number: int, answers: Mapping[int, Answer]) -> list[Effect]:
        """Take in that a step is durable; `answers` are of the writes applied with it, by index."""
        self._end_step(number, answers)
        return self._done(now)

    def refused(self, now: Instant, number: int, error: LnhError) -> list[Effect]:
        """Take in that the disk took nothing of the step, for want of room.

        Only a step that `may_withdraw` is given up: its requests are answered with the error, and the next `tick` goes
        on. Any other step stays asked for, because other members may know of it: the caller tries it again until the
        disk takes it.
        """
        step = self._step
        assert isinstance(step, Persist), "only what can be undone is refused"
        assert step.number == number, "the disk refused another step than was asked for"
        assert self.may_withdraw(step), "what others may know of is not taken back"
        self._withdraw(step, error)
        return self._done(now)

    def may_withdraw(self, step: Persist | Install | Erase) -> bool:
        """Tell whether a step that the disk refused never was: a creation, or the writes of a member alone."""
        if not isinstance(step, Persist):
            return False
        return step.found is not None or (not self.others and self.is_serving())

    def invalidated(self, now: Instant, number: int) -> list[Effect]:
        """Take in that an invalidation is over: every cache dropped what it named; late words change nothing."""
        if self._invalidations.end(number) and self.role is not None:
            self.role.invalidated(now, number)
        return self._done(now)

    # Roles

    def follow(self, now: Instant, epoch: Epoch) -> None:
        """Promise a higher epoch of another member, and become an ordinary member in it."""
        leased = self.role is not None and self.role.is_current(now)
        self.promise(epoch)
        self.rest(now, leased=leased)

    def rest(self, now: Instant, handing: Handing | None = None, *, leased: bool = False) -> None:
        """Become an ordinary member in the epoch promised last."""
        before, self.role = self.role, Follower(self, now, handing, leased=leased)
        if before is not None:
            before.leave(now)

    def reopen(self, now: Instant, above: Epoch) -> None:
        """Open an epoch above `above` and all promised here, as the primary by this member's own log."""
        before, configuration = self.role, self.configuration
        never_served = self.committed < configuration.opened
        required = frozenset(configuration.awaits if never_served else ()) & frozenset(self.others)
        self.role = Candidate(self, now, above, required=required)
        if before is not None:
            before.leave(now)
