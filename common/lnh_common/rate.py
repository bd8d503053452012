"""Counts against a rate: so much a second, and some seconds' worth at once. Pure."""

from __future__ import annotations

from typing import Final

_BURST: Final = 1.0


class Rate:
    """Counts what is used of a rate.

    Args:
        rate: a second; 0 for any number.
        burst: seconds of the rate that may be used at once.
    """

    def __init__(self, rate: float, burst: float = _BURST) -> None:
        self._rate: Final = rate
        self._burst: Final = burst
        self._left = rate * burst
        self._at = 0.0

    def has(self, now: float) -> bool:
        """Tell whether something is left."""
        if not self._rate:
            return True
        if now > self._at:
            self._left = min(self._left + (now - self._at) * self._rate, self._rate * self._burst)
            self._at = now
        return self._left > 0

    def spend(self, amount: float) -> None:
        """Use so much; what is spent beyond what was left is missing later."""
        self._left -= amount
