"""Feeds what comes in a request to a use of a key, part by part, and keeps what comes of it until it may be sent.

An answer to a decryption may be sent only once its tag was checked, and who sends a request mostly reads no answer
meanwhile. So results are kept in a file that nobody else can open, under a key that only this process ever has.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lnh.aio import Session
from lnh_common import limits
from lnh_common.errors import DataLength, EncryptedDataInvalid, StorageFailed, StreamLost
from lnh_common.messages import objects as wire
from lnh_common.wire import codec

_TAG: Final = 16
_NONCE: Final = 12


async def pieces(parts: AsyncIterator[bytes], size: int) -> AsyncIterator[bytes]:
    """Cut what comes into pieces of this size; the last one may be shorter."""
    held = bytearray()
    async for part in parts:
        held += part
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


async def feed(session: Session, parts: AsyncIterator[bytes], fields: dict[str, Any]) -> AsyncIterator[wire.Result]:
    """Yield what each part of an input comes to, all of them under one worker.

    Args:
        fields: that all parts have, as `lnh.objects.streaming.fields_of` makes them.

    Raises StreamLost where the worker that had the first parts is gone: the input is to be sent again.
    """
    stream, offset, iv = os.urandom(16), 0, None
    async with session.connection.channel(session.timeout) as channel:
        async for data, last in _with_last(pieces(parts, limits.PART_BYTES)):
            given = fields if last else {name: value for name, value in fields.items() if name != "signature"}
            part = {**given, "stream": stream, "data": data, "offset": offset, "last": last}
            token, keys = await session.credentials()
            asked = channel.submit(wire.STREAM, part, session.timeout, route=session.route, token=token, seal=keys)
            try:
                result = codec.convert(await channel.wait(asked), wire.Result)
            finally:
                channel.abandon([asked])
            if iv not in (None, result.iv):
                raise StreamLost("two workers began this input, and the second drew another IV")
            iv = result.iv
            offset += len(data)
            yield result


async def _with_last(parts: AsyncIterator[bytes]) -> AsyncIterator[tuple[bytes, bool]]:
    """Tell of each part whether it is the last; an input without any has one that is empty."""
    held = b""
    async for part in parts:
        if held:
            yield held, False
        held = part
    yield held, True


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = tempfile.gettempdir()
        raise StorageFailed(
            f"the service cannot keep the result in {where}: {error.strerror}",
            {"advice": f"free space in {where}, or start the service with another TMPDIR"},
        ) from None


class Spool:
    """Keeps bytes in a nameless file, sealed under a key that is nowhere else, until they are read once.

    Each piece is sealed with its number as the nonce, so that a file that somebody changed is noticed.
    """

    def __init__(self) -> None:
        with _disk():
            self._file: Final = tempfile.TemporaryFile()  # noqa: SIM115  # `close` closes it
        self._seal: Final = AESGCM(AESGCM.generate_key(256))
        self._pieces: Final[list[int]] = []
        self.length = 0

    def write(self, data: bytes) -> None:
        """Add a piece; raises DataLength for more than one request may have, and StorageFailed."""
        self.length += len(data)
        if self.length > limits.REST_STREAM_BYTES:
            raise DataLength(f"more than {limits.REST_STREAM_BYTES} bytes", {"advice": "cut it into several"})
        if data:
            sealed = self._seal.encrypt(self._nonce(len(self._pieces)), data, None)
            with _disk():
                self._file.write(sealed)
            self._pieces.append(len(data))

    def finish(self) -> None:
        """Have all of it in the file; raises StorageFailed."""
        with _disk():
            self._file.flush()

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield all that was written, and close."""
        try:
            self._file.seek(0)
            for number, size in enumerate(self._pieces):
                yield self._seal.decrypt(self._nonce(number), self._file.read(size + _TAG), None)
        finally:
            self.close()

    def close(self) -> None:
        """Give the file up."""
        with suppress(OSError):  # what it still had to write
            self._file.close()

    @staticmethod
    def _nonce(number: int) -> bytes:
        return number.to_bytes(_NONCE, "big")


async def spooled(results: AsyncIterator[wire.Result], *, given: bytes = b"", with_iv: bool = False) -> Spool:
    """Keep what an input comes to; where the input or the use fails, nothing is kept.

    Args:
        given: the caller's own IV.
        with_iv: put the IV in front.
    """
    spool = Spool()
    try:
        begun = not with_iv
        async for result in results:
            spool.write(result.data if begun else (result.iv or given) + result.data)
            begun = True
        spool.finish()
    except BaseException:
        spool.close()
        raise
    return spool


async def split(parts: AsyncIterator[bytes], size: int) -> tuple[bytes, AsyncIterator[bytes]]:
    """Take so many bytes off the front of an input, and return them and the rest; raises EncryptedDataInvalid."""
    head = bytearray()
    async for part in parts:
        head += part
        if len(head) >= size:
            break
    if len(head) < size:
        raise EncryptedDataInvalid("the data does not decrypt")

    async def rest() -> AsyncIterator[bytes]:
        yield bytes(head[size:])
        async for part in parts:
            yield part

    return bytes(head[:size]), rest()
