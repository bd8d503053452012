"""Many requests, or answers, in one frame: what clients, balancers and workers say to each other.

A message costs libzmq and Python the same whatever it carries, so what is ready at the same time travels together.
The format: docs/formats/balancer-worker.md.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from lnh_common import limits
from lnh_common.errors import MalformedMessage

TAG_BYTES: Final = 8
PING_TAG: Final = bytes(TAG_BYTES)
FORWARDED: Final = 1 << 63  # in a tag given to a worker: the request came from another member
VOUCHED: Final = b"\x01"  # the token of a worker's answer to one that has logged in; the balancer takes it off
ENTRIES: Final = 16  # more in one bundle would wait for each other longer than they save
ENTRIES_TAKEN: Final = 2 * ENTRIES  # of a sender of 0.2, which lays a ping on a full one; more are not looked at
# With these, one more entry of the largest size, and its header and token, still are a message a socket takes.
_BYTES: Final = limits.BODY_BYTES // 4
_SIZES: Final = struct.Struct(f">{TAG_BYTES}sHHI")


class Entry(NamedTuple):
    """One request or answer: the asker's tag of it, and its frames."""

    tag: bytes
    header: bytes
    token: bytes
    body: bytes


def is_forwarded(tag: bytes) -> bool:
    """Tell whether the request with this tag came from another member; only a member that is read-write serves it."""
    return tag[0] >= FORWARDED >> 8 * (TAG_BYTES - 1)


def refusal(tag: bytes) -> Entry:
    """Make the answer that declines a forwarded request: nothing was done, and another member must do it.

    It never reaches a client.
    """
    return Entry(tag, b"", b"", b"")


class Bundle:
    """Entries that wait to be sent together."""

    __slots__ = ("_bytes", "_parts")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, tag: bytes, header: bytes, token: bytes, body: bytes) -> bool:
        """Add an entry, and tell whether the bundle is full now."""
        self._parts += (_SIZES.pack(tag, len(header), len(token), len(body)), header, token, body)
        self._bytes += len(body)
        return len(self._parts) >= 4 * ENTRIES or self._bytes >= _BYTES

    def take(self) -> bytes:
        """Return the frame of all entries, and begin an empty bundle."""
        frame = b"".join(self._parts)
        self.clear()
        return frame

    def clear(self) -> None:
        """Drop every entry."""
        self._parts.clear()
        self._bytes = 0


def unpack(frames: list[bytes]) -> list[Entry]:
    """Decode the entries of a message that is one bundle; raises MalformedMessage."""
    if len(frames) != 1:
        raise MalformedMessage(f"{len(frames)} frames; a bundle is 1")
    frame = frames[0]
    entries: list[Entry] = []
    at, end = 0, len(frame)
    try:
        while at < end:
            if len(entries) == ENTRIES_TAKEN:
                raise MalformedMessage(f"more than {ENTRIES_TAKEN} entries in a bundle")
            tag, header, token, body = _SIZES.unpack_from(frame, at)
            at += _SIZES.size
            token += at + header
            body += token
            entries.append(Entry(tag, frame[at : at + header], frame[at + header : token], frame[token:body]))
            at = body
    except struct.error:
        at = end + 1
    if not entries:
        raise MalformedMessage("an empty bundle")
    if at != end:
        raise MalformedMessage("a bundle that ends within an entry")
    return entries
