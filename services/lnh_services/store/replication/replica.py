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

`follower.py`, `candidate.py` and `primary.py` hold the roles. The replica puts together what a member has whatever its
role, and gives a role what it uses: what is known (`knowledge.py`, with the log of `log/window.py`), the disk's step
(`durability.py`), what caches are told to drop (`caches.py`), what reads wait for (`reads.py`), which requests wait
(`requests.py`), what is said (`outbox.py`), and the changes that concern several of these (`member.py`). A role asks
the replica for nothing but another role in its place (`Office` in `role.py`):

**The durable step.** One at a time goes to the disk, with all that waited: promise, entries, what is dropped from the
log's end, how far all is committed. So a hundred writers cost one fsync, and no two parts of the disk disagree.

**Acknowledgement.** A member acknowledges an entry once it is durable here *and* every cache of this member has
dropped what it touches, and (a follower) only as far as its log was matched with this epoch's primary. That is said
once for all entries of a step; what brings nothing new is answered at once, since the answer before may be lost.

**Commit.** Entry k commits when every member of the last set at or before k has acknowledged k or more; that commits
everything before it. Nothing commits in an epoch before its `open`. Committed entries are applied with the next step.
A follower hears of it with the entries that come next; where none do, once the primary has applied it.

**Reads.** While the fate of an entry is unknown, reads of what it touches wait: until it is applied, and in no cache
of this member, or until the lease ends and applied state is all that is promised. A read waits only for
entries that were there when it came, so no stream of writes can starve it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lnh_common.errors import LnhError, NoCluster, NotPossible, OutcomeUnknown
from lnh_common.messages.store import MemberInfo
from lnh_services.store.log import entries
from lnh_services.store.log.entries import ClusterId, Entry, Epoch, MemberId, Milliseconds
from lnh_services.store.log.window import Base, Configuration, History, Removed
from lnh_services.store.machine.apply import Answer
from lnh_services.store.replication.caches import NOTHING_BEFORE, Invalidations
from lnh_services.store.replication.candidate import Candidate
from lnh_services.store.replication.durability import Durability, Step
from lnh_services.store.replication.follower import Follower
from lnh_services.store.replication.knowledge import Knowledge
from lnh_services.store.replication.member import Local
from lnh_services.store.replication.messages import (
    Append,
    Ask,
    Durable,
    Effect,
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
    Report,
    RequestId,
    Serve,
)
from lnh_services.store.replication.outbox import Origin, Outbox
from lnh_services.store.replication.primary import Primary
from lnh_services.store.replication.reads import Interest, Reads
from lnh_services.store.replication.requests import Requests
from lnh_services.store.replication.role import Handing, Role
from lnh_services.store.replication.standing import Phase, Standing

__all__ = ["Interest", "Phase", "Replica"]


class Replica:
    """One member's end of the replicated log; `incarnation` is drawn at random at each start."""

    def __init__(self, incarnation: bytes) -> None:
        self._out: Final = Outbox(incarnation)
        self._known: Final = Knowledge(incarnation)
        self._disk: Final = Durability(self._known, self._out, self._projected)
        self._caches: Final = Invalidations()
        self._reads: Final = Reads()
        self._requests: Final = Requests(self._out)
        self._local: Final = Local(self._known, self._disk, self._caches, self._reads, self._requests, self._out)
        self.role: Role | None = None

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

    @property
    def incarnation(self) -> bytes:
        """The random id of this start."""
        return self._known.incarnation

    @property
    def cluster(self) -> ClusterId:
        """The cluster; empty without one."""
        return self._known.cluster

    @property
    def member(self) -> MemberId:
        """The id of this member; empty without a cluster."""
        return self._known.member

    @property
    def promised(self) -> Epoch:
        """The highest epoch that this member promised."""
        return self._known.promised

    @property
    def history(self) -> History:
        """The log, to be looked at."""
        return self._known.history

    @property
    def committed(self) -> int:
        """The index up to which all is known to be committed."""
        return self._known.committed

    @property
    def applied(self) -> int:
        """The index up to which all is in the state on disk."""
        return self._known.applied

    @property
    def members(self) -> tuple[MemberInfo, ...]:
        """The member list in force."""
        return self._known.members

    @property
    def listed(self) -> tuple[MemberInfo, ...]:
        """The members that the log lists; an `open` kept beside it may leave out some of them."""
        return self._known.configuration.members

    @property
    def removed(self) -> tuple[Removed, ...]:
        """The last members that the log removed, committed or not."""
        return self._known.configuration.removed

    @property
    def applied_time(self) -> Milliseconds:
        """The log time of the last entry that is in the state on disk."""
        return self._known.history.time_of(self._known.applied)

    @property
    def ids(self) -> tuple[MemberId, ...]:
        """The ids of the members in force."""
        return self._known.ids

    @property
    def configuration(self) -> Configuration:
        """The configuration of the cluster at the log's end, committed or not."""
        return self._known.configuration

    def committed_configuration(self) -> Configuration:
        """Return the configuration of the cluster at the commit index."""
        return self._known.committed_configuration()

    def expelling(self) -> tuple[Removed, ...]:
        """Return the members that were removed for certain."""
        return self._known.expelling()

    @property
    def expelled(self) -> Removed | None:
        """How this member was removed from the cluster, if it was."""
        return self._known.expelled

    @property
    def diverged(self) -> bool:
        """Whether this member dropped what it had applied, and no administrator has looked yet."""
        return self._known.diverged

    @property
    def is_installing(self) -> bool:
        """Tell whether a snapshot is about to take the place of log and state."""
        return self._disk.is_installing

    def standing(self, now: Instant) -> Standing:
        """Return how this member stands."""
        known, configuration = self._known, self._known.configuration
        primary, in_sync = self.primary, configuration.in_sync
        return Standing(
            phase=self.phase,
            is_joining=known.member in dict(configuration.joining) or not configuration.opened,
            primary=primary,
            term=known.promised.term,
            in_sync=in_sync,
            promotable=self.role.promotable() if self.role is not None else None,
            take_over_of=(primary,) if primary else known.others,
            catching_up=tuple(id_ for id_ in (*known.others, known.member) if id_ not in in_sync) if in_sync else (),
            last=known.history.last.index,
            committed=known.committed,
            applied=known.applied,
            groups=configuration.groups,
            removed=known.expelling(),
            lags=self.role.lags() if self.role is not None else (),
            lease_settings=known.committed_configuration().lease_settings,
            diverged=known.diverged,
            expelled=known.expelled,
        )

    # Beginning and end

    def create(self, now: Instant, request: RequestId, cluster: ClusterId, member: MemberInfo) -> list[Effect]:
        """Found a cluster of this member alone."""
        self._found(cluster, member, Configuration())
        self._local.promise(entries.NO_EPOCH.following(self.member))
        opening = entries.Open((member,), (self.member,))
        self.role = Primary(self._local, self, now, opening, origin=request)
        return self._done(now)

    def adopt(
        self, now: Instant, request: RequestId, cluster: ClusterId, member: MemberInfo, members: tuple[MemberInfo, ...]
    ) -> list[Effect]:
        """Begin, empty, as a member of a cluster that has just listed this one."""
        self._found(cluster, member, Configuration(members=members))
        self.role = self._following(now)
        self._requests.wait(request, NOTHING_BEFORE)  # answered by whatever becomes of the beginning
        self._disk.when_durable(lambda: self._requests.answer(NOTHING_BEFORE, 0))
        return self._done(now)

    def _found(self, cluster: ClusterId, member: MemberInfo, configuration: Configuration) -> None:
        assert self.role is None, "a beginning over a cluster"
        id_, base = MemberId(member.id), Base(entries.genesis(cluster), Milliseconds(0), configuration)
        self._known.found(cluster, id_, base)
        self._disk.try_again()
        self._disk.want(found=(cluster, id_, base))
        self._local.invalidate_everything()

    def recover(self, now: Instant, found: Durable) -> list[Effect]:
        """Take up the state that an earlier incarnation left: it has no lease, and a primary opens the next epoch."""
        assert self.role is None, "a recovery happens once, at the start"
        assert found.is_sound(), "the durable state contradicts itself"
        self._known.recover(found)
        self._disk.recover()
        for entry in self.history.between(self.applied, self.history.last.index):
            self._local.note_touches(entry)
        self._local.invalidate_everything()
        self.role = self._following(now)
        if self.expelled is None and self._known.was_primary():
            self.reopen(now, self.promised)
        return self._done(now)

    def destroy(self, now: Instant, request: RequestId) -> list[Effect]:
        """Erase the whole state of this member."""
        self._requests.release(0, OutcomeUnknown("this member's state is being erased"))
        if self.role is not None:
            self.role.leave(now)
        self.role = None
        self._disk.erase(request)
        self._local.invalidate_everything()
        return self._done(now)

    # What is asked

    def submit(self, now: Instant, request: RequestId, order: Order) -> list[Effect]:
        """Ask for a change of the cluster, answered by one Reply. It begins with the next `flush`, or earlier."""
        self.take(now, request, order)
        return self._out.take()

    def take(self, now: Instant, origin: Origin, order: Order) -> None:
        """Give an order to the role; refuse it without a cluster."""
        if self.role is None:
            self._out.answer(origin, NoCluster("this member's store holds no cluster"))
        elif self.expelled is not None:
            self._out.answer(origin, NotPossible("this member was removed from the cluster"))
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
            self._out.answer(request, refusal)
        else:
            self.role = Candidate(self._local, self, now, self.promised, lost=lost, force=force, origin=request)
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
        if candidate in self._known.others and candidate not in lost:
            return NotPossible("the primary is not among the lost: remove the others through it")
        if len(lost) > 1 and not force:
            return NotPossible(f"{len(lost)} members named as lost; more than the primary needs force")
        return None

    def acknowledge_divergence(self, now: Instant, request: RequestId) -> list[Effect]:
        """Note that an administrator has looked at the dropped entries."""
        self._known.diverged = False
        self._disk.want(diverged=False)
        self._disk.when_durable(lambda: self._out.answer(request, 0))
        return self._done(now)

    # Reads

    def read(self, now: Instant, read: ReadId, interest: Interest | None) -> list[Effect]:
        """Serve a read now, or once the fate of what it looks at is known (with None: of everything)."""
        current = self.is_current(now)
        last = self._last_touching(interest) if current else 0
        if last > self._local.settled:
            self._reads.wait(read, last)
        else:
            self._out.put(Serve(read, current))
        return self._done(now)

    def withdraw_read(self, read: ReadId) -> None:
        """Drop a read whose deadline passed."""
        self._reads.withdraw(read)

    def _last_touching(self, interest: Interest | None) -> int:
        return self.history.last.index if interest is None else self._reads.last_touching(interest)

    def _serve_reads(self, now: Instant, settled: int) -> None:
        current, last = self.is_current(now), self.history.last.index
        for read in self._reads.take_due(settled, last, all_of_them=not current):
            self._out.put(Serve(read, current))

    # What happens

    def receive(self, now: Instant, sender: MemberId, message: Message) -> list[Effect]:
        """Take in a message of another store."""
        if self.role is None or self.expelled is not None:
            return self._done(now)
        if not self._known.heeds(sender):
            self._hear_stranger(now, sender, message)
        elif isinstance(message, Expelled):
            self._be_expelled(now, message.removed)
        elif isinstance(message, Ask):
            self._out.send(sender, self.report(entries.NO_EPOCH))
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
                self._out.send(sender, Expelled(removed))

    def _be_expelled(self, now: Instant, removed: Removed) -> None:
        if removed.member != self.member:
            return
        self._known.expelled = removed
        self._disk.want(expelled=removed)
        self._requests.release(0, OutcomeUnknown("this member was removed from the cluster"))
        if self.role is not None:
            self.role.leave(now)
        self._local.clear_caches()
        self._out.say("expelled", epoch=str(removed.epoch), index=removed.index)

    def _open_for(self, now: Instant, sender: MemberId, message: Prepare | Keep) -> None:
        """Promise the epoch that a member opens, or keep its `open`."""
        epoch = message.epoch if isinstance(message, Prepare) else message.open.epoch
        if epoch.candidate != sender:
            return
        if epoch < self.promised:
            self._out.send(sender, Rejected(self.promised))
            return
        if epoch > self.promised:
            self.follow(now, epoch)
        if isinstance(message, Keep):
            self._local.keep(message.open)
            self._disk.when_durable(lambda: self._out.send(sender, Kept(epoch)))
        else:
            self._disk.when_durable(lambda: self._send_promise(sender, epoch))

    def _send_promise(self, sender: MemberId, epoch: Epoch) -> None:
        if epoch == self.promised:
            self._out.send(sender, self.report(epoch))

    def report(self, epoch: Epoch) -> Report:
        """Make the report of how this member stands; `epoch` is the one promised with it."""
        return self._known.report(epoch, primary=self.is_serving())

    def wants_snapshot(self, epoch: Epoch) -> bool:
        """Tell whether a snapshot for this epoch may be of use."""
        return self.role is not None and self.expelled is None and epoch == self.promised

    def offered(self, now: Instant, sender: MemberId, snapshot: int, epoch: Epoch, base: Base) -> list[Effect]:
        """Take in another member's snapshot that has arrived whole; it is installed by an Install, or not at all."""
        if self.wants_snapshot(epoch):
            self._disk.offer(sender, snapshot, base)
        return self._done(now)

    def tick(self, now: Instant) -> list[Effect]:
        """Let time pass; called every LOOKS_MS while there are other members, and after the disk refused a step."""
        self._disk.try_again()
        if self.role is not None and self.expelled is None:
            self.role.tick(now)
        return self._done(now)

    # Outcomes

    def persisted(self, now: Instant, number: int, answers: Mapping[int, Answer]) -> list[Effect]:
        """Take in that a step is durable; `answers` are of the writes applied with it, by index."""
        step = self._disk.end(number)
        if isinstance(step, Persist):
            self._known.commit(step.committed)
            self._requests.applied(self.applied + 1, step.committed, answers)
            self._known.applied = step.committed
        elif isinstance(step, Install):
            self._installed(step)
        else:
            self._erased()
        self._disk.go_on(number)
        return self._done(now)

    def refused(self, now: Instant, number: int, error: LnhError) -> list[Effect]:
        """Take in that the disk took nothing of the step, for want of room.

        Only a step that `may_withdraw` is given up: its requests are answered with the error, and the next `tick` goes
        on. Any other step stays asked for, because other members may know of it: the caller tries it again until the
        disk takes it.
        """
        step = self._disk.refuse(number)
        assert self.may_withdraw(step), "what others may know of is not taken back"
        self._withdraw(step, error)
        return self._done(now)

    def _withdraw(self, step: Persist, error: LnhError) -> None:
        """Withdraw entries that the disk refused and no other member knows of: they never were."""
        if step.found is not None:
            origins = self._requests.origins()
            self._clear()
            for origin in origins:
                self._out.answer(origin, error)
            return
        asked = [entry.index for entry in step.entries if self._requests.waits_for(entry.index)]
        last = asked[0] - 1 if asked else self.history.last.index
        self.history.truncate(last)
        self._local.gone_after(last, error)
        self._disk.withdraw(step)

    def _installed(self, step: Install) -> None:
        index = step.base.position.index
        self._known.install(step.base, aside=step.aside)
        self._disk.recover()
        self._reads.clear()
        self._local.invalidate_everything()
        if self.role is not None:
            self.role.installed(step.base)
        self._requests.release(0, OutcomeUnknown("this member's state was replaced by a newer one"))
        self._out.say("snapshot installed", index=index, aside=int(step.aside))

    def _erased(self) -> None:
        request = self._disk.erasing
        self._clear()
        if request is not None:
            self._out.answer(request, 0)

    def _clear(self) -> None:
        self.role = None
        self._known.clear()
        self._disk.clear()
        self._reads.clear()
        self._requests.clear()

    def may_withdraw(self, step: Step) -> bool:
        """Tell whether a step that the disk refused never was: a creation, or the writes of a member alone."""
        if not isinstance(step, Persist):
            return False
        return step.found is not None or (not self._known.others and self.is_serving())

    def invalidated(self, now: Instant, number: int) -> list[Effect]:
        """Take in that an invalidation is over: every cache dropped what it named; late words change nothing."""
        if self._caches.end(number) and self.role is not None:
            self.role.invalidated(now, number)
        return self._done(now)

    # Roles

    def follow(self, now: Instant, epoch: Epoch) -> None:
        """Promise a higher epoch of another member, and become an ordinary member in it."""
        leased = self.role is not None and self.role.is_current(now)
        self._local.promise(epoch)
        self.rest(now, leased=leased)

    def _following(self, now: Instant, handing: Handing | None = None, *, leased: bool = False) -> Role:
        """Make the role of an ordinary member."""
        return Follower(self._local, self, now, handing, leased=leased)

    def become(self, role: Role) -> None:
        """Have a role act from now on, in place of one that made it."""
        self.role = role

    def rest(self, now: Instant, handing: Handing | None = None, *, leased: bool = False) -> None:
        """Become an ordinary member in the epoch promised last."""
        before, self.role = self.role, self._following(now, handing, leased=leased)
        if before is not None:
            before.leave(now)

    def reopen(self, now: Instant, above: Epoch) -> None:
        """Open an epoch above `above` and all promised here, as the primary by this member's own log."""
        before, configuration = self.role, self.configuration
        never_served = self.committed < configuration.opened
        required = frozenset(configuration.awaits if never_served else ()) & frozenset(self._known.others)
        self.role = Candidate(self._local, self, now, above, required=required)
        if before is not None:
            before.leave(now)

    # The end of every event

    def _done(self, now: Instant) -> list[Effect]:
        """Go on as far as possible; returns the effects, in their order."""
        if self.role is not None and self.expelled is None:
            self.role.settle(now)
        self._begin_step()
        settled = self._local.settled
        self._reads.settle(settled)
        self._requests.answer_promotions(self.committed_configuration)
        self._requests.settle(settled)
        if self._reads:
            self._serve_reads(now, settled)
        return self._out.take()

    def _begin_step(self) -> None:
        offer = self._disk.take_offer()
        if offer is not None:
            self._begin_install(*offer)
        self._disk.begin()

    def _begin_install(self, sender: MemberId, snapshot: int, base: Base) -> None:
        if self.role is None or not self.role.may_install(sender, base):
            return
        aside = self.role.has_parted()
        dropped = self._dropped_for(self.history.truncate(self.committed))
        self._local.gone_after(self.committed, OutcomeUnknown("the entry may have been dropped when a snapshot came"))
        self._disk.begin_install(snapshot, base, dropped, aside=aside)

    def _dropped_for(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """Return the entries to be saved, of those that leave the log for a snapshot."""
        return entries

    def _projected(self) -> int:
        """Return the commit index once everything in the log is durable here."""
        return max(self.committed, self.role.projected()) if self.role is not None else self.committed
