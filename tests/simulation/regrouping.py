"""Affinity groups in a simulated cluster: orders that change them, and what must be true of them at the end.

An order is given twice, perhaps through another member and after somebody else changed the same again: it acts once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lnh_common.messages.store import MemberInfo
from lnh_services.store.log.entries import Entry, MemberId, Members, Position
from lnh_services.store.log.window import Configuration
from lnh_services.store.machine import apply
from lnh_services.store.replication.messages import CreateGroup, DeleteGroup, Listing, MoveMember
from simulation.truth import Truth

if TYPE_CHECKING:
    from simulation.machine import Machine

LABELS = ("local", "east", "west")


def order(kind: int, label: int, member: MemberId, request: bytes) -> Listing:
    """One of the orders about groups; moves are the more frequent ones."""
    group = LABELS[label % len(LABELS)]
    return (
        CreateGroup(group, request),
        DeleteGroup(group, request),
        MoveMember(member, group, request),
        MoveMember(member, group, request),
    )[kind % 4]


@dataclass
class Regrouped:
    """Requests that were answered as done."""

    done: list[bytes] = field(default_factory=list)

    def note(self, request: bytes, answer: apply.Answer) -> None:
        if isinstance(answer, int):
            self.done.append(request)

    def judge(self, truth: Truth, leader: Machine) -> None:
        """The list is what the entries say from the first on, and every order acted once at most."""
        assert leader.process is not None, "a primary without a process"
        history = leader.process.replica.history
        configuration, made = Configuration(), set()
        for entry in _chain(truth, history.last):
            before, configuration = configuration, configuration.after(entry)
            content = entry.content()
            if isinstance(content, Members) and content.request:
                if content.request in made:
                    assert _groups(configuration) == _groups(before), "9: a change of groups was made twice"
                made.add(content.request)
            assert {each.group for each in configuration.members} <= set(configuration.groups), (
                "9: a member in no group"
            )
        found = history.configuration
        assert (found.members, found.groups) == (configuration.members, configuration.groups), (
            "9: another list than the log's"
        )
        assert found.requests == configuration.requests, "9: other requests than the log's"
        if not any(each.removed for each in truth.opened.values()):
            assert set(self.done) <= made, "3: a change of groups was acknowledged, and is lost"


def _groups(configuration: Configuration) -> tuple[tuple[MemberInfo, ...], tuple[str, ...]]:
    return configuration.members, configuration.groups


def _chain(truth: Truth, tip: Position) -> list[Entry]:
    """The log that ends at `tip`, from its first entry on."""
    entries: list[Entry] = []
    entry = truth.entries.get(tip.hash)
    while entry is not None:
        entries.append(entry)
        entry = truth.entries.get(entry.previous)
    return entries[::-1]
