"""Makes, finds and uses a partition's objects, as its CO at a member's local console.

The methods are those of a keyring's session.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final, Protocol, TypeVar

import msgspec

from lnh.arguments import checked
from lnh.objects.session import ObjectSession
from lnh_common.errors import LimitReached, NotPossible
from lnh_common.messages import objects as wire
from lnh_common.messages.base import Message, Operation
from lnh_common.messages.console import IN_PARTITION, PartitionView
from lnh_common.wire import codec

_BYTES: Final = (bytes,)

# Why a partition does not serve what a keyring does.
NOT_SERVED: Final[dict[str, str]] = {
    **dict.fromkeys(
        (
            wire.GENERATE_IN_SESSION.name,
            wire.GENERATE_PAIR_IN_SESSION.name,
            wire.CREATE_IN_SESSION.name,
            wire.UNWRAP_IN_SESSION.name,
            wire.DERIVE_IN_SESSION.name,
            wire.ENCAPSULATE_IN_SESSION.name,
            wire.DECAPSULATE_IN_SESSION.name,
        ),
        "no session stays open at the local console, in which an object could live",
    ),
    **dict.fromkeys(
        (wire.GENERATE_MANY.name, wire.GENERATE_PAIRS.name, wire.WRAP_MANY.name),
        "objects are made and wrapped one by one, each with its own record",
    ),
    wire.STREAM.name: "it keeps nothing between two parts of a file; up to 1 MiB goes at once",
    wire.USES.name: "operations come one by one, each with the CO's password",
    wire.RANDOM.name: "this machine's own random bytes are as good",
}

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


class PartitionConsole(Protocol):
    """The console that a partition's session goes through, as `lnh.console.Console` is."""

    def ask(self, operation: Operation[Q, R], message: Q, timeout: float | None = None) -> R:
        """Ask one operation of the console; raises what the hsm answers."""

    def partition(self, label: str) -> PartitionView:
        """Find the partition with this label; raises PartitionUnknown."""


@checked
class PartitionSession(ObjectSession):
    """A session of the CO of one partition; `Console.partition_session` makes it. One thread.

    The console checks the password at each operation, which takes an Argon2id: a moment.
    """

    takes_parts: ClassVar[bool] = False

    def __init__(self, console: PartitionConsole, partition: str, co_password: str) -> None:
        super().__init__()
        self.partition: Final = partition
        self._console: Final = console
        self._password: Final = co_password

    def __repr__(self) -> str:
        return f"PartitionSession({self.partition!r})"

    def call(
        self,
        operation: Operation[Any, Any],
        fields: dict[str, Any] | Message,
        timeout: float | None = None,
        *,
        current: bool = False,
    ) -> dict[str, Any]:
        """Ask one operation as this partition's CO; a listing of it is always current.

        Raises PartitionUnknown, PartitionDisabled, PasswordIncorrect, PasswordLocked, NotActivated and what the
        operation itself raises.
        """
        row = IN_PARTITION.get(operation.name)
        if row is None:
            why = NOT_SERVED.get(operation.name, "it has not been brought here")
            raise NotPossible(f"{operation.name}: a partition does not serve that, and a keyring does: {why}")
        given = {
            "partition": self.partition,
            "co_password": self._password,
            "request": msgspec.to_builtins(fields, builtin_types=_BYTES) if isinstance(fields, Message) else fields,
        }
        reply = self._console.ask(row, codec.convert(given, row.request), timeout)
        answered: dict[str, Any] = msgspec.to_builtins(reply, builtin_types=_BYTES)
        return answered

    def check_room(self, wanted: int) -> None:
        """Raise LimitReached when the partition has no room for so many more objects, or PartitionUnknown."""
        view = self._console.partition(self.partition)
        if view.objects + wanted > view.limit:
            raise LimitReached(
                f"{wanted} more objects: partition {self.partition} holds {view.objects}, and {view.limit} at most",
                {"advice": "make fewer, or delete what is not needed"},
            )

    def call_each(
        self,
        calls: Iterable[tuple[Operation[Any, Any], dict[str, Any]]],
        in_flight: int,
        timeout: float | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield the answers to many operations, in order, one after the other."""
        for operation, fields in calls:
            yield self.call(operation, fields, timeout)
