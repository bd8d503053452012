"""Defines what a cluster keeps in etcd: its keys, what they hold, and which moment of its history that is. Pure.

    <cluster>/at/lead      who is primary: term, member, incarnation. Its value, never used twice, is the fence
    <cluster>/at/beat      renewed by the primary; a member that saw it unchanged for long enough may take the lead
    <cluster>/at/head      the position of the newest entry: its hash names, through the chain, all before it
    <cluster>/at/failover  whether members take the lead only when an administrator says so; no such key: they do not
    <cluster>/log/<index>  a batch of entries, under the index of its last one

So the keys from `log/<k>` on hold what follows entry k - 1, and the keys up to `log/<k>` nothing after entry k. A
comparison of values, and not of revisions, still means the same when etcd was restored from a backup, where revisions
are given out again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from lnh_common.wire import codec
from lnh_services.store.etcd.requests import Range
from lnh_services.store.log.entries import PAYLOAD_BYTES, ClusterId, Entry, Epoch, MemberId, Position

AUTHORITY: Final = 3.0  # seconds for which a primary acts after it sent the beat that etcd took
BEAT: Final = 0.5  # ... which it renews so often: an election of etcd's (1.7 s) costs nobody the authority
BATCH_ENTRIES: Final = 512
BATCH_BYTES: Final = 1_000_000  # of payloads, in one transaction; one entry alone may be larger
BATCHES_READ: Final = 8  # at once
_ENCODED: Final = 2 * PAYLOAD_BYTES


class Lead(msgspec.Struct, frozen=True, array_like=True):
    """The primary, and the start of its store."""

    term: int
    member: MemberId
    incarnation: bytes

    @property
    def epoch(self) -> Epoch:
        """The epoch of the entries that this primary orders."""
        return Epoch(self.term, self.member)


class Failover(msgspec.Struct, frozen=True, array_like=True):
    """How a lost primary is succeeded; `number` makes each value one that never was before."""

    manual: bool
    number: int


class Batch(msgspec.Struct, frozen=True, array_like=True):
    """Entries that were ordered at one moment."""

    entries: tuple[Entry, ...]


class Keys:
    """The keys of one cluster."""

    def __init__(self, cluster: ClusterId) -> None:
        self._cluster: Final = cluster.hex().encode()
        self.lead: Final = self._cluster + b"/at/lead"
        self.beat: Final = self._cluster + b"/at/beat"
        self.head: Final = self._cluster + b"/at/head"
        self.failover: Final = self._cluster + b"/at/failover"
        self.place: Final = Range(self._cluster + b"/at/", self._cluster + b"/at0")

    def log(self, index: int) -> bytes:
        """Return the key of the batch that ends with an entry."""
        return b"%s/log/%016x" % (self._cluster, index)

    def batches(self, after: int, until: int) -> Range:
        """Return the keys whose batches hold what follows entry `after`, up to those that end with `until`."""
        return Range(self.log(after + 1), self.log(until + 1), BATCHES_READ)

    def batches_within(self, until: int) -> Range:
        """Return the keys of all batches that hold nothing after entry `until`."""
        return Range(self.log(0), self.log(until + 1))


class Place(msgspec.Struct, frozen=True):
    """What stands in etcd at one revision, as it is encoded there; None: no such key."""

    lead: bytes | None = None
    beat: bytes | None = None
    head: bytes | None = None
    failover: bytes | None = None

    @classmethod
    def of(cls, keys: Keys, found: Iterable[tuple[bytes, bytes]]) -> Place:
        """Take what was read of `keys.place`."""
        values = dict(found)
        return cls(*(values.get(key) for key in (keys.lead, keys.beat, keys.head, keys.failover)))

    def leads(self) -> Lead:
        """Decode who is primary; raises MalformedMessage, also where nobody ever was."""
        return codec.decode_as(self.lead or b"", Lead)

    def ends(self) -> Position:
        """Decode the position of the newest entry; raises MalformedMessage, also where there is none."""
        return codec.decode_as(self.head or b"", Position)

    def is_manual(self) -> bool:
        """Tell whether an administrator must order that the lead is taken; raises MalformedMessage."""
        return self.failover is not None and codec.decode_as(self.failover, Failover).manual


def pack(entries: tuple[Entry, ...]) -> bytes:
    """Encode a batch."""
    return codec.encode(Batch(entries))


def unpack(value: bytes) -> tuple[Entry, ...]:
    """Decode a batch; raises MalformedMessage."""
    return codec.decode_as(value, Batch, _ENCODED).entries
