"""Defines the replicated log's entries: their content, their hash, and the check of a chain of them.

Everything replicated is an entry. Each carries the hash of the one before it, so two logs that agree on an entry agree
on everything before it, and a changed, missing or moved entry is noticed on start. docs/formats/store.md has the
encoding.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from typing import Final, NamedTuple, NewType

import msgspec

from lnh_common import limits
from lnh_common.errors import MalformedMessage, SealBroken
from lnh_common.messages.store import Commit, MemberInfo, Sweep
from lnh_common.wire import codec

MemberId = NewType("MemberId", bytes)
ClusterId = NewType("ClusterId", bytes)
Milliseconds = NewType("Milliseconds", int)  # UTC, since 1970

FORMAT: Final = 1
PAYLOAD_BYTES: Final = 2 * limits.BODY_BYTES


class Epoch(NamedTuple):
    """An epoch, named by term and candidate: ordered as a pair, never used twice. `(0, b"")` is before the first."""

    term: int
    candidate: MemberId

    def following(self, candidate: MemberId) -> Epoch:
        """Return the next epoch, if `candidate` opens it."""
        return Epoch(self.term + 1, candidate)

    def __str__(self) -> str:
        return f"{self.term}.{self.candidate.hex()[:8]}"


NO_EPOCH: Final = Epoch(0, MemberId(b""))


class Open(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="open"):
    """The first entry of an epoch, whose candidate is primary from here on.

    Args:
        members: all of them, in place of whatever the log said before.
        in_sync: the members that a commit waits for.
        awaits: members without whose word the epoch may not serve, also not after a restart of its candidate (a
            take-over's survivors, the old primary of a promotion); empty where silence is no obstacle.
    """

    members: tuple[MemberInfo, ...]
    in_sync: tuple[MemberId, ...]
    awaits: tuple[MemberId, ...] = ()


class SetChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="set"):
    """An entry that changes the in-sync set: from here on a commit waits for exactly these members."""

    in_sync: tuple[MemberId, ...]


class Members(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="members"):
    """An entry that changes the members (one joined, was removed, or was changed) or the affinity groups.

    Args:
        groups: all of them; empty where they stay as they were.
        request: names the request for it, so that it acts once; empty where no request needs that.
    """

    members: tuple[MemberInfo, ...]
    groups: tuple[str, ...] = ()
    request: bytes = b""


class LeaseSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="terms"):
    """An entry that changes what leases are granted for, once it is committed.

    Args:
        lease_ms: L, milliseconds.
        alone_ms: after so long without hearing any other member a primary of several takes no writes; 0: never.
    """

    lease_ms: int = limits.LEASE_MS
    alone_ms: int = 0


class Write(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="write"):
    """A request of a client, applied once it is committed."""

    commit: Commit


Payload = Open | SetChange | Members | LeaseSettings | Write


def _decode(payload: bytes) -> Payload:
    decoded: Payload = codec.decode_as(payload, Payload, PAYLOAD_BYTES)  # type: ignore[arg-type]
    return decoded


_SMALL: Final = 8192  # bytes; what is larger is decoded each time rather than kept
_AN_ITEM: Final = 512  # bytes, of a payload
_KEPT: Final = 512  # contents; an entry is looked at when it is appended, and again when it is applied


class _Contents:
    """Keeps the decoded content of the newest small payloads, for any thread."""

    def __init__(self) -> None:
        self._kept: Final[dict[bytes, Payload]] = {}
        self._changes: Final = threading.Lock()

    def of(self, packed: bytes) -> Payload:
        found = self._kept.get(packed)
        if found is None:
            found = _decode(packed)
            self.keep(packed, found)
        return found

    def keep(self, packed: bytes, content: Payload) -> None:
        if len(packed) > _SMALL:
            return
        with self._changes:
            if len(self._kept) >= _KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[packed] = content


_contents: Final = _Contents()


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry; `payload` is the encoded Payload, `previous` and `hash` are SHA-256."""

    epoch: Epoch
    index: int
    log_time: Milliseconds
    previous: bytes
    payload: bytes
    hash: bytes

    def content(self) -> Payload:
        """Decode the payload; raises SealBroken, because no member appends one that does not decode."""
        try:
            return _contents.of(self.payload)
        except MalformedMessage as error:
            raise SealBroken(f"log entry {self.index} does not decode: {error}") from error

    def weight(self) -> int:
        """Estimate how many items change when this is applied."""
        if len(self.payload) > _SMALL:
            return len(self.payload) // _AN_ITEM
        content = self.content()
        if not isinstance(content, Write):
            return 1
        return sum(change.limit if type(change) is Sweep else 1 for change in content.commit.changes)

    def position(self) -> Position:
        """Return the position of this entry."""
        return Position(self.epoch, self.index, self.hash)


class Position(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The name of an entry and, through its hash, of all before it."""

    epoch: Epoch
    index: int
    hash: bytes

    @property
    def rank(self) -> tuple[Epoch, int]:
        """Return what decides which of two logs goes on."""
        return self.epoch, self.index


def genesis(cluster: ClusterId) -> Position:
    """Make the position that the first entry of a cluster follows, so that no log is taken for another cluster's."""
    return Position(NO_EPOCH, 0, hashlib.sha256(b"lnh store log\x00" + cluster).digest())


def entry_hash(epoch: Epoch, index: int, log_time: Milliseconds, previous: bytes, payload: bytes) -> bytes:
    """Hash (SHA-256) the canonical CBOR of every other field."""
    fields = [FORMAT, epoch.term, epoch.candidate, index, log_time, previous, payload]
    return hashlib.sha256(codec.encode(fields)).digest()


def make_entry(previous: Position, epoch: Epoch, log_time: Milliseconds, payload: Payload) -> Entry:
    """Make the entry that follows `previous`."""
    packed = codec.encode(payload)
    _contents.keep(packed, payload)
    index = previous.index + 1
    return Entry(
        epoch, index, log_time, previous.hash, packed, entry_hash(epoch, index, log_time, previous.hash, packed)
    )


def check_chain(before: Position, entries: Iterable[Entry]) -> Position:
    """Check that the entries follow `before` and one another; returns the last position.

    Raises SealBroken naming the first entry that does not fit.
    """
    last, last_time = before, Milliseconds(0)
    for entry in entries:
        expected = entry_hash(entry.epoch, entry.index, entry.log_time, entry.previous, entry.payload)
        if entry.index != last.index + 1:
            raise SealBroken(f"log entry {last.index + 1} is missing; {entry.index} follows {last.index}")
        if entry.previous != last.hash or entry.hash != expected:
            raise SealBroken(f"log entry {entry.index} was changed: its hash does not fit")
        if entry.epoch < last.epoch or entry.log_time < last_time:
            raise SealBroken(f"log entry {entry.index} goes back in epoch or time")
        last, last_time = entry.position(), entry.log_time
    return last
