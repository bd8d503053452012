"""Defines what a role is, and what a role asks of the replica that it acts for. Pure."""

from __future__ import annotations

from typing import Protocol

import msgspec

from lnh_services.store.log.entries import Epoch, MemberId, Position
from lnh_services.store.log.window import Base
from lnh_services.store.replication.messages import Instant, Message, Order
from lnh_services.store.replication.outbox import Origin
from lnh_services.store.replication.standing import Lag


class Handing(msgspec.Struct, frozen=True):
    """The state of an old primary while the member it promotes opens the epoch it promised.

    Args:
        target: the member promoted.
        origin: the request for it.
        last: the end of the log that is handed over.
    """

    target: MemberId
    origin: Origin
    last: Position


class Role(Protocol):
    """The part that a member plays in the epoch it promised."""

    @property
    def primary(self) -> MemberId:
        """The member that this role takes for the primary; empty while it knows none."""

    def is_current(self, now: Instant) -> bool:
        """Tell whether reads are current and writes are taken."""

    def current_until(self, now: Instant) -> float:
        """Return the boot seconds beyond which no cache of this member may be used as current."""

    def promotable(self) -> tuple[MemberId, ...] | None:
        """Return the members that may be made primary now; None where this role does not decide that."""

    def lags(self) -> tuple[Lag, ...]:
        """Return how far the other members are, as far as this role follows that."""

    def take(self, now: Instant, origin: Origin, order: Order) -> None:
        """Carry out, pass on or refuse an order."""

    def receive(self, now: Instant, sender: MemberId, message: Message) -> None:
        """Take in a message of a listed member that is not of a lower epoch."""

    def tick(self, now: Instant) -> None:
        """Do what time brings: repeat messages, and give up what took too long."""

    def settle(self, now: Instant) -> None:
        """Acknowledge, commit and begin what waited, because something may have become durable, invalidated or idle."""

    def invalidated(self, now: Instant, number: int) -> None:
        """Take in that an invalidation is over that this role may have begun."""

    def projected(self) -> int:
        """Return the commit index once everything in the log is durable here."""

    def may_install(self, sender: MemberId, base: Base) -> bool:
        """Tell whether a member's snapshot may take the place of this member's state."""

    def has_parted(self) -> bool:
        """Tell whether what is applied here is known not to be a part of the primary's log."""

    def installed(self, base: Base) -> None:
        """Take in that the snapshot is in place."""

    def leave(self, now: Instant) -> None:
        """Answer every request that waits for this role, because another role takes over."""


class Office(Protocol):
    """What a role asks of the replica: another role in its own place. A role knows nothing else of it."""

    @property
    def role(self) -> Role | None:
        """The role that acts now."""

    def take(self, now: Instant, origin: Origin, order: Order) -> None:
        """Give an order to the role that acts now."""

    def become(self, role: Role) -> None:
        """Have a role act from now on."""

    def rest(self, now: Instant, handing: Handing | None = None, *, leased: bool = False) -> None:
        """Become an ordinary member in the epoch promised last."""

    def reopen(self, now: Instant, above: Epoch) -> None:
        """Open an epoch above `above` and all promised here, as the primary by this member's own log."""
