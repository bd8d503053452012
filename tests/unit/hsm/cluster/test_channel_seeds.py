"""Channel seeds of several members: drawn once, on the primary, and held by every HSM that is a member's, and by no other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from lnh_common import errors, limits
from lnh_common.messages import store
from lnh_common.messages.hsm import ChannelSeed
from lnh_services.hsm.appliance.state import Cluster
from lnh_services.hsm.cluster import channel_seeds
from lnh_services.hsm.cluster.channel_keeper import ChannelKeeper
from lnh_services.hsm.cluster.channel_seeds import offered
from lnh_services.hsm.cluster.join_protocol import Identity
from lnh_services.hsm.records import HsmRecord
from models.console import OneAppliance

DOMAIN = "the cloning domain"
DAY = limits.CHANNEL_EPOCH


class Members:
    """Appliances of one cluster on one store of dicts; the first is primary."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.appliances: list[OneAppliance] = []

    async def add(self) -> OneAppliance:
        name = "abcdef"[len(self.appliances)]
        (self.directory / name).mkdir()
        appliance = OneAppliance(self.directory / name, name, 7100 + 100 * len(self.appliances))
        if not self.appliances:
            await appliance.cluster(DOMAIN)
            appliance.store.primary = appliance.store.member
            info = store.MemberInfo(id=appliance.store.member, name=name, host="h", port=7100, key=bytes(32))
            appliance.store.members = (info,)
        else:
            first = self.appliances[0]
            await appliance.hsm_init(DOMAIN)
            await appliance.install()
            appliance.membership.peers = {7101: first}
            await appliance.join(await first.invite())
            appliance.store.items, appliance.store.primary = first.store.items, first.store.primary
        self.appliances.append(appliance)
        return appliance

    async def keep(self) -> None:
        """Every core looks, until nobody has anything to do any more."""
        for _ in range(3):
            for appliance in self.appliances:
                appliance.store.members = self.appliances[0].store.members
                await ChannelKeeper(appliance.vault, appliance.store, lambda appliance=appliance: appliance.now).keep()  # type: ignore[misc]

    def pass_time(self, seconds: float) -> None:
        for appliance in self.appliances:
            appliance.now += seconds


def of(appliance: OneAppliance) -> Cluster:
    cluster = appliance.vault.opened.cluster
    assert cluster is not None
    return cluster


@pytest.fixture
def members(tmp_path: Path) -> Members:
    return Members(tmp_path)


def test_every_member_has_the_days_seed_and_only_the_primary_draws(members: Members) -> None:
    async def go() -> None:
        a, b = await members.add(), await members.add()
        await members.keep()
        first = of(a).channel
        assert of(b).channel == first
        members.pass_time(DAY)
        await ChannelKeeper(b.vault, b.store, lambda: b.now).keep()
        assert of(b).channel == first, "a secondary draws none"
        await members.keep()
        assert [seed.epoch for seed in of(a).channel] == [1, 2]
        assert of(b).channel == of(a).channel
        members.pass_time(2 * DAY)
        await members.keep()
        assert [seed.epoch for seed in of(a).channel] == [2, 3], "what no token can be sealed under any more is erased"
        assert of(b).channel == of(a).channel

    asyncio.run(go())


def test_one_that_joined_later_gets_the_seeds_that_come_and_one_that_left_does_not(members: Members) -> None:
    async def go() -> None:
        a, b = await members.add(), await members.add()
        await members.keep()
        c = await members.add()
        assert of(c).channel == of(a).channel
        await members.keep()
        a.store.members = tuple(each for each in a.store.members if each.id != of(b).member)
        before = of(b).channel
        await members.keep()
        assert [seed.epoch for seed in of(a).channel] == [1, 2], "a removal draws a new one at once"
        assert of(c).channel == of(a).channel
        assert of(b).channel == before

    asyncio.run(go())


def test_an_older_version_where_each_drew_its_own_comes_to_one(members: Members) -> None:
    async def go() -> None:
        a, b = await members.add(), await members.add()
        own = ChannelSeed(epoch=2, seed=b"x" * 32, end=int(a.now) + DAY)
        b.vault.change(
            lambda state: msgspec.structs.replace(
                state, cluster=msgspec.structs.replace(of(b), channel=(*of(b).channel, own))
            )
        )
        members.pass_time(DAY)
        await members.keep()
        assert of(b).channel == of(a).channel

    asyncio.run(go())


def test_nothing_is_shared_while_nothing_can_be_written(members: Members) -> None:
    async def go() -> None:
        a, b = await members.add(), await members.add()
        await members.keep()
        members.pass_time(DAY)
        a.store.state = "read-only"
        await ChannelKeeper(a.vault, a.store, lambda: a.now).keep()
        assert [seed.epoch for seed in of(a).channel] == [1]
        a.store.state = "read-write"
        await members.keep()
        assert [seed.epoch for seed in of(b).channel] == [1, 2]

    asyncio.run(go())


def test_a_store_that_changes_what_is_shared_is_found_out(members: Members) -> None:
    async def go() -> None:
        a = await members.add()
        await members.keep()
        key = ("channel", b"", channel_seeds.CHANNEL_RECORD)
        item = a.store.items.storage.items[key]
        changed = msgspec.structs.replace(item, head=item.head[:-1] + bytes([item.head[-1] ^ 1]))
        a.store.items.storage.items[key] = changed
        with pytest.raises(errors.SealBroken):
            await ChannelKeeper(a.vault, a.store, lambda: a.now).keep()

    asyncio.run(go())


def hsm(number: int) -> HsmRecord:
    identity = Identity.of(bytes([number]) * 32)
    return HsmRecord(member=bytes([number]) * 16, sign=identity.sign, receive=identity.receive)


SEED = ChannelSeed(epoch=4, seed=b"s" * 32, end=1_700_090_000)
CLUSTER = b"c" * 16


def test_a_shared_seed_opens_for_its_member_in_its_cluster_and_epoch_only() -> None:
    record = channel_seeds.share(SEED, CLUSTER, [hsm(1), hsm(2)])
    assert channel_seeds.take(record, CLUSTER, bytes([1]) * 16, bytes([1]) * 32) == SEED
    assert channel_seeds.take(record, CLUSTER, bytes([3]) * 16, bytes([3]) * 32) is None
    replace = msgspec.structs.replace
    swapped = tuple(
        replace(mine, sealed=other.sealed) for mine, other in zip(record.sealed, reversed(record.sealed), strict=True)
    )
    for wrong, cluster, identity in (
        (record, CLUSTER, 2),
        (record, b"d" * 16, 1),
        (replace(record, epoch=5), CLUSTER, 1),
        (replace(record, end=SEED.end + 1), CLUSTER, 1),
        (replace(record, sealed=swapped), CLUSTER, 1),
    ):
        with pytest.raises(errors.SealBroken):
            channel_seeds.take(wrong, cluster, bytes([1]) * 16, bytes([identity]) * 32)


def test_a_primary_that_was_not_given_the_newest_seed_draws_the_next() -> None:
    ahead = channel_seeds.share(msgspec.structs.replace(SEED, epoch=9), CLUSTER, [hsm(2)])
    now = SEED.end - limits.CHANNEL_OVERLAP - 100
    both = [hsm(1), hsm(2)]
    listed = {each.member for each in both}
    record = channel_seeds.due((SEED,), ahead, CLUSTER, both, listed, now, lambda: b"n" * 32)
    assert record is not None
    assert record.epoch == 10
    assert channel_seeds.due((SEED,), None, CLUSTER, both, listed, now, lambda: b"n" * 32) is not None
    same = channel_seeds.share(SEED, CLUSTER, both)
    assert channel_seeds.due((SEED,), same, CLUSTER, both, listed, now, lambda: b"n" * 32) is None


def test_a_new_seed_is_offered_only_when_every_member_has_had_time_to_take_it() -> None:
    born = 1_700_000_000
    old = ChannelSeed(epoch=1, seed=b"o" * 32, end=born + 100)
    new = ChannelSeed(epoch=2, seed=b"n" * 32, end=born + DAY + limits.CHANNEL_OVERLAP)
    assert offered((old, new), born + limits.CHANNEL_SETTLE - 1)[-1] == old
    assert set(offered((old, new), born)) == {old, new}
    assert offered((old, new), born + limits.CHANNEL_SETTLE) == (old, new)
    assert offered((new,), born) == (new,)
