"""Makes figures for the balancer's status: recent rates, percentiles, and how each backend stands. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from lnh_common.messages.balancer import BackendView
from lnh_services.balancer.backends import Backend

_WINDOW: Final = 5  # seconds, of rates that are noted every second


class Rates:
    """Counts what was served and refused a second, of late."""

    def __init__(self) -> None:
        self._noted: Final[deque[tuple[float, int, int]]] = deque(maxlen=_WINDOW + 1)

    def note(self, now: float, served: int, refused: int) -> None:
        """Take in the counts so far."""
        self._noted.append((now, served, refused))

    def per_second(self, now: float, served: int, refused: int) -> tuple[float, float]:
        """Return the rates of both, from their counts so far."""
        then, served_then, refused_then = self._noted[0] if self._noted else (now - 1.0, 0, 0)
        seconds = max(now - then, 0.001)
        return round((served - served_then) / seconds, 1), round((refused - refused_then) / seconds, 1)


def percentiles(latencies: Iterable[float]) -> tuple[int, int]:
    """Return the median and the 99th percentile of seconds, in microseconds."""
    in_order = sorted(latencies) or [0.0]
    return int(1e6 * in_order[len(in_order) // 2]), int(1e6 * in_order[len(in_order) * 99 // 100])


def view_of(backend: Backend, now: float, group: str) -> BackendView:
    """Describe a backend.

    Args:
        group: the affinity group of another member; empty for a worker.
    """
    state = "serving"
    if not backend.up:
        state = "down"
    elif not backend.open:
        state = "closed"
    elif not backend.far and backend.is_silent(now):
        state = "silent"
    return BackendView(
        name=backend.name,
        state=state,
        requests=len(backend.outstanding),
        work=backend.work,
        group=group,
        settled=backend.settled,
        round_trip=int(1e6 * backend.round_trip),
        unit=int(1e6 * backend.unit),
    )
