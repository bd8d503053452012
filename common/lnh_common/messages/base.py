"""What every message type and every operation is made of."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec
from typing_extensions import dataclass_transform


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The fields of a request or reply: a CBOR map on the wire. An unknown field is refused."""


class Confidential(Message):
    """A message with a secret in it: its `repr` shows nothing."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(redacted)"


class Empty(Message):
    """No fields."""


Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


class Seal(enum.Enum):
    """How the body of an operation is protected."""

    NONE = "none"  # between the services of one member, and `hello`
    CREDENTIAL = "credential"  # HPKE to the channel key: whatever uses a credential
    SESSION = "session"  # under the secret of the token that goes with it


class Effect(enum.Enum):
    """What an operation does, which decides how it is retried."""

    READ = "read"  # may be repeated anywhere, also on a read-only member
    WRITE = "write"  # repeated only with the same (connection, sequence)


@dataclass(frozen=True)
class Operation(Generic[Q, R]):
    """One row of the operation table."""

    name: str
    request: type[Q]
    reply: type[R]
    seal: Seal = Seal.NONE
    effect: Effect = Effect.READ


OPERATIONS: Final[dict[str, Operation[Message, Message]]] = {}


def operation(
    name: str, request: type[Q], reply: type[R], seal: Seal = Seal.NONE, effect: Effect = Effect.READ
) -> Operation[Q, R]:
    """Enter an operation into the table; raises AssertionError when the name is taken."""
    assert name not in OPERATIONS, f"operation {name} is defined twice"
    row = Operation(name, request, reply, seal, effect)
    OPERATIONS[name] = row  # type: ignore[assignment]  # the table forgets which types belong together
    return row
