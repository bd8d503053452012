"""Serves the operations on requests that wait for a second person: listed, approved, denied."""

from __future__ import annotations

from lnh_common.errors import NameUnknown
from lnh_common.messages.admin import ApprovalRef, Approvals, ApprovalView, Decision, Permission
from lnh_common.messages.base import Empty, Skipped
from lnh_services.hsm.auth import approvals as rules
from lnh_services.hsm.effects import Steps
from lnh_services.hsm.records import ApprovalRecord
from lnh_services.hsm.worker.core import Handler, WorkerCore
from lnh_services.hsm.worker.request import Request


def list_(worker: WorkerCore, request: Request[Empty]) -> Steps[Approvals]:
    """List what waits for a second person, and what did until lately, the oldest first."""
    skipped: list[Skipped] = []
    found = yield from worker.scan_items(ApprovalRecord, skipped)
    now = int(worker.utc())
    ordered = sorted(found, key=lambda each: (each[1].requested_at, each[0].key.id))
    return Approvals(
        approvals=tuple(_view(item.key.id, record) for item, record in ordered if now < record.expires),
        skipped=tuple(skipped),
    )


def _decides(decision: Decision) -> Handler:
    def handler(worker: WorkerCore, request: Request[ApprovalRef]) -> Steps[ApprovalView]:
        approval = request.message.approval
        acted = yield from worker.acted_before(request)
        record, version = yield from worker.versioned(ApprovalRecord, approval, cached=False)
        if record is None:
            what = f"no request {approval.hex()} waits for a second person"
            raise NameUnknown(what, {"advice": "lnh approval list shows what does"})
        if not acted:
            deciders = frozenset(
                each.name for each in request.who.holder.users if Permission.APPROVE in each.permissions
            )
            record = rules.decided(record, decision, deciders, int(worker.utc()))
            records = yield from worker.started()
            yield from worker.commit(request, [records.put(record, approval, version)])
        return _view(approval, record)

    return handler


approve = _decides(Decision.APPROVED)
deny = _decides(Decision.DENIED)


def _view(approval: bytes, record: ApprovalRecord) -> ApprovalView:
    return ApprovalView(
        id=approval,
        operation=record.operation,
        about=record.about,
        arguments=record.arguments,
        requesters=record.requesters,
        requested_at=record.requested_at,
        expires=record.expires,
        decision=rules.state(record),
        deciders=record.deciders,
        decided_at=record.decided_at,
    )
