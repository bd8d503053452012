"""Feeds long inputs to a use of a key in parts, and begins anew where the worker that had the first parts is gone.

All parts of an input go through one channel, so that they come to one worker. Where a member or a worker fails on the
way (StreamLost), an input that can be read once more, as a file can, is fed again from its beginning.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import msgspec

from lnh.objects import encoding, streams
from lnh.objects.calls import ObjectCalls
from lnh_common import limits
from lnh_common.errors import DataLength, EncryptedDataInvalid, MechanismParameterInvalid, NotPossible, StreamLost
from lnh_common.files import sync_directory
from lnh_common.messages import objects as wire
from lnh_common.messages.base import Message
from lnh_common.messages.objects import StreamedUse
from lnh_common.pkcs11.mechanisms import MECHANISM_RULES, Mechanism
from lnh_common.pkcs11.parameters import AeadParameters, HashedParameters, IvParameters
from lnh_common.wire import codec

T = TypeVar("T")
Progress = Callable[[int, int], None]

_ATTEMPTS: Final = 3


@dataclass(frozen=True)
class Long:
    """An input that is fed in parts."""

    source: BinaryIO


def comes_in_parts(mechanism: Mechanism) -> bool:
    """Tell whether the HSM takes this mechanism's data in parts; what the SDK hashes by itself needs none."""
    rule = MECHANISM_RULES[mechanism]
    return rule.streams and not issubclass(rule.parameters, HashedParameters)


def check_parts(session: ObjectCalls, mechanism: Mechanism) -> None:
    """Raise DataLength for a mechanism that takes its data at once, NotPossible for a session that keeps no parts."""
    if not comes_in_parts(mechanism):
        raise DataLength(f"{mechanism.name} takes its data at once, up to {limits.REQUEST_BYTES} bytes")
    if not session.takes_parts:
        raise NotPossible("a partition keeps nothing between two parts of a file; up to 1 MiB goes at once")


def prepared(session: ObjectCalls, mechanism: Mechanism, data: Any) -> Any:
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
    if _is_seekable(data):
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


def feed(session: ObjectCalls, long: Long, fields: dict[str, Any], timeout: float | None) -> bytes:
    """Feed an input to a use that answers at its end alone, and return that."""

    def last(results: Iterator[wire.Result]) -> bytes:
        data = b""
        for result in results:
            data = result.data
        return data

    return _repeated(session, long.source, fields, last, timeout)


def fields_of(
    use: StreamedUse, handle: bytes, sealed: bytes, mechanism: Mechanism, parameters: Message | None
) -> dict[str, Any]:
    """Make what all parts of an input say; raises MechanismParameterInvalid."""
    packed = encoding.packed(mechanism, parameters) if parameters is not None else b""
    fields = {"use": use.value, "handle": handle, "mechanism": mechanism.value, "parameters": packed}
    return {**fields, "sealed": sealed} if sealed else fields


def encrypt_file(
    session: ObjectCalls, source: BinaryIO, target: Path, fields: dict[str, Any], iv: bytes, timeout: float | None
) -> None:
    """Encrypt a file: `target` gets `iv || ciphertext || tag` once all of it is there.

    Args:
        iv: the caller's own, or empty.
    """

    def write(file: BinaryIO, results: Iterator[wire.Result]) -> None:
        file.writelines(
            (result.iv or iv) + result.data if number == 0 else result.data for number, result in enumerate(results)
        )

    _replace(session, source, target, fields, write, timeout)


def decrypt_file(
    session: ObjectCalls, source: BinaryIO, target: Path, fields: dict[str, Any], timeout: float | None
) -> None:
    """Decrypt a file behind its IV: `target` is there once all of it is, and is verified where there is a tag."""

    def write(file: BinaryIO, results: Iterator[wire.Result]) -> None:
        file.writelines(result.data for result in results)

    _replace(session, source, target, fields, write, timeout)


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


def _replace(
    session: ObjectCalls,
    source: BinaryIO,
    target: Path,
    fields: dict[str, Any],
    write: Callable[[BinaryIO, Iterator[wire.Result]], None],
    timeout: float | None,
) -> None:
    """Write the results beside the target, and put them in its place when all of them are there."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:

            def anew(results: Iterator[wire.Result]) -> None:
                file.seek(0)
                file.truncate()
                write(file, results)

            _repeated(session, source, fields, anew, timeout)
            file.flush()
            os.fsync(file.fileno())  # who has it may delete what it was made of
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink()
        raise
    sync_directory(target.parent)


def _repeated(
    session: ObjectCalls,
    source: BinaryIO,
    fields: dict[str, Any],
    take: Callable[[Iterator[wire.Result]], T],
    timeout: float | None,
) -> T:
    begin = source.tell() if _is_seekable(source) else None
    left = _ATTEMPTS
    while True:
        left -= 1
        calls = ((wire.STREAM, part) for part in _parts(source, fields))
        results = (
            codec.convert(answered, wire.Result) for answered in session.call_each(calls, in_flight=1, timeout=timeout)
        )
        try:
            return take(_under_one_iv(results))
        except StreamLost:
            if begin is None or not left:
                raise
            source.seek(begin)


def _under_one_iv(results: Iterator[wire.Result]) -> Iterator[wire.Result]:
    """Yield the results of one worker; raises StreamLost for one under another IV.

    A first part that is sent to a second member, because the first did not answer in time, begins the input at both,
    each under an IV that it drew. The first's late answer may count, and the second take the parts that follow.
    """
    iv: bytes | None = None
    for result in results:
        if iv is not None and result.iv != iv:
            raise StreamLost("two workers began this input, and the second, which goes on with it, drew another IV")
        iv = result.iv
        yield result


def _parts(source: BinaryIO, fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
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


def _is_seekable(source: Any) -> bool:
    seekable = getattr(source, "seekable", None)
    return callable(seekable) and bool(seekable())
