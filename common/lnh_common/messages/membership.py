"""The view of the cluster that membership gives to everyone in its member."""

from __future__ import annotations

from typing import Final

from lnh_common.messages.base import Empty, Message, operation


class MemberState(Message):
    """One member.

    Args:
        id: 16 bytes, or empty while there is no cluster.
        address: host and base port that others reach it at.
        role: primary, secondary, or none without a cluster.
        state: read-write, read-only, failed, none, or unreachable.
        group: its affinity group.
    """

    id: bytes
    name: str
    address: str
    role: str
    state: str
    group: str
    product: str


class ServiceHealth(Message):
    """`state` is serving or unreachable; `milliseconds` is how long its status took."""

    name: str
    state: str
    milliseconds: int
    problem: str = ""


class View(Message):
    """The cluster as this member sees it; `cluster` and `primary` are empty while there is none."""

    cluster: bytes
    primary: bytes
    epoch: int
    members: tuple[MemberState, ...]
    services: tuple[ServiceHealth, ...]


STATUS: Final = operation("membership.status", Empty, View)
