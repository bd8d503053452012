"""Hundreds of crashes of a simulated store, each from one seed."""

from __future__ import annotations

import os
import time

import pytest

from models import store_simulation

SEEDS = 150


@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_invariants_hold_through_crashes_full_disks_and_stalled_workers(first: int) -> None:
    runs = [store_simulation.run(seed) for seed in range(first, first + 50)]
    assert sum(run.crashes for run in runs) > 50
    assert sum(run.acks for run in runs) > 300
    assert sum(run.cached_reads for run in runs) > 100


@pytest.mark.parametrize(
    "seed",
    [237],  # read while the disk refused the new epoch: another cache still had the older value
)
def test_seeds_that_found_a_fault_stay_sound(seed: int) -> None:
    store_simulation.run(seed, steps=2000)


def test_the_same_seed_is_the_same_run() -> None:
    one, other = store_simulation.run(7), store_simulation.run(7)
    assert one.history == other.history
    assert (one.acks, one.reads) == (other.acks, other.reads)


@pytest.mark.skipif("LNH_SOAK" not in os.environ, reason="runs for LNH_SOAK seconds")
def test_invariants_hold_for_as_long_as_asked() -> None:
    end = time.monotonic() + float(os.environ["LNH_SOAK"])
    seed = SEEDS
    while time.monotonic() < end:
        try:
            store_simulation.run(seed, steps=2000)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
        seed += 1
