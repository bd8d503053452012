"""A member's disk: durable steps in order, each whole or not at all; a crash loses what was not synced.

What a process sees is `seen`; what a power cut leaves is `stable` with some of the unsynced steps after it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import ClusterId, Entry, Epoch, MemberId, Position, Write
from lnh_services.store.log.window import Base, History, Removed
from lnh_services.store.machine import apply
from lnh_services.store.machine.apply import Applied
from lnh_services.store.replication.messages import Durable, Erase, Install, Persist
from models.storage import DictStorage

Step = Persist | Install | Erase
NO_CLUSTER, NO_MEMBER = ClusterId(b""), MemberId(b"")
Watch = Callable[[Entry, apply.Applied], None]


def copied(storage: DictStorage) -> DictStorage:
    copy = DictStorage()
    copy.items, copy.records, copy.marks = dict(storage.items), dict(storage.records), dict(storage.marks)
    copy.aside, copy.now = dict(storage.aside), storage.now
    return copy


@dataclass
class Snapshot:
    """A state on its way to another member."""

    base: Base
    storage: DictStorage


@dataclass
class Contents:
    """What one disk holds."""

    cluster: ClusterId = NO_CLUSTER
    member: MemberId = NO_MEMBER
    promised: Epoch = log.NO_EPOCH
    base: Base | None = None
    entries: list[Entry] = field(default_factory=list)
    committed: int = 0
    kept: Entry | None = None
    diverged: bool = False
    expelled: Removed | None = None
    storage: DictStorage = field(default_factory=DictStorage)
    saved: list[Entry] = field(default_factory=list)  # in files of their own
    aside: int = 0  # old databases kept

    def copy(self) -> Contents:
        return Contents(
            self.cluster, self.member, self.promised, self.base, list(self.entries), self.committed, self.kept,
            self.diverged, self.expelled, copied(self.storage), list(self.saved), self.aside,
        )  # fmt: skip

    @property
    def last(self) -> Position:
        assert self.base is not None, "an empty disk"
        return self.entries[-1].position() if self.entries else self.base.position

    @property
    def applied(self) -> Position:
        """Where the state stands."""
        assert self.base is not None, "an empty disk"
        index = self.committed - self.base.position.index
        return self.entries[index - 1].position() if index else self.base.position

    def holds(self, position: Position) -> bool:
        """Whether the entry is durable here; one before the base counts, as far as indexes tell."""
        if self.base is None:
            return False
        at = position.index - self.base.position.index
        if at <= 0:
            return True
        return at <= len(self.entries) and self.entries[at - 1].hash == position.hash

    # Steps

    def persist(self, step: Persist, watch: Watch) -> dict[int, apply.Answer]:
        if step.found is not None:
            assert self.base is None, "a database begun over another"
            self.cluster, self.member, self.base = step.found
        assert self.base is not None, "a step without a database"
        if step.promised is not None:
            assert step.promised >= self.promised, "a promise that goes back"
            self.promised = step.promised
        if step.dropped:
            self._drop(step.dropped)
        for entry in step.entries:
            assert entry.index == self.last.index + 1, "a log with a gap"
            assert entry.previous == self.last.hash, "a log whose entries do not follow one another"
            self.entries.append(entry)
        answers = self._apply(step.committed, watch)
        if step.kept is not None:
            self.kept = step.kept
        if step.base is not None:
            dropped = step.base.position.index - self.base.position.index
            assert dropped > 0, "a base that goes back"
            assert step.base.position.index <= self.committed, "dropping what is not applied"
            assert self.entries[dropped - 1].position() == step.base.position, "a base that is not of this log"
            del self.entries[:dropped]
            self.base = step.base
        if step.expelled is not None:
            self.expelled = step.expelled
        if step.diverged is not None:
            self.diverged = step.diverged
        assert self.promised >= self.last.epoch, "entries of an epoch that was not promised"
        return answers

    def _drop(self, dropped: tuple[Entry, ...]) -> None:
        # Of what is dropped, some may have never come to the disk.
        on_disk = [entry for entry in dropped if self.holds(entry.position())]
        if on_disk:
            assert tuple(self.entries[-len(on_disk) :]) == tuple(on_disk), "dropping what is not the log's end"
            assert on_disk[0].index > self.committed, "dropping what is applied"
            del self.entries[-len(on_disk) :]
        self.saved += dropped

    def _apply(self, until: int, watch: Watch) -> dict[int, apply.Answer]:
        assert self.base is not None, "an empty disk"
        assert self.committed <= until <= self.last.index, f"applying up to {until} of {self.last.index}"
        answers: dict[int, apply.Answer] = {}
        first = self.base.position.index
        for entry in self.entries[self.committed - first : until - first]:
            content = entry.content()
            applied = Applied(entry.index)
            if isinstance(content, Write):
                applied = apply.apply(self.storage, entry.index, entry.log_time, content.commit)
                answers[entry.index] = applied.answer
            watch(entry, applied)
        self.committed = until
        return answers

    def install(self, step: Install, snapshot: Snapshot) -> None:
        assert step.base == snapshot.base, "a snapshot with another base"
        self.saved += step.dropped
        self.aside += step.aside
        self.diverged = self.diverged or step.aside
        self.base, self.entries, self.committed = snapshot.base, [], snapshot.base.position.index
        self.storage = copied(snapshot.storage)
        assert self.promised >= self.last.epoch, "a snapshot of an epoch that was not promised"

    def erase(self) -> None:
        self.__init__()  # type: ignore[misc]

    # What it gives

    def load(self) -> Durable | None:
        if self.base is None:
            return None
        return Durable(
            self.cluster, self.member, self.promised, self.base, tuple(self.entries), self.committed, self.kept,
            self.diverged, self.expelled,
        )  # fmt: skip

    def snapshot(self) -> Snapshot:
        assert self.base is not None, "a snapshot of nothing"
        history = History(self.base, self.entries)
        if self.committed == self.base.position.index:
            return Snapshot(self.base, copied(self.storage))
        entry = history.entry(self.committed)
        return Snapshot(
            Base(entry.position(), entry.log_time, history.configuration_at(entry.index)), copied(self.storage)
        )


class Disk:
    """A disk with a queue of one: what it is doing may or may not be done when the power goes."""

    def __init__(self) -> None:
        self.seen = Contents()
        self._stable: Contents | None = None  # None: it is what is seen
        self._unsynced: list[Persist] = []
        self.slow_until = 0.0
        self.delay = 0.0
        self.full_until = 0.0

    @property
    def stable(self) -> Contents:
        """What surely survives."""
        return self.seen if self._stable is None else self._stable

    def carry_out(self, step: Step, snapshots: dict[int, Snapshot], watch: Watch) -> dict[int, apply.Answer]:
        if isinstance(step, Persist) and not step.sync:
            if self._stable is None:
                self._stable = self.seen.copy()
            self._unsynced.append(step)
            return self.seen.persist(step, watch)
        self._stable = None
        self._unsynced.clear()
        if isinstance(step, Persist):
            return self.seen.persist(step, watch)
        if isinstance(step, Install):
            self.seen.install(step, snapshots[step.snapshot])
        else:
            self.seen.erase()
        return {}

    def lose(self, rng: random.Random) -> None:
        """The power goes: of the unsynced steps the first few survive."""
        if self._stable is not None:
            kept = self._unsynced[: rng.randint(0, len(self._unsynced))]
            self.seen, self._stable = self._stable, None
            self._unsynced = []
            for step in kept:
                self.seen.persist(step, _unwatched)


def _unwatched(entry: Entry, applied: Applied) -> None:
    """It was watched when it was done first."""
