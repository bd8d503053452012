"""Slots: each keyring of each cluster has one, and keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lnh.configuration import Configuration
from lnh_common import limits
from lnh_common.errors import LnhError, Unreachable
from lnh_pkcs11 import keyrings
from lnh_pkcs11.keyrings import SLOTS_PER_CLUSTER, Keyrings
from lnh_pkcs11.numbers import CKR
from lnh_pkcs11.refusals import Refused


class Cluster:
    """A cluster that lists labels, or does not answer."""

    def __init__(self, *labels: str) -> None:
        self.label, self.labels, self.error = "prod", list(labels), False
        self.asked = 0

    def keyrings(self) -> Any:
        self.asked += 1

        class Listing:
            current = True

            def __init__(self, cluster: Cluster) -> None:
                self.cluster = cluster

            async def __aiter__(self) -> AsyncIterator[Any]:
                if self.cluster.error:
                    raise Unreachable("nobody is there")
                for label in self.cluster.labels:
                    yield SimpleNamespace(id=label.encode(), label=label)

        return Listing(self)


class World:
    """Keyrings of clusters that are registered under these indexes, at a time that is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **clusters: Cluster) -> None:
        self.clusters = {int(name.removeprefix("at_")): cluster for name, cluster in clusters.items()}
        monkeypatch.setattr(
            Configuration,
            "registrations",
            lambda _: [SimpleNamespace(index=index, client=b"c") for index in self.clusters],
        )
        monkeypatch.setattr(keyrings, "connect_to", lambda _, found, **__: self.clusters[found.index])
        self.keyrings = Keyrings(Path("nowhere"))
        self.time = 0.0
        monkeypatch.setattr(self.keyrings, "now", lambda: self.time)

    def listed(self) -> dict[int, str]:
        self.time += limits.PKCS11_FRESH * 2
        return {token.slot: token.keyring.label for token in asyncio.run(self.keyrings.listed())}


def test_slots_are_numbered_by_cluster_and_label_and_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, at_0=Cluster("b", "a"), at_3=Cluster("c"))
    first = 3 * SLOTS_PER_CLUSTER
    assert world.listed() == {0: "a", 1: "b", first: "c"}
    world.clusters[0].labels = ["b", "aa"]
    assert world.listed() == {1: "b", 2: "aa", first: "c"}
    world.clusters[0].labels = ["b", "aa", "a"]
    assert world.listed() == {0: "a", 1: "b", 2: "aa", first: "c"}


def test_a_cluster_that_does_not_answer_keeps_its_slots_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, at_0=Cluster("a"), at_1=Cluster("b"))
    both = world.listed()
    world.clusters[1].error = True
    assert world.listed() == both
    asked = world.clusters[1].asked
    assert world.listed() == both
    assert world.clusters[1].asked == asked, "it is not asked again at once"
    world.time += limits.PKCS11_UNHEARD
    assert world.listed() == both
    assert world.clusters[1].asked == asked + 1


def test_where_there_is_no_keyring_the_application_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, at_0=Cluster("a"))
    world.clusters[0].error = True
    with pytest.raises(LnhError, match="nobody is there"):
        world.listed()
    world.clusters[0].error = False
    world.time += limits.PKCS11_UNHEARD
    assert world.listed() == {0: "a"}
    with pytest.raises(Refused) as caught:
        asyncio.run(world.keyrings.token(5))
    assert caught.value.ckr is CKR.SLOT_ID_INVALID


def test_a_list_is_taken_for_what_is_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, at_0=Cluster("a"))
    world.listed()
    asyncio.run(world.keyrings.listed())
    assert world.clusters[0].asked == 1
