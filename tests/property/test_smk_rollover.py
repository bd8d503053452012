"""A rollover of the SMK that is interrupted anywhere: it finishes, nothing is lost, and no archive is before it is retired."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from lnh_common.errors import LimitReached, MemberBehind, NotPossible, SealBroken, VersionConflict
from lnh_common.messages import smk, store
from lnh_common.wire import codec
from lnh_services.hsm.appliance.state import Cluster
from lnh_services.hsm.cluster import smk_generations
from lnh_services.hsm.records import Records, UserRecord
from models.smk_cluster import Died, Member, SmkCluster, run
from sizes import sized

MEMBERS = st.integers(0, 2)
# The question at which a process dies, and whether it is still carried out; 0: it lives.
DEATHS = st.tuples(st.one_of(st.just(0), st.integers(1, 40)), st.booleans())


class Rollovers(RuleBasedStateMachine):
    """Members whose cores live and die while the SMK is rolled over, retired and restored under."""

    def __init__(self) -> None:
        super().__init__()
        self.world = SmkCluster()
        self.under_way: list[tuple[Records, Cluster, int]] = []
        self.written: set[str] = set()
        self.number = 0

    def up(self, number: int) -> Member:
        """That member, or the primary where it is away."""
        member = self.world.members[number]
        return member if member.is_up else self.world.primary

    @rule(number=MEMBERS, death=DEATHS)
    def look(self, number: int, death: tuple[int, bool]) -> None:
        self.world.tick(self.up(number), death[0], answered=death[1])

    @rule()
    def several_looks(self) -> None:
        for _ in range(3):
            for member in self.world.members:
                if member.is_up:
                    self.world.tick(member)

    @rule(number=MEMBERS, death=DEATHS, again=st.booleans())
    def roll_over(self, number: int, death: tuple[int, bool], again: bool) -> None:
        member, order = self.up(number), smk.OrderSmk(id=os.urandom(16))
        for _ in range(1 + again):  # the same order comes again where nobody heard the answer
            member.dies_at, member.answered = death
            try:
                with suppress(NotPossible, LimitReached, MemberBehind):
                    run(member.smks.roll_over(order))
            except Died:
                member.start()
            member.dies_at = 0

    @rule(number=MEMBERS, death=DEATHS)
    def retire(self, number: int, death: tuple[int, bool]) -> None:
        member = self.up(number)
        member.dies_at, member.answered = death
        try:
            with suppress(NotPossible, MemberBehind):
                run(member.smks.retire(smk.OrderSmk(id=os.urandom(16), newest=member.generations[-1])))
        except Died:
            member.start()
        member.dies_at = 0

    @rule(number=MEMBERS)
    def goes_away(self, number: int) -> None:
        if self.world.members[number] is not self.world.primary:
            self.world.members[number].is_up = False

    @rule(number=MEMBERS)
    def comes_back(self, number: int) -> None:
        self.world.members[number].is_up = True

    @rule(number=MEMBERS)
    def is_promoted(self, number: int) -> None:
        self.world.primary = self.up(number)

    @rule(number=MEMBERS)
    def begins_a_write(self, number: int) -> None:
        member = self.up(number)
        self.number += 1
        with suppress(MemberBehind):
            self.under_way.append((self.world.records(member), member.cluster, self.number))

    @rule(data=st.data())
    def ends_a_write(self, data: st.DataObject) -> None:
        if not self.under_way:
            return
        at = data.draw(st.integers(0, len(self.under_way) - 1))
        records, cluster, number = self.under_way.pop(at)
        changes: tuple[store.Change, ...] = self.world.write(records, cluster, number)
        with suppress(VersionConflict):  # what was read is not so any more
            self.world.commit(*changes)
            self.written.add(f"user-{number}")

    @rule(number=MEMBERS)
    def archive(self, number: int) -> None:
        member = self.up(number)
        with suppress(MemberBehind):
            self.world.archive(member)

    @rule(number=MEMBERS, data=st.data())
    def restore(self, number: int, data: st.DataObject) -> None:
        if not self.world.archives:
            return
        member = self.up(number)
        shared = self.world.shared(member)
        at = data.draw(st.integers(0, len(self.world.archives) - 1))
        needed, _ = self.world.archives[at]
        if shared is not None and needed < shared.oldest:
            return  # it was retired, as whoever ordered that was told
        if shared is not None and member.generations[-1] < shared.newest:
            return  # this HSM has not heard of it yet
        self.world.restore(member, at)
        self.written.clear()

    @invariant()
    def members_in_step_read_everything(self) -> None:
        """An HSM that holds what is shared reads whatever is stored, also in the middle of it."""
        for member in self.world.members:
            shared = self.world.shared(member)
            if shared is not None and shared.newest in member.generations:
                records = self.world.records(member)
                for item in self.world.all_records():
                    records.check(item)

    def teardown(self) -> None:
        self.world.settle()
        self.world.check_whole()
        users = [item for item in self.world.all_records() if item.key.table == "user"]
        assert self.written <= {codec.decode_as(item.head, UserRecord).name for item in users}, "a write was lost"


TestRollovers = Rollovers.TestCase
TestRollovers.settings = settings(max_examples=sized(12), stateful_step_count=25, deadline=None)


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("at", range(1, 58, 7))
def test_a_primary_that_dies_at_the_same_question_again_and_again_gets_on(at: int, answered: bool) -> None:
    world = SmkCluster()
    primary = world.primary
    world.archive(primary)
    run(primary.smks.roll_over(smk.OrderSmk(id=bytes(16))))
    for _ in range(4):
        world.tick(primary, at, answered=answered)
        for member in world.members[1:]:
            world.tick(member)
    world.settle()
    world.check_whole()
    assert primary.generations == [1, 2]
    world.restore(primary, 0)  # of before the rollover
    world.settle()
    world.check_whole()


def test_what_was_made_before_a_generation_came_into_use_is_refused_after_it() -> None:
    """So that one walk over all records is enough, and what is retired seals nothing any more."""
    world = SmkCluster()
    member = world.primary
    records, cluster = world.records(member), member.cluster
    run(member.smks.roll_over(smk.OrderSmk(id=bytes(16))))
    world.settle()
    world.check_whole()
    with pytest.raises(VersionConflict):
        world.commit(*world.write(records, cluster, 1))
    run(member.smks.retire(smk.OrderSmk(id=b"r" * 16, newest=2)))
    world.settle()
    world.check_whole()
    assert [each.generations for each in world.members] == [[2]] * 3
    with pytest.raises(SealBroken, match="does not hold any more"):
        world.records(member).check(records.remade(world.all_records()[0]))
    assert ("generation 1", "dropped") in member.acts.recorded


def test_nothing_is_retired_before_every_member_holds_what_seals_all_of_it() -> None:
    world = SmkCluster()
    primary, _, away = world.members
    order = smk.OrderSmk(id=b"r" * 16, newest=2)
    with pytest.raises(NotPossible, match="one generation"):
        run(primary.smks.retire(order))
    away.is_up = False
    run(primary.smks.roll_over(smk.OrderSmk(id=bytes(16))))
    with pytest.raises(NotPossible, match="not everything is sealed"):
        run(primary.smks.retire(order))
    for _ in range(12):
        for member in world.members[:2]:
            world.tick(member)
    with pytest.raises(NotPossible, match=r"1 member\(s\) have not taken generation 2"):
        run(primary.smks.retire(order))
    assert away.generations == [1]
    with pytest.raises(NotPossible, match="the newest, not 3"):
        run(primary.smks.retire(smk.OrderSmk(id=b"r" * 16, newest=3)))
    world.settle()  # the one that was away comes back
    world.check_whole()
    run(primary.smks.retire(order))
    world.settle()
    world.check_whole()


def test_there_is_one_rollover_at_a_time_and_an_order_that_comes_again_is_it() -> None:
    world = SmkCluster()
    one, other, _ = world.members
    order = smk.OrderSmk(id=bytes(16))
    assert run(one.smks.roll_over(order)) == run(other.smks.roll_over(order))
    with pytest.raises(NotPossible, match="being rolled over to"):
        run(other.smks.roll_over(smk.OrderSmk(id=b"o" * 16)))
    world.settle()
    assert one.generations == [1, 2]


def test_a_member_that_joined_without_the_new_generation_is_given_it() -> None:
    """Its inviter had not heard of it."""
    world = SmkCluster()
    joined = world.members.pop()
    run(world.primary.smks.roll_over(smk.OrderSmk(id=bytes(16))))
    world.settle()
    world.check_whole()
    world.members.append(joined)
    shared = world.shared(world.primary)
    assert shared is not None
    assert joined.generations == [1]
    world.settle()
    world.check_whole()


def test_no_other_key_is_taken_than_the_cluster_identity_signed() -> None:
    world = SmkCluster()
    member = world.primary
    run(member.smks.roll_over(smk.OrderSmk(id=bytes(16))))
    item = world.stored(smk_generations.KEY)
    public = Ed25519PrivateKey.from_private_bytes(member.cluster.identity).public_key()
    shared = smk_generations.read(item, member.cluster.id, public)
    forged = smk_generations.put(shared, item.version - 1, bytes(32))
    for wrong in (
        replace(item, body=forged.body),
        replace(item, version=item.version + 1),
        replace(item, head=item.head[:-1] + b"\1"),
    ):
        with pytest.raises(SealBroken, match="not signed by the cluster identity"):
            smk_generations.read(wrong, member.cluster.id, public)
    with pytest.raises(SealBroken, match="not signed"):
        smk_generations.read(item, bytes(16), public)
    other = replace(shared, generations=(*shared.generations[:-1], replace(shared.generations[-1], check=bytes(8))))
    with pytest.raises(SealBroken, match="another key"):
        smk_generations.take(other, world.members[1].cluster, world.members[1].held.state.identity)
