"""Real stores on a network of their own whose links are cut: between members, one way only, for a moment and for long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from lnh_common.messages import store
from network import Host, Network, missing, network
from processes import Processes
from stores import Cluster, Member, key

pytestmark = pytest.mark.several


@pytest.fixture
def wires() -> Iterator[Network]:
    why = missing()
    if why:
        pytest.skip(why)
    with network() as made:
        yield made


class Placed(Member):
    """A member's store on a host of its own; its doors are files, which a cut does not touch."""

    def __init__(self, processes: Processes, root: Path, name: str, host: Host) -> None:
        self.host = host
        super().__init__(processes, root, name, host.address, tuple(host.prefix()))


Scenario = Callable[[Network, Placed, Placed, Placed], Awaitable[None]]
Play = Callable[[Scenario], None]


@pytest.fixture
def play(processes: Processes, short_path: Path, wires: Network) -> Play:
    """Runs a scenario on three members, the first of which is primary; afterwards, healed, they agree."""

    async def run(scenario: Scenario) -> None:
        placed = [Placed(processes, short_path, name, wires.add()) for name in "abc"]
        cluster = Cluster(list(placed))
        try:
            await cluster.found()
            await scenario(wires, *placed)
            await cluster.agree(*[member for member in placed if (await member.status()).state != "expelled"])
        finally:
            await cluster.close()

    return lambda scenario: asyncio.run(run(scenario))


async def is_read_only(member: Member) -> None:
    await member.until(lambda status: status.state == "read-only", "read-only")


@pytest.mark.parametrize("seconds", [0.0, 6.0])
def test_a_secondary_that_is_cut_off_is_read_only_until_it_is_joined_again(play: Play, seconds: float) -> None:
    async def scenario(wires: Network, one: Placed, two: Placed, three: Placed) -> None:
        await two.put(key(1))
        wires.isolate(three.host)
        await one.put(key(2))
        await is_read_only(three)
        assert await three.get(key(1)) is not None
        await three.refuses_writes()
        await asyncio.gather(*(two.put(key(100 + number)) for number in range(50)))
        await asyncio.sleep(seconds)  # how long it is cut is what is tested, and nothing is timed by it
        wires.heal()
        await three.is_read_write()
        assert await three.get(key(2)) is not None

    play(scenario)


def test_a_primary_that_is_cut_off_goes_on_alone_and_the_others_read(play: Play) -> None:
    async def scenario(wires: Network, one: Placed, two: Placed, three: Placed) -> None:
        wires.isolate(one.host)
        await one.put(key(1))
        await is_read_only(two)
        await is_read_only(three)
        assert await two.get(key(1)) is None
        wires.heal()
        await two.is_read_write()
        await three.is_read_write()
        assert await two.get(key(1)) is not None
        assert {(await member.status()).epoch for member in (one, two, three)} == {1}

    play(scenario)


@pytest.mark.parametrize("mute", [True, False])
def test_a_link_that_works_one_way_only_stops_nobody_else(play: Play, mute: bool) -> None:
    async def scenario(wires: Network, one: Placed, two: Placed, three: Placed) -> None:
        if mute:
            wires.cut_way(three.host, one.host)
        else:
            wires.cut_way(one.host, three.host)
        await two.put(key(1))
        await is_read_only(three)
        wires.heal()
        await three.is_read_write()
        assert await three.get(key(1)) is not None

    play(scenario)


def test_secondaries_that_do_not_reach_one_another_need_not(play: Play) -> None:
    async def scenario(wires: Network, one: Placed, two: Placed, three: Placed) -> None:
        wires.cut(two.host, three.host)
        await two.put(key(1))
        await three.put(key(2))
        assert await three.get(key(1)) is not None
        everybody = tuple(sorted(member.info.id for member in (one, two, three)))
        await one.until(lambda status: status.in_sync == everybody, "all in the set")

    play(scenario)


def test_a_primary_removed_while_cut_off_is_expelled_and_keeps_what_it_wrote_alone(play: Play) -> None:
    async def scenario(wires: Network, one: Placed, two: Placed, three: Placed) -> None:
        wires.isolate(one.host)
        await one.put(key(1), body=b"alone")
        await is_read_only(two)
        await two.order(store.TAKE_OVER, store.TakeOver(lost=(one.info.id,)))
        await three.is_read_write()
        await three.put(key(1), body=b"after")
        wires.heal()
        status = await one.until(lambda status: status.state == "expelled", "the news of its removal")
        assert status.items == 1
        item = await two.get(key(1))
        assert item is not None
        assert item.body == b"after"

    play(scenario)
