"""Opens an epoch: gathers promises, takes the greatest log among those gathered, appends the `open`. Pure.

One rule for all occasions. A primary that starts again, or that finds promises made above its epoch, asks every member
and goes on with those that answer. A member that takes over from a lost primary asks first without promising, needs
every survivor, and refuses before anything is promised if one is missing.
"""

from __future__ import annotations

from typing import Final

from lnh_common.errors import LnhError, MemberReadOnly, NotPossible, OutcomeUnknown
from lnh_common.messages.store import MemberInfo
from lnh_services.store.log.entries import NO_EPOCH, Entry, Epoch, MemberId, Open
from lnh_services.store.log.window import Base
from lnh_services.store.replication.member import Local
from lnh_services.store.replication.messages import (
    Ask,
    Fetch,
    Fetched,
    Forward,
    Instant,
    Message,
    Order,
    Ping,
    Prepare,
    Rejected,
    Report,
)
from lnh_services.store.replication.outbox import Origin
from lnh_services.store.replication.primary import Primary
from lnh_services.store.replication.role import Office
from lnh_services.store.replication.standing import Lag

RESEND: Final = 0.3
GATHER: Final = 0.5  # seconds a primary that starts again waits for the other members' answers
ASK: Final = 2.0  # ... and one that takes over, before it says who is missing
LOST: Final = 0.5  # ... and for the word of the lost, once every survivor has answered
PATIENCE: Final = 10.0
AGAIN: Final = 0.25  # before another try, more for members later in the list: they would only disturb one another


class Candidate:
    """The role of a member that opens an epoch above all it hears of.

    Args:
        local: the member's log, disk and caches.
        office: where another role takes its place.
        above: the epoch is higher than this one.
        required: members that must promise; none, where an old primary goes on with those that answer.
        lost: of a take-over, the members that will be none any more.
        force: of a take-over, whether to go on without members that do not answer.
        origin: of a take-over, the request for it.
    """

    def __init__(
        self,
        local: Local,
        office: Office,
        now: Instant,
        above: Epoch,
        *,
        required: frozenset[MemberId] = frozenset(),
        lost: frozenset[MemberId] = frozenset(),
        force: bool = False,
        origin: Origin | None = None,
    ) -> None:
        self._local: Final = local
        self._known: Final = local.known
        self._disk: Final = local.disk
        self._out: Final = local.out
        self._office: Final = office
        self._above = max(above, local.known.promised)
        self._required = required
        self._lost: Final = lost
        self._force: Final = force
        self._origin = origin
        self._began: Final = now.boot
        self._asking = bool(lost)
        self._epoch = NO_EPOCH  # once promised
        self._since = now.boot  # of this try
        self._again_at = 0.0
        self._next_send = 0.0
        self._reports: dict[MemberId, Report] = {}
        self._members: dict[MemberId, MemberInfo] = {MemberId(info.id): info for info in local.known.members}
        self._best: MemberId | None = None  # whose log is fetched
        if not self._asking:
            self._prepare(now)

    @property
    def primary(self) -> MemberId:
        """No member: the epoch has no primary yet."""
        return MemberId(b"")

    def is_current(self, now: Instant) -> bool:
        """Return False: this member is not read-write."""
        return False

    def current_until(self, now: Instant) -> float:
        """Return now: no cache may be used as current."""
        return now.boot

    def promotable(self) -> None:
        """Return None: the primary decides that."""

    def lags(self) -> tuple[Lag, ...]:
        """Return nothing: the primary alone follows the others."""
        return ()

    def projected(self) -> int:
        """Return the commit index as it is, because the log's fate is open."""
        return self._known.committed

    def has_parted(self) -> bool:
        """Return False: nothing applied here is known to be outside the log."""
        return False

    def may_install(self, sender: MemberId, base: Base) -> bool:
        """Tell whether a snapshot is of the member whose log is fetched, and newer than what is committed here."""
        return sender == self._best and base.position.index > self._known.committed

    def installed(self, base: Base) -> None:
        """Do nothing: the entries behind the snapshot are fetched."""

    def take(self, now: Instant, origin: Origin, order: Order) -> None:
        """Refuse an order, because there is no primary that could take it."""
        why = "this member opens a new epoch"
        refusal: LnhError = OutcomeUnknown(why) if isinstance(origin, tuple) else MemberReadOnly(why)
        self._out.answer(origin, refusal)

    # Whom to ask

    @property
    def _others(self) -> list[MemberId]:
        return [member for member in self._members if member != self._known.member]

    @property
    def _survivors(self) -> list[MemberId]:
        return [member for member in self._others if member not in self._lost]

    # Messages

    def receive(self, now: Instant, sender: MemberId, message: Message) -> None:
        """Take in reports, rejections and fetched entries; a higher epoch makes this member outbid it or give up."""
        if isinstance(message, Report):
            self._report(now, sender, message)
        elif isinstance(message, Rejected) and message.promised > self._known.promised:
            self._outbid(now, message.promised)
        elif isinstance(message, Ping) and message.epoch > self._known.promised and not self._asking:
            self._outbid(now, message.epoch)
        elif isinstance(message, Fetched) and sender == self._best and message.epoch == self._epoch:
            self._fetched(now, message)
        elif isinstance(message, Forward):
            self._out.answer((sender, message.number), OutcomeUnknown("the primary opens a new epoch"))

    def _report(self, now: Instant, sender: MemberId, report: Report) -> None:
        if report.epoch != self._epoch or sender not in self._members:
            return
        self._reports[sender] = report
        if self._best is not None:
            # It promised while the greatest log was fetched: it keeps the `open` too, and its log may be greater still.
            if report.last.rank > self._reports[self._best].last.rank:
                self._gathered(now)
            return
        if self._asking:
            self._learn_members(report)
        if all(member in self._reports for member in (self._others if self._asking else self._survivors)):
            self._all_answered(now)

    def _learn_members(self, report: Report) -> None:
        """Add the members that only another member knows of, which are asked too."""
        own = self._known.history.last
        if report.last.rank > own.rank or not self._known.history.has(report.last):
            removed = {each.member for each in self._known.expelling()}
            for info in report.members:
                if MemberId(info.id) not in removed:
                    self._members.setdefault(MemberId(info.id), info)

    def _outbid(self, now: Instant, promised: Epoch) -> None:
        """Take in that a member promised a higher epoch."""
        self._above = max(self._above, promised)
        if self._lost:
            self._give_up(
                now, NotPossible("another member opened, or opens, a higher epoch; look at the cluster again")
            )
        elif not self._again_at:
            place = sorted(self._members).index(self._known.member)
            self._again_at = now.boot + AGAIN * (1 + place)

    # Steps

    def _prepare(self, now: Instant) -> None:
        """Promise a new epoch; once that is durable, ask for the others' promises."""
        self._asking = False
        self._since, self._again_at = now.boot, 0.0
        self._epoch = Epoch(max(self._above.term, self._known.promised.term) + 1, self._known.member)
        self._best = None
        self._reports = {}
        self._local.promise(self._epoch)
        epoch = self._epoch
        self._disk.when_durable(lambda: self._send_prepare(epoch))
        self._next_send = now.boot + RESEND

    def _send_prepare(self, epoch: Epoch) -> None:
        if self._office.role is not self or epoch != self._epoch:
            return
        self._reports[self._known.member] = self._known.report(epoch)
        for member in self._survivors:
            self._out.send(member, Prepare(epoch))

    def settle(self, now: Instant) -> None:
        """Go on at once where there is no other member to ask."""
        if self._known.member in self._reports and self._best is None and not self._survivors and not self._again_at:
            self._gathered(now)

    def _all_answered(self, now: Instant) -> None:
        if self._asking:
            self._asked(now)
        elif self._known.member in self._reports and not self._again_at:
            self._gathered(now)

    def _asked(self, now: Instant) -> None:
        """Decide whether a take-over may begin; a refusal comes here, before anything is promised."""
        for member in sorted(self._lost & self._reports.keys()):
            if self._reports[member].primary:
                self._give_up(
                    now, NotPossible(f"{self._name(member)} answers as primary: promote another, then remove it")
                )
                return
        missing = [self._name(member) for member in self._survivors if member not in self._reports]
        if missing and not self._force:
            names = ", ".join(missing)
            why = f"no answer from {names}: every member but the lost one is needed, unless forced (--force);"
            self._give_up(now, NotPossible(f"{why} what only they know is lost then"))
            return
        if self._force and now.boot - self._began < self._lease():
            return  # leases of those that do not answer must have ended
        for report in self._reports.values():
            self._above = max(self._above, report.promised)
        self._required = frozenset(member for member in self._survivors if not self._force or member in self._reports)
        self._prepare(now)

    def _lease(self) -> float:
        longest = max((report.longest_ms for report in self._reports.values()), default=0)
        return max(longest, self._known.configuration.longest_ms) / 1000 * 1.05

    def _name(self, member: MemberId) -> str:
        info = self._members.get(member)
        return info.name if info is not None else member.hex()

    def _gathered(self, now: Instant) -> None:
        """Go on with the greatest log, because the promises are there."""
        best = max(sorted(self._reports), key=lambda member: self._reports[member].last.rank)
        own = self._known.history.last
        if self._reports[best].last.rank <= own.rank:
            self._open(now)
            return
        self._best = best
        self._fetch(now)

    def _fetch(self, now: Instant) -> None:
        assert self._best is not None, "a log is fetched from somebody"
        self._next_send = now.boot + RESEND
        outline = self._known.history.outline(self._known.committed)
        self._out.send(self._best, Fetch(self._epoch, outline))

    def _fetched(self, now: Instant, message: Fetched) -> None:
        assert self._best is not None, "a log is fetched from somebody"
        history = self._known.history
        if self._disk.is_installing or not history.has(message.previous):
            return
        new = self._new(message.entries)
        if new:
            if new[0].index <= self._known.committed:
                self._give_up(now, NotPossible("this member committed what the greatest log does not hold"))
                return
            self._local.truncate(new[0].index - 1)
            self._local.extend(new)
        if self._known.history.has(self._reports[self._best].last):
            self._open(now)
        elif message.entries:
            self._fetch(now)

    def _new(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        for number, entry in enumerate(entries):
            if self._known.history.position(entry.index) != entry.position():
                return entries[number:]
        return ()

    def _open(self, now: Instant) -> None:
        known = self._known
        for member, report in sorted(self._reports.items()):
            if self._forked(report):
                why = f"{self._name(member)} committed what the greatest log does not hold"
                if not self._force:
                    self._give_up(now, NotPossible(f"{why}; choose which to keep, and use force"))
                    return
        listing = max(self._reports.values(), key=_listed)
        listed = {info.id: info for info in known.configuration.members}  # the log says how each is listed
        members = tuple(listed.get(info.id, info) for info in listing.members if MemberId(info.id) not in self._lost)
        ids = {MemberId(info.id) for info in members}
        if known.member not in ids:
            self._give_up(now, NotPossible("this member is not in the newest member list"))
            return
        in_sync = tuple(sorted({*(member for member in known.configuration.in_sync if member in ids), known.member}))
        promisers = frozenset(member for member in self._reports if member in ids) - {known.member}
        awaits = tuple(sorted(promisers if self._lost else self._required & ids))
        longest = max(report.longest_ms for report in self._reports.values())
        opening = Open(members, in_sync, awaits)
        self._origin, origin = None, self._origin
        primary = Primary(self._local, self._office, now, opening, keepers=promisers, origin=origin, longest_ms=longest)
        self._office.become(primary)

    def _forked(self, report: Report) -> bool:
        """Tell whether a member committed past where its log parts from this one."""
        history, committed = self._known.history, report.committed
        return committed.index >= history.base.position.index and not history.has(committed)

    # Time

    def tick(self, now: Instant) -> None:
        """Ask again, go on without members that stay silent, or give up."""
        if self._again_at:
            if now.boot >= self._again_at:
                self._prepare(now)
            return
        if now.boot - self._began > PATIENCE and (self._lost or self._required):
            self._give_up(now, NotPossible("not every member needed promised in time"))
            return
        waited = now.boot - self._since
        if self._asking:
            if waited > (LOST if all(member in self._reports for member in self._survivors) else ASK):
                self._asked(now)
        elif self._best is None and waited > GATHER and self._may_go_on():
            self._gathered(now)
        elif self._best is not None and waited > PATIENCE / 2:
            self._prepare(now)
        if self._office.role is self and now.boot >= self._next_send:
            self._send_again(now)

    def _may_go_on(self) -> bool:
        return self._known.member in self._reports and self._required <= self._reports.keys()

    def _send_again(self, now: Instant) -> None:
        self._next_send = now.boot + RESEND
        if self._best is not None:
            self._fetch(now)
            return
        message: Message = Ask() if self._asking else Prepare(self._epoch)
        if self._asking or self._known.member in self._reports:
            for member in self._others if self._asking else self._survivors:
                if member not in self._reports:
                    self._out.send(member, message)

    def invalidated(self, now: Instant, number: int) -> None:
        """Do nothing: this role waits for no invalidation."""

    def _give_up(self, now: Instant, why: LnhError) -> None:
        if self._origin is not None:
            self._out.answer(self._origin, why)
            self._origin = None
        self._office.rest(now)

    def leave(self, now: Instant) -> None:
        """Answer the request for a take-over: another member opened a higher epoch."""
        if self._origin is not None:
            self._out.answer(self._origin, NotPossible("another member opened a higher epoch"))
            self._origin = None


def _listed(report: Report) -> tuple[Epoch, int]:
    """Return how new a report's member list is."""
    kept = report.kept
    if kept is not None and kept.epoch > report.last.epoch:
        return kept.epoch, kept.index
    return report.last.rank
