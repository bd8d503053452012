"""That the simulator can see: each known fault of the protocol, put into the replica, breaks an invariant it checks."""

from __future__ import annotations

import pytest

from simulation import plan
from simulation.mutations import MUTATIONS, ONCE
from simulation.shrink import failure_of

pytestmark = pytest.mark.several

SEEDS = 60


@pytest.mark.parametrize("name", [*MUTATIONS, *ONCE])
def test_a_known_fault_is_seen(name: str) -> None:
    mutation = {**MUTATIONS, **ONCE}[name]
    for seed in (mutation.shown_by, *range(SEEDS)):
        run = plan.draw(seed, mutation.profile)
        with mutation.applied():
            caught = failure_of(run) is not None
        if caught:
            sound = failure_of(run)
            assert sound is None, f"the run fails without the fault, too:\n{sound.told()}"
            return
    pytest.fail(f"{SEEDS} runs show nothing wrong with a replica that may {name}")
