"""Counts the refusals that repeat, so that nobody fills the audit trail by being refused.

The first refusal of a kind is a record of its own, as every act is. Those of the same kind that follow are counted,
and a minute later one record says how many they were. A kind is one peer, one operation and one outcome. All strangers
are one peer, because a stranger can call itself anything. So a peer's refusals are at most as many records a minute as
there are operations, however fast it asks. The kinds at hand have a bound too: what exceeds it is counted as one kind.

Pure: entries and the time in, entries to be written out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from lnh_common import limits
from lnh_common.messages.hsm import AuditEntry

STRANGER: Final = "stranger"  # the peer of everybody who is no registered client and has no session
_WINDOW_MS: Final = int(limits.REFUSALS_TOGETHER * 1000)
_SEVERAL: Final = AuditEntry(
    identity="several", role="", operation="several", target="", outcome="refused", peer="several"
)


class _Kind(msgspec.Struct, frozen=True):
    peer: str
    operation: str
    outcome: str


class _Counting(msgspec.Struct):
    """The refusals of one kind that no record tells of yet.

    Args:
        like: the refusal that was recorded or counted first.
        since: the time of the last record of this kind, UTC milliseconds.
        first, last: the times of the first and the last refusal that is counted.
        identities: how many of them each of the first few identities made.
    """

    like: AuditEntry
    since: int
    count: int = 0
    first: int = 0
    last: int = 0
    same_target: bool = True
    identities: dict[str, int] = msgspec.field(default_factory=dict)

    def add(self, entry: AuditEntry, now: int) -> None:
        if not self.count:
            self.first = now
        self.last = now
        self.count += 1
        self.same_target = self.same_target and entry.target == self.like.target
        if entry.identity in self.identities or len(self.identities) < limits.REFUSED_IDENTITIES:
            self.identities[entry.identity] = self.identities.get(entry.identity, 0) + 1

    def told(self) -> AuditEntry:
        """Make the one record of all refusals that are counted."""
        detail: dict[str, Any] = {"count": self.count, "first": self.first, "last": self.last}
        alone = len(self.identities) == 1 and self.count in self.identities.values()
        if not alone:
            detail["identities"] = dict(self.identities)
            detail["others"] = self.count - sum(self.identities.values())
        return replace(
            self.like,
            identity=next(iter(self.identities)) if alone else "several",
            target=self.like.target if self.same_target else "",
            detail=detail,
            peer="",
        )


class Refusals:
    """The refusals that are counted and not written yet; one object a trail."""

    def __init__(self) -> None:
        self._kinds: dict[_Kind, _Counting] = {}

    def sift(self, entries: Sequence[AuditEntry], now: int) -> list[AuditEntry]:
        """Count the refusals that repeat.

        Args:
            now: UTC milliseconds.

        Returns the other entries, which are to be written, in their order.
        """
        return [entry for entry in entries if not entry.peer or not self._counted(entry, now)]

    def missed(self, entries: Sequence[AuditEntry], now: int) -> None:
        """Count entries that `sift` returned and that could not be written."""
        for entry in entries:
            if entry.peer:
                self._counted(entry, now)

    def due(self, now: int, *, all_of_them: bool = False) -> list[AuditEntry]:
        """Return the records of refusals that were counted for a minute or longer.

        `written` says that they are in the trail. A kind that was quiet for that long is forgotten.
        """
        over = [kind for kind, counting in self._kinds.items() if all_of_them or _is_over(counting.since, now)]
        for kind in over:
            if not self._kinds[kind].count:
                del self._kinds[kind]
        return [self._kinds[kind].told() for kind in over if kind in self._kinds]

    def written(self, now: int, *, all_of_them: bool = False) -> None:
        """Begin to count anew the refusals that `due` told at this time."""
        for kind, counting in self._kinds.items():
            if all_of_them or _is_over(counting.since, now):
                self._kinds[kind] = _Counting(like=counting.like, since=now)

    def _counted(self, entry: AuditEntry, now: int) -> bool:
        """Tell whether the entry is one more of a kind that was recorded lately; enter a new kind."""
        kind = _Kind(entry.peer, entry.operation, entry.outcome)
        counting = self._kinds.get(kind)
        if counting is None and len(self._kinds) < limits.REFUSAL_KINDS:
            self._kinds[kind] = _Counting(like=entry, since=now)
            return False
        if counting is None:
            several = _Kind(_SEVERAL.peer, _SEVERAL.operation, _SEVERAL.outcome)
            counting = self._kinds.setdefault(several, _Counting(like=_SEVERAL, since=now))
        counting.add(entry, now)
        return True


def _is_over(since: int, now: int) -> bool:
    """Tell whether a minute has passed; a clock that was set back counts as one."""
    return not since <= now < since + _WINDOW_MS
