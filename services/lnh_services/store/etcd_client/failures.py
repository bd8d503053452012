"""Says of each failure of a call whether the request certainly did nothing, and what to do next. Pure.

etcd names its errors by their text: one status code stands for several. What is in no row below is not certain. A row
is certain only where etcd finds the fault before it hands the request to its own consensus, or before it changes
anything when it applies it. Lack of space is not: etcd carries out the transaction that exceeds the quota, and then
says so.
"""

from __future__ import annotations

import enum
from typing import Final

import grpc
import msgspec

from lnh_services.store.etcd.requests import Refused, Unknown, Why


class Next(enum.Enum):
    """What may help a request that certainly did nothing."""

    NOTHING = "nothing"
    ELSEWHERE = "another node"
    LOGIN = "another login"


class Failure(msgspec.Struct, frozen=True):
    """A call without an answer.

    Args:
        text: what etcd, or the way to it, says.
        certain: whether the request certainly did nothing, and never will.
    """

    text: str
    why: Why | None = None
    certain: bool = False
    next: Next = Next.ELSEWHERE

    def outcome(self) -> Refused | Unknown:
        """Return what the roles are told of a request that fails so."""
        if self.certain and self.why is not None:
            return Refused(self.why, self.text)
        return Unknown(self.why, self.text)


COMPACTED: Final = "etcdserver: mvcc: required revision has been compacted"
AUTH_IS_OFF: Final = "etcdserver: authentication is not enabled"
WRONG_PASSWORD: Final = "etcdserver: authentication failed, invalid user ID or password"

_ROWS: Final = {
    text: (why, certain, what_next)
    for why, certain, what_next, texts in (
        (Why.NO_SPACE, False, Next.NOTHING, ("etcdserver: mvcc: database space exceeded",)),
        (Why.TOO_LARGE, True, Next.NOTHING, ("etcdserver: request is too large",)),
        (
            Why.FORBIDDEN,
            True,
            Next.NOTHING,
            ("etcdserver: permission denied", "etcdserver: user name is empty", WRONG_PASSWORD, AUTH_IS_OFF),
        ),
        (
            Why.FORBIDDEN,
            True,
            Next.LOGIN,
            ("etcdserver: invalid auth token", "etcdserver: revision of auth store is old"),
        ),
        (
            Why.UNREACHABLE,
            True,
            Next.ELSEWHERE,
            (
                "etcdserver: no leader",
                "etcdserver: rpc not supported for learner",
                "etcdserver: too many requests",
            ),
        ),
    )
    for text in texts
}
# What etcd's own gRPC says of a message before it hands it to etcd; what ours would say of an answer begins otherwise.
_TOO_LONG: Final = "grpc: received message larger than max"

UNREACHABLE: Final = Failure("no node could be reached", Why.UNREACHABLE, certain=True)
NOT_IN_TIME: Final = Failure("no answer in time")


def failed(code: grpc.StatusCode, text: str) -> Failure:
    """Judge a call that ended with an error."""
    if text in _ROWS:
        why, certain, what_next = _ROWS[text]
        return Failure(text, why, certain, what_next)
    if text.startswith(_TOO_LONG):
        return Failure(text, Why.TOO_LARGE, certain=True, next=Next.NOTHING)
    return Failure(NOT_IN_TIME.text if code is grpc.StatusCode.DEADLINE_EXCEEDED else text or code.name)
