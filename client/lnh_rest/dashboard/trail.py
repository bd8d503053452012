"""Reads the newest lines of a member's audit trail, and says how far they are proven.

Reading it is itself recorded in it, so a page asks when somebody wants to see it, and not again and again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final

import msgspec

from lnh_common import limits
from lnh_common.messages.audit import AUDIT_EXPORT, ReadTrail
from lnh_common.wire.audit import Chain, ChainBroken, RecordLine
from lnh_common.wire.channel import fingerprint
from lnh_rest.base import Body
from lnh_rest.route import Call, Route, Who

PATH: Final = "/dashboard/trail"
_BEYOND: Final = 1 << 52  # behind every line of a trail


class TrailQuery(Body):
    """Ask for lines of the trail.

    Args:
        before: only lines with a lower index; 0 for the newest.
        limit: of lines, records and signatures together.
    """

    before: Annotated[int, msgspec.Meta(ge=0, le=_BEYOND)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.REST_TRAIL_LINES)] = limits.REST_TRAIL_PAGE


class TrailRecord(Body):
    """Show an audited act.

    Args:
        time: UTC milliseconds.
        signed: whether a signature further on covers it.
    """

    index: int
    time: int
    member: str
    identity: str
    role: str
    operation: str
    target: str
    outcome: str
    detail: dict[str, Any]
    signed: bool


class TrailView(Body):
    """Show lines of the trail, and how far they hold.

    Args:
        records: the newest first.
        first, last: indexes of the first and the last line that was looked at; 0 where there is none.
        signer: fingerprint of the HSM's identity that signed them, to be compared with `lnh hsm show`; empty where no
            signature is among them.
        unsigned: how many of the records stand behind the last signature.
        problem: why the lines do not hold; those from there on are left out. Empty where they do.
    """

    records: tuple[TrailRecord, ...]
    first: int
    last: int
    signer: str
    unsigned: int
    problem: str


def routes() -> list[Route]:
    """Make the row of the trail."""
    about = "Show the newest records of the audit trail, and how far they are proven."
    return [Route("GET", PATH, about, Who.USER, show_trail, (AUDIT_EXPORT,), query=TrailQuery, reply=TrailView)]


async def show_trail(call: Call) -> TrailView:
    """Read lines of the trail of the member that answers, and check them."""
    query = call.given(TrailQuery)
    until = query.before - 1
    if not query.before:
        until = (await call.user.ask(AUDIT_EXPORT, ReadTrail(after=_BEYOND))).last
    after = max(0, until - query.limit)
    lines: list[str] = []
    while after < until:
        found = await call.user.ask(AUDIT_EXPORT, ReadTrail(after=after, until=until))
        if not found.lines:
            break
        lines += found.lines
        after = found.index
    return proven(lines)


def proven(lines: Iterable[str]) -> TrailView:
    """Check lines that follow one another: each names the hash of the one before, and one HSM signed them."""
    signers: list[bytes] = []

    def is_signer(key: bytes) -> bool:
        if not signers:
            signers.append(key)
        return key == signers[0]

    chain = Chain(is_signer, whole=False)
    records: list[RecordLine] = []
    problem = ""
    for line in lines:
        try:
            taken = chain.take(f"{line}\n".encode())
        except ChainBroken as error:
            problem = f"the line after index {chain.end.index}: {error}"
            break
        if isinstance(taken, RecordLine):
            records.append(taken)
    shown = tuple(_shown(record, signed=number < chain.signed) for number, record in enumerate(records))
    return TrailView(
        records=shown[::-1],
        first=chain.first,
        last=chain.end.index,
        signer=fingerprint(signers[0]) if signers else "",
        unsigned=chain.records - chain.signed,
        problem=problem,
    )


def _shown(record: RecordLine, *, signed: bool) -> TrailRecord:
    return TrailRecord(
        index=record.index,
        time=record.time,
        member=record.member,
        identity=record.identity,
        role=record.role,
        operation=record.operation,
        target=record.target,
        outcome=record.outcome,
        detail=record.detail,
        signed=signed,
    )
