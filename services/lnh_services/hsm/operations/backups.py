"""Backup orders: what an hsm worker does with them once it is clear who may, which is to pass them on.

Archives are files of one member, so an order is carried out by the backup service of the member that serves it.
"""

from __future__ import annotations

from lnh_common.messages import backup
from lnh_common.messages.base import Empty
from lnh_services.hsm.steps import Peer, Steps, ask
from lnh_services.hsm.worker_core import Request, WorkerCore


def now(worker: WorkerCore, request: Request[Empty]) -> Steps[backup.JobView]:
    """Begin to make an archive."""
    return (yield from ask(Peer.BACKUP, backup.MAKE_ARCHIVE, backup.Order(id=request.new_id())))


def verify(worker: WorkerCore, request: Request[backup.ArchiveRef]) -> Steps[backup.JobView]:
    """Begin to read an archive through."""
    order = backup.Order(id=request.new_id(), name=request.message.name)
    return (yield from ask(Peer.BACKUP, backup.VERIFY_ARCHIVE, order))


def job(worker: WorkerCore, request: Request[backup.JobRef]) -> Steps[backup.JobView]:
    """How a job stands."""
    return (yield from ask(Peer.BACKUP, backup.ARCHIVE_JOB, request.message))


def list_(worker: WorkerCore, request: Request[Empty]) -> Steps[backup.ArchiveList]:
    """The archives of this member."""
    return (yield from ask(Peer.BACKUP, backup.LIST_ARCHIVES, request.message))


def show(worker: WorkerCore, request: Request[backup.ArchiveRef]) -> Steps[backup.ArchiveView]:
    """One of them."""
    return (yield from ask(Peer.BACKUP, backup.SHOW_ARCHIVE, request.message))


def read(worker: WorkerCore, request: Request[backup.PieceOf]) -> Steps[backup.Piece]:
    """Some bytes of one."""
    return (yield from ask(Peer.BACKUP, backup.READ_ARCHIVE, request.message))


def delete(worker: WorkerCore, request: Request[backup.ArchiveRef]) -> Steps[Empty]:
    """Remove one."""
    order = backup.Order(id=request.new_id(), name=request.message.name)
    return (yield from ask(Peer.BACKUP, backup.DELETE_ARCHIVE, order))
