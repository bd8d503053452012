"""Makes figures for the balancer's status: recent rates, percentiles, and how each backend stands. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final

from lnh_common.messages.balancer import BackendView
from lnh_services.balancer.backends import Backend

_WINDOW: Final = 5  # seconds, of rates that are noted every second


class Served:
    """Counts the requests that own workers served, by what each says of itself when it is asked.

    Args:
        workers: how many there are.
    """

    def __init__(self, workers: int) -> None:
        self.total = 0
        self._said: Final = [0] * workers  # by each since it started, as it said last
        self._news: Final = [True] * workers  # it had work since it was asked

    def had_work(self, worker: int) -> None:
        """Note that a worker was given a request."""
        self._news[worker] = True

    def asks(self, worker: int, *, has_work: bool) -> bool:
        """Tell whether to ask a worker now: one that had no work since the last time has nothing new to say.

        Args:
            has_work: whether it has some that it has not answered; then it is asked once more afterwards.
        """
        asks, self._news[worker] = self._news[worker], has_work
        return asks

    def says(self, worker: int, served: int) -> None:
        """Take in how many requests a worker says it has served since it started."""
        before, self._said[worker] = self._said[worker], served
        self.total += served - before if served >= before else served  # it was started anew


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
