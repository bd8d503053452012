"""Logins, and what the service says of itself."""

from __future__ import annotations

import os
from contextlib import suppress

import lnh.aio.admin
from lnh.aio import Keyring, Session
from lnh_common import VERSION
from lnh_common.errors import KeyringUnknown, LnhError, NameUnknown, PasswordIncorrect
from lnh_common.messages.admin import KeyringView
from lnh_common.messages.session import Role
from lnh_rest import problems
from lnh_rest.route import Call
from lnh_rest.shapes import (
    Health,
    KeyringLogin,
    ProblemKind,
    ProblemKinds,
    SessionOpened,
    SessionView,
    UserLogin,
)


async def log_in(call: Call) -> SessionOpened:
    """Open a session and give its token."""
    login = call.body
    assert isinstance(login, UserLogin | KeyringLogin), "the route's row names its types"
    holder = _holder(login)
    for ended in call.logins.check_room(call.now, holder):
        await end(ended.session)
    session = await (_as_user(call, login) if isinstance(login, UserLogin) else _as_holder(call, login))
    _, logged_in = session.saved()
    keyring = login.keyring if isinstance(login, KeyringLogin) else ""
    token, opened = call.logins.open(call.now, session, holder, keyring, logged_in.ends)
    return SessionOpened(token=token, holder=holder, keyring=keyring, ends=int(opened.ends))


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


async def health(call: Call) -> Health:
    """Say that the service serves; it asks no member."""
    return Health(serving=True, product=VERSION)


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


async def _as_user(call: Call, login: UserLogin) -> Session:
    return await lnh.aio.admin.login(call.cluster.connection, login.user, login.password, po_password=login.po_password)


async def _as_holder(call: Call, login: KeyringLogin) -> Session:
    """Log in at a keyring. That there is no such keyring looks as a wrong password does, and takes as long."""
    try:
        keyring = await call.cluster.keyring(login.keyring)
    except KeyringUnknown:
        keyring = Keyring(call.cluster.connection, KeyringView(id=os.urandom(16), label=login.keyring))
    try:
        return await keyring.login(Role(login.role.value), login.password)
    except (KeyringUnknown, PasswordIncorrect):
        raise PasswordIncorrect("wrong name or password") from None


def _holder(login: UserLogin | KeyringLogin) -> str:
    if isinstance(login, KeyringLogin):
        return f"{login.role.value} of {login.keyring}"
    return " and ".join([each for each in (login.user, "PO" if login.po_password else "") if each])


def _kind(kind: type[LnhError]) -> ProblemKind:
    return ProblemKind(
        error=kind.__name__,
        code=kind.code,
        ckr=kind.ckr,
        title=problems.title_of(kind),
        status=problems.status_of_kind(kind),
        advice=kind.advice,
    )
