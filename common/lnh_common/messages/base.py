"""The parts of every message type and every operation."""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec
from typing_extensions import dataclass_transform

from lnh_common.errors import LnhError, MemberBehind
from lnh_common.versions import FIRST


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The fields of a request or reply: a CBOR map on the wire. An unknown field is refused."""


class Confidential(Message):
    """A message with a secret in it: its `repr` shows nothing."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(redacted)"


class Empty(Message):
    """A request or reply without fields."""


class Behind(Message):
    """The distance by which a member may be behind its cluster.

    Args:
        whole_until: UTC ms: the member knows all that was acknowledged by then; 0 where it cannot tell.
        behind_ms: for how long it has not been in step, as far as it knows.
    """

    whole_until: int
    behind_ms: int

    @classmethod
    def of(cls, error: MemberBehind) -> Behind:
        """Read how far a member is behind from its refusal."""
        return cls(whole_until=error.detail.get("whole_until", 0), behind_ms=error.detail.get("behind_ms", 0))

    def since(self) -> str:
        """Tell the moment to people; empty where it is not known."""
        return _moment(self.whole_until) if self.whole_until else ""

    def refusal(self, doubted: LnhError | None = None) -> MemberBehind:
        """Make the error that is answered instead of something that may be wrong.

        Args:
            doubted: the error that would be answered; None in place of a list.
        """
        since = f" since {self.since()}" if self.whole_until else ""
        what = f"so this may be wrong: {doubted}" if doubted is not None else "so what it lists may not be all"
        detail: dict[str, Any] = {"whole_until": self.whole_until, "behind_ms": self.behind_ms}
        if doubted is not None:
            detail["doubted"] = doubted.code
        return MemberBehind(f"this member has not been in step with its cluster{since}, {what}", detail)


class Skipped(Message):
    """Name what a listing left out, since this member's store serves it wrongly: its id or handle, and why."""

    id: bytes
    why: str


class Listing(Message, omit_defaults=True):
    """Base of the replies that list, count, or show that something is not set.

    Args:
        behind: how far the member was behind, so that there may be more, or less, than it says; None where it was in
            step.
        skipped: what is there and does not open at this member.
    """

    behind: Behind | None = None
    skipped: tuple[Skipped, ...] = ()

    def is_bare(self) -> bool:
        """Tell whether the reply says that there is nothing, which a member that is behind cannot know."""
        return False


def _moment(utc_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(utc_ms // 1000))


Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)
R_co = TypeVar("R_co", bound=Message, covariant=True)


class Seal(enum.Enum):
    """The protection of an operation's body."""

    NONE = "none"  # between the services of one member, and `hello`
    CREDENTIAL = "credential"  # HPKE to the channel key: whatever uses a credential
    SESSION = "session"  # under the secret of the token that goes with it


class Effect(enum.Enum):
    """The effect of an operation, which decides how it is retried."""

    READ = "read"  # may be repeated anywhere, also on a read-only member
    WRITE = "write"  # repeated only with the same (connection, sequence)


@dataclass(frozen=True)
class Operation(Generic[Q, R_co]):
    """One row of the operation table.

    Args:
        since: the version that a cluster has to have (`lnh_common.versions`): a member of the version before could not
            read what the operation stores or orders.
    """

    name: str
    request: type[Q]
    reply: type[R_co]
    seal: Seal = Seal.NONE
    effect: Effect = Effect.READ
    since: str = FIRST


OPERATIONS: Final[dict[str, Operation[Message, Message]]] = {}


def operation(
    name: str,
    request: type[Q],
    reply: type[R],
    seal: Seal = Seal.NONE,
    effect: Effect = Effect.READ,
    since: str = FIRST,
) -> Operation[Q, R]:
    """Enter an operation into the table; raises AssertionError when the name is taken."""
    assert name not in OPERATIONS, f"operation {name} is defined twice"
    row = Operation(name, request, reply, seal, effect, since)
    OPERATIONS[name] = row  # type: ignore[assignment]  # the table forgets which types belong together
    return row
