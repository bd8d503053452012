"""What a member holds by itself, whatever its role: log, promise, the durable step, caches, waiting reads. Pure.

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
from lnh_services.store.log.window import Base, History, Removed, Standing
from lnh_services.store.machine.apply import Answer, cached, touched
from lnh_services.store.machine.restore_swap import EVERYTHING
from lnh_services.store.replication.messages import (
    Effect,
    Erase,
    Forget,
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

Origin = RequestId | tuple[MemberId, int]  # who asked: this member's shell, or another member under its number

NOTHING_BEFORE: Final = 0  # a round about everything: nothing is acknowledged before it is over
NO_ENTRY: Final = 2**62  # a round that is about no entry
APPLIED_AT_ONCE: Final = 4096  # items that a durable step changes, about: it takes seconds at most (limits.DISK_STALL)


class Interest(msgspec.Struct, frozen=True):
    """What a read looks at: one item, or with `id` None everything in a table's scope."""

    table: str
    scope: bytes
    id: bytes | None = None


class Touches:
    """What an entry that is not yet settled may change."""

    def __init__(self, keys: frozenset[Key]) -> None:
        self._keys = keys
        self._all = EVERYTHING in keys
        self._scopes = frozenset((key.table, key.scope) for key in keys)

    def concern(self, interest: Interest) -> bool:
        table, scope = interest.table, interest.scope
        if self._all:
            return True
        if (table, scope) not in self._scopes:
            return False
        if interest.id is None:
            return True
        whole, one = Key(table=table, scope=scope), Key(table=table, scope=scope, id=interest.id)
        return whole in self._keys or one in self._keys


class Handing(msgspec.Struct, frozen=True):
    """What an old primary keeps while the member it promotes opens the epoch it promised.

    Args:
        target: the member promoted.
        origin: who asked for it.
        last: the end of the log that is handed over.
    """

    target: MemberId
    origin: Origin
    last: Position


class Role(Protocol):
    """What a member does in the epoch it promised."""

    @property
    def primary(self) -> MemberId:
        """Whom it takes for the primary; empty while it knows none."""

    def is_current(self, now: Instant) -> bool:
        """Whether reads are current and writes are taken."""

    def current_until(self, now: Instant) -> float:
        """Boot seconds beyond which no cache of this member may be used as current."""

    def take(self, now: Instant, origin: Origin, order: Order) -> None:
        """Carry out, pass on or refuse an order."""

    def receive(self, now: Instant, sender: MemberId, message: Message) -> None:
        """A listed member says something that is not of a lower epoch."""

    def tick(self, now: Instant) -> None: ...

    def settle(self, now: Instant) -> None:
        """Something may have become durable, forgotten or idle: say so, commit, begin what waited."""

    def forgotten(self, now: Instant, round_: int) -> None:
        """A round that this role may have begun is over."""

    def projected(self) -> int:
        """How far all is committed once what the log holds is durable here."""

    def may_install(self, sender: MemberId, base: Base) -> bool:
        """Whether a member's snapshot may take the place of this member's state."""

    def has_parted(self) -> bool:
        """Whether what is applied here is known not to be a part of the primary's log."""

    def installed(self, base: Base) -> None:
        """The snapshot is in place."""

    def leave(self, now: Instant) -> None:
        """Another role takes over: answer whoever waits for this one."""


class Local(ABC):
    """One member's own log, promise, disk and caches."""

    def __init__(self, incarnation: bytes) -> None:
        self.incarnation: Final = incarnation
        self._out: list[Effect] = []
        self._steps = self._rounds = 0
        self._numbers = int.from_bytes(incarnation[:6], "big")  # what answers an earlier incarnation is no answer
        self._reads: dict[ReadId, int] = {}  # and the entry each waits for
        self._open_rounds: dict[int, int] = {}  # and the first entry each is about
        self._clear()

    def _clear(self) -> None:
        self.cluster = ClusterId(b"")
        self.member = MemberId(b"")
        self.history = History(Base(Position(log.NO_EPOCH, 0, b""), Milliseconds(0), Standing()))
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
        self._touches: dict[int, Touches] = {}  # of entries that are not settled
        self._asked: dict[int, Origin] = {}  # who waits for which entry
        self._answers: dict[int, Answer] = {}

    # What stands

    @property
    def standing(self) -> Standing:
        """What the log says about the cluster, committed or not."""
        return self.history.standing

    def standing_committed(self) -> Standing:
        """What the committed part of the log says."""
        return self.history.standing_at(self.committed)

    def expelling(self) -> tuple[Removed, ...]:
        """Who was removed for certain: by committed entries only."""
        return self.standing_committed().removed

    @property
    def members(self) -> tuple[MemberInfo, ...]:
        """The member list in force: the log's, or that of an `open` kept before the log reached it."""
        if self.kept is not None and self.kept.epoch > self.history.last.epoch:
            content = self.kept.content()
            assert isinstance(content, log.Open), "an open is kept"
            return content.members
        return self.standing.members

    @property
    def ids(self) -> tuple[MemberId, ...]:
        return tuple(MemberId(member.id) for member in self.members)

    @property
    def others(self) -> tuple[MemberId, ...]:
        return tuple(id_ for id_ in self.ids if id_ != self.member)

    def heeds(self, sender: MemberId) -> bool:
        """Whether what this one says is acted on: a member's, or that of an opener that a member vouched for."""
        return sender in self.ids or sender == self.vouched_for

    @property
    def vouched_for(self) -> MemberId:
        """Who opened an epoch above all that is held here, as a listed member knows: it committed in it.

        What is held here and not part of that epoch's log can never be committed any more, nor can the member list that
        it brought: a take-over may have left it behind whose one opener went another way before it served.
        """
        held = self.history.last.epoch if self.kept is None else max(self.history.last.epoch, self.kept.epoch)
        opener = self._vouched_for.opener
        if self._vouched_for <= held or any(removed.member == opener for removed in self.expelling()):
            return MemberId(b"")
        return opener

    def vouch(self, epoch: Epoch) -> None:
        """A listed member has committed an entry of this epoch."""
        self._vouched_for = max(self._vouched_for, epoch)

    @property
    def is_idle(self) -> bool:
        """Nothing is with the disk, and it takes what it is given."""
        return self._step is None and not self._refused

    @property
    def is_installing(self) -> bool:
        """A snapshot is about to take the place of log and state."""
        return isinstance(self._step, Install) or self._offer is not None

    @property
    def forgotten_index(self) -> int:
        """Up to here all caches have forgotten what the entries touch."""
        return min(min(self._open_rounds.values(), default=NO_ENTRY) - 1, self.history.last.index)

    @property
    def caches_known(self) -> bool:
        """Whether all that caches may have held before this start, or of another log, is forgotten."""
        return NOTHING_BEFORE not in self._open_rounds.values()

    @property
    def vouched(self) -> int:
        """What this member can acknowledge: durable here, and forgotten by its caches."""
        return min(self.durable, self.forgotten_index)

    @property
    def settled(self) -> int:
        """Up to here every entry is applied, and forgotten by all caches."""
        return min(self.applied, self.forgotten_index)

    def was_primary(self) -> bool:
        """Whether the newest epoch that this member knows to have been opened is its own."""
        kept = self.kept.epoch if self.kept is not None else log.NO_EPOCH
        return self.standing.opener == self.member and kept <= self.history.last.epoch

    def report(self, epoch: Epoch) -> Report:
        """How this member stands; `epoch` is the one promised with it."""
        committed = self.history.position(self.committed)
        assert committed is not None, "what is committed is kept, at least as the base"
        return Report(
            epoch=epoch,
            promised=self.promised,
            last=self.history.last,
            committed=committed,
            members=self.members,
            in_sync=self.standing.in_sync,
            longest_ms=self.standing.longest_ms,
            outline=self.history.outline(self.committed),
            kept=self.kept,
            primary=self.is_serving(),
        )

    @abstractmethod
    def is_serving(self) -> bool:
        """Whether this member is primary, and its `open` is committed."""

    @abstractmethod
    def follow(self, now: Instant, epoch: Epoch) -> None:
        """Promise a higher epoch of another member, and be an ordinary member in it."""

    @abstractmethod
    def reopen(self, now: Instant, above: Epoch) -> None:
        """Open an epoch above `above` and all promised here, as the primary by this member's own log."""

    @abstractmethod
    def rest(self, now: Instant, handing: Handing | None = None, *, leased: bool = False) -> None:
        """Be an ordinary member in the epoch promised last."""

    @abstractmethod
    def take(self, now: Instant, origin: Origin, order: Order) -> None:
        """Carry out, pass on or refuse an order."""

    # Saying

    def number(self) -> int:
        """A number this member never gave to anything it asked before."""
        self._numbers += 1
        return self._numbers

    def send(self, to: MemberId, message: Message) -> None:
        self._out.append(Send(to, message))

    def send_snapshot(self, to: MemberId, epoch: Epoch) -> None:
        self._out.append(SendSnapshot(to, epoch))

    def say(self, event: str, **fields: str | int) -> None:
        self._out.append(Say(event, fields))

    def answer(self, origin: Origin, answer: Answer, entry: int = 0) -> None:
        if not isinstance(origin, tuple):
            self._out.append(Reply(origin, answer, entry))
        elif isinstance(answer, LnhError):
            code, text, detail = answer.to_wire()
            self.send(origin[0], Forwarded(origin[1], 0, (code, text, detail), entry))
        else:
            self.send(origin[0], Forwarded(origin[1], answer, None, entry))

    # The log

    def append(self, now: Instant, payload: log.Payload, origin: Origin | None = None) -> Entry:
        """Append an entry of this member's own epoch, and remember who waits for it."""
        assert self.promised.opener == self.member, "appending in another member's epoch"
        log_time = Milliseconds(max(self.history.last_time, now.utc))
        entry = log.make_entry(self.history.last, self.promised, log_time, payload)
        if origin is not None:
            self._asked[entry.index] = origin
        self.extend((entry,))
        return entry

    def extend(self, entries: Sequence[Entry]) -> None:
        """Take entries that follow the log's end; every cache forgets what they touch."""
        self.history.extend(entries)
        keys = frozenset[Key]().union(*(self._note_touches(entry) for entry in entries))
        if keys:
            self._begin_round(entries[0].index, keys - {EVERYTHING}, everything=EVERYTHING in keys)

    def _note_touches(self, entry: Entry) -> frozenset[Key]:
        content = entry.content()
        if not isinstance(content, Write):
            return frozenset()
        keys = touched(content.commit)
        if keys:
            self._touches[entry.index] = Touches(keys)
        return cached(content.commit)

    def truncate(self, last: int) -> None:
        """Drop what comes after index `last`: it is saved first, and every cache forgets everything."""
        assert last >= self.committed, "dropping what is committed"
        dropped = self.history.truncate(last)
        if dropped:
            self._dropped += dropped
            self._gone_after(last, OutcomeUnknown("the entry was dropped when another member took over"))
            self.forget_everything()
            self.say("entries dropped", after=last, count=len(dropped))

    def _gone_after(self, last: int, why: LnhError) -> None:
        self._written, self.durable = min(self._written, last), min(self.durable, last)
        for index in [index for index in self._touches if index > last]:
            del self._touches[index]
        self.release(last, why)

    def release(self, after: int, why: LnhError) -> None:
        """Answer everybody who waits for an entry after index `after`."""
        for index in [index for index in self._asked if index > after]:
            self._answers.pop(index, None)
            self.answer(self._asked.pop(index), why)

    def commit(self, index: int) -> None:
        """Everything up to `index` is committed."""
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

    def forget_everything(self) -> int:
        """Every cache forgets everything, and nothing is acknowledged before; answers the round."""
        return self._begin_round(NOTHING_BEFORE, frozenset(), everything=True)

    def clear_caches(self) -> int:
        """Every cache forgets everything; what is acknowledged does not depend on it. Answers the round."""
        return self._begin_round(NO_ENTRY, frozenset(), everything=True)

    def _begin_round(self, first: int, keys: frozenset[Key], *, everything: bool = False) -> int:
        self._rounds += 1
        self._open_rounds[self._rounds] = first
        self._out.append(Forget(self._rounds, keys, everything))
        return self._rounds

    # The durable step

    def must_sync(self) -> None:
        """The next step must survive a power cut, even if it only applies."""
        self._must_sync = True

    def when_durable(self, act: Callable[[], None]) -> None:
        """Do `act` once all that is asked of the disk by now is durable."""
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
        """Up to which entry a step applies: not all of them, where one that was away has many to catch up with."""
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
        self._touches.clear()
        self.forget_everything()
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
        """Nobody else knows of what the disk refused: those entries never were."""
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
            self._reads[read] = last
        else:
            self._out.append(Serve(read, current))

    def _last_touching(self, interest: Interest | None) -> int:
        if interest is None:
            return self.history.last.index
        return next((index for index in reversed(self._touches) if self._touches[index].concern(interest)), 0)

    @abstractmethod
    def is_current(self, now: Instant) -> bool:
        """Read-write: writes are taken and reads are current."""

    # The end of every event

    def _done(self, now: Instant) -> list[Effect]:
        """Go on as far as it goes; what is to be carried out, in this order."""
        if self.role is not None and self.expelled is None:
            self.role.settle(now)
        self._begin_step()
        settled = self.settled
        for index in [index for index in self._touches if index <= settled]:
            del self._touches[index]
        if self.promotions:
            self._answer_promotions()
        for index in [index for index in self._answers if index <= settled]:
            self.answer(self._asked.pop(index), self._answers.pop(index), index)
        if self._reads:
            self._serve_reads(now, settled)
        out, self._out = self._out, []
        return out

    def _answer_promotions(self) -> None:
        standing = self.standing_committed()
        waiting, self.promotions = self.promotions, []
        for origin, target in waiting:
            if target == standing.opener:
                self.answer(origin, standing.opened, standing.opened)
            else:
                self.promotions.append((origin, target))

    def _serve_reads(self, now: Instant, settled: int) -> None:
        current, last = self.is_current(now), self.history.last.index
        for read in [read for read, at in self._reads.items() if not current or at <= settled or at > last]:
            del self._reads[read]
            self._out.append(Serve(read, current))
