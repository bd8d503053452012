"""Slots, tokens, sessions, logins and PINs (PKCS#11 v3.1, 5.4 to 5.6)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Final

from lnh_common.errors import LnhError, PasswordMustChange
from lnh_common.messages.session import Role
from lnh_common.secret import Secret
from lnh_pkcs11 import information
from lnh_pkcs11.application import Application, Login, Session
from lnh_pkcs11.fields import Short
from lnh_pkcs11.handlers.fitting import fit_numbers
from lnh_pkcs11.numbers import CKR, DONT_BLOCK, MECHANISMS, SessionFlag, State, UserType
from lnh_pkcs11.refusals import Refused
from lnh_pkcs11.ways import Way

_ROLES: Final = {UserType.SO: Role.KRSO, UserType.USER: Role.KRCO}
CRYPTOKI: Final = {Way.MODULE: (3, 2)}


def initialize(app: Application, *_: object) -> tuple[()]:
    """Begin: what there is to begin began with the socket."""
    return ()


async def finalize(app: Application) -> tuple[()]:
    """End all that the application has."""
    await log_out(app.end())
    return ()


def get_info(app: Application) -> tuple[object, ...]:
    """Tell what the gateway is."""
    names = (information.padded(information.MANUFACTURER, 32), 0, information.padded(information.DESCRIPTION, 32))
    return CRYPTOKI.get(app.way, (2, 40)), *names, information.version()


async def get_slot_list(app: Application, present: int, room: int | None) -> tuple[Sequence[int] | Short]:
    """List the slots: every one has its token."""
    return (fit_numbers([token.slot for token in await app.tokens.listed()], room),)


async def get_slot_info(app: Application, slot: int) -> tuple[object, ...]:
    """Describe a slot."""
    return information.slot(await app.tokens.token(slot))


async def get_token_info(app: Application, slot: int) -> tuple[object, ...]:
    """Describe a token."""
    await app.tokens.listed()
    sessions = app.of_slot(slot)
    token = await app.tokens.token(slot)
    return information.token(token, len(sessions), sum(session.read_write for session in sessions))


async def get_mechanism_list(app: Application, slot: int, room: int | None) -> tuple[Sequence[int] | Short]:
    """List the mechanisms that come this way."""
    token = await app.tokens.token(slot)
    return (fit_numbers([each.value for each in information.mechanisms(app.way, token.keyring.view)], room),)


async def get_mechanism_info(app: Application, slot: int, number: int) -> tuple[int, int, int]:
    """Describe a mechanism."""
    view = (await app.tokens.token(slot)).keyring.view
    known = MECHANISMS.get(number)
    if known is None or known not in information.mechanisms(app.way, view):
        raise Refused(CKR.MECHANISM_INVALID, f"mechanism {number:#x}")
    return information.mechanism(known, view, app.way)


async def open_session(app: Application, slot: int, flags: int) -> tuple[int]:
    """Open a session."""
    await app.tokens.token(slot)
    if not flags & SessionFlag.SERIAL:
        raise Refused(CKR.SESSION_PARALLEL_NOT_SUPPORTED)
    return (app.open(slot, read_write=bool(flags & SessionFlag.RW)).handle,)


async def close_session(app: Application, handle: int) -> tuple[()]:
    """Close a session; with the last one at a token the login there ends."""
    await log_out([app.close(app.session(handle))])
    return ()


async def close_all_sessions(app: Application, slot: int) -> tuple[()]:
    """Close all of the application's sessions at a token."""
    await app.tokens.token(slot)
    await log_out([app.close_all(slot)])
    return ()


def get_session_info(app: Application, handle: int) -> tuple[int, int, int, int]:
    """Describe a session."""
    session = app.session(handle)
    flags = SessionFlag.SERIAL | (SessionFlag.RW if session.read_write else SessionFlag(0))
    return session.slot, int(app.state(session)), int(flags), 0


def session_cancel(app: Application, handle: int, flags: int) -> tuple[()]:
    """Cancel the operations that the flags name."""
    from lnh_pkcs11.numbers import MechanismFlag

    session = app.session(handle)
    for kind in list(session.operations):
        if flags & MechanismFlag[kind.name]:
            session.end(kind)
    if flags & MechanismFlag.FIND_OBJECTS:
        session.finding, session.is_finding = None, False
    return ()


async def login(app: Application, handle: int, user: int, pin: bytes | None) -> tuple[()]:
    """Log in: CKU_USER as the keyring's KRCO, CKU_SO as its KRSO."""
    session = app.session(handle)
    if user == UserType.CONTEXT_SPECIFIC:
        raise Refused(CKR.OPERATION_NOT_INITIALIZED, "no object asks for a login of its own")
    if user not in _ROLES:
        raise Refused(CKR.USER_TYPE_INVALID, f"user type {user}")
    role = _ROLES[UserType(user)]
    _check_login(app, session, role)
    password = _password(pin)
    token = await app.tokens.token(session.slot)
    kept = Secret(password.encode())
    try:
        opened = await token.keyring.login(role, lambda: kept.reveal().decode())
    except PasswordMustChange:
        app.must_change.add(session.slot)
        raise
    try:
        app.session(handle)  # it may have been closed meanwhile, or another login have come first
        _check_login(app, session, role)
    except Refused:
        await log_out([Login(role, opened)])
        raise
    app.log_in(session, Login(role, opened))
    return ()


async def login_user(app: Application, handle: int, user: int, pin: bytes | None, name: bytes | None) -> tuple[()]:
    """Log in as `login`; the name, if there is one, is the role's."""
    app.session(handle)
    role = _ROLES.get(UserType(user)) if user in (UserType.SO, UserType.USER) else None
    if name and (role is None or name.decode(errors="replace").lower() != role.value):
        raise Refused(CKR.USER_TYPE_INVALID, "the name is krco for CKU_USER, and krso for CKU_SO")
    return await login(app, handle, user, pin)


def _check_login(app: Application, session: Session, role: Role) -> None:
    active = app.logins.get(session.slot)
    if active is not None:
        same = active.role is role
        raise Refused(CKR.USER_ALREADY_LOGGED_IN if same else CKR.USER_ANOTHER_ALREADY_LOGGED_IN)
    if role is Role.KRSO and not all(each.read_write for each in app.of_slot(session.slot)):
        raise Refused(CKR.SESSION_READ_ONLY_EXISTS)


async def logout(app: Application, handle: int) -> tuple[()]:
    """Log out at the token of a session."""
    session = app.session(handle)
    app.login(session)
    await log_out([app.log_out(session.slot)])
    return ()


async def log_out(ended: Iterable[Login | None]) -> None:
    """Log the sessions of logins out, all at once; where nobody can be told, they end with their tokens."""
    logins = [login_ for login_ in ended if login_ is not None]
    if len(logins) == 1:
        await _log_out(logins[0])
    elif logins:
        await asyncio.gather(*(_log_out(each) for each in logins))


async def _log_out(login_: Login) -> None:
    with contextlib.suppress(LnhError):
        await login_.session.logout()


async def init_pin(app: Application, handle: int, pin: bytes | None) -> tuple[()]:
    """Set the KRCO's credential, as the KRSO."""
    session = app.session(handle)
    if app.state(session) is not State.RW_SO:
        raise Refused(CKR.USER_NOT_LOGGED_IN, "the KRSO sets the KRCO's credential")
    await app.login(session).set_krco(_password(pin, new=True))
    return ()


async def set_pin(app: Application, handle: int, old: bytes | None, new: bytes | None) -> tuple[()]:
    """Change a credential: of who is logged in, else the KRCO's, or the KRSO's first one that must be changed.

    The login that was goes on, under the new credential.
    """
    session = app.session(handle)
    if not session.read_write:
        raise Refused(CKR.SESSION_READ_ONLY)
    active = app.logins.get(session.slot)
    must_change = session.slot in app.must_change
    role = active.role if active is not None else Role.KRSO if must_change else Role.KRCO
    token = await app.tokens.token(session.slot)
    changed = _password(new, new=True)
    await token.keyring.change_password(role, _password(old), changed)
    app.must_change.discard(session.slot)
    if active is not None:
        app.log_out(session.slot)
        kept = Secret(changed.encode())
        app.log_in(session, Login(role, await token.keyring.login(role, lambda: kept.reveal().decode())))
    return ()


def _password(pin: bytes | None, *, new: bool = False) -> str:
    if pin is None:
        raise Refused(CKR.ARGUMENTS_BAD, "the gateway has no keypad: a PIN is given")
    try:
        return pin.decode()
    except UnicodeDecodeError:
        raise Refused(CKR.PIN_INVALID if new else CKR.PIN_INCORRECT, "the PIN is not UTF-8") from None


def wait_for_slot_event(app: Application, flags: int) -> tuple[int]:
    """Refuse to wait: slots come with keyrings, which C_GetSlotList shows."""
    raise Refused(CKR.NO_EVENT if flags & DONT_BLOCK else CKR.FUNCTION_NOT_SUPPORTED)


def get_session_validation_flags(app: Application, handle: int, kind: int) -> tuple[int]:
    """Tell that nothing of a session is validated."""
    app.session(handle)
    return (0,)


async def generate_random(app: Application, handle: int, room: int | None) -> tuple[bytes]:
    """Draw random bytes, by the HSM."""
    session = app.session(handle)
    if not room:
        return (b"",)
    active = app.logins.get(session.slot)
    if active is not None:
        return (await active.session.random(room),)
    client = await (await app.tokens.token(session.slot)).cluster.client_session()
    return (await client.random(room),)
