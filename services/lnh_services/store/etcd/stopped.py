"""The role of a member whose state etcd does not hold: serves what it has, and takes no part any more. Pure.

etcd was restored from a backup, or emptied. What was acknowledged since would be lost if this member went along in
silence. It looks again at its next start.
"""

from __future__ import annotations

from typing import Final

from lnh_common.errors import MemberReadOnly
from lnh_services.store.log.entries import MemberId
from lnh_services.store.log.window import Base
from lnh_services.store.replication.follower import Follower
from lnh_services.store.replication.messages import Instant, Message, Order
from lnh_services.store.replication.outbox import Origin

WHY: Final = (
    "etcd does not hold what this member has applied: it was restored from a backup, or emptied. Restore etcd to its "
    "newest state, or the cluster from a backup of its own, then start this member again"
)


class Stopped(Follower):
    """The role of a member that trusts its etcd no more."""

    def receive(self, now: Instant, sender: MemberId, message: Message) -> None:
        """Heed nothing."""

    def tick(self, now: Instant) -> None:
        """Do nothing."""

    def settle(self, now: Instant) -> None:
        """Acknowledge nothing."""

    def may_install(self, sender: MemberId, base: Base) -> bool:
        """Return False: what this member has stays as it is."""
        return False

    def take(self, now: Instant, origin: Origin, order: Order) -> None:
        """Refuse an order."""
        self._out.answer(origin, MemberReadOnly(WHY))
