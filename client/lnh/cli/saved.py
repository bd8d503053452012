"""Sessions that `user login` and `role login` keep between commands.

Each is a file of mode 0600 in a directory of mode 0700 under `$XDG_RUNTIME_DIR` (or the temporary
directory): the sealed token, and the secret that goes with it. It is as good as the password until it
expires, at most an hour idle by default and a day in all, or until `logout`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from lnh.configuration import read_private, write_private
from lnh.connection import Connection
from lnh.sessions import Session
from lnh_common.errors import ConfigurationInvalid, FileModeUnsafe
from lnh_common.messages.session import LoggedIn, Role

S = TypeVar("S", bound=Session)

_MARGIN: Final = 5.0  # seconds before its end at which a kept session is no longer used


def user_name(user: str, *, po: bool) -> str:
    return f"user {user}" + (" with po" if po else "")


def role_name(keyring: str, role: Role) -> str:
    return f"{role.value} {keyring}"


def save(session: Session, name: str) -> None:
    """Keep a session."""
    secret, logged_in = session.saved()
    kept = {
        "name": name,
        "secret": secret.hex(),
        "token": logged_in.token.hex(),
        "session": logged_in.session.hex(),
        "expires": logged_in.expires,
        "ends": logged_in.ends,
        "route": session.route.hex(),
    }
    write_private(_path(session.connection, name), json.dumps(kept).encode())


def load(connection: Connection, name: str, kind: type[S], timeout: float) -> S | None:
    """The session kept under this name, renewed if it is time to; None when there is none, or it has ended."""
    import time

    path = _path(connection, name)
    try:
        kept = json.loads(read_private(path))
        logged_in = LoggedIn(
            token=bytes.fromhex(kept["token"]),
            session=bytes.fromhex(kept["session"]),
            expires=int(kept["expires"]),
            ends=int(kept["ends"]),
        )
        secret, route = bytes.fromhex(kept["secret"]), bytes.fromhex(kept["route"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, msgspec.ValidationError):
        raise ConfigurationInvalid(f"{path} is no kept session; delete it") from None
    if logged_in.expires - _MARGIN <= time.time():
        path.unlink(missing_ok=True)
        return None
    return kind(connection, secret, logged_in, route=route, timeout=timeout)


def keep_renewed(session: Session, name: str) -> None:
    """Write a kept session again when it was renewed meanwhile."""
    save(session, name)


def forget(connection: Connection, name: str) -> bool:
    """Delete a kept session; False when there was none."""
    path = _path(connection, name)
    existed = path.exists()
    path.unlink(missing_ok=True)
    return existed


def _path(connection: Connection, name: str) -> Path:
    whose = hashlib.sha256(b"%b %b %b" % (connection.cluster, connection.client, name.encode())).hexdigest()
    return _directory() / f"{whose[:32]}.session"


def _directory() -> Path:
    """Ours alone; raises FileModeUnsafe when somebody else made it, or may look into it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(runtime) / "lnh" if runtime else Path(tempfile.gettempdir()) / f"lnh-{os.getuid()}"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or path.is_symlink():
        raise FileModeUnsafe(f"{path} is not a directory of this user with mode 0700")
    return path
