"""The balancer's choice beside round robin and least connections, in virtual time: what a client waits at the tail."""

from __future__ import annotations

from functools import cache

import pytest

from simulation import balancing
from simulation.balancing import (
    ALL_BUSY,
    DISTANT,
    EQUAL,
    FLAPPING,
    POLICIES,
    SCENARIOS,
    SLOW,
    UNEQUAL,
    Outcome,
    Scenario,
)

pytestmark = pytest.mark.several

OURS, LEAST, ROBIN = POLICIES
SEEDS = (1, 2)

outcome = cache(balancing.run)


def p99(scenario: Scenario, policy: str, seed: int) -> float:
    return outcome(scenario, policy, seed).quantile(0.99)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_request_is_answered(scenario: Scenario, seed: int) -> None:
    ours = outcome(scenario, OURS, seed)
    assert ours.errors == 0
    assert len(ours.latencies) > 0.9 * sum(spec.rate for spec in scenario.members) * (scenario.seconds - 0.5)


@pytest.mark.parametrize("seed", SEEDS)
def test_among_equal_members_it_is_as_good_as_the_others(seed: int) -> None:
    assert p99(EQUAL, OURS, seed) < 1.3 * min(p99(EQUAL, LEAST, seed), p99(EQUAL, ROBIN, seed))
    served = outcome(EQUAL, OURS, seed).served
    assert max(served) < 2 * min(served)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_slow_member_spoils_the_tail_of_the_others_and_gets_less_but_not_nothing(seed: int) -> None:
    assert p99(SLOW, OURS, seed) < 0.5 * p99(SLOW, LEAST, seed)
    assert p99(SLOW, OURS, seed) < 0.02 * p99(SLOW, ROBIN, seed)
    served = outcome(SLOW, OURS, seed).served
    assert 20 < served[2] < 0.1 * sum(served)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_member_that_stops_and_goes_on_costs_few_requests_a_wait(seed: int) -> None:
    ours, robin = outcome(FLAPPING, OURS, seed), outcome(FLAPPING, ROBIN, seed)
    assert ours.quantile(0.99) < 0.1 * robin.quantile(0.99)
    assert ours.moved < 0.1 * robin.moved
    assert ours.latencies[-1] < 1.5
    assert ours.served[2] > 0.1 * sum(ours.served)


@pytest.mark.parametrize("seed", SEEDS)
def test_unequal_members_get_what_they_can_do(seed: int) -> None:
    assert p99(UNEQUAL, OURS, seed) < 0.3 * p99(UNEQUAL, ROBIN, seed)
    assert p99(UNEQUAL, OURS, seed) < 1.5 * p99(UNEQUAL, LEAST, seed)
    one, two, four = outcome(UNEQUAL, OURS, seed).served
    assert one < two
    assert four > 0.5 * one


@pytest.mark.parametrize("seed", SEEDS)
def test_the_way_to_a_distant_member_counts(seed: int) -> None:
    assert p99(DISTANT, OURS, seed) < 0.7 * min(p99(DISTANT, LEAST, seed), p99(DISTANT, ROBIN, seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_members_with_as_much_to_do_send_each_other_little(seed: int) -> None:
    ours, least, robin = (outcome(ALL_BUSY, policy, seed) for policy in POLICIES)
    assert forwarded(ours) < 0.4 * min(forwarded(least), forwarded(robin))
    assert ours.quantile(0.99) < 1.3 * least.quantile(0.99)


def forwarded(of: Outcome) -> float:
    return sum(of.forwarded) / len(of.latencies)


def test_one_seed_replays_one_run() -> None:
    assert balancing.run(FLAPPING, OURS, 3) == balancing.run(FLAPPING, OURS, 3)


def test_the_table_names_every_scenario_under_every_choice() -> None:
    lines = balancing.table([SLOW])
    assert len(lines) == 2 + len(POLICIES)
    assert all(SLOW.name in line for line in lines[2:])
