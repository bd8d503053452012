"""Cuts long inputs, in memory or open files, into the parts that `feeding` feeds to a use of a key."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

import msgspec

from lnh.objects import encoding, streams
from lnh_common import limits
from lnh_common.errors import DataLength, EncryptedDataInvalid, MechanismParameterInvalid, NotPossible
from lnh_common.messages.base import Message
from lnh_common.messages.objects import StreamedUse
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism
from lnh_common.pkcs11.parameters import AeadParameters, HashedParameters, IvParameters

Progress = Callable[[int, int], None]


class TakesParts(Protocol):
    """A session, as to whether a worker keeps what came before."""

    takes_parts: ClassVar[bool]


@dataclass(frozen=True)
class Long:
    """An input that is fed in parts."""

    source: BinaryIO


def comes_in_parts(mechanism: Mechanism) -> bool:
    """Tell whether the HSM takes this mechanism's data in parts; what the SDK hashes by itself needs none."""
    rule = MECHANISM_RULES[mechanism]
    return rule.streams and not issubclass(rule.parameters, HashedParameters)


def check_parts(session: TakesParts, mechanism: Mechanism) -> None:
    """Raise DataLength for a mechanism that takes its data at once, NotPossible for a session that keeps no parts."""
    if not comes_in_parts(mechanism):
        raise DataLength(f"{mechanism.name} takes its data at once, up to {limits.REQUEST_BYTES} bytes")
    if not session.takes_parts:
        raise NotPossible("a partition keeps nothing between two parts of a file; up to 1 MiB goes at once")


def prepared(session: TakesParts, mechanism: Mechanism, data: Any) -> Any:
    """Return data as it goes into one request, or as a `Long` where it is too long for that and can be fed in parts."""
    if not (session.takes_parts and comes_in_parts(mechanism)):
        return data
    if isinstance(data, bytes | bytearray | memoryview):
        return Long(io.BytesIO(data)) if len(data) > limits.REQUEST_BYTES else data
    if not callable(getattr(data, "read", None)):
        return data
    head = streams.read(data, limits.REQUEST_BYTES + 1)
    if len(head) <= limits.REQUEST_BYTES:
        return head
    if is_seekable(data):
        data.seek(-len(head), os.SEEK_CUR)
        return Long(data)
    return Long(io.BufferedReader(_Rejoined(head, data)))


class _Rejoined(io.RawIOBase):
    """A stream of which the first bytes were read already."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = memoryview(head)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = bytes(self._head[: len(buffer)])
        self._head = self._head[len(piece) :]
        piece = piece or streams.read(self._rest, len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


class Counted(io.BufferedReader):
    """An open file that tells how much of it was read."""

    def __init__(self, path: Path, progress: Progress) -> None:
        super().__init__(io.FileIO(path))
        self._progress = progress
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read, and tell."""
        data = super().read(size)
        self._progress(self.tell(), self._size)
        return data


@contextmanager
def opened(path: Path | str, progress: Progress | None) -> Iterator[BinaryIO]:
    """Open a file to read; `progress` is told how much was read, and of how much."""
    with Counted(Path(path), progress) if progress is not None else Path(path).open("rb") as file:
        yield file


def fields_of(
    use: StreamedUse, handle: bytes, sealed: bytes, mechanism: Mechanism, parameters: Message | None
) -> dict[str, Any]:
    """Make what all parts of an input say; raises MechanismParameterInvalid."""
    packed = encoding.packed(mechanism, parameters) if parameters is not None else b""
    fields = {"use": use.value, "handle": handle, "mechanism": mechanism.value, "parameters": packed}
    return {**fields, "sealed": sealed} if sealed else fields


def take_iv(mechanism: Mechanism, parameters: Message | None, source: BinaryIO) -> Message | None:
    """Read the IV in front of a ciphertext into the parameters, unless they have one.

    Raises EncryptedDataInvalid for an input too short to have one.
    """
    rule = MECHANISM_RULES[mechanism]
    if not rule.iv_bytes or encoding.given_iv(parameters):
        return parameters
    iv = streams.read(source, rule.iv_bytes)
    if len(iv) < rule.iv_bytes:
        raise EncryptedDataInvalid("the data does not decrypt")
    given = parameters if parameters is not None else rule.parameters()
    if not isinstance(given, IvParameters | AeadParameters):
        raise MechanismParameterInvalid(f"{type(given).__name__}: {mechanism.name} takes {rule.parameters.__name__}")
    return msgspec.structs.replace(given, iv=iv)


def parts(source: BinaryIO, fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Cut an input into parts; the last one is known by the end behind it, so one part is read ahead."""
    stream, offset = os.urandom(16), 0
    part = streams.read(source, limits.PART_BYTES)
    while True:
        following = streams.read(source, limits.PART_BYTES) if len(part) == limits.PART_BYTES else b""
        last = not following
        given = fields if last else {name: value for name, value in fields.items() if name != "signature"}
        yield {**given, "stream": stream, "data": part, "offset": offset, "last": last}
        if last:
            return
        offset += len(part)
        part = following


def is_seekable(source: Any) -> bool:
    """Tell whether an input can be read once more."""
    seekable = getattr(source, "seekable", None)
    return callable(seekable) and bool(seekable())
