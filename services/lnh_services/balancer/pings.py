"""Counts the pings to one peer, and for how long it has been silent. Pure: no socket, no clock.

A process that had no processor for a while has not heard what others said, so it excuses them: pings without an answer
count as sent just now. Only so often in a row, though: each turn takes in what has come, and where all turns are slow,
a peer that answered in none of them is gone.
"""

from __future__ import annotations

from typing import Final

EXCUSES: Final = 3  # in a row, without an answer


class Pings:
    """The pings of one peer that are not answered yet."""

    def __init__(self) -> None:
        self._asked: dict[int, float] = {}
        self._excused = 0

    def asked(self, now: float, number: int) -> None:
        """Note a ping that left."""
        self._asked[number] = now

    def answered(self, number: int) -> float | None:
        """Take in an answer, and return when its ping left; None for an answer that is not waited for."""
        asked = self._asked.pop(number, None)
        if asked is not None:
            self._excused = 0
            for earlier in [each for each in self._asked if each < number]:
                del self._asked[earlier]  # its answer was lost; a peer that answers a later one is there
        return asked

    def excuse(self, now: float) -> None:
        """Take into account that this process stood still."""
        if self._asked and self._excused < EXCUSES:
            self._excused += 1
            self._asked = dict.fromkeys(self._asked, now)

    def silent_for(self, now: float) -> float:
        """Count the seconds since the first ping that was not answered."""
        return now - min(self._asked.values(), default=now)

    def clear(self) -> None:
        """Begin anew, with another connection."""
        self._asked.clear()
        self._excused = 0
