"""Knows the other members from membership's view, and until when they may do this member's work. Pure.

A listed member may send work here, and be sent some, under the key of its balancer (`door`); a member that has not told
its key yet is left alone. The member that is listed with this balancer's own key is this one. It has work done
elsewhere while it is read-write: as long as its store said that its lease goes on without another word.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any, Final

from lnh_common import limits
from lnh_common.errors import LnhError
from lnh_common.messages import membership
from lnh_common.messages.base import Empty
from lnh_services.balancer.clients import Question

_KEY_BYTES: Final = 32
PEER_PORT: Final = 3  # behind the base port
ASK_EVERY: Final = 0.5  # seconds, and no later than half way through what is left of the lease
ASK_EVERY_AT_LEAST: Final = 0.05
ASK_EVERY_ALONE: Final = 5.0  # ... while there is nobody else
ASK_SECONDS: Final = 2.0
EXPELLED: Final = "expelled"
DAMAGED: Final = "damaged"
_NOBODY: Final = "there is no other member to work with"
MARGIN: Final = (
    0.05  # seconds before its lease's end at which a member counts as read-only: this is looked at now and then
)


@dataclass(frozen=True)
class Neighbour:
    """The balancer of another member.

    Args:
        port: that balancers are reached at.
        door: its CURVE public key, 32 bytes.
        group: its affinity group; `near` tells whether that is this member's too.
    """

    id: bytes
    name: str
    host: str
    port: int
    door: bytes
    group: str
    near: bool

    @property
    def endpoint(self) -> str:
        """The ZeroMQ endpoint to connect to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


class Neighbours:
    """The other members as last heard.

    Args:
        door: this member's own key, 32 bytes.
    """

    def __init__(self, door: bytes) -> None:
        self.others: dict[bytes, Neighbour] = {}
        self.group = limits.LOCAL_GROUP
        self._door: Final = door
        self._alone = "membership has not answered yet"
        self._read_write_until = 0.0

    def alone(self, now: float) -> str:
        """Say why this member does all work itself; empty when it need not."""
        if not self._alone and now >= self._read_write_until:
            return "membership has not said lately that its lease goes on"
        return self._alone

    def take(self, asked_at: float, view: membership.View) -> None:
        """Take in a view that was asked for at this time."""
        own = next((member for member in view.members if member.door == self._door), None)
        if own is None:
            self.others, self.group = {}, limits.LOCAL_GROUP
            self._alone = "it is not listed with its balancer's key" if view.cluster else "there is no cluster"
            return
        if own.state == EXPELLED:  # what it still lists are members of a cluster that it is none of
            self.others, self.group, self._alone = {}, own.group, "it was removed from the cluster"
            return
        self.group = own.group
        self.others = {member.id: member for member in self._others(own, view.members)}
        if not view.lease_ms or own.state == DAMAGED:
            self._alone = f"it is {own.state}"
        else:
            self._alone = "" if self.others else _NOBODY
        self._read_write_until = asked_at + view.lease_ms / 1000 - MARGIN

    @staticmethod
    def _others(own: membership.MemberState, members: Iterable[membership.MemberState]) -> Iterable[Neighbour]:
        for member in members:
            host, _, port = member.address.rpartition(":")
            if member.id != own.id and len(member.door) == _KEY_BYTES and port.isdecimal():
                near = member.group == own.group
                yield Neighbour(member.id, member.name, host, int(port) + PEER_PORT, member.door, member.group, near)

    def follow(self, asked_at: Callable[[], float]) -> Generator[Question | float, Any, None]:
        """Yield questions to membership, for ever; a number is a pause in seconds. Errors are thrown in.

        Args:
            asked_at: when the question that is answered was sent.
        """
        while True:
            try:
                view = yield Question(membership.STATUS, Empty(), ASK_SECONDS)
            except LnhError:  # what was heard last holds, until the lease ends
                yield ASK_EVERY
            else:
                self.take(asked_at(), view)
                yield self._pause(view)

    def _pause(self, view: membership.View) -> float:
        if self._alone == _NOBODY:
            return ASK_EVERY_ALONE
        return max(ASK_EVERY_AT_LEAST, min(ASK_EVERY, view.lease_ms / 2000)) if view.lease_ms else ASK_EVERY
