"""Makes a failing run smaller: leaves out actions for as long as it still fails, in the same way."""

from __future__ import annotations

import time
from collections.abc import Callable

from simulation.plan import Action, Plan
from simulation.truth import Report
from simulation.world import Failure, run

Run = Callable[[Plan], Report]
KIND = 24  # so many characters of what failed say that it is the same


def failure_of(plan: Plan, run: Run = run) -> Failure | None:
    try:
        run(plan)
    except Failure as failure:
        return failure
    return None


def shrunk(failure: Failure, run: Run = run, *, seconds: float = 30.0) -> Failure:
    """The smallest run found within `seconds` that fails alike: first without halves, then without single actions."""
    end = time.monotonic() + seconds
    best = failure
    size = max(1, len(failure.plan.actions) // 2)
    while time.monotonic() < end:
        smaller = _without(best, size, run, end)
        if smaller is not None:
            best = smaller
        elif size == 1:
            break
        else:
            size = max(1, size // 2)
    return best


def _without(best: Failure, size: int, run: Run, end: float) -> Failure | None:
    """A run that still fails without some `size` actions in a row, the last ones tried first."""
    actions: list[Action] = list(best.plan.actions)
    for first in range(len(actions) - size, -size, -size):
        if time.monotonic() > end:
            return None
        fewer = actions[: max(0, first)] + actions[first + size :]
        failed = failure_of(best.plan.only(fewer), run)
        if failed is not None and failed.why[:KIND] == best.why[:KIND]:
            return failed
    return None
