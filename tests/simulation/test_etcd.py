"""Simulated clusters over a model of etcd: under faults from seeds, in single scenarios, and with known faults put in."""

from __future__ import annotations

import os
import time
from collections import Counter
from unittest.mock import patch

import pytest

from lnh_common.errors import LnhError, MemberReadOnly, NotPossible, OutcomeUnknown
from lnh_common.messages.store import Commit, Put
from lnh_services.store.etcd import place, stopped
from lnh_services.store.etcd.observer import Observer
from lnh_services.store.etcd.place import AUTHORITY, Place
from lnh_services.store.etcd.requests import AskEtcd, Differed, Transaction
from lnh_services.store.machine.apply import Answer
from lnh_services.store.replication.messages import Order, Promote, RequestId, SetFailover
from lnh_services.store.replication.replica import Phase
from simulation import etcd_plan, plan
from simulation.clients import KEYS as ITEMS
from simulation.etcd_mutations import MUTATIONS, compares_no_beat
from simulation.etcd_world import KEYS, EtcdWorld, run
from simulation.machine import MIDDLE, Machine, Process
from simulation.outside import CLUSTER
from simulation.plan import Plan, Profile
from simulation.shrink import failure_of, shrunk
from simulation.telling import Failure
from simulation.world import World

pytestmark = pytest.mark.several

SEEDS = 24
CHUNK = 8
MUTATION_SEEDS = 25


def run_or_tell(seed: int) -> EtcdWorld:
    world = EtcdWorld(etcd_plan.draw(seed))
    try:
        world.run()
    except Failure as failure:
        pytest.fail(shrunk(failure, run).told(), pytrace=False)
    return world


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_invariants_hold_over_etcd_through_faults(first: int) -> None:
    worlds = [run_or_tell(seed) for seed in range(first, first + CHUNK)]
    seen: Counter[str] = Counter()
    for world in worlds:
        seen.update(writes=len(world.truth.acknowledged), unknown=world.etcd.unknown, unasked=world.unasked)
        seen.update(trimmed=world.trimmed, snapshots=len(world.snapshots), reads=len(world.clients.sights))
    assert seen["writes"] > 15 * CHUNK
    assert seen["reads"] > 15 * CHUNK
    assert all(seen[kind] > 0 for kind in ("unknown", "unasked", "trimmed", "snapshots")), seen


@pytest.mark.skipif("LNH_SOAK" not in os.environ, reason="runs for LNH_SOAK seconds")
def test_invariants_hold_over_etcd_for_as_long_as_asked() -> None:
    end, seed = time.monotonic() + float(os.environ["LNH_SOAK"]), SEEDS
    while time.monotonic() < end:
        run_or_tell(seed)
        seed += 1


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_known_fault_of_the_roles_over_etcd_is_seen(name: str) -> None:
    mutation = MUTATIONS[name]
    for seed in (mutation.shown_by, *range(MUTATION_SEEDS)):
        drawn = etcd_plan.draw(seed, mutation.profile)
        with mutation.applied():
            caught = failure_of(drawn, run) is not None
        if caught:
            sound = failure_of(drawn, run)
            assert sound is None, f"the run fails without the fault, too:\n{sound.told()}"
            return
    pytest.fail(f"{MUTATION_SEEDS} runs show nothing wrong with a member that may {name}")


# Single scenarios


class Scenario:
    """A cluster in order, whose members are asked one thing after another."""

    def __init__(self, members: int = 3) -> None:
        quiet = dict.fromkeys((*plan.RATES, *etcd_plan.RATES), 0.0)
        self.world = EtcdWorld(Plan(1, Profile(members=members, rates=quiet, slowness=0.0), ()))
        self.answers: dict[RequestId, Answer] = {}
        self._sequence = 0

    def form(self) -> Machine:
        self.world._form()
        leader = self.world.leader()
        assert leader is not None
        return leader

    def writes(self) -> Machine | None:
        """The member that would commit a write now."""
        for machine in self.world.used():
            if machine.process is not None and self.world.serves(machine):
                replica = machine.process.replica
                if replica.committed == replica.history.last.index:
                    return machine
        return None

    def ask(self, machine: Machine, order: Order) -> RequestId:
        process, number = machine.process, RequestId(self.world.number())
        assert process is not None
        process.ask(
            number,
            lambda answer, _: self.answers.__setitem__(number, answer),
            lambda now: process.replica.submit(now, number, order),
        )
        return number

    def write(self, machine: Machine) -> RequestId:
        self._sequence += 1
        put = Put(key=ITEMS[0], expected=self._sequence - 1, head=b"")
        return self.ask(
            machine,
            Commit(
                client=b"c" * 16,
                session=b"s" * 16,
                sequence=self._sequence,
                issued_at=int(MIDDLE + self.world.now * 1000),
                changes=(put,),
            ),
        )

    def answer(self, number: RequestId, within: float) -> Answer:
        assert self.world.run_until(self.world.now + within, lambda: number in self.answers), "not answered in time"
        return self.answers[number]

    def others(self, machine: Machine) -> list[Machine]:
        return [each for each in self.world.used() if each is not machine]


def test_a_dead_primary_is_succeeded_within_six_seconds_by_itself() -> None:
    scenario = Scenario()
    leader = scenario.form()
    assert isinstance(scenario.answer(scenario.write(leader), 1.0), int)
    scenario.world.crash(leader, 1000.0)
    assert scenario.world.run_until(scenario.world.now + 6.0, lambda: scenario.writes() is not None)
    successor = scenario.writes()
    assert successor is not None
    assert successor is not leader
    assert isinstance(scenario.answer(scenario.write(successor), 1.0), int)


def test_an_election_in_etcd_costs_nobody_the_authority() -> None:
    scenario = Scenario()
    leader, world = scenario.form(), scenario.world
    world.outside.do_etcd_election(1.7)
    number = scenario.write(leader)
    assert not world.run_until(world.now + 1.0, lambda: number in scenario.answers), "there is nobody to order it"
    assert not world.run_until(world.now + 3.0, lambda: not world.serves(leader)), "the primary lost its authority"
    assert isinstance(scenario.answers[number], int)
    assert len(world.truth.opened) == 1


def beat_late(scenario: Scenario) -> Machine:
    """The primary is silent for long enough, and renews its beat while another member is taking the lead."""
    leader, world = scenario.form(), scenario.world
    world.outside.do_etcd_cut_primary(1000.0)
    ask, tries = world.ask_etcd, 0

    def asks(process: Process, effect: AskEtcd) -> None:
        nonlocal tries
        is_try = isinstance(effect.request, Transaction) and KEYS.lead in {put.key for put in effect.request.puts}
        if not is_try:
            ask(process, effect)
            return
        tries += 1
        world.etcd.cut.clear()
        world.at(world.now + 0.8, lambda: ask(process, effect))

    with patch.object(world, "ask_etcd", asks):
        world.run_until(world.now + 6.0)
    assert tries
    return leader


def test_a_beat_that_comes_while_another_takes_the_lead_keeps_it() -> None:
    scenario = Scenario()
    leader = beat_late(scenario)
    assert scenario.world.serves(leader)
    assert len(scenario.world.truth.opened) == 1
    with (
        patch.object(Observer, "compares", compares_no_beat),
        pytest.raises(AssertionError, match="takes the lead while m0 is read-write"),
    ):
        beat_late(Scenario())


def test_without_space_the_cluster_is_read_only_and_says_so() -> None:
    scenario = Scenario()
    leader, world = scenario.form(), scenario.world
    world.etcd.full_until = 1e9
    assert world.run_until(world.now + AUTHORITY + 1, lambda: scenario.writes() is None)
    refused = scenario.answer(scenario.write(leader), 1.0)
    assert isinstance(refused, MemberReadOnly)
    assert "etcd has no space left" in str(refused)
    for other in scenario.others(leader):
        assert other.process is not None
        assert not other.process.replica.is_current(other.instant())
    assert not world.run_until(world.now + 10.0, lambda: scenario.writes() is not None)
    world.etcd.full_until = 0.0
    assert world.run_until(world.now + 3.0, lambda: scenario.writes() is leader)
    assert len(world.truth.opened) == 1


def test_where_failover_is_manual_an_administrator_orders_the_take_over() -> None:
    scenario = Scenario()
    leader, world = scenario.form(), scenario.world
    for manual in (False, True):
        via = scenario.others(leader)[manual]
        assert isinstance(scenario.answer(scenario.ask(via, SetFailover(manual)), 1.0), int)
    world.crash(leader, 1000.0)
    assert not world.run_until(world.now + 15.0, lambda: scenario.writes() is not None), "nobody ordered it"
    process, number = via.process, RequestId(world.number())
    assert process is not None
    process.ask(
        number,
        lambda answer, _: scenario.answers.__setitem__(number, answer),
        lambda now: process.replica.take_over(now, number, frozenset([leader.id]), force=False),
    )
    assert isinstance(scenario.answer(number, 6.0), int)
    assert world.run_until(world.now + 2.0, lambda: scenario.writes() is via)
    assert world.run_until(world.now + 2.0, lambda: leader.id not in process.replica.ids), "the lost is a member yet"


def test_a_change_of_failover_that_comes_late_undoes_no_later_one() -> None:
    scenario = Scenario()
    leader, world = scenario.form(), scenario.world
    ask, changes = world.ask_etcd, list[Transaction]()

    def asks(process: Process, effect: AskEtcd) -> None:
        request = effect.request
        if isinstance(request, Transaction) and KEYS.failover in {put.key for put in request.puts}:
            changes.append(request)
        ask(process, effect)

    with patch.object(world, "ask_etcd", asks):
        for manual in (True, False, True, False, True):
            assert isinstance(scenario.answer(scenario.ask(leader, SetFailover(manual)), 1.0), int)
    assert len(changes) == 5
    assert all(isinstance(world.etcd.carry_out(change, lambda _: None), Differed) for change in changes)
    assert Place.of(KEYS, world.etcd.kept.values.items()).is_manual()


def test_the_embedded_engine_refuses_to_set_failover() -> None:
    quiet = dict.fromkeys(plan.RATES, 0.0)
    world = World(Plan(1, Profile(members=1, rates=quiet), ()))
    world._form()
    leader, answers = world.leader(), list[Answer]()
    assert leader is not None
    assert leader.process is not None
    process, number = leader.process, RequestId(world.number())
    order = SetFailover(manual=True)
    process.ask(
        number, lambda answer, _: answers.append(answer), lambda now: process.replica.submit(now, number, order)
    )
    world.run_until(world.now + 1.0)
    assert [type(answer) for answer in answers] == [NotPossible]


def test_a_promotion_hands_the_lead_over_without_waiting_for_silence() -> None:
    scenario = Scenario()
    leader, world = scenario.form(), scenario.world
    target = scenario.others(leader)[0]
    assert isinstance(scenario.answer(scenario.ask(leader, Promote(target.id)), 1.0), int)
    assert world.run_until(world.now + 1.0, lambda: scenario.writes() is target)
    assert isinstance(scenario.answer(scenario.write(leader), 1.0), int), "the old primary passes writes on"
    assert world.unasked == 0, "the lead was asked for"


def test_members_stop_when_etcd_goes_back_and_say_why() -> None:
    scenario = Scenario()
    leader, world = scenario.form(), scenario.world
    world.outside.do_etcd_backup()
    assert isinstance(scenario.answer(scenario.write(leader), 1.0), int)
    world.outside.do_etcd_restore()
    lost = scenario.write(leader)
    assert world.run_until(world.now + 10.0, lambda: len(world.stopped()) == 3)
    assert isinstance(scenario.answer(lost, 0.1), LnhError)
    for machine in world.used():
        refused = scenario.answer(scenario.write(machine), 0.1)
        assert isinstance(refused, MemberReadOnly)
        assert str(refused) == stopped.WHY
    world.crash(leader, 0.1)
    assert world.run_until(world.now + 3.0, lambda: leader in world.stopped()), "its next start went along with etcd"


def test_a_cluster_that_etcd_never_took_leaves_nothing_on_disk() -> None:
    scenario = Scenario()
    world = scenario.world
    world.etcd.without_leader_until = 1e9
    machine, number = world.use_slot(), RequestId(world.number())
    process = machine.process
    assert process is not None
    process.ask(
        number,
        lambda answer, _: scenario.answers.__setitem__(number, answer),
        lambda now: process.replica.create(now, number, CLUSTER, machine.info),
    )
    assert isinstance(scenario.answer(number, 12.0), OutcomeUnknown)
    assert process.replica.phase is Phase.NONE
    assert machine.disk.seen.base is None


def test_a_batch_is_found_by_what_follows_and_trimmed_by_what_is_held() -> None:
    keys = place.Keys(CLUSTER)
    batch = keys.log(20)  # entries 11 to 20
    following, within = keys.batches(14, 30), keys.batches_within(19)
    assert following.first <= batch < following.end, "it holds entry 15"
    assert not within.first <= batch < within.end, "it holds entry 20, too"
    assert keys.batches_within(20).first <= batch < keys.batches_within(20).end
