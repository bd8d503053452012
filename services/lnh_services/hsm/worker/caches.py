"""Keeps what an hsm worker has unsealed, and drops it.

Everything here may be used only under the worker's lease from its own store, and is dropped when the store says
an invalidation, when the lease ends and when the member is deactivated. The caches are bounded; the entry used longest
ago goes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    ApprovalRecord,
    AttemptsRecord,
    EndedRecord,
    LockRecord,
    LogoutRecord,
    PolicyRecord,
    Record,
    ResealRecord,
    TriedRecord,
)


@dataclass(frozen=True)
class CachedRecord:
    """A record as last read; `record` is None where there is none (version 0)."""

    record: Record | None
    version: int


@dataclass(frozen=True)
class CachedPage:
    """A page of a table's records as last read, whether there are more, and the id that they are behind."""

    records: tuple[Any, ...]
    more: bool
    last: bytes


# Tables whose changes touch no session: they come with every login, beside a logout, with each step of a rekey; or no
# session rests on them.
_NO_SESSION = frozenset(
    {
        OBJECTS,
        *(
            TABLES[kind]
            for kind in (LockRecord, AttemptsRecord, TriedRecord, EndedRecord, ResealRecord, ApprovalRecord)
        ),
    }
)


def touches_sessions(key: Key) -> bool:
    """Tell whether a session may have been checked against what this names."""
    return key.table not in _NO_SESSION


class Streams:
    """The long inputs of a worker, by session id and the name that the session gave each; bounded.

    Where there is no room, the owner that has most of them, the new one counted, loses the one that nothing came to for
    longest. So an owner that has no more than its share loses none, whatever the others begin.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: dict[tuple[bytes, bytes], tuple[bytes, Stream]] = {}

    def get(self, where: tuple[bytes, bytes]) -> Stream | None:
        """Return a stream, to which something came just now; None where there is none."""
        entry = self._entries.pop(where, None)
        if entry is None:
            return None
        self._entries[where] = entry
        return entry[1]

    def put(self, where: tuple[bytes, bytes], owner: bytes, stream: Stream) -> None:
        """Keep a stream that an owner begins, dropping another where there is no room."""
        self._entries.pop(where, None)
        if len(self._entries) >= self._size:
            had = Counter(each for each, _ in self._entries.values())
            had[owner] += 1
            most = max(had.values())
            # The new one's owner may have none yet: then there is another with as many.
            del self._entries[next(at for at, (each, _) in self._entries.items() if had[each] == most)]
        self._entries[where] = (owner, stream)

    def drop(self, where: tuple[bytes, bytes]) -> None:
        """Drop a stream."""
        self._entries.pop(where, None)

    def drop_sessions(self, sessions: set[bytes]) -> None:
        """Drop the streams of these sessions."""
        for where in [where for where in self._entries if where[0] in sessions]:
            del self._entries[where]

    def values(self) -> list[Stream]:
        """Return a copy of the streams, the one that nothing came to for longest first."""
        return [stream for _, stream in self._entries.values()]

    def clear(self) -> None:
        """Drop all."""
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)


class Caches:
    """The caches of one worker."""

    def __init__(self) -> None:
        self.sessions: Lru[bytes, OpenSession] = Lru(limits.CACHED_SESSIONS)
        # By keyring and handle; one of a session by keyring, and session id and handle joined.
        self.keys: Lru[tuple[bytes, bytes], CachedKey] = Lru(limits.CACHED_KEYS)
        self.records: Lru[tuple[str, bytes], CachedRecord] = Lru(limits.CACHED_RECORDS)
        self.pages: Lru[tuple[type[Record], bytes], CachedPage] = Lru(limits.CACHED_PAGES)  # by the id before them, too
        self.policies: Lru[bytes, Policy] = Lru(limits.CACHED_RECORDS)
        self.streams = Streams(limits.CACHED_STREAMS)  # of each the key must be the one in `keys` still

    def invalidate(self, keys: Sequence[Key]) -> None:
        """Drop what these items were, the pages of their tables, and every session that was checked against one."""
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
        if len(self.pages):
            self._drop_pages({key.table for key in keys})
        if changed:
            for token, session in self.sessions.items():
                if not changed.isdisjoint(session.depends):
                    session.alive = False
                    self.sessions.drop(token)
                    ended.add(session.token.session)
        if ended:
            self._drop_carried(ended)
            self.streams.drop_sessions(ended)
        return None

    def _drop_pages(self, tables: set[str]) -> None:
        for where in self.pages.keys():  # noqa: SIM118  # a copy
            if TABLES[where[0]] in tables:
                self.pages.drop(where)

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
        self.pages.clear()
        self.policies.clear()
        self.streams.clear()
