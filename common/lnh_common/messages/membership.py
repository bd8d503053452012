"""Messages of membership: the view it gives to everyone in its member, orders from the hsm, and peers.

The orders come on a socket of the hsm's alone. Peers speak over CURVE; a key that no member has may say `hello` and
`join`, and nothing else.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from lnh_common import limits
from lnh_common.messages.base import Effect, Empty, Message, operation
from lnh_common.messages.session import Key32
from lnh_common.messages.store import (
    CreateGroup,
    DeleteGroup,
    Divergent,
    MemberId16,
    MemberInfo,
    MemberRef,
    MoveMember,
    RemovedMember,
)


class MemberState(Message):
    """Describe one member.

    Args:
        id: 16 bytes, or empty while there is no cluster.
        address: host and base port that other members reach it at.
        role: primary, secondary, or none without a cluster.
        state: read-write, read-only, joining (it catches up and is not counted on yet), diverged, damaged (its store
            served what is not genuine, or not current), expelled, failed, none, or unreachable.
        group: its affinity group.
        door: the CURVE public key of its balancer, 32 bytes; empty until the member has told it.
        product: its version; empty when it was never heard.
        last_heard: UTC seconds; 0 when it was never heard since this member's membership started.
    """

    id: bytes
    name: str
    address: str
    role: str
    state: str
    group: str
    product: str
    last_heard: int = 0
    door: bytes = b""


class ServiceHealth(Message):
    """Describe one service: `state` is serving or unreachable; `milliseconds` is how long its status took."""

    name: str
    state: str
    milliseconds: int
    problem: str = ""


class View(Message):
    """Answer with the cluster as this member sees it; `cluster` and `primary` are empty while there is none.

    Args:
        waiting_for: names of members that have not taken note of this one yet.
        groups: the affinity groups, sorted.
        lease_ms: for how long this member stays read-write without hearing from its primary; 0 if it is not read-write.
    """

    cluster: bytes
    primary: bytes
    epoch: int
    members: tuple[MemberState, ...]
    services: tuple[ServiceHealth, ...]
    waiting_for: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    lease_ms: int = 0


class Prepare(Message):
    """Ask how this member will be listed; `renew` gives it a new CURVE key first.

    A member that comes back, or tries again, never has a key that a cluster knows already.
    """

    member: MemberId16
    renew: bool = False


class Prepared(Message):
    """Answer with this member as the cluster is to list it."""

    member: MemberInfo


class AskToJoin(Message):
    """Bring the joining HSM's request to the address, CURVE key and nonce of its invitation."""

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    key: Key32
    invitation: Key32
    request: Annotated[bytes, msgspec.Meta(max_length=16384)]


class Joined(Message):
    """Answer with the inviting HSM's reply, and with a warning about the cluster's new size."""

    reply: bytes
    warning: str = ""


class Remove(Message):
    """Remove a member from the cluster.

    Args:
        proof: the dismissal by the HSM that took the order; on it the removed member's HSM wipes what it holds.
        lost: the member does not answer and never will; without it, it must answer.
        force: go on also without other members that should agree and do not answer.
    """

    member: MemberId16
    proof: bytes = b""
    lost: bool = False
    force: bool = False


class LookAtDivergent(Message):
    """Ask for the entries that a member had to drop; `seen` says that an administrator looked, and ends DIVERGED."""

    member: MemberId16
    seen: bool = False


class Done(Message):
    """Answer that an order was carried out; `remark` says what else its caller should know."""

    remark: str = ""


class Hello(Message):
    """Introduce a member to another one."""

    cluster: Annotated[bytes, msgspec.Meta(max_length=16)]
    member: Annotated[bytes, msgspec.Meta(max_length=16)]
    product: str


class Welcome(Message):
    """Answer a hello, which any peer may say.

    Args:
        cluster, member: ids of the member that answers; empty without a cluster.
        listed: whether it lists the member that asked, under the key of the connection.
        removed, proof: if the member that asked was removed, the committed entry that removed it, and its dismissal; as
            far as they are known.
    """

    cluster: bytes
    member: bytes
    product: str
    listed: bool
    removed: RemovedMember | None = None
    proof: bytes = b""


class Dismissed(Message):
    """Tell a member that it is none any more, because it wanted to leave or because it was removed."""

    cluster: MemberId16
    member: MemberId16
    left: bool
    reason: str
    proof: bytes


class Leave(Message):
    """Name a member that wants to leave, with its dismissal."""

    member: MemberId16
    proof: bytes


class Health(Message):
    """Answer another member with how this one is: fields of its store's status, and the members that it lists."""

    cluster: bytes
    member: bytes
    product: str
    state: str
    primary: bytes
    epoch: int
    index: int
    listed: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=limits.MEMBERS)]
    diverged: bool = False


class RequestToJoin(Message):
    """Bring a joining HSM's sealed request to the member that invited it."""

    invitation: Key32
    request: Annotated[bytes, msgspec.Meta(max_length=16384)]


_W = Effect.WRITE
STATUS: Final = operation("membership.status", Empty, View)
PREPARE: Final = operation("membership.prepare", Prepare, Prepared, effect=_W)
JOIN: Final = operation("membership.join", AskToJoin, Joined, effect=_W)
SET: Final = operation("membership.set", MemberInfo, Done, effect=_W)
MOVE: Final = operation("membership.move", MoveMember, Done, effect=_W)
GROUP_CREATE: Final = operation("membership.group.create", CreateGroup, Done, effect=_W)
GROUP_DELETE: Final = operation("membership.group.delete", DeleteGroup, Done, effect=_W)
PROMOTE: Final = operation("membership.promote", MemberRef, Done, effect=_W)
REMOVE: Final = operation("membership.remove", Remove, Done, effect=_W)
LEAVE: Final = operation("membership.leave", Leave, Done, effect=_W)
DELETE: Final = operation("membership.delete", Leave, Done, effect=_W)
DIVERGENT: Final = operation("membership.divergent", LookAtDivergent, Divergent, effect=_W)
PEER_HELLO: Final = operation("member.hello", Hello, Welcome)
PEER_HEALTH: Final = operation("member.health", Empty, Health)
PEER_JOIN: Final = operation("member.join", RequestToJoin, Joined, effect=_W)
PEER_DIVERGENT: Final = operation("member.divergent", LookAtDivergent, Divergent, effect=_W)
PEER_DISMISSED: Final = operation("member.dismissed", Dismissed, Empty, effect=_W)
