"""Decides which requests wait for a second person, and which approval lets one through. Pure: the time is passed in.

Policy `dual_control` names operations that no single person carries out. A request for one makes a record; another
appliance user who may decides on it; then the same user asks the same once more, and that request is carried out:

    nothing --ask--> WAITING --approve--> APPROVED --the same asked again--> USED, by that one request
                        |                  |   ^
                       deny             deny   approve
                        v                  v   |
                       DENIED             DENIED        whatever it is, 24 hours after it was asked for it is over

- **Another person.** Whoever approves is none of the users who asked. Denying needs no other person, so that who asked
  can take it back. The last decision before the use counts.
- **The same.** An approval serves one request of the same users, with the same operation, route and arguments.
- **Once.** The use writes down the name of the request (client, connection, sequence) that it is for. A request that
  comes again, also at another member, finds its own name and goes on; any other finds the approval used. That such a
  request acts once is what its name is for (docs/adr/0002).
- **Not by itself.** A request that asked never uses what was approved of it, however late it comes again: its client
  was told that nothing was done.

Two users in one session are two persons at one terminal: they need no record (`is_by_two`).

A record is erased a while after it was used or expired: longer than a request may come again, on clocks that differ as
far as members allow. Until then it keeps its place, so there is a bound on how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from msgspec.structs import replace

from lnh_common import limits
from lnh_common.errors import AlreadyDone, LimitReached, NotPossible, PermissionDenied
from lnh_common.messages.admin import Decision, Permission
from lnh_common.wire import codec
from lnh_services.hsm.auth.permissions import User
from lnh_services.hsm.records import ApprovalRecord

# Of what is over. A request is dated within the tolerance, once by the clock of the member that it used an approval at,
# and once by another's.
KEPT: Final = 3 * limits.ISSUED_AT_TOLERANCE


@dataclass(frozen=True)
class Asked:
    """What a request asks for, without what is secret in it."""

    operation: str
    route: bytes
    arguments: dict[str, Any]
    users: frozenset[str]

    def is_of(self, record: ApprovalRecord) -> bool:
        """Tell whether a record is about just this."""
        return (
            (self.operation, self.route) == (record.operation, record.route)
            and self.users == frozenset(record.requesters)
            and codec.encode(self.arguments) == codec.encode(record.arguments)
        )


class GoOn(NamedTuple):
    """Carry the request out, as it was approved: it uses this record already."""

    record: ApprovalRecord


class Wait(NamedTuple):
    """Refuse the request: this record of it is not approved."""

    id: bytes
    record: ApprovalRecord


class Use(NamedTuple):
    """Store this record, and then carry the request out."""

    id: bytes
    record: ApprovalRecord


class Ask(NamedTuple):
    """Make a record, erase those that are over, and refuse the request."""

    record: ApprovalRecord
    over: tuple[bytes, ...]


def is_by_two(users: Iterable[User], permission: Permission) -> bool:
    """Tell whether a session is two persons': one who may do it, and another one who may approve it."""
    known = tuple(users)
    return any(
        permission in one.permissions and Permission.APPROVE in other.permissions
        for one in known
        for other in known
        if one.name != other.name
    )


def next_step(
    kept: Mapping[bytes, ApprovalRecord], asked: Asked, request: bytes, about: str, now: int
) -> GoOn | Wait | Use | Ask:
    """Decide what becomes of a request that needs a second person.

    Args:
        kept: every record, by its id.
        request: the request's name, the same whenever it comes again.
        about: names for people, where a record is made.
        now: UTC seconds.

    Raises LimitReached.
    """
    for id_, record in kept.items():
        if record.used_by == request:
            return GoOn(record)
        if record.asked_by == request:
            return Wait(id_, record)
    found = {
        id_: record
        for id_, record in kept.items()
        if asked.is_of(record) and not record.used_by and now < record.expires
    }
    for id_, record in found.items():
        if record.decision is Decision.APPROVED:
            return Use(id_, replace(record, used_by=request, used_at=now))
    for id_, record in found.items():
        return Wait(id_, record)
    over = tuple(id_ for id_, record in kept.items() if is_over(record, now))
    _check_room([record for id_, record in kept.items() if id_ not in over], asked, now)
    return Ask(
        ApprovalRecord(
            operation=asked.operation,
            route=asked.route,
            arguments=asked.arguments,
            about=about,
            requesters=tuple(sorted(asked.users)),
            asked_by=request,
            requested_at=now,
            expires=now + limits.APPROVAL_SECONDS,
        ),
        over,
    )


def is_over(record: ApprovalRecord, now: int) -> bool:
    """Tell whether a record may be erased: no request that it concerns is taken any more."""
    end = record.used_at if record.used_by else record.expires
    return now > end + KEPT


def decided(record: ApprovalRecord, decision: Decision, deciders: frozenset[str], now: int) -> ApprovalRecord:
    """Return the record with a decision of these users, who may decide.

    Raises PermissionDenied for approving what one asked for oneself, AlreadyDone, NotPossible (it expired).
    """
    others = deciders - frozenset(record.requesters) if decision is Decision.APPROVED else deciders
    if not others:
        raise PermissionDenied(
            f"{' and '.join(record.requesters)} asked for it, and nobody approves what he asked for himself",
            {"advice": "another appliance user whose role has the permission 'approve' does: every admin's has"},
        )
    if record.used_by:
        raise AlreadyDone("it was approved, and carried out since")
    if now >= record.expires:
        raise NotPossible("it expired", {"advice": "whoever asked runs the same command again: that asks anew"})
    return replace(record, decision=decision, deciders=tuple(sorted(others)), decided_at=now)


def state(record: ApprovalRecord) -> Decision:
    """Return what a record is, in one word."""
    return Decision.USED if record.used_by else record.decision


def _check_room(kept: list[ApprovalRecord], asked: Asked, now: int) -> None:
    size = len(codec.encode(asked.arguments))
    if size > limits.APPROVAL_BYTES:
        raise LimitReached(f"arguments of {size} bytes; at most {limits.APPROVAL_BYTES} wait for a second person")
    own = sum(not each.used_by and now < each.expires and asked.users & {*each.requesters} != set() for each in kept)
    if own >= limits.APPROVALS_OF_ONE:
        raise LimitReached(
            f"{own} requests of one user wait for a second person, which is the most",
            {"advice": "have them approved, or wait until they expire: lnh approval list"},
        )
    if len(kept) >= limits.APPROVALS:
        raise LimitReached(
            f"{len(kept)} requests wait for a second person, or did until lately, which is the most of a cluster",
            {"advice": "try again in a quarter of an hour: lnh approval list"},
        )
