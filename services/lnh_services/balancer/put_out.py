"""Keeps clients out for a while that asked on and on and read no answer (docs/adr/0038). Pure."""

from __future__ import annotations

from typing import Final

from lnh_common import limits
from lnh_services.balancer.clients import Clients


class PutOut:
    """The keys that are not let in now. Times are seconds of one monotonic clock.

    Only keys of registered clients are kept out, and any while those are not known: another key is made for nothing, so
    to keep one out keeps nobody out, and would take the place of a client's.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients: Final = clients
        self._until: Final[dict[str, float]] = {}

    def add(self, now: float, key: str) -> None:
        """Keep a client's Z85 key out from now on, unless as many as may are out."""
        for each in [each for each, until in self._until.items() if until <= now]:
            del self._until[each]
        if len(self._until) < limits.KEYS_PUT_OUT and self._clients.refusal(key) is None:
            self._until[key] = now + limits.PUT_OUT_SECONDS

    def has(self, now: float, key: str) -> bool:
        """Tell whether a Z85 key is out."""
        return self._until.get(key, 0.0) > now
