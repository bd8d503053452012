"""Marks a member whose store served what it must not have: other members serve better then.

Only the store's answers count, never what a client brought: a worker reports a record or object that does not open, or
is older than this HSM has used, after it looked again whether the cluster was restored at that moment. The mark stays
until the HSM is activated anew, or the member joins anew: one good answer does not show that the rest of a disk is
well.
"""

from __future__ import annotations

from lnh_common.events import Log

log = Log("hsm.damage")


class DamageMark:
    """The mark of one HSM."""

    def __init__(self) -> None:
        self._cause = ""
        self._member = b""

    def note(self, member: bytes, cause: str) -> None:
        """Mark this member of a cluster (16 bytes) for what was served first."""
        if self.cause(member):
            return
        self._member, self._cause = member, cause
        log.failure("this member is damaged: its store served what is not genuine or not current", cause=cause)

    def cause(self, member: bytes) -> str:
        """Name what was served wrongly; empty for a member that is well."""
        return self._cause if member == self._member else ""

    def lift(self) -> None:
        """Remove the mark: the store's answers count anew."""
        self._cause, self._member = "", b""
