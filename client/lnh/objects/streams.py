"""Reads and writes streams to their end: a pipe, a socket or a raw file takes and gives less than it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Final

from lnh_common.errors import ArgumentInvalid

_CHUNK: Final = 1 << 20


def read(stream: BinaryIO, most: int) -> bytes:
    """Read until there is no more, or `most` bytes; raises ArgumentInvalid as `chunks` does."""
    found = bytearray()
    while len(found) < most and (piece := _piece(stream, most - len(found))):
        found += piece
    return bytes(found)


def chunks(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the rest of a stream, piece by piece.

    Raises ArgumentInvalid for a stream of text, and for one that has nothing yet and does not wait.
    """
    while piece := _piece(stream, _CHUNK):
        yield piece


def write(stream: BinaryIO, data: bytes) -> None:
    """Write all of the data, and have it leave this process."""
    left = memoryview(data)
    while left:
        written = stream.write(left)
        if written is None:
            raise BlockingIOError(
                f"{len(left)} bytes could not be written: the stream takes no more, and does not wait"
            )
        left = left[written:]
    stream.flush()


def _piece(stream: BinaryIO, most: int) -> bytes:
    piece: object = stream.read(most)
    if isinstance(piece, bytes):
        return piece
    if piece is None:
        raise ArgumentInvalid("the stream has nothing yet, and does not wait; give one that does")
    if isinstance(piece, bytearray | memoryview):
        return bytes(piece)
    raise ArgumentInvalid(f"the stream gives {type(piece).__name__}; open it in binary mode (rb)")
