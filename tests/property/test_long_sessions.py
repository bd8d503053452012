"""A session that can ask for its password is used for days and sees no end, in both SDKs; another ends as it must."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lnh
import lnh.aio
import lnh.aio.sessions
import lnh.sessions
from lnh_common.errors import LnhError, TokenExpired, Unreachable
from lnh_common.messages.admin import KeyringView
from lnh_common.messages.base import Message, Operation
from lnh_common.messages.objects import RANDOM
from lnh_common.messages.session import LOGIN, RENEW, LoggedIn, Login, Role
from models.twins import view

HOUR, DAY = 3600.0, 86400.0


class Virtual:
    """A cluster whose tokens live for so long, and its time.

    Args:
        token, session: seconds that each of them lives.
    """

    cluster = b"c" * 16
    owner = SimpleNamespace(check=lambda: None)

    def __init__(self, token: int, session: int) -> None:
        self.now = 1_000_000.0
        self.token, self.session = token, session
        self.expires: dict[bytes, float] = {}
        self.ends = 0
        self.logins = 0
        self.away = False

    def time(self) -> float:
        return self.now

    def _opened(self) -> LoggedIn:
        token = f"{self.logins} {len(self.expires)}".encode()
        self.expires[token] = expires = min(int(self.now) + self.token, self.ends)
        return LoggedIn(token=token, session=b"x" * 16, expires=int(expires), ends=self.ends)

    def call(
        self, operation: Operation[Any, Any], fields: object, timeout: float, *, token: bytes, **_: object
    ) -> dict[str, Any]:
        if self.now >= self.expires[token]:
            raise TokenExpired("it has expired")
        if operation is not RENEW:
            return {"data": b"12345678"}
        if self.away:
            raise Unreachable("nobody is there")
        renewed = self._opened()
        return {name: getattr(renewed, name) for name in ("token", "session", "expires", "ends")}

    def call_with_credential(
        self, operation: Operation[Any, Any], message: Message, timeout: float, **_: object
    ) -> tuple[Message, bytes]:
        assert operation is LOGIN
        assert isinstance(message, Login)
        assert message.credentials[0].password == "as it is now"
        if self.away:
            raise Unreachable("nobody is there")
        self.logins += 1
        self.ends = int(self.now) + self.session
        return self._opened(), f"secret {self.logins}".encode()

    def learn(self, *_: object) -> None:
        pass


class AwaitedVirtual:
    """The same, for `lnh.aio`."""

    def __init__(self, to: Virtual) -> None:
        self.to = to
        self.cluster, self.owner = to.cluster, to.owner

    async def call(self, *arguments: Any, **how: Any) -> dict[str, Any]:
        return self.to.call(*arguments, **how)

    async def call_with_credential(self, *arguments: Any, **how: Any) -> tuple[Message, bytes]:
        return self.to.call_with_credential(*arguments, **how)

    async def learn(self, *_: object) -> None:
        pass


async def waited(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


async def outcomes(sdk: Any, virtual: Virtual, password: str | Callable[[], str], gaps: list[float]) -> list[Any]:
    """What a call has for its outcome after each of these pauses: None, or its error."""
    connection = virtual if sdk is lnh else AwaitedVirtual(virtual)
    keyring = sdk.Keyring(connection, KeyringView(id=b"k" * 16, label="payments"))
    with pytest.MonkeyPatch.context() as patched:
        for module in (lnh.sessions, lnh.aio.sessions):
            patched.setattr(module, "time", virtual)
        session = await waited(keyring.login(Role.KRCO, password))
        found: list[Any] = []
        for gap in gaps:
            virtual.now += gap
            try:
                await waited(session.call(RANDOM, {"length": 8}))
                found.append(None)
            except LnhError as error:
                found.append(type(error))
    return found


PAUSES = st.lists(st.one_of(st.floats(0, 600), st.floats(0, 3 * HOUR), st.floats(0, 2 * DAY)), min_size=1, max_size=60)


@pytest.mark.parametrize("sdk", [lnh, lnh.aio], ids=["blocking", "aio"])
@given(gaps=PAUSES, token=st.integers(60, 24 * 3600), session=st.integers(60, 24 * 3600))
def test_a_session_that_can_ask_for_its_password_never_ends(
    sdk: Any, gaps: list[float], token: int, session: int
) -> None:
    virtual = Virtual(token, session)
    assert set(asyncio.run(outcomes(sdk, virtual, lambda: "as it is now", gaps))) == {None}
    assert virtual.logins <= 1 + len(gaps)


@pytest.mark.parametrize("sdk", [lnh, lnh.aio], ids=["blocking", "aio"])
def test_a_session_that_cannot_ends_a_day_after_its_login(sdk: Any) -> None:
    virtual = Virtual(900, int(DAY))
    found = asyncio.run(outcomes(sdk, virtual, "as it is now", [300.0] * 300))
    assert found == [None] * 287 + [TokenExpired] * 13
    assert virtual.logins == 1


@pytest.mark.parametrize("sdk", [lnh, lnh.aio], ids=["blocking", "aio"])
def test_one_that_is_used_all_the_time_logs_in_once_a_day(sdk: Any) -> None:
    virtual = Virtual(900, int(DAY))
    assert set(asyncio.run(outcomes(sdk, virtual, lambda: "as it is now", [60.0] * 1440 * 5))) == {None}
    assert 5 <= virtual.logins <= 6


@pytest.mark.parametrize("sdk", [lnh, lnh.aio], ids=["blocking", "aio"])
def test_a_cluster_that_is_away_for_a_moment_ends_no_session(sdk: Any) -> None:
    virtual = Virtual(900, 1800)

    async def work() -> None:
        connection = virtual if sdk is lnh else AwaitedVirtual(virtual)
        keyring = sdk.Keyring(connection, KeyringView(id=b"k" * 16, label="payments"))
        with pytest.MonkeyPatch.context() as patched:
            for module in (lnh.sessions, lnh.aio.sessions):
                patched.setattr(module, "time", virtual)
            session = await waited(keyring.login(Role.KRCO, lambda: "as it is now"))
            for minute in range(120):
                virtual.now += 60.0
                virtual.away = minute % 10 in {3, 4, 5}
                await waited(session.call(RANDOM, {"length": 8}))
            virtual.away = True
            virtual.now += 3600.0
            with pytest.raises(Unreachable):
                await waited(session.call(RANDOM, {"length": 8}))
            virtual.away = False
            virtual.now += 2.0
            await waited(session.call(RANDOM, {"length": 8}))

    asyncio.run(work())


@pytest.mark.parametrize("sdk", [lnh, lnh.aio], ids=["blocking", "aio"])
def test_what_lived_in_a_session_ends_with_its_login(sdk: Any) -> None:
    virtual = Virtual(900, 1800)

    async def work() -> None:
        connection = virtual if sdk is lnh else AwaitedVirtual(virtual)
        keyring = sdk.Keyring(connection, KeyringView(id=b"k" * 16, label="payments"))
        with pytest.MonkeyPatch.context() as patched:
            for module in (lnh.sessions, lnh.aio.sessions):
                patched.setattr(module, "time", virtual)
            session = await waited(keyring.login(Role.KRCO, lambda: "as it is now"))
            made = session.adopt(view(random.Random(1), in_session=True))
            virtual.now += 1700.0
            await waited(session.call(RANDOM, {"length": 8}))
            assert virtual.logins == 2
            with pytest.raises(lnh.ObjectUnknown):
                session.forget(made.handle)

    asyncio.run(work())
