"""Logins, and what the service says of itself."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

import lnh.aio.admin
from lnh.aio import Keyring, Session
from lnh_common.errors import KeyringUnknown, LnhError, NameUnknown, PasswordIncorrect
from lnh_common.messages.admin import KeyringView
from lnh_common.messages.session import Role
from lnh_rest import problems
from lnh_rest.logins import Login
from lnh_rest.route import Call
from lnh_rest.shapes import (
    KeyringLogin,
    KeyringRole,
    ProblemKind,
    ProblemKinds,
    SessionOpened,
    SessionView,
    UserLogin,
)

PO: Final = "PO"


async def log_in(call: Call) -> SessionOpened:
    """Open a session and give its token."""
    login = call.body
    assert isinstance(login, UserLogin | KeyringLogin), "the route's row names its types"
    token, opened = await opened_by(call, login)
    return SessionOpened(token=token, holder=opened.holder, keyring=opened.keyring, ends=int(opened.ends))


async def opened_by(call: Call, login: UserLogin | KeyringLogin) -> tuple[str, Login[Session]]:
    """Log in, unless too many wrong passwords were tried; returns the token and the session."""
    holders = _holders(login)
    holder = " and ".join(holders)
    for ended in call.logins.check_room(call.now, holder):
        await end(ended.session)
    with call.guesses.attempt(call.now, call.address, holders):
        session = await (_as_user(call, login) if isinstance(login, UserLogin) else _as_holder(call, login))
    _, logged_in = session.saved()
    keyring = login.keyring if isinstance(login, KeyringLogin) else ""
    return call.logins.open(call.now, session, holder, keyring, logged_in.ends)


async def show_session(call: Call) -> SessionView:
    """Describe the session of the bearer token."""
    login = call.login
    assert login is not None, "the route's row demands a session"
    return SessionView(holder=login.holder, keyring=login.keyring, ends=int(login.ends))


async def log_out(call: Call) -> None:
    """End the session of the bearer token; its token is good for nothing from now on."""
    assert call.login is not None, "the route's row demands a session"
    call.logins.close(call.login)
    await end(call.session)


async def list_problems(call: Call) -> ProblemKinds:
    """List every kind of error."""
    return ProblemKinds(problems=tuple(_kind(each) for each in problems.kinds()))


async def show_problem(call: Call) -> ProblemKind:
    """Describe a kind of error."""
    for kind in problems.kinds():
        if kind.__name__ == call.path["error"]:
            return _kind(kind)
    raise NameUnknown("no kind of error has this name", {"advice": "GET /v1/problems lists them"})


async def end(session: Session) -> None:
    """Log a session out at the cluster; where nobody can be told, it dies with its token."""
    with suppress(LnhError):
        await session.logout()


async def keyring_to_log_in(call: Call, label: str) -> Keyring:
    """Find a keyring; one that is not there looks as one with a wrong password does, and takes as long."""
    try:
        return await call.cluster.keyring(label)
    except KeyringUnknown:
        return Keyring(call.cluster.connection, KeyringView(id=os.urandom(16), label=label))


def holder_of(role: KeyringRole, keyring: str) -> str:
    """Name the holder of a role of a keyring."""
    return f"{role.value} of {keyring}"


async def _as_user(call: Call, login: UserLogin) -> Session:
    return await lnh.aio.admin.login(call.cluster.connection, login.user, login.password, po_password=login.po_password)


async def _as_holder(call: Call, login: KeyringLogin) -> Session:
    keyring = await keyring_to_log_in(call, login.keyring)
    try:
        return await keyring.login(Role(login.role.value), login.password)
    except (KeyringUnknown, PasswordIncorrect):
        raise PasswordIncorrect("wrong name or password") from None


def _holders(login: UserLogin | KeyringLogin) -> list[str]:
    """Name all whose password a login carries."""
    if isinstance(login, KeyringLogin):
        return [holder_of(login.role, login.keyring)]
    return [each for each in (login.user, PO if login.po_password else "") if each]


def _kind(kind: type[LnhError]) -> ProblemKind:
    return ProblemKind(
        error=kind.__name__,
        code=kind.code,
        ckr=kind.ckr,
        title=problems.title_of(kind),
        status=problems.status_of_kind(kind),
        advice=kind.advice,
    )
