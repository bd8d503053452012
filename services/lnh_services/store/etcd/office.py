"""Defines what the roles over etcd ask of the member that they act for, and how they tell that etcd went back. Pure."""

from __future__ import annotations

from typing import Protocol

from lnh_common.errors import MalformedMessage
from lnh_services.store.etcd.place import Place
from lnh_services.store.log.entries import Epoch, Position
from lnh_services.store.replication.messages import Instant
from lnh_services.store.replication.role import Office


class EtcdOffice(Office, Protocol):
    """What a role over etcd asks of its member."""

    def stop(self, now: Instant) -> None:
        """Stop for good, because etcd does not hold what this member has applied."""

    def give_way(self, now: Instant, epoch: Epoch) -> None:
        """Become an ordinary member, in the epoch of another primary."""

    def give_up(self) -> None:
        """Hold no cluster, because none could be founded."""


def is_rolled_back(place: Place, held: Position) -> bool:
    """Tell whether etcd, when it was asked, did not hold all that this member held by then.

    Args:
        place: etcd's answer.
        held: the end of what etcd had ordered of this log, when etcd was asked.
    """
    try:
        head = place.ends()
        place.leads()
        place.is_manual()
    except MalformedMessage:
        return True
    return head.index < held.index or (head.index == held.index and head != held)
