"""Serves Prometheus metrics of one member, on a local port where the settings name one.

`lnh_common.metrics` has a row for each, with what it reads from the view and the figures that this member shows anyway.
Served by prometheus_client's own little server, in a thread of its own, from the last figures that were put there: a
scraper can make the member do nothing, and there is no secret in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Thread
from typing import Any, Final

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from lnh_common.events import Log
from lnh_common.metrics import ROWS, Own
from lnh_services.configuration import MetricsSettings

_log: Final = Log("membership.metrics")


class Metrics(Collector):
    """The last figures that were `put`, for scrapers; nothing before that."""

    def __init__(self) -> None:
        self._own: Own | None = None

    def put(self, own: Own) -> None:
        """Replace the figures."""
        self._own = own

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, for a scraper."""
        own = self._own
        if own is not None:
            yield from (row.family(own) for row in ROWS)

    def describe(self) -> Iterable[Metric]:
        """Describe no metric beforehand."""
        return []  # what there is, is known only once something was put


class MetricsPort:
    """Serves metrics at the address of the settings from `open` to `close`."""

    def __init__(self, settings: MetricsSettings) -> None:
        self._settings: Final = settings
        self.metrics: Final = Metrics()
        self._server: Any = None
        self._thread: Thread | None = None

    @property
    def is_open(self) -> bool:
        """Tell whether metrics are served."""
        return self._server is not None

    def open(self) -> None:
        """Begin to serve, if the settings name a port; a port that cannot be had is logged, and the member goes on."""
        listen, port = self._settings.listen, self._settings.port
        if not port:
            return
        registry = CollectorRegistry()
        registry.register(self.metrics)
        try:
            self._server, self._thread = start_http_server(port, listen, registry)
        except OSError as error:
            _log.failure("metrics not served", listen=listen, port=port, problem=str(error))

    def close(self) -> None:
        """Stop serving, and wait for the server's thread."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        if self._thread is not None:
            self._thread.join()
