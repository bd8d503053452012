"""Puts together what one member tells of itself, from its services' words.

Pure, but for `machine`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from lnh_common.messages import backup, balancer, console, store
from lnh_common.messages.membership import ServiceHealth, View
from lnh_common.messages.overview import (
    BackupFigures,
    BalancerFigures,
    Figures,
    HsmFigures,
    MachineFigures,
    Seen,
    Sight,
    StoreFigures,
    Told,
)
from lnh_services.configuration import Settings
from lnh_services.paths import MemberDirectory

T = TypeVar("T", bound=Told)

SERVING = "serving"


def figures(
    status: store.Status | None,
    told: Mapping[str, Any],
    health: Mapping[str, ServiceHealth],
    *,
    at: int,
    running: int,
    joining: int = 0,
    waiting_for: tuple[str, ...] = (),
    machine: MachineFigures | None = None,
) -> Figures:
    """Put together what this member tells of itself.

    Args:
        status: of the own store; None when it does not answer.
        told: the other services' last answers, by name; None where the last question had none.
        health: of the own services, by name.
        at: UTC milliseconds.
        running, joining: seconds.
    """
    door, hsm, kept = told.get("balancer"), told.get("hsm"), told.get("backup")
    return Figures(
        told_at=at,
        running=running,
        joining=joining,
        waiting_for=waiting_for,
        services=tuple(health[name] for name in sorted(health)),
        store=_picked(StoreFigures, status) if status is not None else None,
        balancer=_balancer(door) if isinstance(door, balancer.Status) else None,
        hsm=_picked(HsmFigures, hsm) if isinstance(hsm, console.HsmView) else None,
        backup=_picked(BackupFigures, kept) if isinstance(kept, backup.Status) else None,
        machine=machine,
    )


def _balancer(status: balancer.Status) -> BalancerFigures:
    # Backends of other members have a group of theirs; workers have none.
    workers = [backend for backend in status.backends if not backend.group]
    states = [backend.state for backend in workers]
    return _picked(
        BalancerFigures,
        status,
        workers=len(workers),
        workers_serving=len(workers) - states.count("down"),
        workers_silent=states.count("silent"),
    )


def _picked(kind: type[T], status: Any, **more: Any) -> T:
    """Pick the fields of `kind` that the status has under the same name."""
    names = [name for name in kind.__struct_fields__ if name not in more]
    return kind(**{name: getattr(status, name) for name in names}, **more)


def seen(
    view: View,
    member: bytes,
    told: Mapping[bytes, Figures],
    skews: Mapping[bytes, int],
    at: int,
) -> Seen:
    """Add to the view what each member told of itself.

    Args:
        member: the member that is asked; its figures are among `told`.
        skews: milliseconds, by member id.
        at: UTC milliseconds.
    """
    return Seen(
        cluster=view.cluster,
        member=member,
        primary=view.primary,
        epoch=view.epoch,
        at=at,
        groups=view.groups,
        members=tuple(
            _picked(Sight, each, figures=told.get(each.id), skew_ms=skews.get(each.id, 0)) for each in view.members
        ),
    )


def machine(directory: MemberDirectory, settings: Settings) -> MachineFigures:
    """Look at what the member runs on; a figure that cannot be seen is 0."""
    free = total = 0
    try:
        disk = os.statvfs(directory.root)
        free, total = disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize
    except OSError:
        pass
    return MachineFigures(
        disk_free=free,
        disk_total=total,
        users=users(directory),
        activation_beside=directory.has_beside(settings.activation.file),
    )


def users(directory: MemberDirectory) -> int:
    """Count the users that the services run as.

    This service counts as another where it reaches nothing of the HSM's or the store's.
    """
    owners = len(_owners(directory))
    return owners + 1 if owners and not _reaches_others(directory) else owners


def _reaches_others(directory: MemberDirectory) -> bool:
    """Tell whether this service, membership, sees files of the HSM or the store."""
    for service in ("hsm", "store"):
        with suppress(OSError):
            if any(directory.data(service).iterdir()):
                return True
    return False


def _owners(directory: MemberDirectory) -> set[int]:
    """Return the owners of the services' sockets."""
    addresses = (
        directory.store_for_services, directory.hsm_for_services, directory.membership_for_services,
        directory.balancer_status, directory.backup_for_services,
    )  # fmt: skip
    owners = set()
    for address in addresses:
        try:
            owners.add(Path(address.removeprefix("ipc://")).stat().st_uid)
        except OSError:
            continue
    return owners
