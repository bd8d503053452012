"""Holds what a member has by itself, whatever its role: log, promise, the durable step, caches, waiting reads. Pure.

The theory is in `replica.py`; the roles (`follower.py`, `candidate.py`, `primary.py`) act through this.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from lnh_common.errors import LnhError, OutcomeUnknown
from lnh_common.messages.store import Key, MemberInfo
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import ClusterId, Entry, Epoch, MemberId, Milliseconds, Position, Write
from lnh_services.store.log.window import Base, Configuration, History, Removed
from lnh_services.store.machine.apply import Answer, cached, touched
from lnh_services.store.machine.restore_swap import EVERYTHING
from lnh_services.store.replication.caches import NO_ENTRY, NOTHING_BEFORE, Invalidations
from lnh_services.store.replication.messages import (
    Effect,
    Erase,
    Forwarded,
    Install,
    Instant,
    Message,
    Order,
    Persist,
    ReadId,
    Reply,
    Report,
    RequestId,
    Say,
    Send,
    SendSnapshot,
    Serve,
)
from lnh_services.store.replication.reads import Interest, Reads

Origin = RequestId | tuple[MemberId, int]  # who asked: this member's shell, or another member under its number

APPLIED_AT_ONCE: Final = 4096  # items that a durable step changes, about: it takes seconds at most (limits.DISK_STALL)


class Handing(msgspec.Struct, frozen=True):
    """The state of an old primary while the member it promotes opens the epoch it promised.

    Args:
        target: the member promoted.
        origin: the request for it.
        last: the end of the log that is handed over.
    """

    target: MemberId
    origin: Origin
    last: Position


class Role(Protocol):
    """The part that a member plays in the epoch it promised."""

    @property
    def primary(self) -> MemberId:
        """The member that this role takes for the primary; empty while it knows none."""

    def is_current(self, now: Instant) -> bool:
        """Tell whether reads are current and writes are taken."""

    def current_until(self, now: Instant) -> float:
        """Return the boot seconds beyond which no cache of this member may be used as current."""

    def take(self, now: Instant, origin: Origin, order: Order) -> None:
        """Carry out, pass on or refuse an order."""

    def receive(self, now: Instant, sender: MemberId, message: Message) -> None:
        """Take in a message of a listed member that is not of a lower epoch."""

    def tick(self, now: Instant) -> None:
        """Do what time brings: repeat messages, and give up what took too long."""

    def settle(self, now: Instant) -> None:
        """Acknowledge, commit and begin what waited, because something may have become durable, invalidated or idle."""

    def invalidated(self, now: Instant, number: int) -> None:
        """Take in that an invalidation is over that this role may have begun."""

    def projected(self) -> int:
        """Return the commit index once everything in the log is durable here."""

    def may_install(self, sender: MemberId, base: Base) -> bool:
        """Tell whether a member's snapshot may take the place of this member's state."""

    def has_parted(self) -> bool:
        """Tell whether what is applied here is known not to be a part of the primary's log."""

    def installed(self, base: Base) -> None:
        """Take in that the snapshot is in place."""

    def leave(self, now: Instant) -> None:
        """Answer every request that waits for this role, because another role takes over."""


class Local(ABC):
    """Holds one member's own log, promise, disk and caches."""

    def __init__(self, incarnation: bytes) -> None:
        self.incarnation: Final = incarnation
        self._out: list[Effect] = []
        self._steps = 0
        self._numbers = int.from_bytes(incarnation[:6], "big")  # what answers an earlier incarnation is no answer
        self._reads: Final = Reads()
        self._invalidations: Final = Invalidations()
        self._clear()

    def _clear(self) -> None:
        self.cluster = ClusterId(b"")
        self.member = MemberId(b"")
        self.history = History(Base(Position(log.NO_EPOCH, 0, b""), Milliseconds(0), Configuration()))
        self.promised = log.NO_EPOCH
        self.kept: Entry | None = None
        self.diverged = False
        self.expelled: Removed | None = None
        self.role: Role | None = None
        self._vouched_for = log.NO_EPOCH  # an epoch that a listed member has committed in
        self.held: list[tuple[Origin, Order]] = []  # taken while the primary hands over
        self.promotions: list[tuple[Origin, MemberId]] = []  # who waits for a member to be primary
        self.committed = 0  # known to be
        self.applied = 0  # and in the state on disk
        self.durable = 0  # the last entry on disk
        self._written = 0  # the last entry handed to the disk
        self._handed = 0  # the commit index handed to the disk
        self._step: Persist | Install | Erase | None = None  # with the disk now
        self._step_last = 0  # the log's end when it began
        self._refused = False  # the disk took nothing of the last step
        self._wanted: dict[str, object] = {}  # fields of the next Persist that are not of the log
        self._dropped: list[Entry] = []
        self._must_sync = False
        self._erasing: RequestId | None = None
        self._offer: tuple[MemberId, int, Base] | None = None
        self._after: list[tuple[int, Callable[[], None]]] = []  # what waits for which step
        self._reads.clear()
        self._asked: dict[int, Origin] = {}  # who waits for which entry
        self._answers: dict[int, Answer] = {}

    # What stands

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

    @property
    def is_idle(self) -> bool:
        """Tell whether no step is with the disk, and the disk takes steps."""
        return self._step is None and not self._refused

    @property
    def is_installing(self) -> bool:
        """Tell whether a snapshot is about to take the place of log and state."""
        return isinstance(self._step, Install) or self._offer is not None

    @property
    def invalidated_index(self) -> int:
        """The index up to which all caches have dropped what the entries touch."""
        return self._invalidations.reach(self.history.last.index)

    @property
    def caches_known(self) -> bool:
        """Tell whether caches have dropped all that they may have held before this start, or of another log."""
        return not self._invalidations.is_from_the_start

    @property
    def vouched(self) -> int:
        """Return the index that this member can acknowledge: durable here, and its caches are invalidated up to it."""
        return min(self.durable, self.invalidated_index)

    @property
    def settled(self) -> int:
        """Return the index up to which every entry is applied, and all caches have dropped what it touches."""
        return min(self.applied, self.invalidated_index)

    def was_primary(self) -> bool:
        """Tell whether the newest epoch that this member knows to have been opened is its own."""
        kept = self.kept.epoch if self.kept is not None else log.NO_EPOCH
        return self.configuration.candidate == self.member and kept <= self.history.last.epoch

    def report(self, epoch: Epoch) -> Report:
        """Make the report of how this member stands; `epoch` is the one promised with it."""
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
            primary=self.is_serving(),
        )

    @abstractmethod
    def is_serving(self) -> bool:
        """Tell whether this member is primary, and its `open` is committed."""

    @abstractmethod
    def follow(self, now: Instant, epoch: Epoch) -> None:
        """Promise a higher epoch of another member, and become an ordinary member in it."""

    @abstractmethod
    def reopen(self, now: Instant, above: Epoch) -> None:
        """Open an epoch above `above` and all promised here, as the primary by this member's own log."""

    @abstractmethod
    def rest(self, now: Instant, handing: Handing | None = None, *, leased: bool = False) -> None:
        """Become an ordinary member in the epoch promised last."""

    @abstractmethod
    def take(self, now: Instant, origin: Origin, order: Order) -> None:
        """Carry out, pass on or refuse an order."""

    # Saying

    def number(self) -> int:
        """Draw a number that this member never gave to a message before."""
        self._numbers += 1
        return self._numbers

    def send(self, to: MemberId, message: Message) -> None:
        """Have a message sent to a member."""
        self._out.append(Send(to, message))

    def send_snapshot(self, to: MemberId, epoch: Epoch) -> None:
        """Have a snapshot sent to a member, for an epoch."""
        self._out.append(SendSnapshot(to, epoch))

    def say(self, event: str, **fields: str | int) -> None:
        """Have an event logged."""
        self._out.append(Say(event, fields))

    def answer(self, origin: Origin, answer: Answer, entry: int = 0) -> None:
        """Answer a request: of this store's own client, or the member that passed it on."""
        if not isinstance(origin, tuple):
            self._out.append(Reply(origin, answer, entry))
        elif isinstance(answer, LnhError):
            code, text, detail = answer.to_wire()
            self.send(origin[0], Forwarded(origin[1], 0, (code, text, detail), entry))
        else:
            self.send(origin[0], Forwarded(origin[1], answer, None, entry))

    # The log

    def append(self, now: Instant, payload: log.Payload, origin: Origin | None = None) -> Entry:
        """Append an entry of this member's own epoch, and remember the request that waits for it."""
        assert self.promised.candidate == self.member, "appending in another member's epoch"
        log_time = Milliseconds(max(self.history.last_time, now.utc))
        entry = log.make_entry(self.history.last, self.promised, log_time, payload)
        if origin is not None:
            self._asked[entry.index] = origin
        self.extend((entry,))
        return entry

    def extend(self, entries: Sequence[Entry]) -> None:
        """Take entries that follow the log's end; every cache drops what they touch."""
        self.history.extend(entries)
        keys = frozenset[Key]().union(*(self._note_touches(entry) for entry in entries))
        if keys:
            self._invalidate(entries[0].index, keys - {EVERYTHING}, everything=EVERYTHING in keys)

    def _note_touches(self, entry: Entry) -> frozenset[Key]:
        content = entry.content()
        if not isinstance(content, Write):
            return frozenset()
        self._reads.touch(entry.index, touched(content.commit))
        return cached(content.commit)

    def truncate(self, last: int) -> None:
        """Drop what comes after index `last`: it is saved first, and every cache drops everything."""
        assert last >= self.committed, "dropping what is committed"
        dropped = self.history.truncate(last)
        if dropped:
            self._dropped += dropped
            self._gone_after(last, OutcomeUnknown("the entry was dropped when another member took over"))
            self.invalidate_everything()
            self.say("entries dropped", after=last, count=len(dropped))

    def _gone_after(self, last: int, why: LnhError) -> None:
        self._written, self.durable = min(self._written, last), min(self.durable, last)
        self._reads.drop_after(last)
        self.release(last, why)

    def release(self, after: int, why: LnhError) -> None:
        """Answer every request that waits for an entry after index `after`."""
        for index in [index for index in self._asked if index > after]:
            self._answers.pop(index, None)
            self.answer(self._asked.pop(index), why)

    def commit(self, index: int) -> None:
        """Note that everything up to `index` is committed."""
        assert index <= self.history.last.index, "committing beyond the log"
        self.committed = max(self.committed, index)

    def promise(self, epoch: Epoch) -> None:
        """Promise an epoch, with the next step; nothing of a lower one is heeded from now on."""
        assert epoch > self.promised, "a promise that goes back"
        self.promised = epoch
        self._wanted["promised"] = epoch

    def keep(self, open_: Entry) -> None:
        """Keep an `open` beside the log: its member list counts at once."""
        if self.kept != open_:
            self.kept = open_
            self._wanted["kept"] = open_

    # The caches

    def invalidate_everything(self) -> int:
        """Have every cache drop everything, and acknowledge nothing before; returns its number."""
        return self._invalidate(NOTHING_BEFORE, frozenset(), everything=True)

    def clear_caches(self) -> int:
        """Have every cache drop everything; acknowledgements do not depend on it. Returns its number."""
        return self._invalidate(NO_ENTRY, frozenset(), everything=True)

    def _invalidate(self, first: int, keys: frozenset[Key], *, everything: bool = False) -> int:
        begun = self._invalidations.begin(first, keys, everything=everything)
        self._out.append(begun)
        return begun.number

    # The durable step

    def must_sync(self) -> None:
        """Make the next step survive a power cut, even if it only applies."""
        self._must_sync = True

    def when_durable(self, act: Callable[[], None]) -> None:
        """Do `act` once everything asked of the disk by now is durable."""
        if self._has_work():
            self._after.append((self._steps + 1, act))
        elif self._step is not None:
            self._after.append((self._steps, act))
        else:
            act()

    def _has_work(self) -> bool:
        return bool(
            self._wanted
            or self._dropped
            or self._must_sync
            or self._written < self.history.last.index
            or self._handed < self._projected()
        )

    def _projected(self) -> int:
        return max(self.committed, self.role.projected()) if self.role is not None else self.committed

    def _begin_step(self) -> None:
        if self._step is not None or self._refused:
            return
        if self._erasing is not None:
            self._steps += 1
            self._step = Erase(self._steps)
        elif self._offer is not None and not self._wanted:
            self._begin_install(*self._offer)
        if self._step is None and self._has_work():
            self._begin_persist()
        if self._step is not None:
            self._out.append(self._step)

    def _begin_persist(self) -> None:
        entries = tuple(self.history.between(self._written, self.history.last.index))
        committed = self._within_a_step(self._projected())
        surplus = self.history.surplus(min(committed, self.applied))
        sync = bool(self._wanted or self._dropped or entries or self._must_sync)
        self._steps += 1
        self._step = Persist(
            number=self._steps,
            committed=committed,
            dropped=tuple(self._dropped),
            entries=entries,
            base=self.history.shorten(surplus) if surplus else None,
            sync=sync,
            **self._wanted,  # type: ignore[arg-type]  # put there field by field below and in the methods above
        )
        self._wanted, self._dropped, self._must_sync = {}, [], False
        self._written = self._step_last = self.history.last.index
        self._handed = committed

    def _within_a_step(self, committed: int) -> int:
        """Return the index up to which a step applies.

        A member that was away may have many entries to catch up with, and applies some at a time.
        """
        left = APPLIED_AT_ONCE
        for entry in self.history.between(self._handed, committed):
            weight = entry.weight()
            if weight > left and entry.index > self._handed + 1:
                return entry.index - 1
            left -= weight
        return committed

    def _begin_install(self, sender: MemberId, snapshot: int, base: Base) -> None:
        self._offer = None
        if self.role is None or not self.role.may_install(sender, base):
            return
        aside = self.role.has_parted()
        dropped = (*self._dropped, *self.history.truncate(self.committed))
        self._dropped = []
        self._gone_after(self.committed, OutcomeUnknown("the entry may have been dropped when a snapshot came"))
        self._steps += 1
        self._step = Install(self._steps, snapshot, base, aside, dropped)

    def _end_step(self, number: int, answers: Mapping[int, Answer]) -> None:
        step, self._step = self._step, None
        assert step is not None, "the disk did what nobody asked for"
        assert step.number == number, "the disk did another step than was asked for"
        if isinstance(step, Erase):
            self._erased()
        elif isinstance(step, Install):
            self._installed(step)
        else:
            self.durable = min(self._step_last, self._written)
            self.commit(step.committed)
            for index in range(self.applied + 1, step.committed + 1):
                if index in self._asked:
                    self._answers[index] = answers.get(index, index)
            self.applied = step.committed
        waiting, self._after = self._after, []
        for at, act in waiting:
            if at <= number:
                act()
            else:
                self._after.append((at, act))

    def _installed(self, step: Install) -> None:
        index = step.base.position.index
        self.diverged = self.diverged or step.aside
        self.history = History(step.base)
        self.durable = self._written = self._handed = self.applied = self.committed = index
        self._reads.clear()
        self.invalidate_everything()
        if self.role is not None:
            self.role.installed(step.base)
        self.release(0, OutcomeUnknown("this member's state was replaced by a newer one"))
        self.say("snapshot installed", index=index, aside=int(step.aside))

    def _erased(self) -> None:
        request = self._erasing
        self._clear()
        if request is not None:
            self._out.append(Reply(request, 0))

    def _withdraw(self, step: Persist, error: LnhError) -> None:
        """Withdraw entries that the disk refused and no other member knows of: they never were."""
        self._step = None
        self._refused = True
        if step.found is not None:
            origins = list(self._asked.values())
            self._clear()
            for origin in origins:
                self.answer(origin, error)
            return
        asked = [entry.index for entry in step.entries if entry.index in self._asked]
        last = asked[0] - 1 if asked else self.history.last.index
        self.history.truncate(last)
        self._gone_after(last, error)
        kept = {name: getattr(step, name) for name in ("promised", "kept", "expelled", "diverged")}
        self._wanted = {**{name: value for name, value in kept.items() if value is not None}, **self._wanted}
        self._must_sync = self._must_sync or not self._wanted
        self._written = min(step.entries[0].index - 1 if step.entries else self._written, last)
        self._handed = self.applied

    # Reads

    def _begin_read(self, now: Instant, read: ReadId, interest: Interest | None) -> None:
        current = self.role is not None and self.is_current(now)
        last = self._last_touching(interest) if current else 0
        if last > self.settled:
            self._reads.wait(read, last)
        else:
            self._out.append(Serve(read, current))

    def _last_touching(self, interest: Interest | None) -> int:
        if interest is None:
            return self.history.last.index
        return self._reads.last_touching(interest)

    @abstractmethod
    def is_current(self, now: Instant) -> bool:
        """Tell whether this member is read-write: writes are taken and reads are current."""

    # The end of every event

    def _done(self, now: Instant) -> list[Effect]:
        """Go on as far as possible; returns the effects, in their order."""
        if self.role is not None and self.expelled is None:
            self.role.settle(now)
        self._begin_step()
        settled = self.settled
        self._reads.settle(settled)
        if self.promotions:
            self._answer_promotions()
        for index in [index for index in self._answers if index <= settled]:
            self.answer(self._asked.pop(index), self._answers.pop(index), index)
        if self._reads:
            self._serve_reads(now, settled)
        out, self._out = self._out, []
        return out

    def _answer_promotions(self) -> None:
        configuration = self.committed_configuration()
        waiting, self.promotions = self.promotions, []
        for origin, target in waiting:
            if target == configuration.candidate:
                self.answer(origin, configuration.opened, configuration.opened)
            else:
                self.promotions.append((origin, target))

    def _serve_reads(self, now: Instant, settled: int) -> None:
        current, last = self.is_current(now), self.history.last.index
        for read in self._reads.take_due(settled, last, all_of_them=not current):
            self._out.append(Serve(read, current))
