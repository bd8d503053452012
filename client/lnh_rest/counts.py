"""Counts the service's own requests, and tells Prometheus of them and of the cluster's members. Pure."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from lnh_common.messages.overview import Overview
from lnh_common.metrics import ROWS, Own

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_UP_TO: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_NO_ROUTE: Final = "none"
_BY: Final = "told_by"  # the label that names the member whose figures they are


class Counts:
    """The requests that were answered.

    Args:
        now: tells how many requests are under way, and how many sessions are open.
    """

    def __init__(self, now: Callable[[], tuple[int, int]] = lambda: (0, 0)) -> None:
        self._now: Final = now
        self._answers: Final[Counter[tuple[str, str]]] = Counter()
        self._took: Final = [0] * (len(_UP_TO) + 1)
        self._seconds = 0.0

    def add(self, route: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._answers[route or _NO_ROUTE, str(status)] += 1
        self._took[bisect.bisect_left(_UP_TO, seconds)] += 1
        self._seconds += seconds

    def families(self) -> Iterator[Metric]:
        """Yield the service's own metrics."""
        answers = CounterMetricFamily("lnh_rest_answers", "Requests that were answered.", labels=("route", "status"))
        for (route, status), count in sorted(self._answers.items()):
            answers.add_metric((route, status), count)
        yield answers
        took = HistogramMetricFamily("lnh_rest_seconds", "How long answers took.")
        total, buckets = 0, []
        for bound, count in zip((*map(str, _UP_TO), "+Inf"), self._took, strict=True):
            total += count
            buckets.append((bound, float(total)))
        took.add_metric((), buckets, self._seconds)
        yield took
        under_way, sessions = self._now()
        yield GaugeMetricFamily("lnh_rest_requests_in_flight", "Requests that are being served.", value=under_way)
        yield GaugeMetricFamily("lnh_rest_sessions", "Sessions that are open.", value=sessions)


def exposed(counts: Counts, overview: Overview) -> str:
    """Write the metrics of the service and of every member as Prometheus reads them.

    The members' are those that a member serves of itself, with the label `told_by` for the member that told them; a
    member that told nothing is in those of the others alone.
    """
    registry = CollectorRegistry()
    registry.register(_Fixed([*counts.families(), *_of_cluster(overview)]))
    return generate_latest(registry).decode()


def _of_cluster(overview: Overview) -> Iterator[Metric]:
    seen = overview.seen
    told = [Own(each.name, seen, each.figures, seen.at / 1000) for each in seen.members if each.figures is not None]
    yield from (row.family_of(_BY, told) for row in ROWS)
    yield GaugeMetricFamily("lnh_cluster_keyrings", "Keyrings of the cluster.", value=overview.keyrings)
    yield GaugeMetricFamily("lnh_cluster_clients", "Registered clients of the cluster.", value=overview.clients)


class _Fixed(Collector):
    """Metrics that are there already."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families: Final = list(families)

    def collect(self) -> Iterable[Metric]:
        """Return them."""
        return self._families

    def describe(self) -> Iterable[Metric]:
        """Describe none beforehand."""
        return []
