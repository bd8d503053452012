"""The role of a member that is not primary: follows the primary's log, asks for its lease, passes on orders. Pure."""

from __future__ import annotations

from typing import Final

from lnh_common import limits
from lnh_common.errors import LnhError, MemberReadOnly, NotPossible, OutcomeUnknown
from lnh_services.store.log.entries import Entry, MemberId, Open, Position
from lnh_services.store.log.window import Base
from lnh_services.store.replication.member import Local
from lnh_services.store.replication.messages import (
    Append,
    Appended,
    Ask,
    Behind,
    Fetch,
    Fetched,
    Forward,
    Forwarded,
    Go,
    Instant,
    Message,
    Order,
    Ping,
    Pong,
    Promote,
    Rejected,
    Report,
)
from lnh_services.store.replication.outbox import Origin
from lnh_services.store.replication.primary import Primary
from lnh_services.store.replication.role import Handing, Office
from lnh_services.store.replication.standing import Lag

PING: Final = limits.PING_MS / 1000
RESEND: Final = 0.3  # seconds after which what was not answered is said again
RECLAIM: Final = 2.0  # an old primary waits so long for the new one's `open`
SEARCH: Final = 1.0  # without a word of the primary for so long, everybody is asked, again and again
REOPEN: Final = 5.0  # ... and one whose own epoch is the newest opens another
HELD: Final = 10.0  # what was held while the primary changed is refused, if there is no lease by then
GAP: Final = 2.0  # a member that had a lease when the primary changed holds what it is asked for so long
FETCH_ENTRIES: Final = 512
FETCH_BYTES: Final = 4 * limits.MIB
_PINGS_KEPT: Final = 64


class Follower:
    """The role of an ordinary member of the epoch it promised.

    Args:
        local: the member's log, disk and caches.
        office: where another role takes its place.
        handing: set on an old primary that promised this epoch to the member it promotes.
        leased: it was read-write until it promised this epoch: a client sees a pause, not a refusal.
    """

    def __init__(
        self, local: Local, office: Office, now: Instant, handing: Handing | None = None, *, leased: bool = False
    ) -> None:
        self._local: Final = local
        self._known: Final = local.known
        self._disk: Final = local.disk
        self._requests: Final = local.requests
        self._out: Final = local.out
        self._office: Final = office
        self._epoch: Final = local.known.promised
        self._handing = handing
        self._since: Final = now.boot
        # Until its first lease under this primary: once there was one, what ends is a lease, and not a change.
        self._holds_until = now.boot + (HELD if handing is not None else GAP if leased else 0.0)
        self._heard = 0.0  # a word of this epoch's primary
        self._matched = 0  # the log is known to agree with the primary's up to here
        self._said = 0  # acknowledged up to here
        self._say_again = False
        self._parted = False
        self._lease_until = 0.0
        self._clearing: tuple[int, float] | None = None  # the invalidation before a lease is taken, and that lease
        self._pings: dict[int, float] = {}
        self._next_ping = 0.0
        self._next_search = now.boot + SEARCH
        self._next_go = 0.0
        self._forwards: dict[int, tuple[Origin, Order]] = {}

    @property
    def primary(self) -> MemberId:
        """The candidate of the epoch, once it was heard."""
        return self._epoch.candidate if self._heard else MemberId(b"")

    def promotable(self) -> None:
        """Return None: the primary decides that."""

    def lags(self) -> tuple[Lag, ...]:
        """Return nothing: the primary alone follows the others."""
        return ()

    # The lease

    def is_current(self, now: Instant) -> bool:
        """Tell whether this member holds a lease of the epoch it promised last."""
        return now.boot < self._lease_until and self._epoch == self._known.promised

    def current_until(self, now: Instant) -> float:
        """Return the end of the lease."""
        return self._lease_until

    def _pong(self, now: Instant, pong: Pong) -> None:
        sent = self._pings.pop(pong.number, None)
        if not self._disk.is_installing:
            self._commit(pong.committed)
        if sent is None or not pong.lease_ms:
            return
        until = self.lease_end(now, sent, pong.lease_ms)
        if self.is_current(now):
            self._lease_until = max(self._lease_until, until)
        elif self._clearing is not None:
            self._clearing = (self._clearing[0], max(self._clearing[1], until))
        elif self._local.caches_known:
            # What caches took from applied state while there was no lease may be older than what the lease vouches for.
            self._clearing = (self._local.clear_caches(), until)

    def lease_end(self, now: Instant, sent: float, lease_ms: int) -> float:
        """Compute a lease's end from when it was asked for, so that it ends before the primary's count of it does."""
        return sent + lease_ms / 1000

    def invalidated(self, now: Instant, number: int) -> None:
        """Begin to use the lease that waited for every cache to be cleared."""
        if self._clearing is not None and self._clearing[0] == number:
            self._lease_until, self._clearing = self._clearing[1], None
            self._holds_until = 0.0

    # The log

    def receive(self, now: Instant, sender: MemberId, message: Message) -> None:
        """Take in the primary's entries, pongs, answers and hand-over; refuse orders that members pass on."""
        if isinstance(message, Append | Pong):
            self._hear(now, sender, message)
        elif isinstance(message, Go):
            self._go(now, sender, message)
        elif isinstance(message, Fetch):
            if message.epoch == self._epoch and message.epoch.candidate == sender:
                self._fetch(sender, message)
        elif isinstance(message, Forwarded):
            forwarded = self._forwards.pop(message.number, None)
            if forwarded is not None:
                error = message.error
                answer = message.index if error is None else LnhError.from_wire(list(error))
                self._out.answer(forwarded[0], answer, message.entry)
        elif isinstance(message, Forward):
            self._out.answer((sender, message.number), OutcomeUnknown("this member is not primary any more"))
        elif isinstance(message, Report) and sender in self._known.ids:
            self._known.vouch(message.committed.epoch)

    def _hear(self, now: Instant, sender: MemberId, message: Append | Pong) -> None:
        if message.epoch != self._epoch or sender != self._epoch.candidate:
            if message.epoch < self._known.promised:
                self._out.send(sender, Rejected(self._known.promised))
            return
        self._heard = now.boot
        if isinstance(message, Pong):
            self._pong(now, message)
        elif not self._disk.is_installing:
            self._append(sender, message)

    def _append(self, sender: MemberId, append: Append) -> None:
        if not self.matches(append.previous):
            self._fall_behind(sender)
            return
        new = self._new_entries(append.entries)
        if new is None:
            self._parted = True
            self._fall_behind(sender)
            return
        if new:
            self._local.truncate(new[0].index - 1)
            self._local.extend(new)
        else:
            self._say_again = True  # what is new is acknowledged when it is durable, and here nothing will be
        end = append.previous.index + len(append.entries)
        self._matched = max(self._matched, end)
        self._commit(append.committed)

    def matches(self, previous: Position) -> bool:
        """Tell whether this log holds the position that the primary's entries follow."""
        return self._known.history.has(previous)

    def _new_entries(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...] | None:
        """Return the entries that are not in the log yet; None if they contradict what is committed here."""
        history = self._known.history
        for number, entry in enumerate(entries):
            held = history.position(entry.index)
            if held == entry.position():
                continue
            if held is not None:
                assert held.epoch != entry.epoch, "two entries of one epoch at one index"
                if entry.index <= self._known.committed:
                    return None
            return entries[number:]
        return ()

    def _commit(self, committed: int) -> None:
        self._known.commit(max(self._known.committed, self.known_committed(committed)))

    def known_committed(self, committed: int) -> int:
        """Return the part of the primary's commit index that this log is known to share."""
        return min(committed, self._matched)

    def _fall_behind(self, sender: MemberId) -> None:
        known = self._known
        outline = known.history.outline(known.committed)
        self._out.send(sender, Behind(self._epoch, known.incarnation, outline, self._parted))

    def settle(self, now: Instant) -> None:
        """Acknowledge entries that have become durable since, and whose items every cache has dropped."""
        vouched = min(self.vouched(), self._matched)
        if (vouched > self._said or self._say_again) and self._heard and not self._disk.is_installing:
            position = self._known.history.position(vouched)
            if position is not None and vouched:
                self._said = vouched
                message = Appended(self._epoch, vouched, position.hash, self._known.incarnation, self._matched)
                self._out.send(self._epoch.candidate, message)
        self._say_again = False
        self._hand_over_done()
        if self._requests.are_held and self.is_current(now) and self._handing is None:
            for origin, order in self._requests.take_held():
                self.take(now, origin, order)

    def vouched(self) -> int:
        """Return the index up to which the log is durable here, and every cache has dropped what it touches."""
        return self._local.vouched

    def projected(self) -> int:
        """Return the commit index as it is, because the primary alone moves it."""
        return self._known.committed

    def has_parted(self) -> bool:
        """Tell whether what is applied here is not part of the primary's log."""
        return self._parted

    def may_install(self, sender: MemberId, base: Base) -> bool:
        """Tell whether a snapshot is the primary's and brings what this log does not have."""
        if sender != self._epoch.candidate or self._epoch != self._known.promised:
            return False
        if self._parted:
            return base.position.epoch == self._epoch
        return base.position.index > self._known.committed and not self._known.history.has(base.position)

    def installed(self, base: Base) -> None:
        """Take in that the snapshot is in place: this log is part of the primary's again."""
        self._parted = False
        self._matched = base.position.index

    def _fetch(self, sender: MemberId, fetch: Fetch) -> None:
        history = self._known.history
        shared = history.shared(fetch.outline)
        if shared is None:
            self._out.send_snapshot(sender, fetch.epoch)
            return
        entries = history.following(shared.index, FETCH_ENTRIES, FETCH_BYTES)
        self._out.send(sender, Fetched(fetch.epoch, shared, entries))

    # Time

    def tick(self, now: Instant) -> None:
        """Ping the primary, search for one that is not heard, and refuse orders that were held too long.

        A member that was primary itself, and hears no other, opens the next epoch.
        """
        if now.boot >= self._next_ping:
            self._next_ping = now.boot + PING
            self._ping(now)
        if now.boot >= self._next_search:
            self._search(now)
        if self._handing is not None:
            self._tick_handing(now, self._handing)
            return
        if self._requests.are_held and now.boot - self._since > HELD:
            for origin, _ in self._requests.take_held():
                self._out.answer(origin, MemberReadOnly("the primary changed, and this member has no lease yet"))
        if self._known.was_primary() and now.boot - max(self._heard, self._since) > REOPEN:
            self._reopen(now)

    def _reopen(self, now: Instant) -> None:
        self._office.reopen(now, self._known.promised)

    def _ping(self, now: Instant) -> None:
        number = self._out.number()
        self._pings[number] = now.boot
        if len(self._pings) > _PINGS_KEPT:
            del self._pings[next(iter(self._pings))]
        known = self._epoch.candidate in self._known.others
        for member in self._known.others if self._is_lost(now) or not known else (self._epoch.candidate,):
            self._out.send(member, Ping(self._epoch, self._known.incarnation, number))

    def _is_lost(self, now: Instant) -> bool:
        return now.boot - max(self._heard, self._since) > SEARCH

    def _search(self, now: Instant) -> None:
        """Ask how the others stand: one may follow a primary that this member's list does not have any more."""
        self._next_search = now.boot + SEARCH
        if self._is_lost(now):
            for member in self._known.others:
                self._out.send(member, Ask())

    # Passing on

    def take(self, now: Instant, origin: Origin, order: Order) -> None:
        """Pass an order on to the primary; hold or refuse it without a lease."""
        if self._handing is not None:
            self._requests.hold(origin, order)
        elif isinstance(origin, tuple):
            self._out.answer(origin, OutcomeUnknown("this member is not primary any more"))
        elif not self.is_current(now):
            if now.boot < self._holds_until:
                self._requests.hold(origin, order)
            else:
                self._out.answer(origin, MemberReadOnly("this member has no lease from the primary"))
        else:
            number = self._out.number()
            self._forwards[number] = (origin, order)
            self._out.send(self._epoch.candidate, Forward.of(self._epoch, number, order))

    def leave(self, now: Instant) -> None:
        """Answer every order that was passed on, because its outcome is unknown."""
        for origin, order in self._forwards.values():
            if isinstance(order, Promote) and order.member == self._known.promised.candidate:
                self._requests.wait_for_primary(origin, order.member)
            else:
                self._out.answer(origin, OutcomeUnknown("the primary changed while it was asked"))
        self._forwards.clear()
        if self._handing is not None:
            why = NotPossible("the member to be promoted did not take over in time; the primary took it back")
            self._out.answer(self._handing.origin, why)
            self._handing = None

    # Promotion

    def _go(self, now: Instant, sender: MemberId, go: Go) -> None:
        """Open the epoch that the old primary promised, if the log is all there."""
        known = self._known
        if not self._may_go(sender, go):
            return
        self._local.promise(go.epoch)
        in_sync = known.configuration.in_sync
        awaits = tuple(member for member in in_sync if member != known.member)
        self.leave(now)
        opening = Open(known.members, in_sync, awaits)
        self._office.become(Primary(self._local, self._office, now, opening, last_to=sender))

    def _may_go(self, sender: MemberId, go: Go) -> bool:
        known = self._known
        if go.epoch.candidate != known.member or go.epoch <= known.promised or sender != self._epoch.candidate:
            return False
        return known.history.last == go.last and min(self.vouched(), self._matched) >= go.last.index

    def _tick_handing(self, now: Instant, handing: Handing) -> None:
        silent = now.boot - max(self._heard, self._since)
        if silent > RECLAIM and self._known.history.last.epoch != self._epoch:
            self._office.reopen(now, self._epoch)
        elif now.boot >= self._next_go and not self._heard:
            self._next_go = now.boot + RESEND
            self._disk.when_durable(lambda: self._out.send(handing.target, Go(self._epoch, handing.last)))

    def _hand_over_done(self) -> None:
        opened = self._known.configuration.opened
        is_open = self._known.history.last.epoch == self._epoch and self._known.committed >= opened
        if self._handing is not None and is_open:
            self._out.answer(self._handing.origin, opened, opened)
            self._handing = None
