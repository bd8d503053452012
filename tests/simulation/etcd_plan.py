"""What happens to a simulated cluster over etcd: what happens to any (`plan.py`), and what happens to etcd.

The latter is drawn by a generator of its own, so that the plans of the embedded engine stay as they are.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from simulation import plan
from simulation.plan import Action, Plan, Profile

RATES: dict[str, float] = {  # of each action, a second
    "etcd_cut": 0.1,
    "etcd_deaf": 0.1,
    "etcd_cut_primary": 0.08,
    "part_primary": 0.08,
    "etcd_election": 0.1,
    "etcd_slow": 0.08,
    "etcd_full": 0.04,
}
RESTORES = {"etcd_backup": 0.0, "etcd_restore": 0.0}


def _time(rng: random.Random, *choices: float) -> float:
    return plan._some_time(rng, *choices)


_ARGS: dict[str, Callable[[random.Random], tuple[Any, ...]]] = {
    "etcd_cut": lambda rng: (plan._slot(rng), _time(rng, 0.3, 2.0, 5.0)),
    "etcd_deaf": lambda rng: (plan._slot(rng), _time(rng, 0.1, 0.5, 2.0, 5.0)),
    "etcd_cut_primary": lambda rng: (_time(rng, 2.0, 5.0, 7.0),),
    "part_primary": lambda rng: (_time(rng, 2.0, 5.0, 7.0),),
    "etcd_election": lambda rng: (_time(rng, 0.3, 1.5, 1.5, 5.0),),
    "etcd_slow": lambda rng: (_time(rng, 1.0, 3.0), _time(rng, 0.05, 0.5, 1.5)),
    "etcd_full": lambda rng: (_time(rng, 1.0, 3.0, 6.0),),
    "etcd_backup": lambda _: (),
    "etcd_restore": lambda _: (),
}


def any_profile(rng: random.Random) -> Profile:
    """Runs differ in what is frequent in them, so that rare things meet."""
    profile = plan.any_profile(rng)
    rates = {kind: rng.choice((0.0, 0.5, 1.0, 1.0, 3.0)) for kind in RATES}
    return replace(profile, rates=profile.rates | rates)


def draw(seed: int, profile: Profile | None = None) -> Plan:
    """The plan of a seed; with a profile, of that kind."""
    rng = random.Random(f"{seed}/etcd plan")
    profile = profile or any_profile(rng)
    actions = list(plan.draw(seed, profile).actions)
    for kind, rate in {**RATES, **RESTORES}.items():
        factor = profile.rates.get(kind, 1.0)
        count = (rate or 1.0 / profile.seconds) * factor * profile.seconds if rate or kind in profile.rates else 0.0
        times = int(count) + (rng.random() < count % 1)
        actions += [Action(rng.uniform(0, profile.seconds), kind, _ARGS[kind](rng)) for _ in range(times)]
    actions.sort(key=lambda action: action.at)
    return Plan(seed, profile, tuple(actions))
