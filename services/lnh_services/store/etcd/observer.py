"""The role of an ordinary member where etcd orders: follows the primary, and takes the lead when it is silent. Pure.

It follows as any follower does: entries, leases and answers come over the members' own links, and nothing of etcd is
needed for that. A member that is granted no lease looks at etcd. It takes the lead if

- it has it already: its store was started again, or the answer to an earlier try was lost;
- the primary asked it to (`Go`): it has everything, and the primary has stopped;
- the beat stood still for longer than the authority that a beat gives, on this member's own clock, counted from when it
  was seen. Then the primary has no authority left, and no lease that it granted is valid. Where failover is manual, an
  administrator must have said so, too.

**To take the lead** is one transaction: if lead and head (and, unasked, the beat) are what they were, this member has
the lead, and its `open` is the newest entry. It has read all entries up to that head, so none is ever dropped. A try of
unknown outcome is made again as it was; the authority counts from the first.
"""

from __future__ import annotations

from typing import Final

import msgspec

from lnh_common.errors import MalformedMessage, NotPossible, OutcomeUnknown, SealBroken
from lnh_common.messages.store import MemberInfo
from lnh_common.wire import codec
from lnh_services.store.etcd.asks import Asks
from lnh_services.store.etcd.leader import NO_SPACE, Leader
from lnh_services.store.etcd.office import EtcdOffice, is_rolled_back
from lnh_services.store.etcd.place import AUTHORITY, Keys, Lead, Place, pack, unpack
from lnh_services.store.etcd.requests import Compare, Differed, Done, Outcome, Put, Refused, Transaction, Why
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import ClusterId, Entry, MemberId, Milliseconds, Open, Position
from lnh_services.store.log.window import Base, Configuration
from lnh_services.store.replication.follower import Follower
from lnh_services.store.replication.member import Local
from lnh_services.store.replication.messages import Append, Go, Instant, Pong, RequestId
from lnh_services.store.replication.primary import DRIFT
from lnh_services.store.replication.role import Handing

LOOK: Final = 0.25  # seconds between two looks at etcd
UNGRANTED: Final = 0.5  # ... which begin when the primary has granted nothing for so long
PATIENCE: Final = 10.0  # for a take-over that an administrator has ordered, or a founding


class Founding(msgspec.Struct, frozen=True):
    """The beginning of a cluster, which is on no disk before etcd has it."""

    request: RequestId
    cluster: ClusterId
    member: MemberInfo
    base: Base


class TakeOver(msgspec.Struct, frozen=True):
    """What an administrator has ordered."""

    request: RequestId
    lost: frozenset[MemberId]
    since: float


class Taking(msgspec.Struct):
    """A try to take the lead.

    Args:
        seen: what stood in etcd.
        head: the newest entry then.
        ended: nobody was asked: the leases of before have ended.
        entries: those after this member's own log, as far as they are read.
        lead, opened, sent: what is tried, and when it was first.
    """

    seen: Place
    head: Position
    ended: bool
    entries: list[Entry] = []
    lead: Lead | None = None
    opened: Entry | None = None
    sent: float = 0.0


class Observer(Follower):
    """The role of an ordinary member, in the epoch it knows of.

    Args:
        founding: the cluster that it is to found.
        above: the term of its own is to be above this one.
    """

    def __init__(
        self,
        local: Local,
        office: EtcdOffice,
        now: Instant,
        handing: Handing | None = None,
        *,
        leased: bool = False,
        founding: Founding | None = None,
        above: int = 0,
    ) -> None:
        super().__init__(local, office, now, handing, leased=leased)
        self._etcd: Final = office
        self._keys: Final = Keys(local.known.cluster)
        self._asks: Final = Asks(local.out)
        self._founding = founding
        self._order: TakeOver | None = None
        self._invited = MemberId(b"")
        self._granted = now.boot
        self._sighting: tuple[bytes | None, bytes | None, float] = (None, None, now.boot)
        self._is_looking = False
        self._next_look: float = now.boot
        self._taking: Taking | None = None
        self._tried = above  # the highest term
        self._was_refused = False

    @property
    def asks(self) -> Asks:
        """What this role asked of etcd."""
        return self._asks

    # Looking

    def _pong(self, now: Instant, pong: Pong) -> None:
        super()._pong(now, pong)
        if pong.lease_ms:
            self._granted = now.boot

    def tick(self, now: Instant) -> None:
        """Do what a follower does, and look at etcd while the primary grants nothing."""
        super().tick(now)
        if self._office.role is not self:
            return
        self._tick_orders(now)
        if self._taking is None and not self._is_looking and self._looks(now):
            self._look(now)

    def _tick_orders(self, now: Instant) -> None:
        if self._order is not None and now.boot - self._order.since > PATIENCE:
            why = NO_SPACE if self._was_refused else "the primary renews its beat in etcd, or etcd does not answer"
            self._out.answer(self._order.request, NotPossible(f"not taken over: {why}"))
            self._order = None
        if self._founding is not None and now.boot - self._since > PATIENCE:
            why = NO_SPACE if self._was_refused else "etcd does not answer"
            self._out.answer(self._founding.request, OutcomeUnknown(f"no cluster was founded: {why}"))
            self._etcd.give_up()

    def _looks(self, now: Instant) -> bool:
        if self._handing is not None or self._disk.is_installing or now.boot < self._next_look:
            return False
        if self._founding is not None or self._invited or self._known.was_primary():
            return True
        return now.boot - self._granted > UNGRANTED

    def _reopen(self, now: Instant) -> None:
        """Do nothing: a member that was primary looks at etcd by itself."""

    def _look(self, now: Instant) -> None:
        if self._founding is not None:
            self._try(now, Taking(Place(), self._known.history.last, ended=True))
            return
        self._is_looking = True
        held = self._known.history.last
        self._asks.ask(self._keys.place, lambda later, outcome: self._looked(later, outcome, held))

    def _looked(self, now: Instant, outcome: Outcome, held: Position) -> None:
        self._is_looking = False
        self._next_look = now.boot + LOOK
        if not isinstance(outcome, Done):
            return
        place = Place.of(self._keys, outcome.found)
        if not held.index and place.head is None:
            return
        if is_rolled_back(place, held):
            self._etcd.stop(now)
            return
        lead, asked = place.leads(), False
        if lead.member in (self._known.member, self._invited):
            asked = True
        elif not self.is_silent(now, place) or not (self._order is not None or not place.is_manual()):
            return
        if held.index and not self._disk.is_installing:
            self._read(now, Taking(place, place.ends(), ended=not asked))

    def is_silent(self, now: Instant, place: Place) -> bool:
        """Tell whether the beat stood still for so long that the primary has no authority."""
        lead, beat, since = self._sighting
        if (lead, beat) != (place.lead, place.beat):
            since = self.moment(now)
        self._sighting = (place.lead, place.beat, since)
        return self.moment(now) - since > AUTHORITY * (1 + DRIFT)

    def moment(self, now: Instant) -> float:
        """Return the moment by the clock that silence is counted on."""
        return now.boot

    # Taking the lead

    def _read(self, now: Instant, taking: Taking) -> None:
        """Read what is in etcd after this log's end, or go on to the try."""
        self._taking = taking
        last = self._end(taking)
        if last.index >= taking.head.index:
            self._try(now, taking)
        else:
            asked = self._keys.batches(last.index, taking.head.index)
            self._asks.ask(asked, lambda later, outcome: self._has_read(later, outcome, taking))

    def _end(self, taking: Taking) -> Position:
        return taking.entries[-1].position() if taking.entries else self._known.history.last

    def _has_read(self, now: Instant, outcome: Outcome, taking: Taking) -> None:
        if not isinstance(outcome, Done) or not outcome.found:
            self._taking = None  # it was dropped from etcd meanwhile, or etcd does not answer
            return
        last = self._end(taking)
        try:
            read = [entry for _, value in outcome.found for entry in unpack(value) if entry.index > last.index]
            if not read or read[0].index > last.index + 1:
                self._out.say("too far behind to take the lead", last=last.index)
                self._taking = None
                return
            log.check_chain(last, read)
        except (SealBroken, MalformedMessage):
            self._etcd.stop(now)
            return
        taking.entries += read
        self._read(now, taking)

    def _try(self, now: Instant, taking: Taking) -> None:
        """Make the transaction that takes the lead, unless this member is no member any more."""
        last, opening = self._end(taking), self._opening(taking)
        if last != taking.head or opening is None:
            self._taking = None
            return
        self._tried = max(self._tried, self._known.promised.term, self._seen_term(taking)) + 1
        taking.lead = Lead(self._tried, self._known.member, self._known.incarnation)
        log_time = taking.entries[-1].log_time if taking.entries else self._known.history.last_time
        taking.opened = log.make_entry(last, taking.lead.epoch, Milliseconds(max(log_time, now.utc)), opening)
        taking.sent = now.boot
        self._taking = taking
        self._send(taking)

    def _seen_term(self, taking: Taking) -> int:
        return taking.seen.leads().term if taking.seen.lead is not None else 0

    def _opening(self, taking: Taking) -> Open | None:
        member = self._known.member
        if self._founding is not None:
            return Open((self._founding.member,), (member,))
        configuration: Configuration = self._known.configuration
        for entry in taking.entries:
            configuration = configuration.after(entry)
        if member not in configuration.ids:
            return None
        return Open(configuration.members, tuple(sorted({*configuration.in_sync, member})))

    def _send(self, taking: Taking) -> None:
        keys = self._keys
        assert taking.lead is not None, "a try without a term"
        assert taking.opened is not None, "a try without its open"
        position = taking.opened.position()
        self._asks.ask(
            Transaction(
                compares=self.compares(taking),
                puts=(
                    Put(keys.lead, codec.encode(taking.lead)),
                    Put(keys.beat, codec.encode([taking.lead.term, 0])),
                    Put(keys.log(position.index), pack((taking.opened,))),
                    Put(keys.head, codec.encode(position)),
                ),
                otherwise=keys.place,
            ),
            lambda now, outcome: self._tried_it(now, outcome, taking),
        )

    def compares(self, taking: Taking) -> tuple[Compare, ...]:
        """Return what must still be as it was seen."""
        seen, keys = taking.seen, self._keys
        same = (Compare(keys.lead, seen.lead), Compare(keys.head, seen.head))
        return (*same, Compare(keys.beat, seen.beat), Compare(keys.failover, seen.failover)) if taking.ended else same

    def _tried_it(self, now: Instant, outcome: Outcome, taking: Taking) -> None:
        assert taking.lead is not None, "a try without a term"
        assert taking.opened is not None, "a try without its open"
        self._was_refused = isinstance(outcome, Refused) and outcome.why is Why.NO_SPACE
        self._next_look = now.boot + LOOK
        if isinstance(outcome, Done):
            self._lead(now, taking, taking.lead, taking.opened)
            return
        if isinstance(outcome, Differed):
            place = Place.of(self._keys, outcome.found)
            ours = (codec.encode(taking.lead), codec.encode(taking.opened.position()))
            if (place.lead, place.head) == ours:
                self._lead(now, taking, taking.lead, taking.opened)  # an earlier try was carried out
                return
        elif not isinstance(outcome, Refused):
            self._send(taking)
            return
        self._taking = None

    def _lead(self, now: Instant, taking: Taking, lead: Lead, opened: Entry) -> None:
        known = self._known
        if self._founding is not None:
            founding = self._founding
            self._disk.want(found=(founding.cluster, known.member, founding.base))
        new = [entry for entry in taking.entries if entry.index > known.history.last.index]
        for entry in new:
            if entry.epoch > known.promised:
                self._local.promise(entry.epoch)
        if new:
            self._local.extend(new)
        self._local.promise(lead.epoch)
        origin = self._founding.request if self._founding is not None else None
        lost: frozenset[MemberId] = frozenset()
        if self._order is not None:
            origin, lost, self._order = self._order.request, self._order.lost, None
        self.leave(now)
        self._out.say("lead taken", term=lead.term, unasked=int(taking.ended))
        self._office.become(
            Leader(
                self._local,
                self._etcd,
                now,
                lead,
                opened,
                sent=taking.sent,
                ended=taking.ended,
                lost=lost,
                origin=origin,
            )
        )

    # Orders of others

    def take_over(self, now: Instant, request: RequestId, lost: frozenset[MemberId]) -> None:
        """Take the lead once the primary is silent, also where failover is manual, and remove the lost then."""
        if self._order is not None:
            self._out.answer(request, NotPossible("a take-over is under way"))
        else:
            self._order = TakeOver(request, lost, now.boot)

    def _go(self, now: Instant, sender: MemberId, go: Go) -> None:
        """Take the lead of the primary that asks for it."""
        if self._may_go(sender, go):
            self._invited = sender

    def _hand_over_done(self) -> None:
        # A member that was dropped from the set meanwhile hears that the `open` is committed before it has it on disk.
        if self._disk.durable >= self._known.configuration.opened:
            super()._hand_over_done()

    def leave(self, now: Instant) -> None:
        """Answer what waits for this role, because another takes over."""
        super().leave(now)
        if self._order is not None:
            self._out.answer(
                self._order.request, NotPossible("another member took the lead: ask it to remove the lost")
            )
            self._order = None

    # The log

    def _hear(self, now: Instant, sender: MemberId, message: Append | Pong) -> None:
        if isinstance(message, Append) and message.epoch == self._epoch and self._is_contradicted(message):
            self._etcd.stop(now)
        else:
            super()._hear(now, sender, message)

    def _is_contradicted(self, append: Append) -> bool:
        """Tell whether the primary's log has other entries than this one, which never is, unless etcd went back."""
        history = self._known.history
        theirs = (append.previous, *(entry.position() for entry in append.entries))
        return any(history.position(position.index) not in (None, position) for position in theirs)

    def may_install(self, sender: MemberId, base: Base) -> bool:
        """Tell whether a snapshot is the primary's and brings what this log does not have, and no try is under way."""
        return self._taking is None and super().may_install(sender, base)
