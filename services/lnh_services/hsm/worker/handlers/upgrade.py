"""Serves the cluster's version: shows it, and raises it once every member reads what a later one writes.

The version is in the cluster's own record. To raise it is the one step of an upgrade that cannot be taken back: a
member of the version before reads that record no more.
"""

from __future__ import annotations

from msgspec.structs import replace

import lnh_common
from lnh_common.errors import NotPossible
from lnh_common.messages import membership
from lnh_common.messages.admin import VersionView
from lnh_common.messages.base import Empty
from lnh_common.versions import is_since, minor
from lnh_services.hsm.effects import Peer, Steps, ask
from lnh_services.hsm.records import CLUSTER_RECORD
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.request import Request


def version(worker: WorkerCore, request: Request[Empty]) -> Steps[VersionView]:
    """Show the cluster's version, and which members stand in the way of this member's."""
    newest = minor(lnh_common.VERSION)
    records = yield from worker.started()
    view = yield from ask(Peer.MEMBERSHIP, membership.STATUS, Empty())
    waits_for = [each.name for each in view.members if each.state != "read-write" or not is_since(each.product, newest)]
    return VersionView(product=records.product, newest=newest, waits_for=tuple(sorted(waits_for)))


def upgrade(worker: WorkerCore, request: Request[Empty]) -> Steps[VersionView]:
    """Raise the cluster's version to this member's; there is no way back."""
    if (yield from worker.acted_before(request)):
        return (yield from version(worker, request))
    found = yield from version(worker, request)
    if is_since(found.product, found.newest):
        return found
    if found.waits_for:
        raise NotPossible(
            f"the cluster's version becomes {found.newest} once every member runs it and is read-write; it waits for "
            f"{', '.join(found.waits_for)}",
            {"advice": "upgrade them, have them back, or remove them: lnh member list shows states and versions"},
        )
    records = yield from worker.started()
    assert worker.cluster is not None, "started() read the cluster record"
    raised = replace(worker.cluster, product=found.newest)
    yield from worker.commit(request, [records.put(raised, CLUSTER_RECORD, records.version)])
    return (yield from version(worker, request))
