"""Simulated clusters under faults, each from one seed, and what shows that the simulator itself is sound.

A change is tried with so many seeds as `make test` has time for; `make soak` goes on from there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from simulation import plan
from simulation.plan import Profile
from simulation.shrink import failure_of, shrunk
from simulation.truth import Report
from simulation.world import Failure, run

pytestmark = pytest.mark.several

SEEDS = 120
CHUNK = 20


def run_or_tell(seed: int) -> Report:
    try:
        return run(plan.draw(seed))
    except Failure as failure:
        pytest.fail(shrunk(failure).told(), pytrace=False)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_invariants_hold_through_faults(first: int) -> None:
    reports = [run_or_tell(seed) for seed in range(first, first + CHUNK)]
    assert sum(report.acknowledged for report in reports) > 20 * CHUNK
    assert sum(report.reads for report in reports) > 20 * CHUNK
    assert sum(report.faults for report in reports) > 4 * CHUNK


def test_the_faults_and_recoveries_all_happen() -> None:
    """So that a change of the world or the replica cannot silently make the other tests easy."""
    totals: Counter[str] = Counter()
    names = ("cached", "denied", "retried", "openings", "take_overs", "snapshots", "dropped")
    for seed in range(1000, 1030):
        report = run_or_tell(seed)
        totals.update({name: getattr(report, name) for name in names})
        if all(totals[name] > 0 for name in names):
            return
    pytest.fail(f"not all of it happens in 30 runs: {totals}")


def test_a_run_without_faults_serves_everybody() -> None:
    quiet = {kind: 0.0 for kind in plan.RATES if kind not in plan.WORKLOAD}
    report = run(plan.draw(1, Profile(members=3, seconds=5.0, rates=quiet)))
    assert report.openings == 1
    assert report.dropped == 0
    assert report.acknowledged > 25
    assert report.cached > 0


def test_one_seed_is_one_run_in_every_interpreter() -> None:
    """Nothing depends on the hashing of strings and bytes, which differs from one interpreter to the next."""
    program = "from simulation import plan, world; print([world.run(plan.draw(seed)) for seed in (3, 7, 11)])"
    tests = Path(__file__).parents[1]

    def in_another(hashing: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hashing, "PYTHONPATH": str(tests)}
        return subprocess.run(
            [sys.executable, "-c", program], cwd=tests, env=environment, check=True, capture_output=True, text=True
        ).stdout

    assert in_another("1") == in_another("2") == f"{[run(plan.draw(seed)) for seed in (3, 7, 11)]}\n"


@pytest.mark.skipif("LNH_SOAK" not in os.environ, reason="runs for LNH_SOAK seconds")
def test_invariants_hold_for_as_long_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    began, told, seed = time.monotonic(), 0.0, SEEDS
    steps = faults = 0
    seconds = float(os.environ["LNH_SOAK"])
    while time.monotonic() - began < seconds:
        report = run_or_tell(seed)
        seed, steps, faults = seed + 1, steps + report.steps, faults + report.faults
        if time.monotonic() - told > 10:
            told = time.monotonic()
            with capsys.disabled():
                print(f"\n{seed - SEEDS} runs (to seed {seed}), {steps} steps, {faults} faults", end="", flush=True)


def test_a_failing_run_is_shrunk_and_told() -> None:
    """With a replica that acknowledges what is not durable."""
    from simulation.mutations import MUTATIONS

    mutation = MUTATIONS["acknowledge before fsync"]
    with mutation.applied():
        failure = next(
            failure for seed in range(20) if (failure := failure_of(plan.draw(seed, mutation.profile))) is not None
        )
        small = shrunk(failure, seconds=600)
    assert len(small.plan.actions) <= 5 < len(failure.plan.actions)
    assert f"seed {small.plan.seed}" in small.told()
    assert "Persist" in small.told()
