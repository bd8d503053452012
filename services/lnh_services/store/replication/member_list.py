"""Changes the member list and the affinity groups, as the primary does for an order about them. Pure.

An order is checked against the end of the log, committed or not, so that a move, a deletion and a join can never race:
there is one list, and one order of its changes. An order about groups names the request it is for: a request that was
carried out already changes nothing, even if another has undone it meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from lnh_common import limits
from lnh_common.errors import ArgumentInvalid, LimitReached, NameTaken, NameUnknown, NotPossible
from lnh_common.messages.store import MemberInfo
from lnh_services.store.log.entries import MemberId, Members
from lnh_services.store.log.window import Configuration
from lnh_services.store.replication.messages import CreateGroup, DeleteGroup, Listing, MoveMember, SetDoor, SetMember


def change(configuration: Configuration, order: Listing) -> Members | None:
    """Make the entry that carries an order out; None where a member is listed just so.

    Raises NameTaken, NameUnknown, NotPossible, LimitReached, ArgumentInvalid.
    """
    request = getattr(order, "request", b"")
    if request and request in configuration.requests:
        return Members(
            configuration.members, configuration.groups, request
        )  # as it is; answered once all before is committed
    changed: Members | None = _CHANGES[type(order)](configuration, order)
    return changed


def check_label(group: str) -> None:
    """Raise ArgumentInvalid for a text that may not be the label of a group."""
    if not (0 < len(group) <= limits.NAME_CHARACTERS and group.isprintable() and group == group.strip()):
        raise ArgumentInvalid(
            f"{group!r} is no label of a group: 1 to {limits.NAME_CHARACTERS} printable characters, no space at an end"
        )


def _set_member(configuration: Configuration, order: SetMember) -> Members | None:
    info = order.member
    if any(removed.member == info.id for removed in configuration.removed):
        raise NotPossible("this member was removed; it joins again with a new id and key")
    if any(member.name == info.name and member.id != info.id for member in configuration.members):
        raise NameTaken(f"another member has the name {info.name!r}")
    listed = next((member for member in configuration.members if member.id == info.id), None)
    if listed is None:
        return _with(configuration, replace(info, group=limits.LOCAL_GROUP))
    changed = replace(info, group=listed.group, door=listed.door)
    return None if changed == listed else _with(configuration, changed)


def _set_door(configuration: Configuration, order: SetDoor) -> Members:
    return _with(configuration, replace(_listed(configuration, order.member), door=order.door))


def _create_group(configuration: Configuration, order: CreateGroup) -> Members:
    check_label(order.group)
    if order.group in configuration.groups:
        raise NameTaken(f"there is a group {order.group!r}")
    groups = {*configuration.groups, order.group}
    if len(groups | {limits.LOCAL_GROUP}) > limits.GROUPS:
        kept = "" if limits.LOCAL_GROUP in groups else f", one of which is kept for {limits.LOCAL_GROUP!r}"
        raise LimitReached(
            f"{len(configuration.groups)} groups; at most {limits.GROUPS}{kept}",
            {"advice": "delete one that has no members: lnh group delete LABEL"},
        )
    return Members(configuration.members, tuple(sorted(groups)), order.request)


def _delete_group(configuration: Configuration, order: DeleteGroup) -> Members:
    _check_group(configuration, order.group)
    if len(configuration.groups) == 1:
        raise NotPossible(
            f"{order.group!r} is the last group",
            {"advice": "lnh group create another first, and move the members there"},
        )
    inside = [member.name for member in configuration.members if member.group == order.group]
    if inside:
        raise NotPossible(
            f"group {order.group!r} has members: {', '.join(sorted(inside))}",
            {"advice": "move them first: lnh member move NAME GROUP"},
        )
    groups = tuple(group for group in configuration.groups if group != order.group)
    return Members(configuration.members, groups, order.request)


def _move_member(configuration: Configuration, order: MoveMember) -> Members:
    _check_group(configuration, order.group)
    return _with(configuration, replace(_listed(configuration, order.member), group=order.group), order.request)


def _check_group(configuration: Configuration, group: str) -> None:
    if group not in configuration.groups:
        raise NameUnknown(f"no group {group!r}; there are: {', '.join(configuration.groups)}")


def _listed(configuration: Configuration, member: MemberId) -> MemberInfo:
    for each in configuration.members:
        if each.id == member:
            return each
    raise NameUnknown(f"{member.hex()} is no member of this cluster")


def _with(configuration: Configuration, info: MemberInfo, request: bytes = b"") -> Members:
    others = (member for member in configuration.members if member.id != info.id)
    members = tuple(sorted((*others, info), key=lambda member: member.id))
    return Members(members, request=request)


_CHANGES: Final[dict[type[Listing], Callable[[Configuration, Any], Members | None]]] = {
    SetMember: _set_member,
    SetDoor: _set_door,
    CreateGroup: _create_group,
    DeleteGroup: _delete_group,
    MoveMember: _move_member,
}
