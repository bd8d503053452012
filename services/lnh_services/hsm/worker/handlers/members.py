"""Serves the operations on the cluster's members: invited, changed, promoted, removed; and leaving it.

An order goes straight to membership, which has the store's replica do it. A removed member cannot be removed twice, and
the primary cannot become it again, so an order that comes again does no harm. A removal goes with this HSM's dismissal
(`cluster/removal_proof.py`), on which the removed member's HSM wipes what it holds.
"""

from __future__ import annotations

import os
from typing import Any, Final, TypeVar

import msgspec

from lnh_common.errors import LnhError, NameUnknown, NotPossible
from lnh_common.messages import hsm, membership, store
from lnh_common.messages.admin import ChangeMember, DeleteMember, InvitationView, LookAtDivergent, MemberRef, Remark
from lnh_common.messages.base import Empty, Operation, Q, R
from lnh_services.hsm import answers
from lnh_services.hsm.cluster import removal_proof
from lnh_services.hsm.effects import Peer, Steps, ask
from lnh_services.hsm.records import CLUSTER_RECORD, OPENING_RECORD, HsmRecord, OpeningRecord
from lnh_services.hsm.worker.core import WorkerCore
from lnh_services.hsm.worker.request import Request

_TRIES: Final = 8

Ordered = TypeVar("Ordered", membership.Remove, membership.Leave)


def order_of(operation: Operation[Q, R], order: Q) -> Steps[R]:
    """Have membership carry out an order; it asks the other members what stands in the way, so its word is current."""
    try:
        return (yield from ask(Peer.MEMBERSHIP, operation, order))
    except NotPossible as error:
        raise error.for_good() from None


def invite(worker: WorkerCore, request: Request[Empty]) -> Steps[InvitationView]:
    """Make an invitation for one new member, by which an admin and the PO approve its joining."""
    made = yield from ask(Peer.CORE, hsm.INVITE, Empty())
    return InvitationView(text=made.text, expires=made.expires, identity=made.identity)


def set_(worker: WorkerCore, request: Request[ChangeMember]) -> Steps[Remark]:
    """Give a member another name or address."""
    message = request.message
    status = yield from ask(Peer.STORE, store.STATUS, Empty())
    listed = next((each for each in status.members if each.id == message.member), None)
    if listed is None:
        raise NameUnknown(f"no member {message.member.hex()}")
    changed = msgspec.structs.replace(
        listed,
        name=message.name or listed.name,
        host=message.host or listed.host,
        port=message.port or listed.port,
    )
    done = yield from order_of(membership.SET, changed)
    return Remark(remark=done.remark)


def promote(worker: WorkerCore, request: Request[MemberRef]) -> Steps[Remark]:
    """Make another member primary."""
    order = store.MemberRef(member=request.message.member)
    done = yield from order_of(membership.PROMOTE, order)
    return Remark(remark=done.remark)


def remove(worker: WorkerCore, request: Request[MemberRef]) -> Steps[Remark]:
    """Remove a member that works."""
    member = request.message.member
    order = membership.Remove(member=member, proof=(yield from _proof(worker, member)))
    return (yield from _dismissed(worker, request, membership.REMOVE, order))


def delete(worker: WorkerCore, request: Request[DeleteMember]) -> Steps[Remark]:
    """Remove a member that is lost for good."""
    member = request.message.member
    order = membership.Remove(
        member=member, proof=(yield from _proof(worker, member)), lost=True, force=request.message.force
    )
    return (yield from _dismissed(worker, request, membership.REMOVE, order, forced=request.message.force))


def leave(worker: WorkerCore, request: Request[MemberRef]) -> Steps[Remark]:
    """Take a member off the list, and have its HSM wipe what it holds of the cluster."""
    order = membership.Leave(member=request.message.member, proof=(yield from _proof(worker, request.message.member)))
    return (yield from _dismissed(worker, request, membership.LEAVE, order))


def delete_cluster(worker: WorkerCore, request: Request[MemberRef]) -> Steps[Remark]:
    """Destroy the cluster with its last member."""
    member = request.message.member
    order = membership.Leave(member=member, proof=(yield from _proof(worker, member)))
    done = yield from order_of(membership.DELETE, order)
    return Remark(remark=done.remark)


def divergent(worker: WorkerCore, request: Request[LookAtDivergent]) -> Steps[store.Divergent]:
    """Show the entries that a member had to drop."""
    order = membership.LookAtDivergent(member=request.message.member, seen=request.message.seen)
    return (yield from order_of(membership.DIVERGENT, order))


def _dismissed(
    worker: WorkerCore,
    request: Request[Any],
    operation: Operation[Ordered, membership.Done],
    order: Ordered,
    *,
    forced: bool = False,
) -> Steps[Remark]:
    """Have the order carried out, and keep the dismissal for a member that could not be told.

    An order by force may have lost a logout, a revocation, a change of a password: every session before it ends.
    """
    if (yield from worker.acted_before(request)):
        return Remark()
    done = yield from order_of(operation, order)
    remarks = [done.remark] if done.remark else []
    request.lapses = worker.lapses  # what is kept now rests on nothing that was read before: a take-over ends leases
    try:
        if order.member != worker.secrets().secrets.member:
            kept, _ = yield from worker.genuine(answers.get(removal_proof.key(order.member), body=False))
            if kept is None:  # else an earlier order's is there
                yield from worker.commit(request, [removal_proof.put(order.member, order.proof)])
    except LnhError as error:
        remarks.append(f"its dismissal could not be kept ({error})")
    if forced:
        remarks.append((yield from _end_sessions(worker)))
    return Remark(remark="; ".join(remarks))


def _end_sessions(worker: WorkerCore) -> Steps[str]:
    """End every session and request under way, by a new opening and the cluster record anew; returns how that ended."""
    try:
        for _ in range(_TRIES):
            _, version = yield from worker.versioned(OpeningRecord, OPENING_RECORD, cached=False)
            records = yield from worker.started()
            assert worker.cluster is not None, "started() read the cluster record"
            opening = OpeningRecord(id=os.urandom(16))
            if (
                yield from worker.own_commit(
                    records.put(worker.cluster, CLUSTER_RECORD, records.version),
                    records.put(opening, OPENING_RECORD, version),
                )
            ):
                return "every session of before is over: log in again"
        why = "the cluster is changed all the time"
    except LnhError as error:
        why = str(error)
    return f"sessions of before go on ({why}): change the passwords that matter"


def _proof(worker: WorkerCore, member: bytes) -> Steps[bytes]:
    """Make the dismissal of a member, under the newest generation of the SMK that its HSM is known to hold."""
    known = yield from worker.record(HsmRecord, member)
    held = worker.secrets().secrets
    numbers = [each.generation for each in held.smk]
    generation = known.smk if known is not None and known.smk in numbers else numbers[0]
    return removal_proof.dismissal(worker.secrets().smk_of(generation).key, held.cluster, member)
