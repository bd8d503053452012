"""Prometheus metrics of members: a table, one row a metric, with what it reads of the view and a member's figures.

A member serves its own, and the REST service those of all. There is no secret in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from lnh_common.messages.membership import View
from lnh_common.messages.overview import Figures, Seen
from lnh_common.text import shown

Samples = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True)
class Own:
    """The source of the metrics.

    Args:
        name: of this member.
        at: UTC seconds.
    """

    name: str
    view: View | Seen
    figures: Figures
    at: float


@dataclass(frozen=True)
class Row:
    """One metric; of a counter prometheus appends `_total` to the name."""

    name: str
    about: str
    read: Callable[[Own], Samples]
    labels: tuple[str, ...] = ()
    counts: bool = False

    def family(self, own: Own) -> Metric:
        """Read the metric's samples of one member."""
        return self.filled(self.labels, self.read(own))

    def family_of(self, label: str, several: Iterable[Own]) -> Metric:
        """Read the metric's samples of several members, each with one more label that names the member."""
        samples = [((own.name, *labels), value) for own in several for labels, value in self.read(own)]
        return self.filled((label, *self.labels), samples)

    def filled(self, names: tuple[str, ...], samples: Samples) -> Metric:
        """Make the metric of its samples."""
        kind = CounterMetricFamily if self.counts else GaugeMetricFamily
        family = kind(self.name, self.about, labels=names)
        for labels, value in samples:
            family.add_metric([shown(label) for label in labels], value)
        return family


def _of(part: str, field: str, scale: float = 1.0) -> Callable[[Own], Samples]:
    """Make a reader of one field of a part of the figures; it reads nothing while that part is not told."""

    def read(own: Own) -> Samples:
        told: Any = getattr(own.figures, part)
        return [] if told is None else [((), float(getattr(told, field)) * scale)]

    return read


def _latencies(own: Own) -> Samples:
    door = own.figures.balancer
    return [] if door is None else [(("0.5",), door.p50 / 1e6), (("0.99",), door.p99 / 1e6)]


def _members(own: Own) -> Samples:
    return [((each.name, each.group, each.product), 1.0) for each in own.view.members]


def _states(own: Own) -> Samples:
    return [((each.name, each.state), 1.0) for each in own.view.members]


def _primary(own: Own) -> Samples:
    return [((each.name,), float(each.role == "primary")) for each in own.view.members]


def _heard(own: Own) -> Samples:
    return [((each.name,), max(0.0, own.at - each.last_heard)) for each in own.view.members if each.last_heard]


def _lags(own: Own) -> Samples:
    if own.figures.store is None:
        return []
    names = {each.id: each.name for each in own.view.members}
    last = own.figures.store.last_index
    return [((names.get(lag.member, lag.member.hex()),), last - lag.index) for lag in own.figures.store.lags]


def _groups(own: Own) -> Samples:
    inside = [each.group for each in own.view.members]
    return [((group,), inside.count(group)) for group in own.view.groups]


def _available(own: Own) -> Samples:
    inside = [each.group for each in own.view.members if each.state == "read-write"]
    return [((group,), inside.count(group)) for group in own.view.groups]


def _services(own: Own) -> Samples:
    return [((each.name,), float(each.state == "serving")) for each in own.figures.services]


def _delays(own: Own) -> Samples:
    return [((each.name,), each.milliseconds / 1000) for each in own.figures.services]


def _activated(own: Own) -> Samples:
    return [] if own.figures.hsm is None else [((), float(own.figures.hsm.state == "activated"))]


ROWS: Final = (
    Row("lnh_member", "Members as this one sees them; always 1.", _members, ("member", "group", "product")),
    Row("lnh_member_state", "1 for the state each member is in.", _states, ("member", "state")),
    Row("lnh_member_primary", "Whether the member is primary.", _primary, ("member",)),
    Row("lnh_member_heard_seconds", "Since the member was last heard.", _heard, ("member",)),
    Row("lnh_member_lag_entries", "What a member has not acknowledged yet; of a primary.", _lags, ("member",)),
    Row("lnh_group_members", "Members in an affinity group.", _groups, ("group",)),
    Row("lnh_group_available", "Members of an affinity group that are read-write.", _available, ("group",)),
    Row("lnh_epoch", "The number of the epoch.", lambda own: [((), own.view.epoch)]),
    Row("lnh_running_seconds", "Since this member's membership was started.", lambda own: [((), own.figures.running)]),
    Row("lnh_service_up", "Whether a service of this member answers.", _services, ("service",)),
    Row("lnh_service_status_seconds", "How long a service took to say how it is.", _delays, ("service",)),
    Row("lnh_store_last_index", "The newest entry of the log here.", _of("store", "last_index")),
    Row("lnh_store_committed_index", "Up to here the log is committed.", _of("store", "committed_index")),
    Row("lnh_store_applied_index", "Up to here the log is applied.", _of("store", "applied_index")),
    Row("lnh_store_items", "Items in the store.", _of("store", "items")),
    Row("lnh_store_bytes", "The store's size on disk.", _of("store", "bytes_on_disk")),
    Row("lnh_store_commits_per_second", "Changes applied, of late.", _of("store", "commits_per_second")),
    Row("lnh_store_lease_seconds", "What is left of the lease; 0 without one.", _of("store", "lease_ms", 1e-3)),
    Row("lnh_store_diverged", "Dropped entries that nobody has looked at.", _of("store", "diverged")),
    Row("lnh_clients", "Connections of clients.", _of("balancer", "connections")),
    Row("lnh_requests_per_second", "Requests its workers answered, of late.", _of("balancer", "requests_per_second")),
    Row("lnh_refused_per_second", "Requests refused because queues are full.", _of("balancer", "refused_per_second")),
    Row("lnh_latency_seconds", "Of the newest answers, in the balancer.", _latencies, ("quantile",)),
    Row("lnh_requests_in_flight", "Requests that are being served.", _of("balancer", "in_flight")),
    Row("lnh_requests_waiting", "Requests that wait for a backend.", _of("balancer", "waiting")),
    Row("lnh_requests_retried", "Requests sent to another backend.", _of("balancer", "retried"), counts=True),
    Row("lnh_requests_expired", "Requests whose deadline passed.", _of("balancer", "expired"), counts=True),
    Row("lnh_messages_dropped", "Messages that nobody could be answered for.", _of("balancer", "dropped"), counts=True),
    Row("lnh_requests_forwarded", "Requests sent to other members.", _of("balancer", "forwarded"), counts=True),
    Row("lnh_requests_taken", "Requests taken on from other members.", _of("balancer", "taken"), counts=True),
    Row("lnh_requests_declined", "Requests of other members not taken on.", _of("balancer", "declined"), counts=True),
    Row("lnh_workers", "hsm workers.", _of("balancer", "workers")),
    Row("lnh_workers_serving", "hsm workers that are up.", _of("balancer", "workers_serving")),
    Row("lnh_workers_silent", "... and have answered nothing for a moment.", _of("balancer", "workers_silent")),
    Row("lnh_hsm_activated", "Whether the HSM is activated.", _activated),
    Row("lnh_hsm_memory_locked", "Whether the HSM's memory is kept from swap.", _of("hsm", "locked_memory")),
    Row("lnh_backup_archives", "Archives of this member.", _of("backup", "backups")),
    Row("lnh_backup_bytes", "Their size.", _of("backup", "bytes_on_disk")),
    Row("lnh_backup_last_seconds", "UTC seconds of the last scheduled run; 0 before one.", _of("backup", "last")),
    Row("lnh_backup_overdue", "Whether the schedule is not kept.", _of("backup", "overdue")),
    Row("lnh_disk_free_bytes", "Free on the disk of the member directory.", _of("machine", "disk_free")),
    Row("lnh_disk_bytes", "The size of that disk.", _of("machine", "disk_total")),
)
