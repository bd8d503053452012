# Made of client/lnh/objects/calls.py by `python tests/surface.py`: change that file, and run it.
"""The calls through which a stored object acts: those of the session that it was made or found in.

They stand apart from what makes and finds objects, so that an object needs to know nothing of that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from typing import Any, ClassVar, TypeVar

from lnh.arguments import check_message, checked
from lnh_common.messages.base import Message, Operation
from lnh_common.messages.objects import ObjectView
from lnh_common.wire import codec

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


@checked
class ObjectCalls(ABC):
    """The calls that an object acts through.

    Attributes:
        takes_parts: whether a worker keeps what came before, so that a long input is fed in parts.
    """

    takes_parts: ClassVar[bool] = True

    @abstractmethod
    async def call(
        self,
        operation: Operation[Any, Any],
        fields: dict[str, Any] | Message,
        timeout: float | None = None,
        *,
        current: bool = False,
    ) -> dict[str, Any]:
        """Ask one operation, and return the fields of its reply.

        Args:
            current: of a listing: demand it from a member that is in step.
        """

    @abstractmethod
    def call_each(
        self,
        calls: Iterable[tuple[Operation[Any, Any], dict[str, Any]]],
        in_flight: int,
        timeout: float | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the answers to many independent operations, in order."""

    @abstractmethod
    def forget(self, handle: bytes) -> None:
        """Drop an object that lives in this session; raises ObjectUnknown."""

    @abstractmethod
    def adopt(self, view: ObjectView) -> object:
        """Make the object of a view, and keep it if it lives in this session."""

    async def ask(
        self, operation: Operation[Q, R], message: Q, timeout: float | None = None, *, current: bool = False
    ) -> R:
        """Ask one operation with its own types; raises ArgumentInvalid for a message that is not of them."""
        check_message(message, operation.request)
        return codec.convert(await self.call(operation, message, timeout, current=current), operation.reply)
