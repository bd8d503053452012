"""Has the core record what is done with requests, and what is refused, before it is done (docs/adr/0005)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lnh_common.errors import LnhError
from lnh_common.messages import hsm
from lnh_common.messages.objects import MAKING
from lnh_services.hsm.audit.refusals import STRANGER
from lnh_services.hsm.auth.tokens import OpenSession
from lnh_services.hsm.effects import Peer, Steps, ask
from lnh_services.hsm.worker.request import Request


def act(request: Request[Any], outcome: str, who: str = "", role: str = "") -> Steps[None]:
    """Record an act, and wait until it is recorded; raises AuditFailed."""
    entry = _entry(request, outcome, who, role)
    yield from ask(Peer.CORE, hsm.AUDIT, hsm.Audit(entries=(entry,)))


def act_as(request: Request[Any], operation: str, target: str, who: str) -> Steps[None]:
    """Record an act that goes with a request, under a name of its own; raises AuditFailed.

    Args:
        who: whose request it is, where it has no session.
    """
    entry = _entry(request, "ok", "" if request.session else who, "" if request.session else "user")
    detail = {**entry.detail, "for": request.operation.name}
    entry = msgspec.structs.replace(entry, operation=operation, target=target, detail=detail)
    yield from ask(Peer.CORE, hsm.AUDIT, hsm.Audit(entries=(entry,)))


def items(request: Request[Any], outcomes: list[str], names: Sequence[str] = ()) -> Steps[None]:
    """Record what is done with each item, one line for one that has an outcome, and wait; raises AuditFailed.

    Args:
        names: of the items, for the target.
    """
    entry = _entry(request, "", "", "")
    many = len(outcomes) > 1
    entries = tuple(
        msgspec.structs.replace(
            entry,
            outcome=each,
            target="/".join((entry.target, *names[item : item + 1])),
            detail={**entry.detail, **({"item": item} if many else {})},
        )
        for item, each in enumerate(outcomes)
        if each
    )
    yield from ask(Peer.CORE, hsm.AUDIT, hsm.Audit(entries=entries))


def refusal(request: Request[Any], error: LnhError, who: str = "", role: str = "") -> Steps[None]:
    """Have a refusal recorded before anything was done, or counted if it repeats (`audit/refusals.py`).

    Raises AuditFailed.
    """
    entry = _entry(request, type(error).__name__, who, role)
    counted = msgspec.structs.replace(entry, peer=_peer(request))
    yield from ask(Peer.CORE, hsm.AUDIT, hsm.Audit(entries=(counted,)))


def _entry(request: Request[Any], outcome: str, who: str, role: str) -> hsm.AuditEntry:
    session = request.session
    return hsm.AuditEntry(
        identity=who or (session.who if session else "unknown"),
        role=role or (_role(session) if session else ""),
        operation=request.operation.name,
        target=_target(request),
        outcome=outcome,
        detail={"request": request.header.request_id, "session": session.token.session.hex() if session else ""},
    )


def _peer(request: Request[Any]) -> str:
    """Name the peer that is refused: the registered client, the session's holder, or all strangers together."""
    session = request.session
    client = request.client.id if request.client else session.token.client if session else b""
    return client.hex() or (session.who if session else "") or STRANGER


def _role(session: OpenSession) -> str:
    return "+".join(grant.role.value for grant in session.token.grants) or "client"


def _target(request: Request[Any]) -> str:
    """Name what the request is about, in names and ids only."""
    parts = [request.header.route.hex()] if request.header.route else []
    for name in ("label", "name", "client", "handle", "key", "keyring", "member", "group", "approval"):
        value = getattr(request.message, name, None)
        if isinstance(value, (str, bytes)) and value:
            parts.append(value.hex() if isinstance(value, bytes) else value)
    if request.operation.name in MAKING:
        parts.append(request.new_handle().hex())
    return "/".join(parts)
