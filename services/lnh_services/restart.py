"""Decides when a service that died is started again: at once the first time, then with growing delays. Pure."""

from __future__ import annotations

from typing import Final

FIRST_DELAY: Final = 0.1  # seconds
LONGEST_DELAY: Final = 30.0
STABLE_AFTER: Final = 20.0  # seconds a service ran, after which its earlier deaths are forgotten


class Restarts:
    """The restarts of one service: each death soon after a start doubles the wait before the next start."""

    def __init__(
        self, first: float = FIRST_DELAY, longest: float = LONGEST_DELAY, stable_after: float = STABLE_AFTER
    ) -> None:
        assert 0 < first <= longest, "the first delay is the shortest"
        self.count = 0
        self._first: Final = first
        self._longest: Final = longest
        self._stable_after: Final = stable_after
        self._delay = first

    def died(self, ran: float) -> float:
        """Note a death after so many seconds of running; returns the seconds to wait before the next start."""
        self.count += 1
        if ran >= self._stable_after:
            self._delay = self._first
        delay = self._delay
        self._delay = min(self._longest, 2 * self._delay)
        return delay
