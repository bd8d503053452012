"""Limits how long a service may leave the supervisor without an answer, before its process is ended. Pure.

Only time counts in which the supervisor asked and heard nothing. Of the time between two questions no more counts than
a question may take: a supervisor that stood still itself (a suspended machine, no processor) asked nothing meanwhile. A
service that has never answered is starting: it may be checking or replaying its disk, and gets longer.
"""

from __future__ import annotations

from typing import Final


class Silence:
    """The silence of one life of a service.

    Args:
        now: seconds.
        starting: seconds without an answer that a service gets before its first one.
        patience: seconds that it gets afterwards.
        longest: seconds that count of the time between two questions, at most.
    """

    def __init__(self, now: float, *, starting: float, patience: float, longest: float) -> None:
        self.seconds = 0.0  # of silence that count
        self._before = now
        self._limit = starting
        self._patience: Final = patience
        self._longest: Final = longest

    def answered(self, now: float) -> None:
        """Note an answer, a refusal included."""
        self.seconds = 0.0
        self._before = now
        self._limit = self._patience

    def unanswered(self, now: float) -> bool:
        """Note that a question had no answer; tells whether the process is to be ended."""
        self.seconds += min(now - self._before, self._longest)
        self._before = now
        return self.seconds >= self._limit
