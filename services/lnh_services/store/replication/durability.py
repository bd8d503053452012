"""Brings what a member knows to its disk: one durable step at a time, with all that waited for it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from lnh_services.store.log.entries import Entry, MemberId
from lnh_services.store.log.window import Base
from lnh_services.store.replication.knowledge import Knowledge
from lnh_services.store.replication.messages import Erase, Install, Persist, RequestId
from lnh_services.store.replication.outbox import Outbox

APPLIED_AT_ONCE: Final = 4096  # items that a durable step changes, about: it takes seconds at most (limits.DISK_STALL)

Step = Persist | Install | Erase


class Durability:
    """The step that is with the disk, and what is wanted of the next one.

    Args:
        known: what is to become durable.
        out: where steps are put.
        projected: returns the commit index once everything in the log is durable here.
    """

    def __init__(self, known: Knowledge, out: Outbox, projected: Callable[[], int]) -> None:
        self._known: Final = known
        self._out: Final = out
        self._projected: Final = projected
        self._steps = 0
        self.clear()

    def clear(self) -> None:
        """Begin with an empty disk."""
        self.durable = 0  # the last entry on disk
        self._written = 0  # the last entry handed to the disk
        self._handed = 0  # the commit index handed to the disk
        self._step: Step | None = None  # with the disk now
        self._step_last = 0  # the log's end when it began
        self._refused = False  # the disk took nothing of the last step
        self._wanted: dict[str, object] = {}  # fields of the next Persist that are not of the log
        self._dropped: list[Entry] = []
        self._must_sync = False
        self.erasing: RequestId | None = None  # who asked to have everything erased
        self._offer: tuple[MemberId, int, Base] | None = None
        self._after: list[tuple[int, Callable[[], None]]] = []  # what waits for which step

    def recover(self) -> None:
        """Take in that all that is known was found on the disk."""
        self._handed = self._known.committed
        self.durable = self._written = self._known.history.last.index

    # What stands

    @property
    def is_idle(self) -> bool:
        """Tell whether no step is with the disk, and the disk takes steps."""
        return self._step is None and not self._refused

    @property
    def is_installing(self) -> bool:
        """Tell whether a snapshot is about to take the place of log and state."""
        return isinstance(self._step, Install) or self._offer is not None

    # What is wanted

    def want(self, **fields: object) -> None:
        """Have fields of the next Persist set."""
        self._wanted |= fields

    def must_sync(self) -> None:
        """Make the next step survive a power cut, even if it only applies."""
        self._must_sync = True

    def drop(self, entries: Iterable[Entry]) -> None:
        """Have entries saved that leave the log's end."""
        self._dropped += entries

    def cut(self, last: int) -> None:
        """Take in that the log ends at index `last` now."""
        self._written, self.durable = min(self._written, last), min(self.durable, last)

    def erase(self, request: RequestId) -> None:
        """Have everything erased, once the step that is with the disk has ended."""
        self.erasing = request
        self._refused = False

    def offer(self, sender: MemberId, snapshot: int, base: Base) -> None:
        """Have a snapshot considered, which has arrived whole; one is at a time."""
        if self._offer is None:
            self._offer = (sender, snapshot, base)

    def try_again(self) -> None:
        """Give the disk steps again, after it refused one."""
        self._refused = False

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
            or self._written < self._known.ordered
            or self._handed < self._projected()
        )

    # Steps

    def take_offer(self) -> tuple[MemberId, int, Base] | None:
        """Take the snapshot that was offered, to be installed now or never: its sender, the shell's name, its base."""
        # A snapshot is of an epoch that was promised: the promise is durable first.
        if not self.is_idle or self.erasing is not None or self._wanted:
            return None
        offer, self._offer = self._offer, None
        return offer

    def begin(self) -> None:
        """Begin the next step, if there is work and the disk is idle."""
        if not self.is_idle:
            return
        if self.erasing is not None:
            self._begin(Erase(self._steps + 1))
        elif self._has_work():
            self._begin(self._persist())

    def begin_install(self, snapshot: int, base: Base, dropped: Iterable[Entry], *, aside: bool) -> None:
        """Begin to put a snapshot in place of log and state; `dropped` leaves the log with it."""
        dropped, self._dropped = (*self._dropped, *dropped), []
        self._begin(Install(self._steps + 1, snapshot, base, aside, dropped))

    def _begin(self, step: Step) -> None:
        self._steps += 1
        self._step = step
        self._out.put(step)

    def _persist(self) -> Persist:
        known, history = self._known, self._known.history
        entries = tuple(history.between(self._written, known.ordered))
        committed = self._within_a_step(self._projected())
        surplus = history.surplus(min(committed, known.applied))
        step = Persist(
            number=self._steps + 1,
            committed=committed,
            dropped=tuple(self._dropped),
            entries=entries,
            base=history.shorten(surplus) if surplus else None,
            sync=bool(self._wanted or self._dropped or entries or self._must_sync),
            **self._wanted,  # type: ignore[arg-type]  # the fields that `want` was given
        )
        self._wanted, self._dropped, self._must_sync = {}, [], False
        self._written = self._step_last = known.ordered
        self._handed = committed
        return step

    def _within_a_step(self, committed: int) -> int:
        """Return the index up to which a step applies.

        A member that was away may have many entries to catch up with, and applies some at a time.
        """
        left = APPLIED_AT_ONCE
        for entry in self._known.history.between(self._handed, committed):
            weight = entry.weight()
            if weight > left and entry.index > self._handed + 1:
                return entry.index - 1
            left -= weight
        return committed

    def end(self, number: int) -> Step:
        """Take in that the step that is with the disk is durable; `go_on` comes once its outcome was taken in, too."""
        step, self._step = self._step, None
        assert step is not None, "the disk did what nobody asked for"
        assert step.number == number, "the disk did another step than was asked for"
        if isinstance(step, Persist):
            self.durable = min(self._step_last, self._written)
        return step

    def go_on(self, number: int) -> None:
        """Do what waited for this step."""
        waiting, self._after = self._after, []
        for at, act in waiting:
            if at <= number:
                act()
            else:
                self._after.append((at, act))

    def refuse(self, number: int) -> Persist:
        """Take in that the disk took nothing of the step, and give it none before `try_again`."""
        step = self._step
        assert isinstance(step, Persist), "only what can be undone is refused"
        assert step.number == number, "the disk refused another step than was asked for"
        self._step, self._refused = None, True
        return step

    def withdraw(self, step: Persist) -> None:
        """Hand the disk nothing of a refused step again but its other fields, and what is left of its entries."""
        kept = {name: getattr(step, name) for name in ("promised", "kept", "expelled", "diverged")}
        self._wanted = {**{name: value for name, value in kept.items() if value is not None}, **self._wanted}
        self._must_sync = self._must_sync or not self._wanted
        before = step.entries[0].index - 1 if step.entries else self._written
        self._written = min(before, self._known.history.last.index)
        self._handed = self._known.applied
