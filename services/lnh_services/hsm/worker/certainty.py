"""Decides what a worker may say for certain, in one place for every operation.

A member without a lease may be behind its cluster: it knows nothing for certain of what it does not have, or has in an
older version. So nothing that rests on what is stored (`LnhError.of_state`) leaves a worker as a refusal, and no list
as if it were all, unless the lease was a read-write one from the request's beginning to its answer: then all that was
acknowledged before the request began was read. It is the same rule as for work that another member forwards.

    a refusal that rests on what is stored -> MemberBehind; of a write through a read-only member, MemberReadOnly
    a listing                              -> with how far the member may be behind; one of nothing is a refusal

Facts that only grow are certain all the same (`LnhError.for_good`): a logout, a revocation, a password changed after
the login. A handler need not know of any of this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from lnh_common.errors import LnhError, MemberBehind, MemberReadOnly
from lnh_common.messages.base import Behind, Effect, Listing, Message, Operation
from lnh_services.hsm.worker.context import Knowledge

M = TypeVar("M", bound=Message)

NEVER: Final = 2**63 - 2  # a version that no record comes to


class Certainty(Knowledge):
    """Tells what a worker knows for certain.

    Args:
        utc: UTC seconds.
        boot: seconds of a clock that never goes back.
    """

    def __init__(self, utc: Callable[[], float], boot: Callable[[], float]) -> None:
        super().__init__(boot)
        self.utc = utc

    def behind(self) -> Behind:
        """Return how far this worker may be behind the cluster."""
        return Behind(whole_until=self.whole_until(self.utc()), behind_ms=int(self.behind_for() * 1000))

    def told(self, operation: Operation[Any, Any], refusal: LnhError, lapses: int) -> LnhError:
        """Return the answer in place of a refusal.

        Args:
            lapses: how often the lease had lapsed when the request was begun.
        """
        undated = isinstance(refusal, MemberBehind) and not refusal.detail
        if self.was_read_write_since(lapses) or not (refusal.needs_step or undated):
            return refusal
        doubt = self.behind().refusal(refusal)
        is_write = operation.effect is Effect.WRITE and not self.read_write
        return MemberReadOnly(str(doubt)) if is_write else doubt

    def listed(self, reply: M, asked: Message, lapses: int) -> M:
        """Add to a reply that lists something how far this member may be behind.

        Raises MemberBehind for a reply that would say that there is nothing.
        """
        if not isinstance(reply, Listing) or self.was_read_write_since(lapses):
            return reply
        if reply.is_bare() and not getattr(asked, "after", b""):
            raise self.behind().refusal()
        return msgspec.structs.replace(reply, behind=self.behind())
