"""What really happened in a run, seen from above: every entry there ever was, and the invariants that replica.py begins with.

A position `(epoch, index)` names an entry, so branches of the log are told apart by where each epoch begins.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from lnh_common.errors import LnhError
from lnh_common.messages.store import Commit, Key
from lnh_services.store.log import entries as log
from lnh_services.store.log.entries import Entry, Epoch, MemberId, Open, Position, Write
from lnh_services.store.machine import apply

Name = tuple[bytes, bytes, int]  # client, session, sequence


def name_of(commit: Commit) -> Name:
    return commit.client, commit.session, commit.sequence


@dataclass(frozen=True)
class Opened:
    """One epoch, as its `open` says."""

    epoch: Epoch
    at: float
    before: Position  # the last entry of the log that it goes on
    listed: frozenset[MemberId]
    removed: frozenset[MemberId]
    forced: bool


@dataclass(frozen=True)
class Acknowledged:
    """An answered write: its entry, and whom its commit waited for."""

    position: Position
    waited: tuple[MemberId, ...]


@dataclass
class Truth:
    """Args: genesis: what the first entry follows."""

    genesis: Position
    entries: dict[bytes, Entry] = field(default_factory=dict)
    at: dict[tuple[Epoch, int], bytes] = field(default_factory=dict)
    named: dict[Name, list[Entry]] = field(default_factory=dict)
    opened: dict[Epoch, Opened] = field(default_factory=dict)
    author: dict[Epoch, tuple[MemberId, int]] = field(default_factory=dict)
    acknowledger: dict[Epoch, tuple[MemberId, int]] = field(default_factory=dict)
    applied: dict[bytes, tuple[object, frozenset[Key]]] = field(default_factory=dict)
    acted: dict[Name, list[Position]] = field(default_factory=dict)
    promisers: dict[Epoch, list[MemberId]] = field(default_factory=dict)  # whose word came before the `open`
    served: set[Epoch] = field(default_factory=set)
    acknowledged: list[Acknowledged] = field(default_factory=list)
    tip: Position | None = None
    lost: dict[MemberId, list[tuple[frozenset[MemberId], bool]]] = field(default_factory=dict)  # by coordinator

    # Branches

    def holds(self, tip: Position, position: Position) -> bool:
        """Whether the log that ends at `tip` has `position`."""
        epoch, index = tip.epoch, tip.index
        while epoch != position.epoch:
            if epoch not in self.opened or epoch < position.epoch:
                return position.index == 0
            before = self.opened[epoch].before
            epoch, index = before.epoch, min(index, before.index)
        return position.index <= index

    def epochs(self, tip: Position) -> list[Epoch]:
        """The epochs of the log that ends at `tip`, newest first."""
        found = []
        epoch = tip.epoch
        while epoch in self.opened:
            found.append(epoch)
            epoch = self.opened[epoch].before.epoch
        return found

    def take_overs(self, one: Epoch, other: Epoch) -> list[Opened]:
        """Those since two epochs' logs parted, on either side."""
        ones, others = (self.epochs(Position(epoch, 0, b"")) for epoch in (one, other))
        apart = [epoch for epoch in ones if epoch not in others] + [epoch for epoch in others if epoch not in ones]
        return [self.opened[epoch] for epoch in apart if self.opened[epoch].removed]

    @property
    def was_forced(self) -> bool:
        return any(each.forced for each in self.opened.values())

    # What is seen

    def sees(self, entry: Entry, member: MemberId, life: int, now: float) -> None:
        """A member writes or sends an entry."""
        if entry.hash in self.entries:
            return
        rank = (entry.epoch, entry.index)
        assert rank not in self.at, f"2: two entries are {entry.epoch}/{entry.index}"
        assert entry.epoch.candidate == member, f"an entry of {entry.epoch} was made by {member.hex()[:8]}"
        author = self.author.setdefault(entry.epoch, (member, life))
        assert author == (member, life), f"1: {entry.epoch} is appended to by another incarnation than opened it"
        previous = self.entries.get(entry.previous)
        before = previous.position() if previous is not None else self.genesis
        assert before.hash == entry.previous, f"2: {entry.epoch}/{entry.index} follows what never was"
        assert before.index == entry.index - 1, f"2: {entry.epoch}/{entry.index} follows {before.index}"
        assert previous is None or entry.log_time >= previous.log_time, "log time goes back"
        self.entries[entry.hash] = entry
        self.at[rank] = entry.hash
        content = entry.content()
        if before.epoch != entry.epoch:
            assert isinstance(content, Open), f"{entry.epoch} begins without its `open`"
            self._open(entry, content, before, now)
        else:
            assert not isinstance(content, Open), f"{entry.epoch} is opened twice"
        if isinstance(content, Write):
            self.named.setdefault(name_of(content.commit), []).append(entry)

    def _open(self, entry: Entry, content: Open, before: Position, now: float) -> None:
        candidate = entry.epoch.candidate
        listed = frozenset(MemberId(member.id) for member in content.members)
        removed = self._members(before) - listed
        forced = any(force and removed <= lost for lost, force in self.lost.get(candidate, []))
        self.opened[entry.epoch] = Opened(entry.epoch, now, before, listed, removed, forced and bool(removed))
        if self.opened[entry.epoch].forced:
            return
        for acknowledged in self.acknowledged:
            self._is_kept(acknowledged, entry.position())

    def promises(self, member: MemberId, epoch: Epoch) -> None:
        """A member's promise reached the candidate."""
        if epoch not in self.opened:
            self.promisers.setdefault(epoch, []).append(member)

    def _members(self, position: Position) -> frozenset[MemberId]:
        entry = self.entries.get(position.hash)
        while entry is not None:
            content = entry.content()
            if isinstance(content, Open | log.Members):
                return frozenset(MemberId(member.id) for member in content.members)
            entry = self.entries.get(entry.previous)
        return frozenset()

    def _is_kept(self, acknowledged: Acknowledged, opening: Position) -> None:
        """A candidate has all that it vouched for; if it takes over, also what any member vouched for that goes on."""
        opened = self.opened[opening.epoch]
        vouching = opened.listed if opened.removed else {opening.epoch.candidate}
        if opening.epoch > acknowledged.position.epoch and not vouching.isdisjoint(acknowledged.waited):
            assert self.was_forced or self.holds(opening, acknowledged.position), (
                f"3: {opening.epoch} was opened without {acknowledged.position.epoch}/{acknowledged.position.index}, "
                "acknowledged while its candidate, or a member that it needs, was in the set"
            )

    # What is acknowledged

    def acknowledges(
        self, by: tuple[MemberId, int] | None, epoch: Epoch, position: Position, waited: tuple[MemberId, ...]
    ) -> None:
        """A primary answers a write; `by` names it and its incarnation."""
        if by is not None:
            assert self.acknowledger.setdefault(epoch, by) == by, f"1: two members acknowledge in {epoch}"
        acknowledged = Acknowledged(position, waited)
        for opened in self.opened.values():
            if not opened.forced:
                first = self.at[opened.epoch, opened.before.index + 1]
                self._is_kept(acknowledged, self.entries[first].position())
        self.acknowledged.append(acknowledged)

    # What is applied

    def applies(self, entry: Entry, applied: apply.Applied) -> None:
        answer = applied.answer.to_wire() if isinstance(applied.answer, LnhError) else applied.answer
        found = (answer, applied.changed)
        assert self.applied.setdefault(entry.hash, found) == found, f"7: {entry.index} was applied in two ways"
        content = entry.content()
        if not isinstance(content, Write) or not applied.changed:
            return
        positions = self.acted.setdefault(name_of(content.commit), [])
        position = entry.position()
        if position not in positions:
            for other in positions:
                late, early = max(position, other, key=_rank), min(position, other, key=_rank)
                assert not self.holds(late, early), (
                    f"5: {name_of(content.commit)[2]} acted at {early.index} and {late.index}"
                )
            positions.append(position)

    def commits(self, position: Position) -> None:
        """A member applied up to `position`: no two ever apply different logs, unless a take-over came between."""
        tip = self.tip
        if tip is None or tip == position:
            self.tip = position
            return
        late, early = max(position, tip, key=_rank), min(position, tip, key=_rank)
        if not self.holds(late, early):
            assert self.take_overs(late.epoch, early.epoch), (
                f"2: {late.epoch}/{late.index} and {early.epoch}/{early.index} are both committed, and neither has the other"
            )
        self.tip = late


def _rank(position: Position) -> tuple[Epoch, int]:
    return position.epoch, position.index


def touches(commit: Commit, key: Key) -> bool:
    """Whether the commit may change the item."""
    return any(
        touched == key or (not touched.id and (touched.table, touched.scope) == (key.table, key.scope))
        for touched in apply.touched(commit)
    )


class Report(msgspec.Struct, frozen=True):
    """What a run came to, in numbers."""

    steps: int
    faults: int
    acknowledged: int
    reads: int
    cached: int
    denied: int
    retried: int
    openings: int
    take_overs: int
    snapshots: int
    dropped: int
    digest: int
