"""Knows which requests wait for what: for an entry, for the end of a change of primary, for a member to be it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from lnh_common.errors import LnhError
from lnh_services.store.log.entries import MemberId
from lnh_services.store.log.window import Configuration
from lnh_services.store.machine.apply import Answer
from lnh_services.store.replication.messages import Order
from lnh_services.store.replication.outbox import Origin, Outbox


class Requests:
    """The requests that are not answered yet."""

    def __init__(self, out: Outbox) -> None:
        self._out: Final = out
        self._asked: dict[int, Origin] = {}  # who waits for which entry
        self._answers: dict[int, Answer] = {}  # of entries that are applied
        self._held: list[tuple[Origin, Order]] = []
        self._promotions: list[tuple[Origin, MemberId]] = []

    def clear(self) -> None:
        """Forget all requests, unanswered."""
        self._asked.clear()
        self._answers.clear()
        self._held.clear()
        self._promotions.clear()

    # For an entry

    def wait(self, origin: Origin, index: int) -> None:
        """Have a request wait for an entry."""
        self._asked[index] = origin

    def waits_for(self, index: int) -> bool:
        """Tell whether a request waits for an entry."""
        return index in self._asked

    def origins(self) -> list[Origin]:
        """Return who waits for entries."""
        return list(self._asked.values())

    def answer(self, index: int, answer: Answer) -> None:
        """Answer the request that waits for an entry."""
        self._out.answer(self._asked.pop(index), answer)

    def applied(self, first: int, last: int, answers: Mapping[int, Answer]) -> None:
        """Note the answers of entries that were applied; `settle` gives them."""
        for index in range(first, last + 1):
            if index in self._asked:
                self._answers[index] = answers.get(index, index)

    def settle(self, settled: int) -> None:
        """Answer the requests for entries that are applied, and settled up to this index."""
        for index in [index for index in self._answers if index <= settled]:
            self._out.answer(self._asked.pop(index), self._answers.pop(index), index)

    def release(self, after: int, why: LnhError) -> None:
        """Answer every request that waits for an entry after index `after`."""
        for index in [index for index in self._asked if index > after]:
            self._answers.pop(index, None)
            self.answer(index, why)

    # For a primary

    @property
    def are_held(self) -> bool:
        """Tell whether an order is held."""
        return bool(self._held)

    def hold(self, origin: Origin, order: Order) -> None:
        """Hold an order while the primary changes."""
        self._held.append((origin, order))

    def take_held(self) -> list[tuple[Origin, Order]]:
        """Take the orders that were held."""
        held, self._held = self._held, []
        return held

    def wait_for_primary(self, origin: Origin, target: MemberId) -> None:
        """Have a promotion wait until its target is primary."""
        self._promotions.append((origin, target))

    def answer_promotions(self, committed: Callable[[], Configuration]) -> None:
        """Answer the promotions of the member that has opened the newest committed epoch."""
        if not self._promotions:
            return
        configuration = committed()
        waiting, self._promotions = self._promotions, []
        for origin, target in waiting:
            if target == configuration.candidate:
                self._out.answer(origin, configuration.opened, configuration.opened)
            else:
                self._promotions.append((origin, target))
