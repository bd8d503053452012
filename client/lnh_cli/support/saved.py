"""Keeps the sessions of `user login` and `role login` between commands.

Each is a file of mode 0600 in a directory of mode 0700 under `$XDG_RUNTIME_DIR` (or the temporary directory): the
sealed token, and the secret that goes with it. It is as good as the password until it expires (15 minutes without a
command, a day in all, unless the policy says otherwise) or `logout`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

from lnh.configuration import read_private, write_private
from lnh.net.connection import Connection
from lnh.sessions import Session
from lnh_common.errors import ConfigurationInvalid, FileModeUnsafe, TokenExpired, TokenUnknown
from lnh_common.messages.session import LoggedIn, Role

S = TypeVar("S", bound=Session)

_MARGIN: Final = 5.0  # seconds before its end at which a kept session is no longer used


def user_name(user: str, *, po: bool) -> str:
    """Make the name under which a user's session is kept."""
    return f"user {user}" + (" with po" if po else "")


def role_name(keyring: str, role: Role) -> str:
    """Make the name under which the session of a keyring's role is kept."""
    return f"{role.value} {keyring}"


def save(session: Session, name: str) -> None:
    """Keep a session."""
    secret, logged_in = session.saved()
    values = {
        "name": name,
        "secret": secret.hex(),
        "token": logged_in.token.hex(),
        "session": logged_in.session.hex(),
        "expires": logged_in.expires,
        "ends": logged_in.ends,
        "route": session.route.hex(),
    }
    write_private(_path(session.connection, name), json.dumps(values).encode())


@contextmanager
def kept(connection: Connection, name: str, kind: type[S], timeout: float) -> Iterator[S | None]:
    """Open the session kept under this name; None when there is none or it has ended.

    A session that was renewed meanwhile is kept anew; one that the HSM refused is forgotten.
    """
    session = _load(connection, name, kind, timeout)
    if session is None:
        yield None
        return
    before = session.saved()
    try:
        yield session
    except (TokenUnknown, TokenExpired):
        forget(connection, name)
        raise
    if session.saved() != before:
        save(session, name)


def _load(connection: Connection, name: str, kind: type[S], timeout: float) -> S | None:
    path = _path(connection, name)
    try:
        found = json.loads(read_private(path))
        logged_in = LoggedIn(
            token=bytes.fromhex(found["token"]),
            session=bytes.fromhex(found["session"]),
            expires=int(found["expires"]),
            ends=int(found["ends"]),
        )
        secret, route = bytes.fromhex(found["secret"]), bytes.fromhex(found["route"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise ConfigurationInvalid(f"{path} is no kept session; delete it") from None
    if logged_in.expires - _MARGIN <= time.time():
        path.unlink(missing_ok=True)
        return None
    return kind(connection, secret, logged_in, route=route, timeout=timeout)


def exists(connection: Connection, name: str) -> bool:
    """Tell whether a session is kept under this name."""
    return _path(connection, name).exists()


def forget(connection: Connection, name: str) -> None:
    """Delete a kept session, if there is one."""
    _path(connection, name).unlink(missing_ok=True)


def _path(connection: Connection, name: str) -> Path:
    whose = hashlib.sha256(b"%b %b %b" % (connection.cluster, connection.client, name.encode())).hexdigest()
    return _directory() / f"{whose[:32]}.session"


def _directory() -> Path:
    """Return the directory of sessions; raises FileModeUnsafe when another user made it, or may look into it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(runtime) / "lnh" if runtime else Path(tempfile.gettempdir()) / f"lnh-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or path.is_symlink():
        raise FileModeUnsafe(f"{path} is not a directory of this user with mode 0700")
    return path
