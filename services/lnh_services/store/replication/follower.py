"""The role of a member that is not primary: follows the primary's log, asks for its lease, passes on orders. Pure."""

from __future__ import annotations

from typing import Final

from lnh_common import limits
from lnh_common.errors import LnhError, MemberReadOnly, NotPossible, OutcomeUnknown
from lnh_services.store.log.entries import Entry, MemberId, Open, Position
from lnh_services.store.log.window import Base
from lnh_services.store.replication.member import Handing, Local, Origin
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
from lnh_services.store.replication.primary import Primary

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
        handing: set on an old primary that promised this epoch to the member it promotes.
        leased: it was read-write until it promised this epoch: a client sees a pause, not a refusal.
    """

    def __init__(self, local: Local, now: Instant, handing: Handing | None = None, *, leased: bool = False) -> None:
        self._local: Final = local
        self._epoch: Final = local.promised
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

    # The lease

    def is_current(self, now: Instant) -> bool:
        """Tell whether this member holds a lease of the epoch it promised last."""
        return now.boot < self._lease_until and self._epoch == self._local.promised

    def current_until(self, now: Instant) -> float:
        """Return the end of the lease."""
        return self._lease_until

    def _pong(self, now: Instant, pong: Pong) -> None:
        sent = self._pings.pop(pong.number, None)
        if not self._local.is_installing:
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
                self._local.answer(forwarded[0], answer, message.entry)
        elif isinstance(message, Forward):
            self._local.answer((sender, message.number), OutcomeUnknown("this member is not primary any more"))
        elif isinstance(message, Report) and sender in self._local.ids:
            self._local.vouch(message.committed.epoch)

    def _hear(self, now: Instant, sender: MemberId, message: Append | Pong) -> None:
        if message.epoch != self._epoch or sender != self._epoch.candidate:
            if message.epoch < self._local.promised:
                self._local.send(sender, Rejected(self._local.promised))
            return
        self._heard = now.boot
        if isinstance(message, Pong):
            self._pong(now, message)
        elif not self._local.is_installing:
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
        end = append.previous.index + len(append.entries)
        self._matched = max(self._matched, end)
        self._say_again = True
        self._commit(append.committed)

    def matches(self, previous: Position) -> bool:
        """Tell whether this log holds the position that the primary's entries follow."""
        return self._local.history.has(previous)

    def _new_entries(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...] | None:
        """Return the entries that are not in the log yet; None if they contradict what is committed here."""
        history = self._local.history
        for number, entry in enumerate(entries):
            held = history.position(entry.index)
            if held == entry.position():
                continue
            if held is not None:
                assert held.epoch != entry.epoch, "two entries of one epoch at one index"
                if entry.index <= self._local.committed:
                    return None
            return entries[number:]
        return ()

    def _commit(self, committed: int) -> None:
        self._local.commit(max(self._local.committed, self.known_committed(committed)))

    def known_committed(self, committed: int) -> int:
        """Return the part of the primary's commit index that this log is known to share."""
        return min(committed, self._matched)

    def _fall_behind(self, sender: MemberId) -> None:
        local = self._local
        outline = local.history.outline(local.committed)
        local.send(sender, Behind(self._epoch, local.incarnation, outline, self._parted))

    def settle(self, now: Instant) -> None:
        """Acknowledge entries that have become durable since, and whose items every cache has dropped."""
        vouched = min(self.vouched(), self._matched)
        if (vouched > self._said or self._say_again) and self._heard and not self._local.is_installing:
            position = self._local.history.position(vouched)
            if position is not None and vouched:
                self._said = vouched
                message = Appended(self._epoch, vouched, position.hash, self._local.incarnation, self._matched)
                self._local.send(self._epoch.candidate, message)
        self._say_again = False
        self._hand_over_done()
        if self._local.held and self.is_current(now) and self._handing is None:
            held, self._local.held = self._local.held, []
            for origin, order in held:
                self.take(now, origin, order)

    def vouched(self) -> int:
        """Return the index up to which the log is durable here, and every cache has dropped what it touches."""
        return self._local.vouched

    def projected(self) -> int:
        """Return the commit index as it is, because the primary alone moves it."""
        return self._local.committed

    def has_parted(self) -> bool:
        """Tell whether what is applied here is not part of the primary's log."""
        return self._parted

    def may_install(self, sender: MemberId, base: Base) -> bool:
        """Tell whether a snapshot is the primary's and brings what this log does not have."""
        if sender != self._epoch.candidate or self._epoch != self._local.promised:
            return False
        if self._parted:
            return base.position.epoch == self._epoch
        return base.position.index > self._local.committed and not self._local.history.has(base.position)

    def installed(self, base: Base) -> None:
        """Take in that the snapshot is in place: this log is part of the primary's again."""
        self._parted = False
        self._matched = base.position.index

    def _fetch(self, sender: MemberId, fetch: Fetch) -> None:
        history = self._local.history
        shared = history.shared(fetch.outline)
        if shared is None:
            self._local.send_snapshot(sender, fetch.epoch)
            return
        entries = history.following(shared.index, FETCH_ENTRIES, FETCH_BYTES)
        self._local.send(sender, Fetched(fetch.epoch, shared, entries))

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
        if self._local.held and now.boot - self._since > HELD:
            held, self._local.held = self._local.held, []
            for origin, _ in held:
                self._local.answer(origin, MemberReadOnly("the primary changed, and this member has no lease yet"))
        if self._local.was_primary() and now.boot - max(self._heard, self._since) > REOPEN:
            self._local.reopen(now, self._local.promised)

    def _ping(self, now: Instant) -> None:
        number = self._local.number()
        self._pings[number] = now.boot
        if len(self._pings) > _PINGS_KEPT:
            del self._pings[next(iter(self._pings))]
        known = self._epoch.candidate in self._local.others
        for member in self._local.others if self._is_lost(now) or not known else (self._epoch.candidate,):
            self._local.send(member, Ping(self._epoch, self._local.incarnation, number))

    def _is_lost(self, now: Instant) -> bool:
        return now.boot - max(self._heard, self._since) > SEARCH

    def _search(self, now: Instant) -> None:
        """Ask how the others stand: one may follow a primary that this member's list does not have any more."""
        self._next_search = now.boot + SEARCH
        if self._is_lost(now):
            for member in self._local.others:
                self._local.send(member, Ask())

    # Passing on

    def take(self, now: Instant, origin: Origin, order: Order) -> None:
        """Pass an order on to the primary; hold or refuse it without a lease."""
        local = self._local
        if self._handing is not None:
            local.held.append((origin, order))
        elif isinstance(origin, tuple):
            local.answer(origin, OutcomeUnknown("this member is not primary any more"))
        elif not self.is_current(now):
            if now.boot < self._holds_until:
                local.held.append((origin, order))
            else:
                local.answer(origin, MemberReadOnly("this member has no lease from the primary"))
        else:
            number = local.number()
            self._forwards[number] = (origin, order)
            local.send(self._epoch.candidate, Forward.of(self._epoch, number, order))

    def leave(self, now: Instant) -> None:
        """Answer every order that was passed on, because its outcome is unknown."""
        for origin, order in self._forwards.values():
            if isinstance(order, Promote) and order.member == self._local.promised.candidate:
                self._local.promotions.append((origin, order.member))
            else:
                self._local.answer(origin, OutcomeUnknown("the primary changed while it was asked"))
        self._forwards.clear()
        if self._handing is not None:
            why = NotPossible("the member to be promoted did not take over in time; the primary took it back")
            self._local.answer(self._handing.origin, why)
            self._handing = None

    # Promotion

    def _go(self, now: Instant, sender: MemberId, go: Go) -> None:
        """Open the epoch that the old primary promised, if the log is all there."""
        local = self._local
        if go.epoch.candidate != local.member or go.epoch <= local.promised or sender != self._epoch.candidate:
            return
        if local.history.last != go.last or min(self.vouched(), self._matched) < go.last.index:
            return
        local.promise(go.epoch)
        in_sync = local.configuration.in_sync
        awaits = tuple(member for member in in_sync if member != local.member)
        self.leave(now)
        local.role = Primary(local, now, Open(local.members, in_sync, awaits), last_to=sender)

    def _tick_handing(self, now: Instant, handing: Handing) -> None:
        silent = now.boot - max(self._heard, self._since)
        if silent > RECLAIM and self._local.history.last.epoch != self._epoch:
            self._local.reopen(now, self._epoch)
        elif now.boot >= self._next_go and not self._heard:
            self._next_go = now.boot + RESEND
            self._local.when_durable(lambda: self._local.send(handing.target, Go(self._epoch, handing.last)))

    def _hand_over_done(self) -> None:
        opened = self._local.configuration.opened
        is_open = self._local.history.last.epoch == self._epoch and self._local.committed >= opened
        if self._handing is not None and is_open:
            self._local.answer(self._handing.origin, opened, opened)
            self._handing = None
