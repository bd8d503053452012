"""Serves the operations on affinity groups: made, listed, deleted, and members moved between them.

An order goes to membership, which has the store's replica do it in its list of members. It carries the name of its
request, so that one that comes again acts once. While a restore still puts the groups of its archive back, there is
none: it would be undone.
"""

from __future__ import annotations

from typing import Final

from lnh_common.errors import Busy
from lnh_common.messages import membership, store
from lnh_common.messages.admin import GroupRef, Groups, GroupView, MoveMember, NewGroup, Remark
from lnh_common.messages.base import Empty
from lnh_services.hsm.effects import Peer, Steps, ask
from lnh_services.hsm.records import GROUPING_RECORD, GroupingRecord
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.handlers.members import order_of
from lnh_services.hsm.worker.request import Request

_COME_AGAIN: Final = 1  # seconds


def create(worker: WorkerCore, request: Request[NewGroup]) -> Steps[Remark]:
    """Create a group without members."""
    yield from _settled(worker)
    order = store.CreateGroup(group=request.message.label, request=request.name)
    return Remark(remark=(yield from order_of(membership.GROUP_CREATE, order)).remark)


def delete(worker: WorkerCore, request: Request[GroupRef]) -> Steps[Remark]:
    """Delete a group that has no members."""
    yield from _settled(worker)
    order = store.DeleteGroup(group=request.message.label, request=request.name)
    return Remark(remark=(yield from order_of(membership.GROUP_DELETE, order)).remark)


def move(worker: WorkerCore, request: Request[MoveMember]) -> Steps[Remark]:
    """Move a member to another group."""
    yield from _settled(worker)
    message = request.message
    order = store.MoveMember(member=message.member, group=message.group, request=request.name)
    return Remark(remark=(yield from order_of(membership.MOVE, order)).remark)


def list_(worker: WorkerCore, request: Request[Empty]) -> Steps[Groups]:
    """List every group with its members, as the member that is asked sees it."""
    view = yield from ask(Peer.MEMBERSHIP, membership.STATUS, Empty())
    return Groups(
        groups=tuple(
            GroupView(label=group, members=tuple(each.name for each in view.members if each.group == group))
            for group in view.groups
        )
    )


def _settled(worker: WorkerCore) -> Steps[None]:
    """Raise Busy while a restore has groups to put back."""
    note, _ = yield from worker.versioned(GroupingRecord, GROUPING_RECORD, cached=False)
    if note is not None:
        raise Busy("the groups of the backup that was restored are being put back", {"seconds": _COME_AGAIN})
