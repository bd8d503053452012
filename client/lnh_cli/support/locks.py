"""Shows who may not log in as a role of a keyring, and until when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lnh_cli.support import terminal

if TYPE_CHECKING:
    from lnh.admin import Administration, RoleLock


def role_locks(session: Administration, keyring: str) -> list[RoleLock]:
    """Return the locks of a keyring's roles; none where a member of version 0.1 answers, which does not tell them."""
    from lnh_common.errors import UnknownOperation

    try:
        return list(session.role_locks(keyring))
    except UnknownOperation:
        return []


def until(lock: RoleLock) -> str:
    """Spell until when a lock holds: a time, or what ends it."""
    return terminal.moment(lock.until) if lock.until else "lnh role unlock"
