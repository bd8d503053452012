"""Views the cluster as one member sees it: by what its store tells, and what it heard from the others. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import lnh_common
from lnh_common import limits
from lnh_common.messages import store
from lnh_common.messages.membership import Health, MemberState, ServiceHealth, View
from lnh_common.messages.store import MemberInfo

SILENT_AFTER: Final = 5.0  # seconds without a word after which a member counts as unreachable
READ_ONLY: Final = "read-only"
DAMAGED: Final = "damaged"
_SERVES: Final = frozenset({READ_ONLY, "read-write"})


@dataclass(frozen=True)
class Heard:
    """The last word of a peer about itself, and when it came: UTC seconds."""

    health: Health
    at: float


@dataclass(frozen=True)
class This:
    """The settings of this member; they count until the log lists it."""

    name: str
    address: str


def view(
    this: This,
    status: store.Status | None,
    health: Mapping[str, ServiceHealth],
    heard: Mapping[bytes, Heard],
    now: float,
    *,
    damaged: bool = False,
) -> View:
    """View the cluster as one member's store and its peers tell it.

    Args:
        status: of the own store; None when it does not answer.
        health: of the own services, by name.
        heard: of the others, by member id.
        now: UTC seconds.
        damaged: whether the own HSM says so of the own store.
    """
    services = tuple(health[service] for service in sorted(health))
    if status is None or not status.cluster:
        state = "unreachable" if status is None else status.state
        alone = MemberState(
            id=b"", name=this.name, address=this.address, role="none", state=state, group=limits.LOCAL_GROUP,
            product=lnh_common.VERSION, last_heard=int(now),
        )  # fmt: skip
        return View(cluster=b"", primary=b"", epoch=0, members=(alone,), services=services)
    listed = sorted(status.members, key=lambda member: member.name)
    members = tuple(_member(status, each, heard.get(each.id), now, damaged=damaged) for each in listed)
    if all(each.id != status.member for each in status.members):
        members = (_own(status, None, this.name, this.address, now, damaged=damaged), *members)
    return View(
        cluster=status.cluster,
        primary=status.primary,
        epoch=status.epoch,
        members=members,
        services=services,
        waiting_for=waiting_for(status, heard, now),
        groups=status.groups,
        lease_ms=status.lease_ms,
    )


def waiting_for(status: store.Status, heard: Mapping[bytes, Heard], now: float) -> tuple[str, ...]:
    """Name the members that have not shown that they list this one, while it does not take part yet."""
    if not _is_joining(status, status.member, status.state):
        return ()
    return tuple(
        each.name
        for each in status.members
        if each.id != status.member
        and not (_is_fresh(heard.get(each.id), now) and status.member in heard[each.id].health.listed)
    )


def told_state(state: str, *, damaged: bool) -> str:
    """Return what a member says of itself: a damaged one says so where it would serve otherwise."""
    return DAMAGED if damaged and state in _SERVES else state


def _member(status: store.Status, member: MemberInfo, heard: Heard | None, now: float, *, damaged: bool) -> MemberState:
    address = f"{member.host}:{member.port}"
    if member.id == status.member:
        return _own(status, member, member.name, address, now, damaged=damaged)
    state = "unreachable"
    if heard is not None and _is_fresh(heard, now):
        state = _shown(status, member.id, heard.health.state, diverged=heard.health.diverged)
    return MemberState(
        id=member.id,
        name=member.name,
        address=address,
        role=_role(status, member.id),
        state=state,
        group=member.group,
        door=member.door,
        product=heard.health.product if heard else "",
        last_heard=int(heard.at) if heard else 0,
    )


def _own(
    status: store.Status, listed: MemberInfo | None, name: str, address: str, now: float, *, damaged: bool
) -> MemberState:
    return MemberState(
        id=status.member,
        name=name,
        address=address,
        role=_role(status, status.member),
        state=_shown(status, status.member, told_state(status.state, damaged=damaged), diverged=status.diverged),
        group=listed.group if listed else limits.LOCAL_GROUP,
        door=listed.door if listed else b"",
        product=lnh_common.VERSION,
        last_heard=int(now),
    )


def _role(status: store.Status, member: bytes) -> str:
    return "primary" if status.primary == member else "secondary"


def _shown(status: store.Status, member: bytes, state: str, *, diverged: bool) -> str:
    if diverged and state in _SERVES:
        return "diverged"
    return "joining" if _is_joining(status, member, state) else state


def _is_joining(status: store.Status, member: bytes, state: str) -> bool:
    """Tell whether a member that answers is not counted on yet: it catches up."""
    return state == "joining" or (state == READ_ONLY and member in status.catching_up)


def _is_fresh(heard: Heard | None, now: float) -> bool:
    return heard is not None and now - heard.at <= SILENT_AFTER
