"""Limits how often one client, or address, may use a credential: a token bucket each, in a bounded table. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final


class Throttle:
    """Allows `burst` at once and `rate` a second after that, for each client or address.

    Args:
        addresses: how many are remembered; the one seen longest ago is forgotten first.
    """

    def __init__(self, rate: float, burst: int, addresses: int = 4096) -> None:
        self._rate: Final = rate
        self._burst: Final = float(burst)
        self._addresses: Final = addresses
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # left, and when that was

    def allows(self, now: float, address: str) -> bool:
        """Tell whether this address may once more, and count it if so."""
        left, when = self._buckets.pop(address, (self._burst, now))
        left = min(self._burst, left + (now - when) * self._rate)
        allowed = left >= 1.0
        self._buckets[address] = (left - 1.0 if allowed else left, now)
        if len(self._buckets) > self._addresses:
            self._buckets.popitem(last=False)
        return allowed

    def __len__(self) -> int:
        return len(self._buckets)
