"""Reads HTTP Basic (RFC 7617), and remembers which session a name and a password opened. Pure.

A request with Basic comes with its password each time, and a login costs the HSM an Argon2id. So the session that it
opened serves those that follow, as long as a session lives, and is found by a hash that this process alone can make.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from typing import Final, Generic, TypeVar

import msgspec

from lnh_common import limits
from lnh_rest.logins import Login
from lnh_rest.shapes import KeyringLogin, KeyringRole, UserLogin

S = TypeVar("S")

_BETWEEN: Final = "~"  # a keyring and one of its roles


class Basics(Generic[S]):
    """The sessions that were opened so."""

    def __init__(self) -> None:
        self._key: Final = secrets.token_bytes(32)
        self._opened: OrderedDict[bytes, Login[S]] = OrderedDict()

    def name(self, credentials: str) -> bytes:
        """Name what a header says, without keeping it."""
        return hmac.digest(self._key, credentials.encode(), hashlib.sha256)

    def find(self, name: bytes) -> Login[S] | None:
        """Find the session that was opened so, which may have ended."""
        return self._opened.get(name)

    def put(self, name: bytes, login: Login[S]) -> None:
        """Remember a session; the oldest are forgotten, and end as sessions do that are not used."""
        self._opened.pop(name, None)
        self._opened[name] = login
        while len(self._opened) > limits.REST_SESSIONS:
            self._opened.popitem(last=False)

    def forget(self, name: bytes) -> None:
        """Forget a session that ended."""
        self._opened.pop(name, None)


def read(credentials: str) -> UserLogin | KeyringLogin | None:
    """Read what a header says: `USER:PASSWORD`, or `KEYRING~ROLE:PASSWORD` with krso or krco; None for what is neither.

    UTF-8, or else Latin-1, in which older clients send it.
    """
    try:
        data = base64.b64decode(credentials, validate=True)
    except (binascii.Error, ValueError):
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    user, colon, password = text.partition(":")
    if not colon:
        return None
    keyring, between, role = user.rpartition(_BETWEEN)
    kind: type[UserLogin | KeyringLogin] = UserLogin
    fields: dict[str, str] = {"user": user, "password": password}
    if between and role in {each.value for each in KeyringRole}:
        kind, fields = KeyringLogin, {"keyring": keyring, "role": role, "password": password}
    config = kind.__struct_config__
    given: dict[str, object] = {str(config.tag_field): config.tag, **fields}
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError:
        return None
