"""Lets an operation that policy `dual_control` names through only once a second person approved it.

What may be so is a column of the table of operations, and the worker that serves one enforces it: there is no other way
to any of them. `auth/approvals.py` decides; here it is read and stored. The use of an approval is written down, and in
the audit trail, before what it is for is done: a request that fails afterwards has used it up.

While the policy names anything, what would lead around it needs a second person too, named or not (`Second.guards`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, Final

import msgspec

from lnh_common.errors import (
    ApprovalNeeded,
    ArchiveInvalid,
    ArgumentInvalid,
    Busy,
    LnhError,
    MemberReadOnly,
    NotPossible,
)
from lnh_common.messages import backup, membership, store
from lnh_common.messages.admin import Decision, Permission
from lnh_common.messages.base import Empty, Message
from lnh_services.hsm.auth import approvals
from lnh_services.hsm.auth.approvals import Ask, Asked, GoOn, Use, Wait
from lnh_services.hsm.auth.permissions import REGISTERS, User
from lnh_services.hsm.effects import Peer, Steps, ask
from lnh_services.hsm.records import ApprovalRecord, KeyringRecord, UserRecord, record_id
from lnh_services.hsm.worker import recording
from lnh_services.hsm.worker.core import Served, WorkerCore
from lnh_services.hsm.worker.policies import effective_policy
from lnh_services.hsm.worker.request import Request
from lnh_services.hsm.worker.roles import permissions_of

REQUESTED: Final = "approval.request"  # in the audit trail
USED: Final = "approval.use"
PERSONS: Final = 2
_TRIES: Final = 16


def held(served: Served) -> Served:
    """Return a row whose handler is reached only by what needs no second person, or has one.

    An operation under a credential has no session yet: its handler calls `demand` once it knows whose credential it is.
    """
    if served.second is None or served.rule is None:
        return served
    permission = served.rule.permission
    assert permission is not None, f"{served.operation.name}: users wait for one another, and roles of keyrings do not"

    def handler(worker: WorkerCore, request: Request[Any]) -> Steps[Message]:
        yield from demand(worker, request, request.who.holder.users, permission)
        return (yield from served.handler(worker, request))

    return replace(served, handler=handler)


def demand(worker: WorkerCore, request: Request[Any], users: Iterable[User], permission: Permission) -> Steps[None]:
    """Return where the request needs no second person, or uses an approval; its use is stored then.

    Args:
        users: whose request it is.
        permission: that it needs.

    Raises ApprovalNeeded, LimitReached, MemberReadOnly (an approval can be used where it is written down alone).
    """
    if not (yield from _waits(worker, request)) or approvals.is_by_two(users, permission):
        return
    try:
        asked = yield from _asked(worker, request, users)
        request.approved = yield from _use(worker, request, asked)
    except MemberReadOnly as error:
        raise MemberReadOnly(
            f"{request.operation.name} waits for a second person, which is written down nowhere at present: {error}",
            {"advice": "two users who log in together need no approval: --with-user NAME; or wait for the primary"},
        ) from None


def _waits(worker: WorkerCore, request: Request[Any]) -> Steps[bool]:
    second = worker.served[request.operation.name].second
    assert second is not None, "only rows with this column come here"
    policy = yield from effective_policy(worker)
    if not policy.dual_control or not second.acts(request.message):
        return False
    return request.operation.name in policy.dual_control or (yield from second.guards(worker, request))


def _asked(worker: WorkerCore, request: Request[Any], users: Iterable[User]) -> Steps[Asked]:
    """Return what is to be approved: the message without its secrets, and what names in it stand for."""
    second = worker.served[request.operation.name].second
    assert second is not None, "only rows with this column come here"
    fields = msgspec.to_builtins(request.message, builtin_types=(bytes,))
    arguments = {name: value for name, value in fields.items() if name not in second.without}
    arguments |= yield from second.also(worker, request)
    return Asked(
        operation=request.operation.name,
        route=request.header.route,
        arguments=arguments,
        users=frozenset(each.name for each in users),
    )


def _use(worker: WorkerCore, request: Request[Any], asked: Asked) -> Steps[dict[str, Any]]:
    """Use an approval, and return what was approved; nothing of a request that acted before it was demanded."""
    about = yield from _names(worker, asked)
    who = "+".join(sorted(asked.users))
    commits = worker.served[request.operation.name].commits
    for _ in range(_TRIES):
        records = yield from worker.started()
        found = yield from worker.scan_items(ApprovalRecord)
        kept = {item.key.id: record for item, record in found}
        versions = {item.key.id: item.version for item, _ in found}
        now = int(worker.utc())
        step = approvals.next_step(kept, asked, request.name, about, now)
        if isinstance(step, GoOn):
            return step.record.arguments
        if commits and (yield from _acted(worker, request, step)):
            return {}
        if isinstance(step, Wait):
            raise _needed(request, step.id, step.record)
        if isinstance(step, Use):
            yield from recording.act_as(request, USED, step.id.hex(), who)
            if (yield from worker.own_commit(records.put(step.record, step.id, versions[step.id]))):
                return step.record.arguments
            continue
        new = record_id("approval", request.name)
        yield from recording.act_as(request, REQUESTED, new.hex(), who)
        if (yield from _made(worker, step, new, versions)):
            raise _needed(request, new, step.record)
    raise Busy("requests for a second person come all at once", {"seconds": 1})


def _acted(worker: WorkerCore, request: Request[Any], step: Wait | Use | Ask) -> Steps[bool]:
    """Tell whether another try of a request has acted; where one was refused, raise what the client was told then."""
    try:
        return (yield from worker.acted_before(request))
    except LnhError as error:
        if error.is_final and isinstance(step, Wait | Use):
            raise _needed(request, step.id, step.record).final() from None
        raise


def _made(worker: WorkerCore, step: Ask, new: bytes, versions: dict[bytes, int]) -> Steps[bool]:
    """Store a new record in a table that is as it was read, so that its bound holds; False where it changed."""
    records = yield from worker.started()
    gone = [
        store.Delete(key=records.key_of(ApprovalRecord, each), expected=versions[each]) for each in sorted(step.over)
    ]
    same = store.Unchanged(
        key=store.Key(table=records.key_of(ApprovalRecord, new).table), hash=store.versions_hash(versions.items())
    )
    return (yield from worker.own_commit(same, *gone, records.put(step.record, new, 0)))


def _needed(request: Request[Any], approval: bytes, record: ApprovalRecord) -> ApprovalNeeded:
    name, state = approval.hex(), record.decision
    detail = {"approval": name, "decision": state.value, "expires": record.expires}
    if state is Decision.DENIED:
        return ApprovalNeeded(
            f"{request.operation.name} was denied by {' and '.join(record.deciders)}",
            {**detail, "advice": f"another admin may still approve it until it expires: lnh approval approve {name}"},
        )
    if state is Decision.APPROVED:
        return ApprovalNeeded(
            f"{request.operation.name} was approved after this try of it was refused",
            {**detail, "advice": "run the same command again"},
        )
    return ApprovalNeeded(
        f"{request.operation.name} waits for a second person (policy dual_control); nothing was done",
        {
            **detail,
            "advice": f"ask another admin: lnh approval approve {name}; then run the same command again",
        },
    )


def _names(worker: WorkerCore, asked: Asked) -> Steps[str]:
    """Return the names that ids among the arguments have now; membership's word, where it is a member's."""
    found = []
    if isinstance(keyring := asked.arguments.get("keyring"), bytes):
        record = yield from worker.record(KeyringRecord, keyring)
        found.append(f"keyring {record.label}" if record is not None else "no keyring")
    if isinstance(member := asked.arguments.get("member"), bytes):
        view = yield from ask(Peer.MEMBERSHIP, membership.STATUS, Empty())
        found.append(next((f"member {each.name}" for each in view.members if each.id == member), "no member"))
    return ", ".join(found)


# --- what is approved beside a message, and what leads around it: columns of rows


def role_allows(worker: WorkerCore, request: Request[Any]) -> Steps[dict[str, Any]]:
    """Return what the role that a message names allows now: it may be made anew under its name."""
    allowed = yield from permissions_of(worker, request.message.role)
    return {"permissions": sorted(each.value for each in allowed or ())}


def archive_named(worker: WorkerCore, request: Request[Any]) -> Steps[dict[str, Any]]:
    """Return which archive has the name that a message names: files come and go, and the core restores this alone."""
    view = yield from ask(Peer.BACKUP, backup.SHOW_ARCHIVE, backup.ArchiveRef(name=request.message.name))
    if not view.id:
        raise ArchiveInvalid(f"{view.name} says of itself not which archive it is: {view.problem}")
    return {"archive": view.id, "made": view.created_at}


def _is_party(worker: WorkerCore, allowed: Collection[Permission] | None) -> bool:
    """Tell whether whoever has these permissions is a party: one who may ask for, or approve, what may wait.

    One person who holds the passwords of two parties is two persons to `auth/approvals.py`. What the policy names now
    does not matter: it may name more later.
    """
    rules = (served.rule for served in worker.served.values() if served.second is not None)
    acts = {Permission.APPROVE, REGISTERS.permission, *(rule.permission for rule in rules if rule is not None)}
    return allowed is not None and not acts.isdisjoint(allowed)


def makes_parties(worker: WorkerCore, request: Request[Any]) -> Steps[bool]:
    """Tell whether a role is made whose users are parties: no role of before becomes one by being made anew."""
    yield from ()
    return _is_party(worker, request.message.permissions)


def adds_party(worker: WorkerCore, request: Request[Any]) -> Steps[bool]:
    """Tell whether a user is added who is a party."""
    return _is_party(worker, (yield from permissions_of(worker, request.message.role)))


def resets_party(worker: WorkerCore, request: Request[Any]) -> Steps[bool]:
    """Tell whether a user who is a party is given another password."""
    user, _ = yield from worker.versioned(UserRecord, record_id("user", request.message.name), cached=False)
    return user is not None and _is_party(worker, (yield from permissions_of(worker, user.role)))


def changes_itself(worker: WorkerCore, request: Request[Any]) -> Steps[bool]:
    """Tell whether a change of the cluster's policy changes what needs a second person."""
    yield from ()
    return "dual_control" in request.message.changes


def always(worker: WorkerCore, request: Request[Any]) -> Steps[bool]:
    """Guard every request of an operation."""
    yield from ()
    return True


# --- what the policy may say


def checked_names(worker: WorkerCore, names: Any) -> None:
    """Raise ArgumentInvalid unless the policy may name these."""
    possible = sorted(name for name, served in worker.served.items() if served.second is not None)
    if not isinstance(names, list | tuple) or not all(isinstance(each, str) for each in names):
        raise ArgumentInvalid(f"dual_control is a list of operations: {', '.join(possible)}")
    if unknown := sorted(set(names) - set(possible)):
        raise ArgumentInvalid(f"dual_control: no {', '.join(unknown)} that can wait; {', '.join(possible)} can")


def approvers(worker: WorkerCore, without: str = "") -> Steps[list[store.Change]]:
    """Make the guards that two users who may approve stay; raises NotPossible where there are no two.

    Args:
        without: a user who does not count.
    """
    records = yield from worker.started()
    guards: list[store.Change] = []
    for item, user in (yield from worker.scan_items(UserRecord)):
        held_ = yield from permissions_of(worker, user.role)
        if user.name != without and held_ is not None and Permission.APPROVE in held_:
            guards.append(store.Require(key=records.key_of(UserRecord, item.key.id), version=item.version))
        if len(guards) == PERSONS:
            return guards
    raise NotPossible(
        "policy dual_control needs two users who may approve, each for the other",
        {"advice": "add another admin first: lnh user add NAME --role admin"},
    )
