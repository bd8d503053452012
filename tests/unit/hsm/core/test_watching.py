"""An idle core asks its store next to nothing, and looks once something changed; in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from lnh_common.errors import LnhError, Unreachable
from lnh_common.messages import store
from lnh_common.messages.base import Message, Operation
from lnh_services.hsm.cluster import channel_keeper, smk_keeper
from lnh_services.hsm.core import watching
from lnh_services.hsm.core.watching import PAUSE, WATCH_SECONDS, watch
from lnh_services.store.leases.watch import RecentChanges
from models.console import OneAppliance

HOUR = 3600.0
AGAIN = 1.0


class Over(Exception):
    """The time of the test is over."""


class Virtual:
    """A store whose watches end when something changes, or their time is up; nobody waits for it in fact.

    Args:
        until: when the test is over.
        changes: by time, the keys that change then.
    """

    def __init__(self, until: float, changes: dict[float, store.Key] | None = None) -> None:
        self.now = 0.0
        self.until = until
        self.recent = RecentChanges()
        self.recent.restart(10)
        self.asked: Counter[str] = Counter()
        self.refuses: LnhError | None = None
        self._changes = changes or {}

    async def sleep(self, seconds: float) -> None:
        self._pass(self.now + seconds)

    async def ask(self, operation: Operation[Any, Any], message: Message, *, timeout: float) -> Any:
        self.asked[operation.name] += 1
        assert isinstance(message, store.Watch)
        if self.refuses is not None:
            raise self.refuses
        ends = self.now + timeout
        while (changed := self.recent.since(message.index, message.tables)) is None:
            due = [at for at in self._changes if at <= ends]
            self._pass(min(due, default=ends))
            if not due:
                return self.recent.nothing()
        return changed

    def _pass(self, to: float) -> None:
        self.now = max(self.now, to)
        for at in sorted(at for at in self._changes if at <= self.now):
            self.recent.add(self.recent.last + 1, frozenset({self._changes.pop(at)}))
        if self.now >= self.until:
            raise Over


def run(virtual: Virtual, look: Callable[[], Awaitable[bool | None]], tables: Collection[str] = ("t",)) -> None:
    async def go() -> None:
        with pytest.raises(Over):
            await watch(virtual, tables, look, AGAIN, virtual.sleep)

    asyncio.run(go())


def looks_of(virtual: Virtual, done: Callable[[float], bool | None] = lambda _: True) -> list[float]:
    """Run, and return when it was looked."""
    looks: list[float] = []

    async def look() -> bool | None:
        looks.append(virtual.now)
        return done(virtual.now)

    run(virtual, look)
    return looks


def test_while_nothing_changes_it_is_looked_for_what_the_time_makes_due_alone() -> None:
    virtual = Virtual(HOUR)
    looks = looks_of(virtual)
    assert len(looks) <= 2 + HOUR / WATCH_SECONDS
    assert max(later - earlier for earlier, later in itertools.pairwise(looks)) < WATCH_SECONDS + 2 * PAUSE


def test_a_change_of_a_table_that_counts_is_looked_at_at_once_and_no_other() -> None:
    changes = {100.0: store.Key(table="t", id=b"1"), 110.0: store.Key(table="u", id=b"1")}
    looks = looks_of(Virtual(115.0, changes))
    assert any(100.0 <= at <= 100.0 + PAUSE for at in looks)
    assert not any(101.0 <= at <= 115.0 for at in looks)


def test_a_change_during_the_look_is_not_missed() -> None:
    virtual = Virtual(100.0)
    looks: list[float] = []

    async def look() -> bool:
        looks.append(virtual.now)
        if len(looks) == 3:
            virtual.recent.add(virtual.recent.last + 1, frozenset({store.Key(table="t", id=b"1")}))
        return True

    run(virtual, look)
    assert looks[3] - looks[2] <= PAUSE


@pytest.mark.parametrize("left", [False, None])
def test_what_is_left_to_be_done_or_failed_is_tried_again_and_again(left: bool | None) -> None:
    looks = looks_of(Virtual(50.0), lambda now: True if now >= 20 else left)
    assert looks[:20] == [AGAIN * number for number in range(20)]
    assert len(looks) <= 24, "then no more"


def test_a_store_that_cannot_be_asked_or_answers_at_once_is_not_asked_all_the_time() -> None:
    away = Virtual(60.0)
    away.refuses = Unreachable("nobody")
    assert len(looks_of(away)) <= 60 / PAUSE + 1

    class Eager(Virtual):
        async def ask(self, operation: Operation[Any, Any], message: Message, *, timeout: float) -> Any:
            return self.recent.everything()

    assert len(looks_of(Eager(60.0))) <= 60 / PAUSE + 1


@pytest.mark.parametrize("primary", [True, False])
def test_an_idle_hsm_asks_its_store_a_few_hundred_questions_an_hour(tmp_path: Path, primary: bool) -> None:
    appliance = OneAppliance(tmp_path)
    asyncio.run(appliance.cluster())
    appliance.store.primary = appliance.store.member if primary else b"another"
    asyncio.run(appliance.channel.keep())
    appliance.store.asked.clear()
    watched = 0
    for look, tables in (
        (appliance.channel.keep, channel_keeper.RESTS_ON),
        (appliance.smks.keep, smk_keeper.RESTS_ON),
    ):
        virtual = Virtual(HOUR)
        run(virtual, look, tables)
        watched += virtual.asked[store.WATCH.name]
    assert watched + len(appliance.store.asked) <= 10 * HOUR / WATCH_SECONDS, "it was three a second"


def test_a_member_that_is_to_become_read_write_is_looked_at_again_and_again(tmp_path: Path) -> None:
    appliance = OneAppliance(tmp_path)
    asyncio.run(appliance.cluster())
    appliance.store.state = "read-only"
    virtual = Virtual(60.0)
    looked: list[float] = []

    async def look() -> bool:
        looked.append(virtual.now)
        if virtual.now >= 30:
            appliance.store.state = "read-write"
        return await appliance.smks.keep()

    run(virtual, look, smk_keeper.RESTS_ON)
    assert [at for at in looked if at < 30] == [AGAIN * number for number in range(30)]
    assert watching.WATCH_SECONDS > AGAIN
