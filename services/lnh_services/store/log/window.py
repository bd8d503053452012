"""Holds the part of the log that a store keeps, and what it says about the cluster at each point. Pure.

    base | base+1 ... committed ... durable ... last

Entries before `base` were applied and dropped; the configuration at it is kept with it (`Configuration`). Memory and
disk keep the same entries, so one rule (`surplus`) bounds both.

Where two logs part is found with an `outline`: some positions of one log, close together at its end and ever wider
apart before, looked up in the other. Logs that agree on a position agree on everything before it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import msgspec

from lnh_common import limits
from lnh_common.messages.store import MemberInfo
from lnh_services.store.log.entries import (
    Entry,
    Epoch,
    LeaseSettings,
    MemberId,
    Members,
    Milliseconds,
    Open,
    Position,
    SetChange,
    Write,
)


class Removed(msgspec.Struct, frozen=True, array_like=True):
    """A member that was removed, and the entry that removed it; `info` is how it was listed, so that it can be told."""

    member: MemberId
    epoch: Epoch
    index: int
    info: MemberInfo | None = None


REMOVED_KEPT = 64
REQUESTS_KEPT = 64


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """The state of the cluster that the log says at one of its entries.

    Args:
        members: all of them.
        in_sync: the members that a commit waits for.
        awaits: of the last `open`.
        opened: the index of the last `open`; its epoch is the entry's.
        joining: members that were never in a set, and the index of the entry that listed them.
        removed: the last ones removed, oldest first.
        lease_settings: what leases are granted for.
        longest_ms: the longest lease that any entry up to here allowed.
        groups: the affinity groups, sorted; that of each member is among them.
        requests: which changes of groups were made last, oldest first, so that none is made twice.
    """

    members: tuple[MemberInfo, ...] = ()
    in_sync: tuple[MemberId, ...] = ()
    awaits: tuple[MemberId, ...] = ()
    opened: int = 0
    candidate: MemberId = MemberId(b"")
    joining: tuple[tuple[MemberId, int], ...] = ()
    removed: tuple[Removed, ...] = ()
    lease_settings: LeaseSettings = LeaseSettings()
    longest_ms: int = limits.LEASE_MS
    groups: tuple[str, ...] = (limits.LOCAL_GROUP,)
    requests: tuple[bytes, ...] = ()

    @property
    def ids(self) -> tuple[MemberId, ...]:
        """The ids of all members."""
        return tuple(MemberId(member.id) for member in self.members)

    def after(self, entry: Entry) -> Configuration:
        """Return the configuration once `entry` is in the log; the same object where it changes nothing."""
        content = entry.content()
        if type(content) is Write:
            return self
        if isinstance(content, Open):
            told = self._listing(content.members, entry)._syncing(content.in_sync)
            return msgspec.structs.replace(
                told, awaits=content.awaits, opened=entry.index, candidate=entry.epoch.candidate
            )
        if isinstance(content, SetChange):
            return self._syncing(content.in_sync)
        if isinstance(content, Members):
            return self._listing(content.members, entry)._grouping(content)
        if isinstance(content, LeaseSettings):
            longest = max(self.longest_ms, content.lease_ms)
            return msgspec.structs.replace(self, lease_settings=content, longest_ms=longest)
        return self

    def _listing(self, members: tuple[MemberInfo, ...], entry: Entry) -> Configuration:
        now = {MemberId(member.id) for member in members}
        before = set(self.ids)
        gone = [
            Removed(MemberId(info.id), entry.epoch, entry.index, info) for info in self.members if info.id not in now
        ]
        came = [(id_, entry.index) for id_ in sorted(now - before)]
        return msgspec.structs.replace(
            self,
            members=members,
            groups=tuple(sorted({*self.groups, *(member.group for member in members)})),
            joining=(*(each for each in self.joining if each[0] in now), *came),
            removed=(*self.removed, *gone)[-REMOVED_KEPT:],
        )

    def _grouping(self, content: Members) -> Configuration:
        groups = tuple(sorted({*content.groups, *(member.group for member in self.members)}))
        is_new = content.request and content.request not in self.requests
        requests = (*self.requests, content.request)[-REQUESTS_KEPT:]
        return msgspec.structs.replace(
            self,
            groups=groups if content.groups else self.groups,
            requests=requests if is_new else self.requests,
        )

    def _syncing(self, in_sync: tuple[MemberId, ...]) -> Configuration:
        joining = tuple(each for each in self.joining if each[0] not in in_sync)
        return msgspec.structs.replace(self, in_sync=in_sync, joining=joining)


class Base(msgspec.Struct, frozen=True, array_like=True):
    """The point that the kept log follows."""

    position: Position
    log_time: Milliseconds
    configuration: Configuration


class History:
    """The kept log. Entries are handed in checked: they follow one another."""

    def __init__(self, base: Base, entries: Iterable[Entry] = ()) -> None:
        self.base = base
        self.entries: list[Entry] = []
        self.size = 0
        self._turns: list[tuple[int, Configuration]] = [(base.position.index, base.configuration)]
        self.extend(entries)

    @property
    def last(self) -> Position:
        """The position of the log's end."""
        return self.entries[-1].position() if self.entries else self.base.position

    @property
    def last_time(self) -> Milliseconds:
        """The log time of the log's end."""
        return self.entries[-1].log_time if self.entries else self.base.log_time

    @property
    def first_index(self) -> int:
        """The index of the first entry that is kept, or would be."""
        return self.base.position.index + 1

    def entry(self, index: int) -> Entry:
        """Return the entry at an index, which must be kept."""
        return self.entries[index - self.first_index]

    def time_of(self, index: int) -> Milliseconds:
        """Return the log time of the entry at `index`, which is the base or kept."""
        return self.base.log_time if index == self.base.position.index else self.entry(index).log_time

    def position(self, index: int) -> Position | None:
        """Return the position at `index`, if it is kept."""
        if index == self.base.position.index:
            return self.base.position
        if self.first_index <= index <= self.last.index:
            return self.entry(index).position()
        return None

    def has(self, position: Position) -> bool:
        """Tell whether this log holds the position, as its base or an entry that is kept."""
        return self.position(position.index) == position

    def between(self, after: int, until: int) -> Sequence[Entry]:
        """Return the entries after index `after` up to and with `until`."""
        return self.entries[max(0, after + 1 - self.first_index) : max(0, until + 1 - self.first_index)]

    def following(self, after: int, count: int, size: int) -> tuple[Entry, ...]:
        """Return up to `count` entries after index `after`, with up to `size` payload bytes unless it is one entry."""
        taken: list[Entry] = []
        for entry in self.between(after, after + count):
            size -= len(entry.payload)
            if taken and size < 0:
                break
            taken.append(entry)
        return tuple(taken)

    # What it says

    @property
    def configuration(self) -> Configuration:
        """The configuration at the log's end, committed or not."""
        return self._turns[-1][1]

    def configuration_at(self, index: int) -> Configuration:
        """Return the configuration at an index."""
        return self._turns[bisect_right(self._turns, index, key=lambda turn: turn[0]) - 1][1]

    def turns(self, after: int) -> list[tuple[int, Configuration]]:
        """Return the configuration at index `after`, then each later one with the index of the entry that made it."""
        first = bisect_right(self._turns, after, key=lambda turn: turn[0]) - 1
        return self._turns[first:]

    # How it changes

    def extend(self, entries: Iterable[Entry]) -> None:
        """Append entries, each of which follows the one before."""
        for entry in entries:
            assert entry.index == self.last.index + 1, "a log with a gap"
            assert entry.previous == self.last.hash, "a log whose entries do not follow one another"
            self.entries.append(entry)
            self.size += len(entry.payload)
            configuration = self.configuration.after(entry)
            if configuration != self.configuration:
                self._turns.append((entry.index, configuration))

    def truncate(self, last: int) -> tuple[Entry, ...]:
        """Drop the entries after index `last`, and return them."""
        dropped = tuple(self.between(last, self.last.index))
        if dropped:
            del self.entries[-len(dropped) :]
            self.size -= sum(len(entry.payload) for entry in dropped)
            while self._turns[-1][0] > last:
                self._turns.pop()
        return dropped

    def surplus(self, applied: int) -> int:
        """Return the applied index up to which the log should be dropped; 0 until it is a quarter too long."""
        if len(self.entries) <= limits.LOG_ENTRIES * 5 // 4 and self.size <= limits.LOG_BYTES * 5 // 4:
            return 0
        last, count, size = 0, len(self.entries), self.size
        for entry in self.entries:
            if entry.index >= applied or (count <= limits.LOG_ENTRIES and size <= limits.LOG_BYTES):
                break
            last, count, size = entry.index, count - 1, size - len(entry.payload)
        return last

    def shorten(self, until: int) -> Base:
        """Drop the entries up to index `until`; returns the new base."""
        entry = self.entry(until)
        self.base = Base(entry.position(), entry.log_time, self.configuration_at(until))
        dropped = until - self.entries[0].index + 1
        self.size -= sum(len(each.payload) for each in self.entries[:dropped])
        del self.entries[:dropped]
        self._turns = [(until, self.base.configuration), *(turn for turn in self._turns if turn[0] > until)]
        return self.base

    # Where two logs part

    def outline(self, *always: int) -> tuple[Position, ...]:
        """Return positions from the end back, ever wider apart, with the base and those asked for; newest first."""
        wanted = {self.base.position.index, *always}
        step, index = 1, self.last.index
        while index > self.base.position.index:
            wanted.add(index)
            index -= step
            step *= 2
        found = [self.position(index) for index in sorted(wanted, reverse=True)]
        return tuple(position for position in found if position is not None)

    def shared(self, outline: Iterable[Position]) -> Position | None:
        """Return the newest of another log's positions that this one has too."""
        return next((position for position in outline if self.has(position)), None)
