"""Clients of a simulated cluster: what they write, try again and read, and what the checker is told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lnh_common.errors import (
    LnhError,
    MemberReadOnly,
    NoCluster,
    NotPossible,
    ObjectUnknown,
    StorageFailed,
    VersionConflict,
)
from lnh_common.messages.store import Change, Commit, Delete, DeleteScope, Key, Put
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import Epoch
from lnh_services.store.machine import apply
from lnh_services.store.replication.messages import ReadId, RequestId
from lnh_services.store.replication.replica import Interest
from models.linearizability import UNKNOWN, Operation
from models.versioned_items import Saw, Wrote
from simulation import plan as plans
from simulation.machine import MIDDLE, Machine
from simulation.truth import name_of
from simulation.workers import Heard, Reading, View, Worker

if TYPE_CHECKING:
    from simulation.world import World


TABLE, SCOPE = "t", b"s"
KEYS = [Key(table=TABLE, scope=SCOPE, id=bytes([n])) for n in range(plans.KEYS)]
WHOLE = Key(table=TABLE, scope=SCOPE)
FOR_EVER = 1e9
BETWEEN_PAGES = (0.0, 0.1, 1.5)  # seconds in which a worker that is busy opens seals, at most
PAGED = range(4, 8)  # of the workers' numbers that a plan draws
KNOWN: dict[type[LnhError], object] = {VersionConflict: VersionConflict, ObjectUnknown: ObjectUnknown}
NOT_TAKEN = (MemberReadOnly, NoCluster, NotPossible)  # the store says that the order was never appended or passed on


@dataclass
class Call:
    """A client's write, over all its tries."""

    commit: Commit
    began: float
    who: str
    ended: float = UNKNOWN
    result: object = None
    entry: int = 0
    tries: int = 0
    refused: int = 0  # tries of which a store said that it neither appended nor forwarded the write


@dataclass(frozen=True)
class Sight:
    """A read that was told as current, or for certain that there is nothing."""

    keys: tuple[Key, ...]
    began: float
    ended: float
    view: View
    slot: int
    epoch: Epoch
    cached: bool


@dataclass(frozen=True)
class Page:
    """What a worker read, from its store or its cache."""

    heard: Heard
    cached: bool


class Clients:
    """All clients of one run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calls: list[Call] = []
        self.sights: list[Sight] = []
        self.versions: dict[Key, int] = dict.fromkeys(KEYS, 0)  # what clients believe
        self._sequence = 0
        self.retried = 0
        self.denied = 0  # reads that were told for certain that something is not there

    def history(self, tip: log.Position) -> list[Operation]:
        """What must be linearizable, if the log that ends at `tip` is in force."""
        history = [operation for call in self.calls if (operation := self._operation(call, tip)) is not None]
        for sight in self.sights:
            if self._counts(sight, tip):
                who = f"m{sight.slot}{' cached' if sight.cached else ''} at {sight.view.applied.index}"
                action, values, hint = Saw(sight.keys), dict(sight.view.values), sight.view.applied.index
                history.append(Operation(sight.began, sight.ended, action, values, who, hint=hint))
        return history

    def do_write(
        self, client: int, shape: str, keys: tuple[int, int], guess: int, tries: tuple[Any, ...], withdraws: bool
    ) -> None:
        self._sequence += 1
        head = self._sequence.to_bytes(4, "big")
        one, two = (KEYS[key] for key in keys)
        changes: tuple[Change, ...]
        if shape == "delete":
            changes = (Delete(key=one, expected=None if guess else self.versions[one]),)
        elif shape == "clear":
            changes = (DeleteScope(key=WHOLE),)
        else:
            written = [one, two] if shape == "two" else [one]
            changes = tuple(Put(key=key, expected=max(0, self.versions[key] + guess), head=head) for key in written)
        commit = Commit(
            client=bytes([client]) * 16,
            session=b"s" * 16,
            sequence=self._sequence,
            issued_at=int(MIDDLE + self.world.now * 1000),
            changes=changes,
        )
        call = Call(commit, self.world.now, f"c{client}/{self._sequence}")
        self.calls.append(call)
        self._try(call, list(tries), withdraws)

    def _try(self, call: Call, tries: list[tuple[int, float, float]], withdraws: bool) -> None:
        """One try, and the next when it fails or takes too long."""
        if call.ended != UNKNOWN or not tries or self.world.settling:
            return
        slot, patience, pause = tries.pop(0)
        machine = self.world.pick(slot)
        process = machine.process
        if process is None:
            self.world.at(self.world.now + pause, lambda: self._try(call, tries, withdraws))
            return
        self.retried += call.tries > 0
        number = RequestId(self.world.number())
        call.tries += 1
        over = False

        def replied(answer: apply.Answer, entry: int) -> None:
            nonlocal over
            self._told(call, answer, entry)
            if not over:
                over = True
                self.world.at(self.world.now + pause, lambda: self._try(call, tries, withdraws))

        def too_late() -> None:
            nonlocal over
            if not over:
                over = True
                if withdraws:
                    process.withdraw(number)
                self._try(call, tries, withdraws)

        self.world.trace(machine.slot, "is asked", call.commit)
        process.ask(number, replied, lambda now: process.replica.submit(now, number, call.commit))
        self.world.at(self.world.now + patience, too_late)

    def _told(self, call: Call, answer: apply.Answer, entry: int) -> None:
        if isinstance(answer, NOT_TAKEN) or (isinstance(answer, StorageFailed) and entry == 0):
            call.refused += 1
            return
        result = True if isinstance(answer, int) else KNOWN.get(type(answer))
        if result is None:
            return
        if call.ended != UNKNOWN:
            same = (
                call.result == result
                or self.world.truth.was_forced
                or any(each.removed for each in self.world.truth.opened.values())
            )
            assert same, f"{call.who} was answered {call.result}, then {result}"
            return
        call.ended, call.result, call.entry = self.world.now, result, entry
        if result is True:
            for change in call.commit.changes:
                self._learn(change)

    def _learn(self, change: Change) -> None:
        if isinstance(change, Put):
            self.versions[change.key] = change.expected + 1
        elif isinstance(change, Delete):
            self.versions[change.key] = 0
        elif isinstance(change, DeleteScope):
            self.versions = dict.fromkeys(KEYS, 0)

    def do_read(self, slot: int, number: int, key: int | None) -> None:
        """A read of one item, or of all: at one moment, or one after the other, as a listing in pages is."""
        machine = self.world.pick(slot)
        worker = machine.workers[number % len(machine.workers)]
        if key is None and number in PAGED:
            self.list_pages(machine, worker)
        else:
            self.read(machine, worker, tuple(KEYS) if key is None else (KEYS[key],))

    def read(self, machine: Machine, worker: Worker, keys: tuple[Key, ...]) -> None:
        """What is there, or that nothing is."""
        if worker.stalled_until > self.world.now:
            return
        began, begun = self.world.now, worker.begin()

        def told(page: Page | None) -> None:
            if page is not None:
                self._answered(machine, keys, began, page, denies=worker.denies(begun))

        self._page(machine, worker, keys, told)

    def list_pages(self, machine: Machine, worker: Worker) -> None:
        """Whether a listing is whole is said at its end, of all its pages."""
        if worker.stalled_until > self.world.now:
            return
        began, begun = self.world.now, worker.begin()
        pages: list[Page] = []
        slowness = worker.rng.choice(BETWEEN_PAGES)

        def next_page() -> None:
            self._page(machine, worker, (KEYS[len(pages)],), told)

        def told(page: Page | None) -> None:
            if page is None:
                return
            pages.append(page)
            if len(pages) < len(KEYS):
                self.world.at(self.world.now + worker.rng.uniform(0, slowness), next_page)
                return
            denies = worker.denies(begun)
            for key, each in zip(KEYS, pages, strict=True):
                self._answered(machine, (key,), began, each, denies=denies)

        next_page()

    def _page(
        self, machine: Machine, worker: Worker, keys: tuple[Key, ...], told: Callable[[Page | None], None]
    ) -> None:
        """From the worker's cache under its lease, else from the store."""
        process = machine.process
        if len(keys) == 1 and keys[0] in worker.cache and worker.is_leased():
            told(Page(Heard(worker.cache[keys[0]], worker.read_write), cached=True))
        elif process is not None:
            number = ReadId(self.world.number())
            interest = Interest(TABLE, SCOPE, keys[0].id if len(keys) == 1 else None)
            reading = Reading(
                keys, interest, lambda heard: told(Page(heard, cached=False) if heard is not None else None)
            )
            worker.reading[number] = reading

            def asks() -> None:
                process.reads[number] = (worker, reading)
                process.run(lambda now: process.replica.read(now, number, interest))

            process.from_worker(worker, asks)

    def _answered(self, machine: Machine, keys: tuple[Key, ...], began: float, page: Page, *, denies: bool) -> None:
        """Note what is to be believed: what was current, and each thing that was said not to be there."""
        view, current = page.heard.view, page.heard.current
        believed = tuple(key for key in keys if current or (denies and key not in view.values))
        if not believed:
            return
        values = {key: view.values[key] for key in believed if key in view.values}
        self.world.trace(machine.slot, "shows", (believed, values, view.applied.index, page.cached))
        for key in believed:
            self.versions[key] = values[key][0] if key in values else 0
        epoch = machine.disk.seen.promised
        seen = View(values, view.applied)
        self.sights.append(Sight(believed, began, self.world.now, seen, machine.slot, epoch, page.cached))
        self.denied += denies and len(values) < len(believed)

    def _operation(self, call: Call, tip: log.Position) -> Operation | None:
        """What the checker needs of a call; None where it left no trace in the log that is in force."""
        entries = self.world.truth.named.get(name_of(call.commit), [])
        if call.tries == call.refused:
            assert not entries, f"a call of {call.who} was refused as not taken, and is in the log"
            return None
        kept = [entry for entry in entries if self.world.truth.holds(tip, entry.position())]
        action = Wrote(call.commit.changes)
        if call.ended != UNKNOWN and not any(entry.index == call.entry for entry in kept):
            parted = [
                each
                for entry in entries
                if entry.index == call.entry
                for each in self.world.truth.take_overs(tip.epoch, entry.epoch)
            ]
            assert parted, f"3: the write of {call.who} at {call.entry} was acknowledged, and is lost"
        elif call.ended != UNKNOWN:
            who = f"{call.who} at {call.entry}"
            return Operation(call.began, call.ended, action, call.result, who, hint=min(each.index for each in kept))
        # What became of it nobody was told. Where it acted it is in the log, and did so at any time after its call.
        acted = [entry for entry in kept if self.world.truth.applied[entry.hash][1]]
        if not acted:
            return None
        return Operation(call.began, FOR_EVER, action, True, f"{call.who} unanswered", hint=acted[0].index)

    def _counts(self, sight: Sight, tip: log.Position) -> bool:
        """Whether a read must fit: not one of a member that was removed as lost, or of a side that was given up by force."""
        machine = self.world.machines[sight.slot]
        parted = self.world.truth.take_overs(tip.epoch, sight.epoch)
        if any(each.forced or machine.id in each.removed for each in parted):
            return False
        if not self.world.truth.holds(tip, sight.view.applied):
            parted = self.world.truth.take_overs(tip.epoch, sight.view.applied.epoch)
            assert parted, f"3: m{sight.slot} showed what {sight.view.applied.index} wrote, and it is lost"
            return False
        return True
