"""What a healthy cluster of three tells of itself, and how to change a part of it."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from lnh_common.messages.membership import ServiceHealth
from lnh_common.messages.overview import (
    BackupFigures,
    BalancerFigures,
    Figures,
    HsmFigures,
    MachineFigures,
    Overview,
    Seen,
    Sight,
    StoreFigures,
)

AT = 1_700_000_000
GIB = 2**30


def figures(**parts: Any) -> Figures:
    """Of a member that is well."""
    told = Figures(
        told_at=1000 * AT,
        running=3600,
        services=tuple(
            ServiceHealth(name=name, state="serving", milliseconds=1) for name in ("backup", "balancer", "hsm", "store")
        ),
        store=StoreFigures(last_index=5000, committed_index=5000, applied_index=5000, lease_ms=1400),
        balancer=BalancerFigures(
            connections=3, requests_per_second=100.0, p50=900, p99=4000, in_flight=2, workers=2, workers_serving=2
        ),
        hsm=HsmFigures(state="activated", locked_memory=True),
        backup=BackupFigures(schedule="daily at 03:00", backups=3),
        machine=MachineFigures(disk_free=50 * GIB, disk_total=100 * GIB, users=5),
    )
    return replace(told, **parts)


def sight(name: str, **fields: Any) -> Sight:
    """A member of that name: a is the primary."""
    shown = Sight(
        id=name.encode() * 16,
        name=name,
        address=f"host-{name}:7100",
        role="primary" if name == "a" else "secondary",
        state="read-write",
        group="local",
        product="0.2.0",
        last_heard=AT,
        figures=figures(),
    )
    return replace(shown, **fields)


def overview(*members: Sight, product: str = "0.2", **fields: Any) -> Overview:
    """Seen by a; with no members named, of three that are well."""
    members = members or (sight("a"), sight("b"), sight("c"))
    seen = Seen(
        cluster=b"c" * 16, member=b"a" * 16, primary=b"a" * 16, epoch=3, at=1000 * AT,
        groups=("local",), members=members,
    )  # fmt: skip
    return Overview(label="prod", seen=replace(seen, **fields), keyrings=7, clients=2, product=product)
