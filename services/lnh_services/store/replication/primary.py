"""The role of the primary: from its epoch's `open` on it appends, feeds members, grants leases, changes the set. Pure.

Until the `open` is committed it does not serve: it grants nothing and takes no writes. `awaits` are members whose word
it needs before that, and before it drops any member. They are the promisers, until the `open` is durable there; of a
promotion the whole set, the old primary last.

**Leases.** A member that is in the committed set and in every later one may be granted a lease. To drop a member,
granting stops; when the last grant has certainly ended, the set without it is appended. The member counts from when it
asked, the primary from when it answered, plus the bound on how much clocks drift, so the member's lease ends first.

**A stall.** A primary whose own loop stood still does not know what happened meanwhile: it treats every member of the
set as just granted the longest lease, and commits nothing before each other member has spoken or been silent for a
lease: so it learns of its own removal first.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from lnh_common import limits
from lnh_common.errors import LnhError, MemberReadOnly, NameUnknown, NotPossible, OutcomeUnknown
from lnh_common.messages.store import Commit
from lnh_services.store.log.entries import Entry, Epoch, MemberId, Members, Open, SetChange, Write
from lnh_services.store.log.window import Base
from lnh_services.store.replication import member_list
from lnh_services.store.replication.member import Local
from lnh_services.store.replication.messages import (
    Append,
    Appended,
    Behind,
    Forward,
    Instant,
    Keep,
    Kept,
    Listing,
    Message,
    Order,
    Ping,
    Pong,
    Promote,
    Rejected,
    RemoveMember,
    SetFailover,
    SetLeaseSettings,
)
from lnh_services.store.replication.outbox import Origin
from lnh_services.store.replication.role import Handing, Office
from lnh_services.store.replication.standing import Lag

DRIFT: Final = 0.02  # how much faster one member's clock may run than another's
LOOKS_MS: Final = 50  # how often `tick` looks whether something has ended
RESEND: Final = 0.3  # seconds after which what was not answered is said again
ALIVE: Final = 0.6  # a member heard of so lately may be added to the set
OPEN_PATIENCE: Final = 2.0  # for the word of those awaited, before other promises are gathered
TAKE_OVER_PATIENCE: Final = 10.0  # ... where none can be done without
HAND_OVER_PATIENCE: Final = 10.0
SNAPSHOT_AGAIN: Final = 5.0  # a member that still needs a snapshot gets another after so long
BATCH_ENTRIES: Final = 512
BATCH_BYTES: Final = 4 * limits.MIB
WINDOW: Final = 2048  # entries sent to one member and not acknowledged
CAUGHT_UP: Final = 64  # entries a member may be behind when it is added to the set
_LONG_AGO: Final = -1e9


@dataclass
class Progress:
    """The primary's knowledge of one member, in this epoch."""

    incarnation: bytes = b""
    match: int = 0  # acknowledged up to here
    left: int = 0  # the entry that dropped it from the set
    shared: int = 0  # its log is known to agree up to here, acknowledged or not
    next: int = 0  # what to send next; 0 while it is not known where the logs part
    heard: float = _LONG_AGO
    spoke_at: float = _LONG_AGO  # when something was last sent
    told: int = 0  # the commit index that was sent last
    waits: tuple[int, float] = (0, 0.0)  # an entry it has not acknowledged, and since when that is so
    refuses: bool = False  # gets no lease any more, and leaves the set when the last one ended
    granted_until: float = 0.0
    snapshot_at: float = _LONG_AGO


@dataclass
class Promotion:
    """A promotion that was asked for: writes are held until all is committed."""

    target: MemberId
    origin: Origin
    since: float


@dataclass
class Leaving:
    """A removal that was ordered: granting has stopped; `entry` is the one that removes, once it is appended."""

    origin: Origin | None
    entry: int = 0


def granted_ms(lease_ms: int) -> int:
    """Compute what a member is granted of L.

    The grant has certainly ended, and its end was noticed, when L is over.
    """
    return max(int(lease_ms / (1 + DRIFT)) - LOOKS_MS, lease_ms // 2)


class Primary:
    """The role of the candidate of the promised epoch, from appending its `open` on.

    Args:
        local: the member's log, disk and caches.
        office: where another role takes its place.
        opening: the `open` to append.
        keepers: promisers that must keep the `open` before this member serves.
        last_to: of a promotion, the old primary: it is sent the `open` when all others have acknowledged it.
        origin: the request that is answered once this member serves.
    """

    def __init__(
        self,
        local: Local,
        office: Office,
        now: Instant,
        opening: Open,
        *,
        keepers: frozenset[MemberId] = frozenset(),
        last_to: MemberId | None = None,
        origin: Origin | None = None,
        longest_ms: int = 0,
    ) -> None:
        self._local: Final = local
        self._known: Final = local.known
        self._disk: Final = local.disk
        self._requests: Final = local.requests
        self._out: Final = local.out
        self._office: Final = office
        self._epoch: Final = local.known.promised
        self._last_to = last_to
        self._keepers: Final = keepers
        self._since: Final = now.boot
        self._opened: Final = self._append_open(now, opening, origin)
        self._awaits = set(keepers | set(opening.awaits)) - {local.known.member}
        self._unanimous: Final = bool(opening.awaits)
        self._longest_ms = max(longest_ms, local.known.configuration.longest_ms)
        self.serving = False
        self._queue: Final[deque[tuple[Origin, Order]]] = deque()
        self._promotion: Promotion | None = None
        self._leaving: dict[MemberId, Leaving] = {}
        self._unheard: dict[MemberId, float] = {}  # after a stall: until when to wait for a member's word
        self._ticked = now.boot
        self._next_keep = 0.0
        # The candidate of an epoch does not know what leases its predecessor granted.
        until = self.grant_end(now, self._longest_ms)
        self._progress: Final = {member: Progress(granted_until=until) for member in local.known.others}

    def _append_open(self, now: Instant, opening: Open, origin: Origin | None) -> Entry:
        return self._local.append(now, opening, origin)

    @property
    def primary(self) -> MemberId:
        """The member itself."""
        return self._known.member

    # What stands

    def is_current(self, now: Instant) -> bool:
        """Tell whether the primary serves, and neither a stall nor the silence of all others stands in the way."""
        return self.serving and self._acts() and not self._unheard and not self._is_barred(now)

    def current_until(self, now: Instant) -> float:
        """Return the end of a lease that this member would grant itself now."""
        # Not longer than a lease: a member that takes over waits so long for this member's caches too.
        return now.boot + min(self._known.configuration.lease_settings.lease_ms, limits.WORKER_LEASE_MS) / 1000

    def _acts(self) -> bool:
        """Tell whether the epoch promised last is this member's own: only then a primary acts."""
        return self._known.promised == self._epoch

    def _is_barred(self, now: Instant) -> bool:
        """Tell whether the silence of all others forbids this member to act as primary."""
        patience = self._known.committed_configuration().lease_settings.alone_ms / 1000
        if not patience:
            return False
        others = [self._of(member) for member in self._known.others]
        return bool(others) and all(now.boot - progress.heard > patience for progress in others)

    def promotable(self) -> tuple[MemberId, ...]:
        """Return the in-sync set: no other member can be made primary without loss."""
        return self.in_sync

    def lags(self) -> tuple[Lag, ...]:
        """Return how far every other member is."""
        progress = {member: self._of(member) for member in self._known.others}
        return tuple(Lag(member, each.match, each.heard) for member, each in progress.items())

    def _of(self, member: MemberId) -> Progress:
        return self._progress.setdefault(member, Progress())

    @property
    def in_sync(self) -> tuple[MemberId, ...]:
        """The members that a commit waits for."""
        return self._known.configuration.in_sync

    def has_parted(self) -> bool:
        """Return False: this log is the primary's."""
        return False

    def may_install(self, sender: MemberId, base: Base) -> bool:
        """Return False: a primary takes no snapshot."""
        return False

    def installed(self, base: Base) -> None:
        """Do nothing: a primary takes no snapshot."""

    # Orders

    def take(self, now: Instant, origin: Origin, order: Order) -> None:
        """Take an order, hold it during a promotion, or refuse it."""
        if not self._acts():
            self._refuse(origin, OutcomeUnknown("this member is not primary any more"))
        elif not self.serving or self._is_barred(now):
            self._refuse(origin, MemberReadOnly(self._why_not(now)))
        elif self._promotion is not None:
            self._requests.hold(origin, order)
        elif isinstance(order, Commit):
            self._queue.append((origin, order))
        else:
            self._take_order(now, origin, order)

    def _why_not(self, now: Instant) -> str:
        return "the primary does not take writes now"

    def _refuse(self, origin: Origin, why: LnhError) -> None:
        if isinstance(origin, tuple) and isinstance(why, MemberReadOnly):
            why = OutcomeUnknown(f"not taken by the primary: {why}")
        self._out.answer(origin, why)

    def _take_order(
        self, now: Instant, origin: Origin, order: Listing | RemoveMember | Promote | SetLeaseSettings | SetFailover
    ) -> None:
        if isinstance(order, SetLeaseSettings):
            self._local.append(now, order.lease_settings, origin)
        elif isinstance(order, SetFailover):
            why = NotPossible("with this engine a lost primary is succeeded by hand: remove it from the cluster")
            self._out.answer(origin, why)
        elif isinstance(order, Listing):
            self._list(now, origin, order)
        elif order.member not in self._known.ids:
            if isinstance(order, RemoveMember) and self._is_removed(order.member):
                self._out.answer(origin, self._known.committed)
            else:
                self._out.answer(origin, NameUnknown(f"{order.member.hex()} is no member of this cluster"))
        elif isinstance(order, RemoveMember):
            self._remove(origin, order.member)
        elif order.member == self._known.member:
            self._out.answer(origin, self._known.committed)
        elif order.member not in self.promotable():
            self._out.answer(origin, NotPossible("only a member in step can be promoted; this one is not (yet)"))
        else:
            self._promotion = Promotion(order.member, origin, now.boot)

    def _is_removed(self, member: MemberId) -> bool:
        return any(removed.member == member for removed in self._known.configuration.removed)

    def _list(self, now: Instant, origin: Origin, order: Listing) -> None:
        try:
            changed = member_list.change(self._known.configuration, order)
        except LnhError as refusal:
            self._out.answer(origin, refusal)
            return
        if changed is None:
            self._out.answer(origin, self._known.committed)
        else:
            self._local.append(now, changed, origin)

    def _remove(self, origin: Origin, member: MemberId) -> None:
        if member == self._known.member:
            self._out.answer(origin, NotPossible("the primary is not removed: promote another member first"))
        elif member in self._leaving:
            self._out.answer(origin, NotPossible("this member is being removed"))
        else:
            self._leaving[member] = Leaving(origin)

    # Messages

    def receive(self, now: Instant, sender: MemberId, message: Message) -> None:
        """Take in pings, acknowledgements and orders of members; a rejection makes this member open a higher epoch."""
        progress = self._of(sender)
        progress.heard = now.boot
        if isinstance(message, Rejected) and message.promised > self._known.promised:
            self._hear_of(now, message.promised)
        elif isinstance(message, Ping):
            self._ping(now, sender, message, progress)
        elif not self._acts():
            return
        elif isinstance(message, Appended):
            self._unheard.pop(sender, None)
            self._acknowledged(now, sender, message, progress)
        elif isinstance(message, Behind) and message.epoch == self._epoch:
            self._unheard.pop(sender, None)
            self._behind(now, sender, message, progress)
        elif isinstance(message, Kept) and message.epoch == self._epoch:
            self._awaits -= {sender} & self._keepers
        elif isinstance(message, Forward):
            origin = (sender, message.number)
            if message.epoch == self._epoch and self.serving:
                self._office.take(now, origin, message.what())
            else:
                self._out.answer(origin, OutcomeUnknown(f"the primary is in epoch {self._epoch}"))

    def _hear_of(self, now: Instant, promised: Epoch) -> None:
        """Open an epoch above one that a member promised, and that its candidate has not opened."""
        self._office.reopen(now, promised)

    def _ping(self, now: Instant, sender: MemberId, ping: Ping, progress: Progress) -> None:
        if ping.epoch > self._known.promised:
            self._hear_of(now, ping.epoch)
            return
        self._unheard.pop(sender, None)
        if ping.incarnation != progress.incarnation:
            self._know(progress, ping.incarnation)
        lease_ms = 0
        if ping.epoch == self._epoch and self.may_grant(sender) and self._acts():
            lease_ms = self.lease_ms(now)
            progress.granted_until = max(progress.granted_until, self.grant_end(now, lease_ms))
        self._out.send(sender, Pong(self._epoch, ping.number, lease_ms, self._known.committed))

    def _know(self, progress: Progress, incarnation: bytes) -> None:
        """Forget what an earlier incarnation of a member said: it was started anew, or is heard for the first time."""
        progress.incarnation = incarnation
        progress.match = progress.shared = progress.next = 0

    def lease_ms(self, now: Instant) -> int:
        """Compute what a member is granted now."""
        return granted_ms(self._known.committed_configuration().lease_settings.lease_ms)

    def grant_end(self, now: Instant, lease_ms: int) -> float:
        """Compute when a lease granted now has certainly ended, by this member's clock."""
        return now.boot + lease_ms / 1000 * (1 + DRIFT)

    def may_grant(self, member: MemberId) -> bool:
        """Tell whether a member is in the committed set and in every later one, and not about to leave it."""
        if not self.serving or self._of(member).refuses or member in self._leaving:
            return False
        return all(
            member in configuration.in_sync for _, configuration in self._known.history.turns(self._known.committed)
        )

    def _acknowledged(self, now: Instant, sender: MemberId, message: Appended, progress: Progress) -> None:
        if not self.counts(message, progress):
            return
        position = self._known.history.position(message.index)
        if position is None or position.hash != message.hash:
            return
        if message.index > progress.match:
            progress.match = message.index
            if progress.next:
                progress.next = max(progress.next, progress.match + 1)
            if sender not in self._keepers and progress.match >= self._opened.index:
                self._awaits.discard(sender)
        if not progress.next and self._known.history.position(message.matched) is not None:
            progress.shared = max(progress.shared, message.matched)
            progress.next = message.matched + 1
        self._feed(now, sender, progress)

    def counts(self, message: Appended, progress: Progress) -> bool:
        """Tell whether an acknowledgement is of this epoch, and of the member's present incarnation."""
        return message.epoch == self._epoch and message.incarnation == progress.incarnation

    def _behind(self, now: Instant, sender: MemberId, message: Behind, progress: Progress) -> None:
        if message.incarnation != progress.incarnation:
            self._know(progress, message.incarnation)
        shared = self._known.history.shared(message.outline)
        fresh = all(position.index == 0 for position in message.outline)
        if message.diverged or shared is None or (fresh and self._known.committed):
            progress.next = 0
            if now.boot - progress.snapshot_at > SNAPSHOT_AGAIN and not self._is_withheld(sender):
                progress.snapshot_at = now.boot
                self._out.send_snapshot(sender, self._epoch)
            return
        progress.shared, progress.next = shared.index, shared.index + 1
        self._feed(now, sender, progress)

    # Feeding

    def _is_withheld(self, member: MemberId) -> bool:
        """Tell whether a member may not hear of this epoch yet.

        No member does before the `open` is durable here: one that keeps it heeds its member list at once, and could
        never be led back if its candidate lost it. Of a promotion, the old primary is told when all others of the set
        have acknowledged.
        """
        return not self._is_opened() or (member == self._last_to and bool(self._awaits - {member}))

    def _is_opened(self) -> bool:
        return self._disk.durable >= self._opened.index

    def _feed(self, now: Instant, member: MemberId, progress: Progress, *, always: bool = False) -> None:
        """Send a member the entries that it lacks; with `always` at least a sign of life."""
        history = self._known.history
        if self._is_withheld(member):
            return
        while progress.next and progress.next <= self._known.ordered:
            previous = history.position(progress.next - 1)
            if previous is None:
                progress.next = 0  # dropped from the log meanwhile: let it say where it stands
                break
            room = min(BATCH_ENTRIES, max(progress.match, progress.shared) + WINDOW - previous.index)
            if room <= 0:
                break
            room = min(room, self._known.ordered - previous.index)
            entries = history.following(previous.index, room, BATCH_BYTES)
            self._say(now, member, progress, Append(self._epoch, previous, entries, self._known.committed))
            progress.next += len(entries)
            always = False
        if always:
            previous = history.position(progress.next - 1) if progress.next else None
            self._say(
                now,
                member,
                progress,
                Append(self._epoch, previous or self._known.ordered_end, (), self._known.committed),
            )

    def _say(self, now: Instant, member: MemberId, progress: Progress, append: Append) -> None:
        progress.spoke_at, progress.told = now.boot, append.committed
        self._out.send(member, append)

    # Committing

    def settle(self, now: Instant) -> None:
        """Append waiting orders, commit as far as members acknowledged, and feed every member."""
        if not self._acts():
            return
        if self.serving and self._may_append(now):
            self._append_queue(now)
        self._known.commit(self._committable(self._local.vouched))
        if not self.serving and min(self._known.committed, self._local.vouched) >= self._opened.index:
            self._begin_serving(now)
        # That an entry is committed travels with the next ones: alone only once it is applied here, and none came.
        is_applied = self._known.applied >= self._known.committed
        for member in self._known.others:
            progress = self._of(member)
            news = is_applied and progress.told < self._known.committed and bool(progress.next)
            self._feed(now, member, progress, always=news)
        self._end_leaving()
        if self._promotion is not None:
            self._try_hand_over(now, self._promotion)

    def _may_append(self, now: Instant) -> bool:
        """Tell whether the writes that wait may be appended now; what waits longer is one batch."""
        return self._disk.is_idle

    def _append_queue(self, now: Instant) -> None:
        size = 0
        for _ in range(min(len(self._queue), BATCH_ENTRIES)):
            origin, order = self._queue.popleft()
            assert isinstance(order, Commit), "only commits wait for the next step"
            entry = self._local.append(now, Write(order), origin)
            size += len(entry.payload)
            if size > BATCH_BYTES:
                break

    def _begin_serving(self, now: Instant) -> None:
        self.serving = True
        if self._known.others:
            self._disk.must_sync()  # a restart must know that this epoch was opened
        self._out.say("epoch opened", epoch=str(self._epoch), index=self._opened.index)
        for origin, order in self._requests.take_held():
            self._office.take(now, origin, order)

    def projected(self) -> int:
        """Return the commit index once the log is durable here, as far as caches have dropped what it touches."""
        # What is committed another member may show: then no cache here may hold what was before. Alone, reads wait.
        own = self._known.ordered
        if self._known.others:
            own = min(own, self._local.invalidated_index)
        return self._committable(own) if self._acts() else self._known.committed

    def _committable(self, own: int) -> int:
        """Compute the commit index, if this member vouches for its log up to `own`."""
        if self._awaits or self._unheard:
            return self._known.committed
        turns = self._known.history.turns(self._known.committed)
        best = self._known.committed
        ends = [index - 1 for index, _ in turns[1:]] + [self._known.history.last.index]
        for (index, configuration), end in zip(turns, ends, strict=True):
            everywhere = (
                min(self._vouched(member, own) for member in configuration.in_sync) if configuration.in_sync else 0
            )
            if min(everywhere, end) >= index:
                best = max(best, min(everywhere, end))
        return best if best >= self._opened.index else self._known.committed

    def _vouched(self, member: MemberId, own: int) -> int:
        return own if member == self._known.member else self._of(member).match

    # Time

    def tick(self, now: Instant) -> None:
        """Notice a stall, send again, and drop, remove or add members as their time comes."""
        self._notice_stall(now)
        if not self._acts():
            return
        for member, until in list(self._unheard.items()):
            if now.boot >= until:
                del self._unheard[member]
        for member in self._known.others:
            self._tick_member(now, member, self._of(member))
        if not self.serving:
            self._tick_opening(now)
            return
        self._remove_leaving(now)
        self._add_one(now)
        if self._promotion is not None and now.boot - self._promotion.since > HAND_OVER_PATIENCE:
            self._give_up_promotion(now, self._promotion)

    def _notice_stall(self, now: Instant) -> None:
        lease = self._known.configuration.lease_settings.lease_ms / 1000
        stalled, self._ticked = now.boot - self._ticked > lease / 2, now.boot
        if not stalled:
            return
        until = self.grant_end(now, self._longest())
        for member in self._known.others:
            progress = self._of(member)
            progress.granted_until = max(progress.granted_until, until)
            self._unheard[member] = now.boot + lease
        if self._known.others:
            self._out.say("stalled", milliseconds=int(lease * 500))

    def _longest(self) -> int:
        return max(self._longest_ms, self._known.configuration.longest_ms)

    def _tick_member(self, now: Instant, member: MemberId, progress: Progress) -> None:
        lease = self._known.configuration.lease_settings.lease_ms / 1000
        last = self._known.ordered
        index, since = progress.waits
        if progress.match >= last:
            progress.waits = (0, now.boot)
            progress.refuses = False
        elif progress.match >= index:
            progress.waits = (progress.match + 1, now.boot)
        elif now.boot - since > 2 * lease and member in self.in_sync:
            progress.refuses = True
        if now.boot - progress.spoke_at >= RESEND:
            if progress.match + 1 < progress.next <= last + 1:
                progress.next = 0  # something sent was lost, or is slow: ask where it stands
            self._feed(now, member, progress, always=True)
        if member in self.in_sync and self.may_drop(now, member, progress):
            left = self._local.append(now, SetChange(tuple(m for m in self.in_sync if m != member)))
            progress.left = left.index
            self._out.say("left the set", member=member.hex())

    def may_drop(self, now: Instant, member: MemberId, progress: Progress) -> bool:
        """Tell whether a member's last lease has certainly ended, and it is silent, refuses or leaves."""
        if self._awaits or now.boot < progress.granted_until:
            return False
        lease = self._known.configuration.lease_settings.lease_ms / 1000
        return progress.refuses or member in self._leaving or now.boot - progress.heard > lease / 2

    def _tick_opening(self, now: Instant) -> None:
        if now.boot >= self._next_keep and self._is_opened():
            self._next_keep = now.boot + RESEND
            for member in sorted(self._awaits & self._keepers):
                self._out.send(member, Keep(self._opened))
        waited = now.boot - self._since
        if not self._awaits:
            return
        if self._unanimous:
            if waited > TAKE_OVER_PATIENCE:
                why = OutcomeUnknown("not every member whose word is needed answered; ask again when they do")
                self._requests.release(self._opened.index - 1, why)
                self._office.rest(now)
        elif waited > OPEN_PATIENCE:
            self._office.reopen(now, self._epoch)

    def _add_one(self, now: Instant) -> None:
        """Add a member that has caught up to the set; one at a time."""
        configuration = self._known.configuration
        if self._known.committed_configuration().in_sync != configuration.in_sync or self._promotion is not None:
            return
        joined = dict(configuration.joining)
        for member in self._known.others:
            progress = self._of(member)
            if member in configuration.in_sync or member in self._leaving or now.boot - progress.heard > ALIVE:
                continue
            if progress.match + CAUGHT_UP < self._known.history.last.index or progress.match < self._opened.index:
                continue
            if progress.match < progress.left:
                continue  # near the end, but it acknowledges nothing: it would hold up every write again
            # No member may be in the set that another does not know: it could not be asked when the primary is lost.
            if any(self._of(other).match < joined.get(member, 0) for other in self._known.others):
                continue
            progress.refuses = False
            progress.waits = (0, now.boot)
            self._local.append(now, SetChange(tuple(sorted((*configuration.in_sync, member)))))
            self._out.say("joined the set", member=member.hex())
            return

    def _remove_leaving(self, now: Instant) -> None:
        for member, leaving in self._leaving.items():
            if leaving.entry or member in self.in_sync:
                continue
            members = tuple(info for info in self._known.configuration.members if info.id != member)
            leaving.entry = self._local.append(now, Members(members), leaving.origin).index

    def _end_leaving(self) -> None:
        for member in [m for m, leaving in self._leaving.items() if 0 < leaving.entry <= self._known.committed]:
            del self._leaving[member]
            self._progress.pop(member, None)

    # Promotion

    def _try_hand_over(self, now: Instant, promotion: Promotion) -> None:
        """Promise the next epoch to the member promoted, once all is committed and acknowledged by the whole set."""
        last = self._known.history.last
        if promotion.target not in self.in_sync:
            self._give_up_promotion(now, promotion)
            return
        if self._queue or self._known.committed < last.index or not self.may_hand_over(last.index):
            return
        self._local.promise(Epoch(self._epoch.term + 1, promotion.target))
        self._promotion = None
        self._office.rest(now, Handing(promotion.target, promotion.origin, last))

    def may_hand_over(self, last: int) -> bool:
        """Tell whether every member of the set has acknowledged everything."""
        return all(self._vouched(member, self._local.vouched) >= last for member in self.in_sync)

    def _give_up_promotion(self, now: Instant, promotion: Promotion) -> None:
        self._promotion = None
        why = NotPossible("the member to be promoted, or another of the set, did not catch up in time")
        self._out.answer(promotion.origin, why)
        for origin, order in self._requests.take_held():
            self.take(now, origin, order)

    def invalidated(self, now: Instant, number: int) -> None:
        """Do nothing: invalidations count through what this member vouches for."""

    def leave(self, now: Instant) -> None:
        """Answer every order that waits, because this member is primary no more."""
        for origin, _ in self._queue:
            self._refuse(origin, MemberReadOnly("this member is not primary any more"))
        self._queue.clear()
        if self._promotion is not None:
            self._out.answer(self._promotion.origin, OutcomeUnknown("the primary changed otherwise"))
        for leaving in self._leaving.values():
            if leaving.origin is not None and not leaving.entry:
                self._out.answer(leaving.origin, OutcomeUnknown("the primary changed before the member was removed"))
