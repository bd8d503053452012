"""The role of the primary where etcd orders: has etcd order entries, and acts while it has authority. Pure.

**Order.** What is appended is only proposed: neither the disk nor another member hears of it (`Knowledge.ordered`)
until etcd took it, in one transaction that compares the lead and the head. One batch at a time is with etcd. If it is
not known what became of the batch, the same batch is proposed again: of the two, etcd takes one at most, and the head
says whether it did. Nothing else is ever proposed for a place that a batch may still take.

**Authority.** The primary acts as one for `AUTHORITY` seconds after it sent a beat that etcd took. Whoever takes the
lead without being asked to has seen a beat unchanged for longer than that. Every lease ends before the authority of the
primary that grants it.

**Trim.** What a majority of the members has on disk, and two at least, is dropped from etcd.
"""

from __future__ import annotations

from typing import Final

from lnh_common.errors import LnhError, MemberReadOnly, NotPossible, OutcomeUnknown
from lnh_common.wire import codec
from lnh_services.store.etcd.asks import Asks
from lnh_services.store.etcd.office import EtcdOffice, is_rolled_back
from lnh_services.store.etcd.place import AUTHORITY, BATCH_BYTES, BATCH_ENTRIES, BEAT, Failover, Keys, Lead, Place, pack
from lnh_services.store.etcd.requests import Compact, Compare, Differed, Done, Outcome, Put, Refused, Transaction, Why
from lnh_services.store.log.entries import Entry, MemberId, Open, Position
from lnh_services.store.machine.apply import Answer
from lnh_services.store.replication.member import Local
from lnh_services.store.replication.messages import (
    Instant,
    Listing,
    Promote,
    RemoveMember,
    SetFailover,
    SetLeaseSettings,
)
from lnh_services.store.replication.outbox import Origin
from lnh_services.store.replication.primary import DRIFT, RESEND, Leaving, Primary

TRIM_ENTRIES: Final = 256  # so many more than need be kept are in etcd before they are dropped
NO_SPACE: Final = (
    "etcd has no space left and takes nothing: compact and defragment it, or raise its quota, then disarm the alarm"
)


class Leader(Primary):
    """The role of the member that etcd names, from the entry on that opened its epoch there.

    Args:
        local: the member's log, disk and caches.
        office: where another role takes its place.
        lead: what etcd names as the primary.
        opened: the `open`, which etcd holds.
        sent: when the transaction that made this member primary was first sent, in boot seconds.
        ended: whatever leases were granted before have ended.
        lost: members to take out of the cluster.
        origin: the request that is answered once this member serves.
    """

    def __init__(
        self,
        local: Local,
        office: EtcdOffice,
        now: Instant,
        lead: Lead,
        opened: Entry,
        *,
        sent: float,
        ended: bool,
        lost: frozenset[MemberId] = frozenset(),
        origin: Origin | None = None,
    ) -> None:
        content = opened.content()
        assert isinstance(content, Open), "an epoch begins with its open"
        self._entry: Final = opened
        super().__init__(local, office, now, content, origin=origin)
        self._etcd: Final = office
        self._keys: Final = Keys(local.known.cluster)
        self._asks: Final = Asks(local.out)
        self._fence: Final = Compare(self._keys.lead, codec.encode(lead))
        self._lead: Final = lead
        self._known.order(opened.index)
        self._authority: float = self.authority(sent)
        self._beats = 0
        self._next_beat: float = now.boot
        self._batch: tuple[Entry, ...] = ()  # may be ordered, or not
        self._is_asking = False
        self._next_ask = 0.0
        self._trimmed = 0
        self._is_trimming = False
        self._has_space = True
        self._setting: dict[int, Origin] = {}  # who waits for a change of failover
        if ended:
            for progress in self._progress.values():
                progress.granted_until = now.boot + self._known.configuration.lease_settings.lease_ms / 2000
        for member in sorted(lost & frozenset(self._known.others)):
            self._leaving[member] = Leaving(None)

    def _append_open(self, now: Instant, opening: Open, origin: Origin | None) -> Entry:
        if origin is not None:
            self._requests.wait(origin, self._entry.index)
        self._local.extend((self._entry,))
        return self._entry

    @property
    def asks(self) -> Asks:
        """What this role asked of etcd."""
        return self._asks

    # Authority

    def authority(self, sent: float) -> float:
        """Compute the end of the authority that comes of a beat."""
        return sent + AUTHORITY

    def has_authority(self, now: Instant) -> bool:
        """Tell whether no other member can have taken the lead unasked."""
        return now.boot < self._authority

    def current_until(self, now: Instant) -> float:
        """Return the end of a lease that this member would grant itself now, which authority bounds."""
        return min(super().current_until(now), self._authority)

    def lease_ms(self, now: Instant) -> int:
        """Compute what a member is granted now: it ends before this member's authority, also by the slowest clock."""
        left = (self._authority - now.boot) / (1 + DRIFT)
        return max(0, min(super().lease_ms(now), int(left * 1000)))

    def _is_barred(self, now: Instant) -> bool:
        return not self.has_authority(now) or super()._is_barred(now)

    def _why_not(self, now: Instant) -> str:
        if not self._has_space:
            return NO_SPACE
        return super()._why_not(now) if self.has_authority(now) else "etcd does not answer the primary"

    # Order

    def settle(self, now: Instant) -> None:
        """Append waiting orders, commit as far as members acknowledged, and have etcd order what was appended."""
        super().settle(now)
        if self._acts() and not self._is_asking and now.boot >= self._next_ask:
            self._propose(now)

    def _may_append(self, now: Instant) -> bool:
        behind = self._known.ordered - self._disk.durable
        return not self._batch and self.has_authority(now) and behind <= BATCH_ENTRIES

    def _propose(self, now: Instant) -> None:
        known = self._known
        self._batch = self.batch()
        if not self._batch:
            return
        last = self._batch[-1].position()
        self._is_asking = True
        self._asks.ask(
            Transaction(
                compares=(*self.fences(), Compare(self._keys.head, codec.encode(known.ordered_end))),
                puts=(Put(self._keys.log(last.index), pack(self._batch)), Put(self._keys.head, codec.encode(last))),
                otherwise=self._keys.place,
            ),
            self._proposed,
        )

    def batch(self) -> tuple[Entry, ...]:
        """Return what is proposed now: the batch whose fate is not known, if there is one."""
        return self._batch or self._known.history.following(self._known.ordered, BATCH_ENTRIES, BATCH_BYTES)

    def fences(self) -> tuple[Compare, ...]:
        """Return what must still hold when this member changes something in etcd."""
        return (self._fence,)

    def _proposed(self, now: Instant, outcome: Outcome) -> None:
        self._is_asking = False
        last = self._batch[-1].position()
        if isinstance(outcome, Done):
            self._ordered(last)
        elif isinstance(outcome, Differed):
            place = Place.of(self._keys, outcome.found)
            if place.lead == self._fence.value and place.head == codec.encode(last):
                self._ordered(last)  # an earlier try was carried out
            else:
                self._differs(now, place, self._known.ordered_end)
        elif isinstance(outcome, Refused):
            self._is_refused(outcome)
            self._next_ask = now.boot + RESEND

    def _ordered(self, last: Position) -> None:
        self._batch = ()
        self._known.order(last.index)

    def _differs(self, now: Instant, place: Place, held: Position) -> None:
        """Take in that another member has the lead, or that etcd is not what it was when the log ended at `held`."""
        if place.lead == self._fence.value or is_rolled_back(place, held):
            self._etcd.stop(now)
            return
        lead = place.leads()
        self._out.say("lead lost", to=lead.member.hex(), term=lead.term)
        self._etcd.give_way(now, lead.epoch)

    def _is_refused(self, refused: Refused) -> None:
        if refused.why is Why.NO_SPACE and self._has_space:
            self._has_space = False
            self._out.say("etcd has no space")
        elif refused.why is not Why.NO_SPACE:
            self._out.say("etcd refuses", why=refused.text)

    # Failover

    def _take_order(
        self, now: Instant, origin: Origin, order: Listing | RemoveMember | Promote | SetLeaseSettings | SetFailover
    ) -> None:
        if not isinstance(order, SetFailover):
            super()._take_order(now, origin, order)
            return
        wanted = Failover(order.manual, self._out.number())
        self._setting[wanted.number] = origin

        def looked(_: Instant, outcome: Outcome) -> None:
            if isinstance(outcome, Done):
                self._set_failover(wanted, Place.of(self._keys, outcome.found).failover)
            else:
                self._is_set(wanted, NotPossible("etcd does not answer"))

        self._asks.ask(self._keys.place, looked)

    def _set_failover(self, wanted: Failover, before: bytes | None) -> None:
        """Replace what was seen; what is not known to be done is asked again, and never undoes what came after it."""
        value = codec.encode(wanted)
        held = self._known.ordered_end

        def tried(now: Instant, outcome: Outcome) -> None:
            place = Place.of(self._keys, outcome.found) if isinstance(outcome, Differed) else None
            if isinstance(outcome, Done) or (place is not None and place.failover == value):
                self._is_set(wanted, self._known.committed)
            elif isinstance(outcome, Refused):
                self._is_set(wanted, OutcomeUnknown(f"etcd refuses: {outcome.text}"))
            elif place is None:
                self._set_failover(wanted, before)
            elif place.lead == self._fence.value:
                self._is_set(wanted, OutcomeUnknown("failover was changed at the same moment"))
            else:
                self._differs(now, place, held)

        compares = (*self.fences(), Compare(self._keys.failover, before))
        change = Transaction(compares, (Put(self._keys.failover, value),), otherwise=self._keys.place)
        self._asks.ask(change, tried)

    def _is_set(self, wanted: Failover, answer: Answer) -> None:
        self._out.answer(self._setting.pop(wanted.number), answer)

    # Time

    def tick(self, now: Instant) -> None:
        """Do what a primary does, renew the authority, and trim; refuse what waits when there is no authority."""
        super().tick(now)
        if self._office.role is not self or not self._acts():
            return
        if now.boot >= self._next_beat:
            self._next_beat = now.boot + BEAT
            self._beat(now)
        if not self.has_authority(now):
            self._refuse_queue(MemberReadOnly(self._why_not(now)))
        if not self._is_trimming and self._known.ordered - self._trimmed > TRIM_ENTRIES:
            self._trim()

    def _beat(self, now: Instant) -> None:
        self._beats += 1
        value = codec.encode([self._lead.term, self._beats])
        held, sent = self._known.ordered_end, now.boot

        def beaten(later: Instant, outcome: Outcome) -> None:
            if isinstance(outcome, Done):
                self._authority = max(self._authority, self.authority(sent))
                self._has_space = True
            elif isinstance(outcome, Differed):
                self._differs(later, Place.of(self._keys, outcome.found), held)
            elif isinstance(outcome, Refused):
                self._is_refused(outcome)

        self._asks.ask(Transaction(self.fences(), (Put(self._keys.beat, value),), otherwise=self._keys.place), beaten)

    def _refuse_queue(self, why: LnhError) -> None:
        for origin, _ in self._queue:
            self._refuse(origin, why)
        self._queue.clear()

    def _trim(self) -> None:
        until = self.kept_by_enough()
        if until <= self._trimmed:
            return
        self._is_trimming = True

        def trimmed(now: Instant, outcome: Outcome) -> None:
            self._is_trimming = False
            if isinstance(outcome, Done):
                self._trimmed = until
                self._asks.ask(Compact(outcome.revision), lambda *_: None)

        self._asks.ask(Transaction(self.fences(), deletes=(self._keys.batches_within(until),)), trimmed)

    def kept_by_enough(self) -> int:
        """Return the index up to which a majority of the members, and two at least, has the log on disk."""
        known = self._known
        own = min(self._disk.durable, known.ordered)
        held = sorted([own, *(self._of(member).match for member in known.others)], reverse=True)
        return held[min(len(held), max(2, len(held) // 2 + 1)) - 1]

    def leave(self, now: Instant) -> None:
        """Answer every order that waits, and take back what was proposed: the log of the next primary says its fate."""
        super().leave(now)
        for origin in self._setting.values():
            self._out.answer(origin, OutcomeUnknown("the primary changed while failover was set"))
        self._setting.clear()
        self._local.retract()
