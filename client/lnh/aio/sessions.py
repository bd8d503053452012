# Made of client/lnh/sessions.py by `python tests/surface.py`: change that file, and run it.
"""Sessions: a login's token and secret, renewed ahead of time, and the methods that every kind of session has.

A session belongs to no member: any member opens its token, so nothing is lost when one dies. It ends 24 hours after the
login, at logout, or when its token was left to expire. Where the password is asked for (`Password`), the session logs
in anew before it ends, so that who uses it for days sees no end of it.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Final, TypeAlias, TypeVar

from typing_extensions import Self

from lnh.aio.net.connection import Connection
from lnh.aio.net.mutex import Mutex
from lnh.arguments import check_message, checked
from lnh.net.request import Request
from lnh_common import limits
from lnh_common.errors import DataLength, LnhError, TokenExpired
from lnh_common.messages.base import Empty, Message, Operation
from lnh_common.messages.objects import RANDOM, RandomBytes
from lnh_common.messages.session import (
    CHANGE_PASSWORD,
    LOGIN,
    LOGOUT,
    RENEW,
    ChangePassword,
    Credential,
    LoggedIn,
    Login,
    Logout,
    Role,
)
from lnh_common.wire import codec
from lnh_common.wire.channel import SessionKeys

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

Password: TypeAlias = str | Callable[[], str]  # or what asks for it, at the login and before the session ends
LogIn: TypeAlias = Callable[[], Awaitable[tuple[bytes, LoggedIn]]]

_LOOK: Final = 1.0  # seconds after which it is looked at again whether something is due
_RENEW_AT: Final = 2 / 3  # of a token's lifetime
_AHEAD: Final = 4  # how many times `in_flight` answers may be kept for one that is late, in its turn


@checked
class Session:
    """A session that a login opened; a context manager that logs out at its end. Any task may use it.

    Args:
        secret: S, which this login established.
        logged_in: the answer to the login.
        route: the keyring id that its operations are about, or empty.
        timeout: seconds an operation may take unless it says otherwise.
        again: logs in anew, which the session does before its end.
    """

    def __init__(
        self,
        connection: Connection,
        secret: bytes,
        logged_in: LoggedIn,
        *,
        route: bytes = b"",
        timeout: float = limits.DEADLINE,
        again: LogIn | None = None,
    ) -> None:
        self.connection: Final = connection
        self.route: Final = route
        self.timeout: Final = timeout
        self._again: Final = again
        self._secret = secret
        self._renewing: Final = Mutex()
        self._abandoned = False
        self._renew_at = self._look_at = 0.0
        self._take(logged_in)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(cluster={self.connection.cluster.hex()}, expires={self._logged_in.expires})"

    @property
    def ended(self) -> bool:
        """Tell whether the token has expired, by this machine's clock."""
        return time.time() >= self._logged_in.expires

    def saved(self) -> tuple[bytes, LoggedIn]:
        """Return S and the token: all it takes to use this session elsewhere. Keep them as a password."""
        return self._secret, self._logged_in

    async def call(
        self,
        operation: Operation[Any, Any],
        fields: dict[str, Any] | Message,
        timeout: float | None = None,
        *,
        current: bool = False,
    ) -> dict[str, Any]:
        """Ask one operation under this session, as `Connection.call` does; raises also TokenExpired."""
        token, keys = await self.credentials()
        return await self.connection.call(
            operation,
            fields,
            self.timeout if timeout is None else timeout,
            route=self.route,
            token=token,
            seal=keys,
            current=current,
        )

    async def ask(
        self, operation: Operation[Q, R], message: Q, timeout: float | None = None, *, current: bool = False
    ) -> R:
        """Ask one operation with its own types; raises ArgumentInvalid for a message that is not of them."""
        check_message(message, operation.request)
        return codec.convert(await self.call(operation, message, timeout, current=current), operation.reply)

    async def call_each(
        self,
        calls: Iterable[tuple[Operation[Any, Any], dict[str, Any]]],
        in_flight: int,
        timeout: float | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the answers to many independent operations, in order, with up to `in_flight` under way at once.

        Raises the error of an operation in its turn; the operations behind it are then forgotten.
        """
        timeout = self.timeout if timeout is None else timeout
        window: deque[Request] = deque()
        most = _AHEAD * in_flight
        async with self.connection.channel(timeout) as channel:
            try:
                for operation, fields in calls:
                    while len(channel.requests) >= in_flight and len(window) < most:
                        await channel.step(timeout)
                    while window and (window[0].done or len(window) >= most):
                        yield await channel.wait(window.popleft())
                    token, keys = await self.credentials()
                    window.append(channel.submit(operation, fields, timeout, route=self.route, token=token, seal=keys))
                while window:
                    yield await channel.wait(window.popleft())
            finally:
                channel.abandon(window)

    async def credentials(self) -> tuple[bytes, SessionKeys]:
        """Return the token and keys to use now, renewed when two thirds of the token's lifetime are over.

        A session that can log in anew does so at the same point of its last token. Now and then they serve to ask the
        cluster for its members.

        Raises TokenExpired.
        """
        now = time.time()
        if now >= self._look_at:
            self.connection.owner.check()  # before any lock
            is_due = now >= self._renew_at
            self._look_at = now + _LOOK if is_due else min(now + _LOOK, self._renew_at)
            if is_due:
                await self._renew()
            await self.connection.learn(self.route, *self._credentials)
        return self._credentials

    async def random(self, length: int) -> bytes:
        """Draw random bytes from the HSM; `length` is 1 to 1 MiB."""
        if not 1 <= length <= limits.REQUEST_BYTES:
            raise DataLength(f"{length} random bytes; from 1 to {limits.REQUEST_BYTES}")
        return (await self.ask(RANDOM, RandomBytes(length=length))).data

    async def logout(self, *, everywhere: bool = False) -> None:
        """End this session, or every session of its credential."""
        await self.ask(LOGOUT, Logout(everywhere=everywhere))

    def abandon(self) -> None:
        """Leave the session to die with its token: nobody would log it out any more, or its secret is kept nowhere."""
        self._abandoned = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Where nobody can be told, the session dies with its token: its secret is known here only.
        if not self._abandoned:
            with contextlib.suppress(LnhError):
                await self.logout()

    def _take(self, logged_in: LoggedIn) -> None:
        now = time.time()
        self._credentials = logged_in.token, SessionKeys.derive(self._secret, logged_in.token)
        self._logged_in = logged_in
        self._look_at = now
        lasts = logged_in.expires < logged_in.ends or self._again is not None
        self._renew_at = now + (logged_in.expires - now) * _RENEW_AT if lasts else float(logged_in.expires)

    def _is_last(self, now: float) -> bool:
        """Tell whether the token cannot be renewed."""
        return now >= self._logged_in.expires or self._logged_in.expires >= self._logged_in.ends

    def _begin_anew(self, secret: bytes, logged_in: LoggedIn) -> None:
        """Go on as another session, of another login; interrupted in between, it is due to log in once more."""
        self._secret = secret
        self._take(logged_in)

    async def _renew(self) -> None:
        async with self._renewing.hold():
            now = time.time()
            if now < self._renew_at:
                return  # another task did it
            if self._again is None and now >= self._logged_in.expires:
                raise TokenExpired("the session has ended: its token has expired")
            token, keys = self._credentials
            try:
                if self._again is not None and self._is_last(now):
                    secret, logged_in = await self._again()
                    self._begin_anew(secret, logged_in)
                    return
                fields = await self.connection.call(
                    RENEW, Empty(), self.timeout, route=self.route, token=token, seal=keys
                )
            except LnhError:
                # The token is good for a while yet; another attempt when a third of that has passed.
                self._renew_at = time.time() + (self._logged_in.expires - time.time()) / 3
                if time.time() >= self._logged_in.expires:
                    raise
                return
            self._take(codec.convert(fields, LoggedIn))


async def login(
    connection: Connection, *credentials: Credential, route: bytes = b"", timeout: float = limits.DEADLINE
) -> tuple[bytes, LoggedIn]:
    """Log in with up to two credentials, or with none as the registered client itself; returns S and the answer.

    Raises PasswordIncorrect, PasswordLocked, PasswordMustChange and what a call raises.
    """
    logged_in, secret = await connection.call_with_credential(
        LOGIN, Login(credentials=credentials), timeout, route=route
    )
    return secret, logged_in


async def change_password(
    connection: Connection, credential: Credential, new: str, *, timeout: float = limits.DEADLINE
) -> None:
    """Change a holder's own password; the KRSO's first change makes the keyring's key.

    Raises PasswordIncorrect, PasswordInvalid and what a call raises.
    """
    await connection.call_with_credential(
        CHANGE_PASSWORD, ChangePassword(credential=credential, new=new), timeout, route=credential.keyring
    )


def asked(password: Password) -> str:
    """Return a password, asking for it where that is what was given."""
    return password if isinstance(password, str) else password()


def keyring_credential(role: Role, keyring: bytes, password: str) -> Credential:
    """Make the credential of a keyring's KRSO or KRCO."""
    assert role.of_keyring, f"{role.value} is no role of a keyring"
    return Credential(role=role, keyring=keyring, password=password)
