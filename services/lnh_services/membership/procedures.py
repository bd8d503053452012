"""The procedures of several members together: join, promote, remove, leave. Pure: generators that yield what they ask.

Nothing here decides what is safe: the store's replica does, on every member alike. A procedure brings the right
questions to the right services in the right order, refuses early with a reason an administrator can act on, and may be
cut off anywhere: a step that was done stands in the log or in an HSM's sealed state, and doing it again changes
nothing.

    join           joining HSM -> ask_to_join -> admit (at the inviting member) -> its HSM: check and answer
                   -> its store: list the new member -> back, and only now
    promote        store, until the other one is primary
    remove, leave  store, then tell the one that is a member no longer
    remove_lost    only what answers nobody; a lost primary's place is taken by the store's take-over
"""

from __future__ import annotations

from typing import Any, Final

import lnh_common
from lnh_common import limits
from lnh_common.errors import (
    LnhError,
    NameTaken,
    NameUnknown,
    NoCluster,
    NotPossible,
    OutcomeUnknown,
    PermissionDenied,
    Unreachable,
)
from lnh_common.messages import hsm, store
from lnh_common.messages import membership as messages
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.membership import Done, Joined
from lnh_common.messages.store import MemberInfo, Status
from lnh_common.versions import DOORS_SINCE, FIRST, check_compatible, is_since
from lnh_common.wire import codec
from lnh_services.membership.steps import Here, Pause, Steps, There, ask

JOIN_SECONDS: Final = 30.0
HELLO_SECONDS: Final = 3.0
LOST_SECONDS: Final = 1.0  # for a word of one that is said to be lost; the stores ask it once more
ORDER_SECONDS: Final = 8.0
TAKE_OVER_SECONDS: Final = 20.0
PROMOTED_WITHIN: Final = 10.0  # after which an administrator has to look
_GONE: Final = "it was removed before; if it has not heard of it, it does when it next reaches a member"
_LOOK_AGAIN: Final = 0.1


def membership_of(member: MemberInfo) -> There:
    """Return where a member's membership is reached."""
    return There(member.host, member.port + 1, member.key)


# --- joining


def ask_to_join(request: messages.AskToJoin) -> Steps[Joined]:
    """Bring a joining HSM's request to the member that invited it.

    Raises UnsupportedVersion and NoCluster before anything is used, what `admit` there raises, Unreachable.
    """
    inviter = There(request.host, request.port, request.key)
    hello = messages.Hello(cluster=b"", member=b"", product=lnh_common.VERSION)
    try:
        welcome = yield from ask(inviter, messages.PEER_HELLO, hello, HELLO_SECONDS)
    except Unreachable as error:
        raise Unreachable(f"the inviting member does not answer at {request.host}:{request.port}: {error}") from None
    check_compatible(lnh_common.VERSION, welcome.product)
    if not welcome.cluster:
        raise NoCluster(f"the member at {request.host}:{request.port} is in no cluster any more")
    question = messages.RequestToJoin(invitation=request.invitation, request=request.request)
    return (yield from ask(inviter, messages.PEER_JOIN, question, JOIN_SECONDS))


def admit(asker: bytes, request: messages.RequestToJoin) -> Steps[Joined]:
    """Have a joining HSM checked and answered by ours, and list its member before the answer leaves.

    Args:
        asker: the CURVE key the request came under.

    Raises what the hsm's `Belonging.admit` and the store's `member.set` raise.
    """
    admitted = yield from ask(
        Here.HSM, hsm.ADMIT, hsm.Admit(invitation=request.invitation, request=request.request), JOIN_SECONDS
    )
    member = admitted.member
    if member.key != asker:
        raise PermissionDenied("the request to join came under another key than that of the member it names")
    yield from ask(Here.STORE, store.MEMBER_SET, store.SetMember(member=member), ORDER_SECONDS)
    status = yield from ask(Here.STORE, store.STATUS, Empty())
    return Joined(reply=admitted.reply, warning=size_warning(len({member.id, *(each.id for each in status.members)})))


def size_warning(members: int) -> str:
    """Warn of a cluster of so many members; empty up to the recommended maximum."""
    if members <= limits.RECOMMENDED_MEMBERS:
        return ""
    most = limits.RECOMMENDED_MEMBERS
    return (
        f"the cluster has {members} members now; {most} is the recommended maximum, and each more makes writes slower"
    )


# --- changing and promoting


def set_member(changed: MemberInfo) -> Steps[Done]:
    """Give a listed member another name or address; raises NameUnknown, NameTaken, and what the store raises."""
    status = yield from _status()
    _find(status, changed.id)
    for other in status.members:
        if other.id == changed.id:
            continue
        if other.name == changed.name:
            raise NameTaken(f"there is a member {changed.name}")
        if (other.host, other.port) == (changed.host, changed.port):
            raise NameTaken(f"member {other.name} has the address {changed.host}:{changed.port}")
    yield from ask(Here.STORE, store.MEMBER_SET, store.SetMember(member=changed), ORDER_SECONDS)
    return Done()


def say_door(status: Status, door: bytes) -> Steps[Done]:
    """Have the list name the key of this member's balancer, where it names another and the cluster's version has such.

    Raises what the store raises; it is tried again.
    """
    listed = next((each for each in status.members if each.id == status.member), None)
    if listed is None or listed.door == door or status.state != "read-write":
        return Done()
    if not is_since((yield from _cluster_version()), DOORS_SINCE):
        return Done()
    asked = store.SetDoor(member=status.member, door=door)
    yield from ask(Here.STORE, store.MEMBER_DOOR, asked, ORDER_SECONDS)
    return Done()


def _cluster_version() -> Steps[str]:
    """Read the cluster's version out of its record, which an HSM checks and a service only reads."""
    got = yield from ask(Here.STORE, store.GET, store.Get(key=store.CLUSTER, body=False), ORDER_SECONDS)
    if got.item is None:
        return FIRST
    return codec.decode_as(got.item.head, store.ClusterVersion).product


def regroup(operation: Operation[Any, store.Committed], order: Message) -> Steps[Done]:
    """Have the store change groups, or a member's group.

    Raises what `store/replication/member_list.py` and the store raise.
    """
    yield from ask(Here.STORE, operation, order, ORDER_SECONDS)
    return Done()


def promote(target: bytes) -> Steps[Done]:
    """Make another member primary, losing nothing.

    Raises NameUnknown, NotPossible when it is not in step, OutcomeUnknown after 10 s, and what the store
    raises.
    """
    status = yield from _status()
    member = _find(status, target)
    if status.primary == target:
        return Done(remark=f"{member.name} is the primary")
    if status.promotable is not None and target not in status.promotable:
        raise NotPossible(
            f"{member.name} is not in step with the primary, so it cannot take over without loss",
            {"advice": "lnh member list shows when it is read-write; promote it then, or another"},
        )
    yield from ask(Here.STORE, store.PROMOTE, store.MemberRef(member=target), PROMOTED_WITHIN)
    waited = 0.0
    while waited < PROMOTED_WITHIN:
        status = yield from _status()
        if status.primary == target and status.state == "read-write":
            return Done()
        yield Pause(_LOOK_AGAIN)
        waited += _LOOK_AGAIN
    raise OutcomeUnknown(
        f"{member.name} has not taken over within {PROMOTED_WITHIN:.0f} s",
        {"advice": "lnh member list says who is primary; if nobody is, remove the lost one: lnh member delete NAME"},
    )


# --- removing


def remove(order: messages.Remove) -> Steps[Done]:
    """Remove a member that works, and tell it so; asked again when it is gone, it says so.

    Raises NameUnknown, NotPossible (the primary, the last member, one that does not answer), and what the store raises.
    """
    status = yield from _status()
    if _is_gone(status, order.member):
        return Done(remark=_GONE)
    member = _find(status, order.member)
    _check_may_go(status, member)
    if member.id != status.member and not (yield from _answers(member)):
        raise NotPossible(
            f"{member.name} does not answer, so it cannot be removed in order",
            {"advice": f"wait until it does, or if it is lost for good: lnh member delete {member.name}"},
        )
    return (yield from _dismiss(status, member, order.proof, left=False))


def leave(order: messages.Leave) -> Steps[Done]:
    """Take a member that wants to go off the list, and let it go; raises as `remove` does.

    Asked again by one that is off the list already, it lets it go.
    """
    status = yield from _status()
    if order.member == status.member and _is_off(status, order.member):
        yield from _let_go(status, "this member left", order.proof, left=True)
        return Done()
    member = _find(status, order.member)
    _check_may_go(status, member)
    return (yield from _dismiss(status, member, order.proof, left=True))


def remove_lost(order: messages.Remove) -> Steps[Done]:
    """Remove a member that is lost for good; where it was the primary, another takes over. Asked again, it says so.

    Raises NameUnknown, NotPossible when it answers, and what the store raises.
    """
    status = yield from _status()
    if _is_gone(status, order.member):
        return Done(remark=_GONE)
    member = _find(status, order.member)
    if member.id == status.member:
        raise NotPossible("this member answers, so it is not lost", {"advice": "lnh cluster leave, on it"})
    if (yield from _answers(member)):
        raise NotPossible(
            f"{member.name} answers, so it is not lost",
            {"advice": f"promote another if it is the primary, then: lnh member remove {member.name}"},
        )
    # One that was started since, or whose take-over was refused, knows of no primary; its store knows whose log it has.
    if member.id in status.take_over_of:
        take_over = store.TakeOver(lost=(member.id,), force=order.force)
        yield from ask(Here.STORE, store.TAKE_OVER, take_over, TAKE_OVER_SECONDS)
        return Done(remark="another member is primary now: lnh member list")
    yield from ask(Here.STORE, store.MEMBER_REMOVE, store.MemberRef(member=member.id), ORDER_SECONDS)
    return Done()


def delete_cluster(order: messages.Leave) -> Steps[Done]:
    """Have the last member's HSM wipe the cluster; raises NotPossible while there are others, NameUnknown."""
    status = yield from _status()
    others = [each.name for each in status.members if each.id != status.member]
    if others:
        raise NotPossible(
            f"the cluster has other members ({', '.join(others)}): only its last one deletes it",
            {"advice": "lnh member remove each of them first, or lnh cluster leave on this one"},
        )
    if order.member != status.member:
        raise NameUnknown("the cluster is deleted on its last member itself")
    depart = hsm.Depart(cluster=status.cluster, departure=hsm.Departure.DELETED, proof=order.proof)
    yield from ask(Here.HSM, hsm.DEPART, depart)
    return Done()


def look_at_divergent(order: messages.LookAtDivergent) -> Steps[store.Divergent]:
    """Ask a member what it had to drop; raises NameUnknown, Unreachable."""
    status = yield from _status()
    if order.member == status.member:
        return (yield from own_divergent(order))
    member = _find(status, order.member)
    return (yield from ask(membership_of(member), messages.PEER_DIVERGENT, order))


def own_divergent(order: messages.LookAtDivergent) -> Steps[store.Divergent]:
    """Return what this member had to drop."""
    found = yield from ask(Here.STORE, store.DIVERGENT, Empty())
    if order.seen:
        yield from ask(Here.STORE, store.DIVERGENT_ACKNOWLEDGE, Empty())
    return found


def _dismiss(status: Status, member: MemberInfo, proof: bytes, *, left: bool) -> Steps[Done]:
    yield from _take_off(member)
    reason = f"member {member.name} {'left' if left else 'was removed'}"
    if member.id == status.member:
        yield from _let_go(status, reason, proof, left=left)
        return Done()
    word = messages.Dismissed(cluster=status.cluster, member=member.id, left=left, reason=reason, proof=proof)
    try:
        yield from ask(membership_of(member), messages.PEER_DISMISSED, word, HELLO_SECONDS)
    except LnhError:
        return Done(remark=f"{member.name} has not heard of it yet; it learns of it when it next reaches a member")
    return Done()


def _take_off(member: MemberInfo) -> Steps[None]:
    """Have the store take a member off the list.

    A member that takes itself off may be cut off before it is told so; then its own store knows how that ended.
    """
    try:
        yield from ask(Here.STORE, store.MEMBER_REMOVE, store.MemberRef(member=member.id), ORDER_SECONDS)
    except OutcomeUnknown:
        if not _is_off((yield from _status()), member.id):
            raise


def _let_go(status: Status, reason: str, proof: bytes, *, left: bool) -> Steps[None]:
    """Have this member's own HSM wipe what it holds."""
    departure = hsm.Departure.LEFT if left else hsm.Departure.EXPELLED
    depart = hsm.Depart(cluster=status.cluster, departure=departure, reason=reason, proof=proof)
    yield from ask(Here.HSM, hsm.DEPART, depart)


def _is_off(status: Status, member: bytes) -> bool:
    if member == status.member and status.state == "expelled":
        return True
    return all(each.id != member for each in status.members)


def _is_gone(status: Status, member: bytes) -> bool:
    """Tell whether it was a member once. Ids are not used again, so an order about it has been carried out."""
    return any(each.member == member for each in status.removed)


def _check_may_go(status: Status, member: MemberInfo) -> None:
    if len(status.members) == 1:
        raise NotPossible(
            f"{member.name} is the last member", {"advice": "lnh cluster delete destroys the cluster with it"}
        )
    if status.primary == member.id:
        raise NotPossible(
            f"{member.name} is the primary", {"advice": "promote another member first: lnh member promote NAME"}
        )


def _answers(member: MemberInfo) -> Steps[bool]:
    hello = messages.Hello(cluster=b"", member=b"", product=lnh_common.VERSION)
    try:
        welcome = yield from ask(membership_of(member), messages.PEER_HELLO, hello, LOST_SECONDS)
    except LnhError:
        return False
    return welcome.member == member.id


def _status() -> Steps[Status]:
    status = yield from ask(Here.STORE, store.STATUS, Empty())
    if not status.cluster:
        raise NoCluster("this member has no cluster")
    return status


def _find(status: Status, member: bytes) -> MemberInfo:
    for each in status.members:
        if each.id == member:
            return each
    names = ", ".join(each.name for each in status.members)
    raise NameUnknown(f"no member {member.hex()}; there are: {names}")
