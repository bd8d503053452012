"""Serves the export of the audit trail of the member that is asked; its core reads it."""

from __future__ import annotations

from lnh_common.messages.audit import READ_TRAIL, ReadTrail, TrailLines
from lnh_services.hsm.effects import Peer, Steps, ask
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.request import Request


def export(worker: WorkerCore, request: Request[ReadTrail]) -> Steps[TrailLines]:
    """Read the next lines of this member's trail; raises AuditFailed where a line does not hold."""
    return (yield from ask(Peer.CORE, READ_TRAIL, request.message))
