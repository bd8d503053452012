"""Keeps the sessions that logins opened, by the hash of their bearer tokens. Pure.

A token is 256 random bits, given once, in the answer to the login. Only its SHA-256 is kept, so nothing that shows this
table shows a token.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from lnh_common import limits
from lnh_common.errors import LimitReached, TokenExpired, TokenUnknown
from lnh_rest.repeats import Repeats

S = TypeVar("S")

_MARK: Final = "lnh_"  # by which scanners of leaked secrets find tokens
_BYTES: Final = 32


@dataclass(frozen=True)
class Login(Generic[S]):
    """A session that a login opened.

    Args:
        session: the SDK's.
        holder: whose credential opened it.
        keyring: that it is about; empty for an appliance user's.
        ends: UTC seconds.
        repeats: its answers under idempotency keys.
    """

    session: S
    holder: str
    keyring: str
    ends: float
    repeats: Repeats = field(default_factory=Repeats)


class Logins(Generic[S]):
    """All open sessions of the service.

    Args:
        has_ended: whether a session died at the cluster, as one does that is not used.
    """

    def __init__(self, has_ended: Callable[[S], bool]) -> None:
        self._held: dict[bytes, Login[S]] = {}
        self._has_ended: Final = has_ended

    def __len__(self) -> int:
        return len(self._held)

    def check_room(self, now: float, holder: str) -> list[Login[S]]:
        """Make room by what has ended, and return that; raises LimitReached where there is none."""
        ended = self.sweep(now)
        if len(self._held) >= limits.REST_SESSIONS:
            raise LimitReached(f"{limits.REST_SESSIONS} sessions are open at this service", _LATER)
        of_one = sum(each.holder == holder for each in self._held.values())
        if of_one >= limits.REST_SESSIONS_OF_ONE:
            raise LimitReached(f"this holder has {of_one} sessions at this service", _LOG_OUT)
        return ended

    def open(self, now: float, session: S, holder: str, keyring: str, ends: float) -> tuple[str, Login[S]]:
        """Keep a session, and return its token."""
        token = _MARK + secrets.token_urlsafe(_BYTES)
        login = Login(session, holder, keyring, min(ends, now + limits.REST_SESSION_SECONDS))
        self._held[_hash(token)] = login
        return token, login

    def find(self, now: float, token: str) -> Login[S]:
        """Find the session of a token; raises TokenUnknown, TokenExpired."""
        login = self._held.get(_hash(token))
        if login is None:
            raise TokenUnknown("no session has this token")
        if self._is_over(now, login):
            raise TokenExpired("the session has ended")
        return login

    def is_open(self, now: float, login: Login[S]) -> bool:
        """Tell whether a session may be used."""
        return any(each is login for each in self._held.values()) and not self._is_over(now, login)

    def close(self, login: Login[S]) -> None:
        """Forget a session."""
        self._held = {name: each for name, each in self._held.items() if each is not login}

    def sweep(self, now: float) -> list[Login[S]]:
        """Forget the sessions that have ended, and return them."""
        ended = [each for each in self._held.values() if self._is_over(now, each)]
        for each in ended:
            self.close(each)
        return ended

    def close_all(self) -> list[Login[S]]:
        """Forget every session, and return them."""
        every = list(self._held.values())
        self._held = {}
        return every

    def _is_over(self, now: float, login: Login[S]) -> bool:
        return now >= login.ends or self._has_ended(login.session)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


_LATER: Final = {"advice": "try again in a while"}
_LOG_OUT: Final = {"advice": "log out what is not needed: DELETE /v1/sessions/current"}
