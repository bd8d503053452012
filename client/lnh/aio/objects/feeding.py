# Made of client/lnh/objects/feeding.py by `python tests/surface.py`: change that file, and run it.
"""Feeds long inputs to a use of a key in parts, and begins anew where the worker that had the first parts is gone.

All parts of an input go through one channel, so that they come to one worker. Where a member or a worker fails on the
way (StreamLost), an input that can be read once more, as a file can, is fed again from its beginning. Files are
read and written in the loop, a part at a time.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

from lnh.aio.objects.calls import ObjectCalls
from lnh.objects import streaming
from lnh.objects.streaming import Long
from lnh_common.errors import StreamLost
from lnh_common.files import sync_directory
from lnh_common.messages import objects as wire
from lnh_common.wire import codec

T = TypeVar("T")

_ATTEMPTS: Final = 3


async def feed(session: ObjectCalls, long: Long, fields: dict[str, Any], timeout: float | None) -> bytes:
    """Feed an input to a use that answers at its end alone, and return that."""

    async def last(results: AsyncIterator[wire.Result]) -> bytes:
        data = b""
        async for result in results:
            data = result.data
        return data

    return await _repeated(session, long.source, fields, last, timeout)


async def encrypt_file(
    session: ObjectCalls, source: BinaryIO, target: Path, fields: dict[str, Any], iv: bytes, timeout: float | None
) -> None:
    """Encrypt a file: `target` gets `iv || ciphertext || tag` once all of it is there.

    Args:
        iv: the caller's own, or empty.
    """

    async def write(file: BinaryIO, results: AsyncIterator[wire.Result]) -> None:
        begun = False
        async for result in results:
            file.write(result.data if begun else (result.iv or iv) + result.data)
            begun = True

    await _replace(session, source, target, fields, write, timeout)


async def decrypt_file(
    session: ObjectCalls, source: BinaryIO, target: Path, fields: dict[str, Any], timeout: float | None
) -> None:
    """Decrypt a file behind its IV: `target` is there once all of it is, and is verified where there is a tag."""

    async def write(file: BinaryIO, results: AsyncIterator[wire.Result]) -> None:
        async for result in results:
            file.write(result.data)

    await _replace(session, source, target, fields, write, timeout)


async def _replace(
    session: ObjectCalls,
    source: BinaryIO,
    target: Path,
    fields: dict[str, Any],
    write: Callable[[BinaryIO, AsyncIterator[wire.Result]], Awaitable[None]],
    timeout: float | None,
) -> None:
    """Write the results beside the target, and put them in its place when all of them are there."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:

            async def anew(results: AsyncIterator[wire.Result]) -> None:
                file.seek(0)
                file.truncate()
                await write(file, results)

            await _repeated(session, source, fields, anew, timeout)
            file.flush()
            os.fsync(file.fileno())  # who has it may delete what it was made of
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink()
        raise
    sync_directory(target.parent)


async def _repeated(
    session: ObjectCalls,
    source: BinaryIO,
    fields: dict[str, Any],
    take: Callable[[AsyncIterator[wire.Result]], Awaitable[T]],
    timeout: float | None,
) -> T:
    begin = source.tell() if streaming.is_seekable(source) else None
    left = _ATTEMPTS
    while True:
        left -= 1
        calls = ((wire.STREAM, part) for part in streaming.parts(source, fields))
        results = (
            codec.convert(answered, wire.Result)
            async for answered in session.call_each(calls, in_flight=1, timeout=timeout)
        )
        try:
            return await take(_under_one_iv(results))
        except StreamLost:
            if begin is None or not left:
                raise
            source.seek(begin)


async def _under_one_iv(results: AsyncIterator[wire.Result]) -> AsyncIterator[wire.Result]:
    """Yield the results of one worker; raises StreamLost for one under another IV.

    A first part that is sent to a second member, because the first did not answer in time, begins the input at both,
    each under an IV that it drew. The first's late answer may count, and the second take the parts that follow.
    """
    iv: bytes | None = None
    async for result in results:
        if iv is not None and result.iv != iv:
            raise StreamLost("two workers began this input, and the second, which goes on with it, drew another IV")
        iv = result.iv
        yield result
