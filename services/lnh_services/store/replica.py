"""One member's end of the replicated log: promises, log, in-sync set, commit, waiting reads. Pure.

Theory
======

Events come in as method calls with the time; what must be done comes out as effects. The caller carries
them out - disk, workers, callers - and reports back with further events. Nothing here looks at a clock, a
socket or a disk, so the same code runs in production and in a simulator.

An **epoch** `(number, opener)` is one primary's time in office. A member **promises** an epoch durably before
it takes part in it, and from then on heeds nothing of a lower one. The first entry of an epoch is its
`open`: it says who is primary, who is a member, and which members a commit waits for (the in-sync set).

    NONE --create--> OPENING ------------------------------.
                                                           v
    (start) --recover--> PROMISING --promised--> OPENING --open durable, caches empty--> PRIMARY
                                                           ^                               |
                                                           '------- next start ------------'

A primary never appends in an epoch of an earlier incarnation of itself: after a crash it cannot know which of
its last entries reached anyone. It promises the next number, and commits all its log holds with the new `open`.

**Commit.** Entry k commits when every member of the last set at or before k has acknowledged k or more; that
commits everything before it. Nothing commits in an epoch before its `open`. Our own acknowledgement is that
the entry is durable here; so `Persist` carries the commit index that holds *once it is done*, and the engine
appends, commits and applies in one transaction. With others in the set that index is what is known so far.

**A step** is what is in flight: at most one batch of entries (or a creation, or an erasure). It has two parts,
run in parallel: the disk (`Persist` .. `persisted`) and the caches (`Forget` .. `forgotten`). Only when both
are done are its requests answered. What waits meanwhile is the next batch, kept by the caller until `idle`.

**Reads.** While a step is in flight, reads of what it touches wait here: a cache may still hold the old value
while the database already shows the new one. They are served when the step ends, before the next one begins,
so that no stream of writes can starve them.

**Refused** (the disk is full, rolled back, nothing was made durable): the entries never were. That is safe
only because they were sent to nobody; with others in the set a store that cannot append must exit instead.

What is not here yet has its place: an `Acknowledgement`, which our own disk gives today, comes from other members
too and enters `acknowledged`; their messages become events beside `persisted`, what is sent to them effects beside
`Persist`; and whether the others' leases still hold becomes a third part of a step.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import NewType

import msgspec

from lnh_common.errors import LnhError
from lnh_common.messages.store import Commit, Key
from lnh_services.store import log
from lnh_services.store.log import ClusterId, Entry, Epoch, MemberId, Milliseconds, Open, Position, SetChange, Write
from lnh_services.store.state import Answer, touched

RequestId = NewType("RequestId", int)
ReadId = NewType("ReadId", int)


class Phase(enum.Enum):
    """Where this member stands."""

    NONE = "none"  # no cluster
    PROMISING = "promising"
    OPENING = "opening"
    PRIMARY = "primary"


class InSync(msgspec.Struct, frozen=True):
    """From entry `index` on a commit waits for `members`."""

    index: int
    members: tuple[MemberId, ...]


class Durable(msgspec.Struct, frozen=True):
    """What a start finds on disk: the end of the log, and what of it matters to the replica."""

    cluster: ClusterId
    member: MemberId
    promised: Epoch
    last: Position
    last_time: Milliseconds
    committed: int
    members: tuple[MemberId, ...]
    sets: tuple[InSync, ...]  # the one in force at `committed`, then every later one

    def is_sound(self) -> bool:
        """Whether the parts agree with one another."""
        return (
            self.promised >= self.last.epoch
            and 0 < self.committed <= self.last.index
            and self.member in self.members
            and bool(self.sets)
            and self.sets[0].index <= self.committed
        )


class Acknowledgement(msgspec.Struct, frozen=True):
    """A member's word that its log is durable up to an entry; what differs in any field does not count."""

    epoch: Epoch
    index: int
    hash: bytes
    incarnation: bytes


class Interest(msgspec.Struct, frozen=True):
    """What a read looks at: one item, or with `id` None everything in a table's scope."""

    table: str
    scope: bytes
    id: bytes | None = None


# Effects


class Found(msgspec.Struct, frozen=True):
    """Make the store of a new cluster, durably: ids, promise and first entry in one step; then `persisted`."""

    cluster: ClusterId
    member: MemberId
    promised: Epoch
    entry: Entry
    receipt: Acknowledgement


class Promise(msgspec.Struct, frozen=True):
    """Make the promise durable; then `has_promised`, or `refused`."""

    epoch: Epoch


class Persist(msgspec.Struct, frozen=True):
    """In one durable step append the entries and apply all up to `committed`; then `persisted`, or `refused`."""

    entries: tuple[Entry, ...]
    committed: int
    receipt: Acknowledgement  # what `persisted` is called with


class Erase(msgspec.Struct, frozen=True):
    """Destroy everything on disk; then `erased`."""


class Forget(msgspec.Struct, frozen=True):
    """Make every cache of this member forget; then `forgotten`."""

    round: int
    keys: frozenset[Key]
    everything: bool = False


class Reply(msgspec.Struct, frozen=True):
    """Answer a request. `entry` is the index of its own entry: an answer that names another came from before."""

    request: RequestId
    answer: Answer
    entry: int = 0


class Serve(msgspec.Struct, frozen=True):
    """Carry out a read now, before anything else, and answer it."""

    read: ReadId


Effect = Found | Promise | Persist | Erase | Forget | Reply | Serve


class _Step:
    """What is in flight: its requests, what it touches, and which of its halves are done."""

    def __init__(self, keys: Iterable[Key] = (), *, everything: bool = False, erases: RequestId | None = None) -> None:
        self.requests: dict[int, RequestId] = {}  # by the index of their entry
        self.touches = frozenset(keys)
        self.scopes = frozenset((key.table, key.scope) for key in self.touches)
        self.everything = everything
        self.erases = erases
        self.round = 0
        self.durable = False
        self.forgotten = False
        self.refused = False
        self.answers: dict[RequestId, Answer] = {}

    def blocks(self, interest: Interest | None) -> bool:
        if self.everything or interest is None:
            return True
        table, scope = interest.table, interest.scope
        if (table, scope) not in self.scopes:
            return False
        if interest.id is None:
            return True
        whole, one = Key(table=table, scope=scope), Key(table=table, scope=scope, id=interest.id)
        return whole in self.touches or one in self.touches


class Replica:
    """One member's end of the replicated log. Pure: events in, effects out."""

    def __init__(self, incarnation: bytes) -> None:
        """`incarnation` is drawn at random at each start."""
        self.incarnation = incarnation
        self._clear()
        self._step: _Step | None = None
        self._rounds = 0
        self._caches_known = False  # every cache has forgotten everything since this start
        self._reads: set[ReadId] = set()

    def _clear(self) -> None:
        self.phase = Phase.NONE
        self.cluster = ClusterId(b"")
        self.member = MemberId(b"")
        self.primary = MemberId(b"")
        self.promised = log.NO_EPOCH
        self.epoch = log.NO_EPOCH  # the one this incarnation opened
        self.opened_at = 0  # index of its `open`
        self.last = Position(log.NO_EPOCH, 0, b"")
        self.last_time = Milliseconds(0)
        self.durable = self.last  # the last entry that is on this disk
        self.committed = 0
        self.members: tuple[MemberId, ...] = ()
        self.sets: tuple[InSync, ...] = ()
        self.acknowledged: dict[MemberId, int] = {}

    @property
    def idle(self) -> bool:
        """Nothing is in flight: the next event may be `create`, `write` or `destroy`."""
        return self._step is None and self.phase in (Phase.NONE, Phase.PRIMARY)

    @property
    def is_read_write(self) -> bool:
        """Writes are taken and reads are current."""
        return self.phase is Phase.PRIMARY

    @property
    def in_sync(self) -> tuple[MemberId, ...]:
        """Whom the next commit waits for."""
        return self.sets[-1].members if self.sets else ()

    # Beginning

    def create(self, now: Milliseconds, request: RequestId, cluster: ClusterId, member: MemberId) -> list[Effect]:
        """Found a cluster of this member alone."""
        assert self.idle, "a creation while something is in flight"
        assert self.phase is Phase.NONE, "a creation over a cluster"
        self.cluster, self.member = cluster, member
        self.last = log.genesis(cluster)
        self.promised = self.epoch = log.NO_EPOCH.following(member)
        self.phase = Phase.OPENING
        entry = self._append(now, Open(member, (member,), (member,)))
        step = self._begin(_Step(everything=True))
        step.requests[entry.index] = request
        return [
            Found(cluster, member, self.promised, entry, self._receipt()),
            Forget(step.round, frozenset(), everything=True),
        ]

    def recover(self, found: Durable) -> list[Effect]:
        """Take up what an earlier incarnation left; opens the next epoch."""
        assert self.phase is Phase.NONE, "a recovery happens once, at the start"
        assert found.is_sound(), "the durable state contradicts itself"
        self.cluster, self.member = found.cluster, found.member
        self.promised = found.promised
        self.last = self.durable = found.last
        self.last_time, self.committed = found.last_time, found.committed
        self.members, self.sets = found.members, found.sets
        return self._promise_next()

    def _promise_next(self) -> list[Effect]:
        self.phase = Phase.PROMISING
        forgets = self._begin_opening()
        return [Promise(self.promised.following(self.member)), *forgets]

    def _begin_opening(self) -> list[Effect]:
        if self._caches_known and self.committed == self.durable.index:
            self._begin(_Step()).forgotten = True  # nothing was applied since: what caches hold is current
            return []
        step = self._begin(_Step(everything=True))
        return [Forget(step.round, frozenset(), everything=True)]

    def has_promised(self, now: Milliseconds, epoch: Epoch) -> list[Effect]:
        """The promise is on disk: open the epoch."""
        assert self.phase is Phase.PROMISING, "a promise nobody asked for"
        assert epoch > self.promised, "a promise that goes back"
        assert epoch > self.last.epoch, "an epoch used twice"
        self.promised = self.epoch = epoch
        self.phase = Phase.OPENING
        return [self._open(now)]

    def _open(self, now: Milliseconds) -> Persist:
        entry = self._append(now, Open(self.member, self.members, self.in_sync))
        return self._persist((entry,))

    # Writing

    def write(self, now: Milliseconds, requests: Sequence[tuple[RequestId, Commit]]) -> list[Effect]:
        """Append a batch of checked commits."""
        assert self.idle, "a write while something is in flight"
        assert self.phase is Phase.PRIMARY, "a write on a member that is not primary"
        assert requests, "an empty batch"
        assert self.epoch == self.promised, "a primary acts only in the epoch it promised last"
        entries = [self._append(now, Write(commit)) for _, commit in requests]
        keys = frozenset[Key]().union(*(touched(commit) for _, commit in requests))
        step = self._begin(_Step(keys))
        step.requests = {entry.index: request for entry, (request, _) in zip(entries, requests, strict=True)}
        if keys:
            return [Forget(step.round, keys), self._persist(tuple(entries))]
        step.forgotten = True
        return [self._persist(tuple(entries))]

    def destroy(self, request: RequestId) -> list[Effect]:
        """Erase the whole state of this member."""
        assert self.idle, "an erasure while something is in flight"
        step = self._begin(_Step(everything=True, erases=request))
        return [Forget(step.round, frozenset(), everything=True), Erase()]

    def persisted(self, receipt: Acknowledgement, answers: Mapping[int, Answer]) -> list[Effect]:
        """The step's Found or Persist is done; `answers` are of the entries applied with it, by index."""
        step = self._step
        assert step is not None, "something became durable that nobody asked for"
        assert not step.durable, "one step became durable twice"
        assert receipt == self._receipt(), "the disk acknowledged another log than this one"
        step.durable = True
        self.durable = self.last
        self._commit(self._committable(self.durable.index))
        for index, request in step.requests.items():
            assert index <= self.committed, "an answer before its entry is committed"
            step.answers[request] = answers.get(index, index)
        return self._end_if_done(step)

    def erased(self) -> list[Effect]:
        """The step's Erase is done."""
        step = self._step
        assert step is not None, "an erasure nobody asked for"
        assert step.erases is not None, "an erasure nobody asked for"
        step.durable = True
        step.answers[step.erases] = 0
        self._clear()
        return self._end_if_done(step)

    def forgotten(self, round_: int) -> list[Effect]:
        """Every cache of this member has forgotten what the round named; late words change nothing."""
        step = self._step
        if step is None or step.round != round_:
            return []
        step.forgotten = True
        self._caches_known = self._caches_known or step.everything
        if step.refused:
            self._step = None
            return self._serve_reads()
        return self._end_if_done(step)

    def refused(self, error: LnhError) -> list[Effect]:
        """The disk took nothing of the step: it never was. Answers its requests with the error."""
        assert self.in_sync in ((), (self.member,)), "entries that others may hold cannot be taken back"
        step = self._step
        assert step is not None, "the disk refused what nobody asked for"
        assert not step.durable, "the disk refused what it had taken"
        assert step.erases is None, "an erasure is not refused"
        if self.durable.index == 0:
            self._clear()
        else:
            self.last = self.durable
            self.sets = tuple(s for s in self.sets if s.index <= self.durable.index)
        if self.phase in (Phase.PROMISING, Phase.OPENING) and not step.forgotten:
            # What an earlier incarnation applied last, a cache may not know yet: reads wait on until it does.
            step.refused = True
            return []
        self._step = None
        return [*(Reply(request, error) for request in step.requests.values()), *self._serve_reads()]

    def retry(self, now: Milliseconds) -> list[Effect]:
        """Try again to open the epoch, if the disk refused it; otherwise nothing."""
        if self._step is not None:
            return []
        if self.phase is Phase.PROMISING:
            return self._promise_next()
        if self.phase is Phase.OPENING:
            forgets = self._begin_opening()
            return [self._open(now), *forgets]
        return []

    # Reading

    def read(self, read: ReadId, interest: Interest | None) -> list[Effect]:
        """A read asks to be served: now, or when what is in flight there has ended (anywhere, with None)."""
        if self._step is not None and self._step.blocks(interest):
            self._reads.add(read)
            return []
        return [Serve(read)]

    def withdraw(self, read: ReadId) -> None:
        """A read's deadline passed; it need not be served any more."""
        self._reads.discard(read)

    # The parts

    def _append(self, now: Milliseconds, payload: log.Payload) -> Entry:
        assert self.promised == self.epoch, "appending in an epoch that is not the promised one"
        self.last_time = max(self.last_time, now)
        entry = log.make_entry(self.last, self.epoch, self.last_time, payload)
        self.last = entry.position()
        if isinstance(payload, Open):
            self.opened_at = entry.index
            self.primary, self.members = payload.primary, payload.members
        if isinstance(payload, Open | SetChange):
            self.sets = (*(s for s in self.sets if s.index < entry.index), InSync(entry.index, payload.in_sync))
        return entry

    def _persist(self, entries: tuple[Entry, ...]) -> Persist:
        return Persist(entries, self._committable(self.last.index), self._receipt())

    def _receipt(self) -> Acknowledgement:
        return Acknowledgement(self.epoch, self.last.index, self.last.hash, self.incarnation)

    def _committable(self, durable: int) -> int:
        """The commit index, if this member's log is durable up to `durable`."""
        acknowledged = {**self.acknowledged, self.member: durable}
        best = self.committed
        ends = [following.index - 1 for following in self.sets[1:]] + [self.last.index]
        for governing, end in zip(self.sets, ends, strict=True):
            everywhere = min(acknowledged.get(member, 0) for member in governing.members)
            if min(everywhere, end) >= governing.index:
                best = max(best, min(everywhere, end))
        return best if best >= self.opened_at else self.committed

    def _commit(self, index: int) -> None:
        assert self.committed <= index <= self.last.index, "a commit index that goes back or beyond the log"
        self.committed = index
        superseded = max((s.index for s in self.sets if s.index <= index), default=0)
        self.sets = tuple(s for s in self.sets if s.index >= superseded)

    def _begin(self, step: _Step) -> _Step:
        self._rounds += 1
        step.round = self._rounds
        self._step = step
        return step

    def _end_if_done(self, step: _Step) -> list[Effect]:
        if not (step.durable and step.forgotten):
            return []
        self._step = None
        if self.phase is Phase.OPENING:
            assert self.committed >= self.opened_at, "a primary whose open is not committed"
            self.phase = Phase.PRIMARY
        entries = {request: index for index, request in step.requests.items()}
        replies = [Reply(request, answer, entries.get(request, 0)) for request, answer in step.answers.items()]
        return [*replies, *self._serve_reads()]

    def _serve_reads(self) -> list[Effect]:
        reads, self._reads = sorted(self._reads), set()
        return [Serve(read) for read in reads]
