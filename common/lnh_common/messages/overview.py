"""Messages that show the whole cluster: what each member tells of itself, gathered through the one that is asked.

They are for the eye of an administrator, `lnh top`, `lnh doctor` and metrics; nothing is decided by them. So these
messages alone leave out what they do not know: members of two versions may tell each other more or less.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from lnh_common import limits
from lnh_common.messages.base import Empty, Listing, Message, Seal, operation
from lnh_common.messages.membership import ServiceHealth
from lnh_common.messages.store import Lag


class Told(Message, forbid_unknown_fields=False):
    """A message that may have fields that the reader does not know."""


class StoreFigures(Told):
    """The figures of `store.status`; `in_sync` are member ids, `state` and `primary` are empty where none is told."""

    last_index: int = 0
    committed_index: int = 0
    applied_index: int = 0
    in_sync: tuple[bytes, ...] = ()
    items: int = 0
    bytes_on_disk: int = 0
    commits_per_second: float = 0.0
    lease_ms: int = 0
    lags: tuple[Lag, ...] = ()
    diverged: bool = False
    expelled: str = ""
    problem: str = ""
    state: str = ""
    primary: bytes = b""


class BalancerFigures(Told):
    """The figures of `balancer.status`; some `workers` serve, and some of those have been silent for a moment."""

    connections: int = 0
    requests_per_second: float = 0.0
    refused_per_second: float = 0.0
    p50: int = 0
    p99: int = 0
    in_flight: int = 0
    waiting: int = 0
    retried: int = 0
    expired: int = 0
    dropped: int = 0
    forwarded: int = 0
    taken: int = 0
    declined: int = 0
    workers: int = 0
    workers_serving: int = 0
    workers_silent: int = 0


class HsmFigures(Told):
    """The figures of the HSM: `state` is uninitialised, sealed or activated; `damaged` is what the store did wrong."""

    state: str = ""
    locked_memory: bool = False
    damaged: str = ""


class BackupFigures(Told):
    """The figures of `backup.status`."""

    schedule: str = "none"
    backups: int = 0
    bytes_on_disk: int = 0
    newest: str = ""
    problem: str = ""
    next: int = 0
    last: int = 0
    last_member: str = ""
    last_problem: str = ""
    overdue: bool = False
    running: str = ""


class MachineFigures(Told):
    """The figures of the machine that a member runs on.

    Args:
        disk_free, disk_total: bytes, where the member directory is; free for its user.
        users: how many users the services run as; services that reach only their own data count as another. 0 if that
            cannot be seen.
        activation_beside: the activation file is on the disk whose HSM state it opens.
    """

    disk_free: int = 0
    disk_total: int = 0
    users: int = 0
    activation_beside: bool = False


class Figures(Told):
    """The figures of one member, as it tells itself; a service that did not tell is None.

    Args:
        told_at: UTC milliseconds by its own clock.
        running: seconds since its membership started.
        joining: seconds for which it has been catching up; 0 when it takes part.
        waiting_for: names of members that have not taken note of it yet.
    """

    told_at: int
    running: int = 0
    joining: int = 0
    waiting_for: tuple[str, ...] = ()
    services: tuple[ServiceHealth, ...] = ()
    store: StoreFigures | None = None
    balancer: BalancerFigures | None = None
    hsm: HsmFigures | None = None
    backup: BackupFigures | None = None
    machine: MachineFigures | None = None


class Sight(Told):
    """One member as the member that is asked sees it (`MemberState`), with its own figures.

    Args:
        figures: None where it told nothing.
        skew_ms: how far its clock is ahead of that of the member asked.
    """

    id: bytes
    name: str
    address: str
    role: str
    state: str
    group: str
    product: str
    last_heard: int = 0
    figures: Figures | None = None
    skew_ms: int = 0


class Seen(Told):
    """The cluster as one member sees it.

    Args:
        member: the one that was asked.
        at: UTC milliseconds by its clock.
        groups: all affinity groups, sorted.
    """

    cluster: bytes
    member: bytes
    primary: bytes
    epoch: int
    at: int
    groups: tuple[str, ...]
    members: Annotated[tuple[Sight, ...], msgspec.Meta(max_length=limits.MEMBERS + 1)]


class UnfinishedRekey(Message):
    """Name a keyring that has another key since `begun_at` (UTC seconds) and not everything sealed under it yet."""

    label: str
    begun_at: int


class Overview(Listing, kw_only=True, forbid_unknown_fields=False):
    """Answer an administrator with the whole cluster.

    Args:
        key_uses: of the cluster's policy; empty from a member that does not tell it.
        product: the cluster's version, MAJOR.MINOR; likewise.
        rekeys: of keyrings, that are not through.
    """

    label: str
    seen: Seen
    keyrings: int = 0
    clients: int = 0
    key_uses: str = ""
    product: str = ""
    rekeys: tuple[UnfinishedRekey, ...] = ()


SEEN: Final = operation("membership.seen", Empty, Seen)
PEER_FIGURES: Final = operation("member.figures", Empty, Figures)
OVERVIEW: Final = operation("cluster.overview", Empty, Overview, Seal.SESSION)
