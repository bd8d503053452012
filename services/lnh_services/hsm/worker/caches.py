"""Keeps what an hsm worker has unsealed, and drops it.

Everything here may be used only under the worker's lease from its own store, and is dropped when the store says
an invalidation, when the lease ends and when the member is deactivated. The caches are bounded; the entry used longest
ago goes first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lnh_common import limits
from lnh_common.messages.store import OBJECTS, Key
from lnh_services.hsm.auth.tokens import OpenSession
from lnh_services.hsm.lru import Lru
from lnh_services.hsm.objects.policy import Policy
from lnh_services.hsm.objects.prepared_keys import CachedKey
from lnh_services.hsm.objects.stored import HANDLE_BYTES
from lnh_services.hsm.objects.streams import Stream
from lnh_services.hsm.records import (
    TABLES,
    AttemptsRecord,
    EndedRecord,
    LockRecord,
    LogoutRecord,
    PolicyRecord,
    Record,
    TriedRecord,
)


@dataclass(frozen=True)
class CachedRecord:
    """A record as last read; `record` is None where there is none (version 0)."""

    record: Record | None
    version: int


# Tables whose changes touch no session: they come with every login, or beside a logout.
_NO_SESSION = frozenset({OBJECTS, *(TABLES[kind] for kind in (LockRecord, AttemptsRecord, TriedRecord, EndedRecord))})


def touches_sessions(key: Key) -> bool:
    """Tell whether a session may have been checked against what this names."""
    return key.table not in _NO_SESSION


class Caches:
    """The caches of one worker."""

    def __init__(self) -> None:
        self.sessions: Lru[bytes, OpenSession] = Lru(limits.CACHED_SESSIONS)
        # By keyring and handle; one of a session by keyring, and session id and handle joined.
        self.keys: Lru[tuple[bytes, bytes], CachedKey] = Lru(limits.CACHED_KEYS)
        self.records: Lru[tuple[str, bytes], CachedRecord] = Lru(limits.CACHED_RECORDS)
        self.policies: Lru[bytes, Policy] = Lru(limits.CACHED_RECORDS)
        # By session id and the name that the session gave it; its key must be the one in `keys` still.
        self.streams: Lru[tuple[bytes, bytes], Stream] = Lru(limits.CACHED_STREAMS)

    def invalidate(self, keys: Iterable[Key]) -> None:
        """Drop what these items were, and every session that was checked against one of them."""
        changed: set[tuple[str, bytes]] = set()
        ended: set[bytes] = set()
        for key in keys:
            if key.table == TABLES[PolicyRecord] or (key.table == OBJECTS and not key.id):
                return self.drop_everything()
            if key.table == OBJECTS:
                self.keys.drop((key.scope, key.id))
            else:
                self.records.drop((key.table, key.id))
            if touches_sessions(key):
                changed.add((key.table, key.id))
            if key.table == TABLES[LogoutRecord]:
                ended.add(key.id)
        if changed:
            for token, session in self.sessions.items():
                if not changed.isdisjoint(session.depends):
                    session.alive = False
                    self.sessions.drop(token)
                    ended.add(session.token.session)
        if ended:
            self._drop_carried(ended)
        return None

    def _drop_carried(self, sessions: set[bytes]) -> None:
        """Drop the objects of these sessions."""
        carried = [where for where, _ in self.keys.items() if len(where[1]) > HANDLE_BYTES]
        for where in carried:
            if where[1][:-HANDLE_BYTES] in sessions:
                self.keys.drop(where)

    def drop_everything(self) -> None:
        """Drop everything, and end every session here."""
        for session in self.sessions.values():
            session.alive = False
        self.sessions.clear()
        self.keys.clear()
        self.records.clear()
        self.policies.clear()
        self.streams.clear()
