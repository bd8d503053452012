"""What happens to a simulated cluster from outside: drawn from a seed, in full, before it runs.

A run is its seed and the list of its actions. What the world itself draws (delays, what a crash keeps) comes from
generators of the same seed, one for each place, so that an action can be left out without changing much else:
that is what makes a failing run shrinkable.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

KEYS = 3
CLIENTS = 3
SLOTS = 8  # machines there may ever be: ids are not used again

RATES: dict[str, float] = {  # of each action, a second
    "write": 7.0,
    "read": 12.0,
    "crash": 0.12,
    "crash_between": 0.12,
    "power_cut": 0.02,
    "stall": 0.12,
    "stall_worker": 0.15,
    "slow_disk": 0.08,
    "full_disk": 0.05,
    "cut": 0.15,
    "isolate": 0.12,
    "split": 0.06,
    "lose_tail": 0.04,
    "join": 0.06,
    "promote": 0.15,
    "remove": 0.04,
    "take_over": 0.08,
    "lease_settings": 0.04,
    "jump": 0.05,
    "look": 0.03,
    "regroup": 0.3,
}
WORKLOAD = ("write", "read")
ADMINISTRATION = ("join", "promote", "remove", "take_over", "lease_settings", "look", "regroup")


class Action(NamedTuple):
    """`kind` names the World's method `do_<kind>`."""

    at: float
    kind: str
    args: tuple[Any, ...]


@dataclass(frozen=True)
class Profile:
    """What a run is like.

    Args:
        rates: factors for RATES.
        loss, duplication, slowness: of messages, as probabilities.
        log_entries: in place of limits.LOG_ENTRIES, so that snapshots happen.
    """

    members: int = 3
    seconds: float = 10.0
    rates: dict[str, float] = field(default_factory=dict)
    loss: float = 0.0
    duplication: float = 0.0
    slowness: float = 0.01
    log_entries: int = 12
    workers: int = 1

    def rate(self, kind: str) -> float:
        return RATES[kind] * self.rates.get(kind, 1.0)


@dataclass(frozen=True)
class Plan:
    seed: int
    profile: Profile
    actions: tuple[Action, ...]

    def only(self, actions: list[Action]) -> Plan:
        return replace(self, actions=tuple(actions))


def any_profile(rng: random.Random) -> Profile:
    """Runs differ in what is frequent in them, so that rare things meet."""
    rates = {kind: rng.choice((0.0, 0.5, 1.0, 1.0, 3.0)) for kind in RATES if kind not in WORKLOAD}
    rates |= {kind: rng.choice((0.5, 1.0, 1.5)) for kind in WORKLOAD}
    return Profile(
        members=rng.choice((1, 2, 2, 3, 3, 3, 3, 4, 4, 5)),
        seconds=rng.choice((6.0, 10.0, 16.0)),
        rates=rates,
        loss=rng.choice((0.0, 0.0, 0.02, 0.1)),
        duplication=rng.choice((0.0, 0.02, 0.1)),
        slowness=rng.choice((0.0, 0.01, 0.1)),
        log_entries=rng.choice((4, 12, 4096)),
        workers=rng.choice((1, 1, 2)),
    )


def draw(seed: int, profile: Profile | None = None) -> Plan:
    """The plan of a seed; with a profile, of that kind."""
    rng = random.Random(f"{seed}/plan")  # the same from every interpreter: a string is hashed with SHA-512
    profile = profile or any_profile(rng)
    actions = []
    for kind in RATES:
        count = profile.rate(kind) * profile.seconds
        times = int(count) + (rng.random() < count % 1)
        actions += [Action(rng.uniform(0, profile.seconds), kind, _ARGS[kind](rng, profile)) for _ in range(times)]
    actions.sort(key=lambda action: action.at)
    return Plan(seed, profile, tuple(actions))


# Arguments are numbers that mean something in every state: a slot is taken modulo what there is.


def _slot(rng: random.Random) -> int:
    return rng.randrange(SLOTS * 9)


def _some_time(rng: random.Random, *choices: float) -> float:
    return round(rng.choice(choices) * rng.uniform(0.7, 1.4), 4)


def _write(rng: random.Random, profile: Profile) -> tuple[Any, ...]:
    shape = rng.choice(("put", "put", "put", "put", "put", "two", "two", "delete", "clear"))
    keys = tuple(rng.sample(range(KEYS), 2))
    guess = rng.choice((0, 0, 0, 0, -1, 1))
    tries = tuple(
        (_slot(rng), _some_time(rng, 0.05, 0.3, 1.0, 2.5), _some_time(rng, 0.01, 0.1, 0.6))
        for _ in range(rng.choice((1, 1, 2, 3, 5)))
    )
    return rng.randrange(CLIENTS), shape, keys, guess, tries, rng.random() < 0.7


def _read(rng: random.Random, profile: Profile) -> tuple[Any, ...]:
    return _slot(rng), rng.randrange(8), rng.choice((None, *range(KEYS), *range(KEYS)))


def _down(rng: random.Random, profile: Profile) -> tuple[Any, ...]:
    return _slot(rng), _some_time(rng, 0.01, 0.3, 1.5, 4.0), rng.random() < 0.5


def _crash_between(rng: random.Random, profile: Profile) -> tuple[Any, ...]:
    return _slot(rng), rng.randrange(40), _some_time(rng, 0.01, 0.3, 2.0)


def _stall(rng: random.Random, profile: Profile) -> tuple[Any, ...]:
    return _slot(rng), rng.randrange(20), _some_time(rng, 0.1, 0.8, 1.6, 3.0)


def _slot_and_time(rng: random.Random, profile: Profile) -> tuple[Any, ...]:
    return _slot(rng), _some_time(rng, 0.2, 0.8, 2.0, 4.0)


def _slot_and_number(rng: random.Random, profile: Profile) -> tuple[Any, ...]:
    return _slot(rng), rng.randrange(2520)


def _regroup(rng: random.Random, profile: Profile) -> tuple[Any, ...]:
    again = tuple((_slot(rng), _some_time(rng, 0.1, 1.0, 3.0)) for _ in range(rng.choice((0, 1, 2))))
    return (_slot(rng), *_slot_and_number(rng, profile), rng.randrange(4), again)


def _take_over(rng: random.Random, profile: Profile) -> tuple[Any, ...]:
    how = rng.choice(("crash", "crash", "isolate", "isolate", "nothing"))
    admins = tuple(
        (_slot(rng), rng.choice((0, 0, 0, 0, 1, 2)), rng.random() < 0.3, _some_time(rng, 1.6, 2.2, 2.2))
        for _ in range(rng.choice((1, 1, 2)))
    )
    return how, _some_time(rng, 3.0, 6.0, 9.0), admins


_ARGS: dict[str, Callable[[random.Random, Profile], tuple[Any, ...]]] = {
    "write": _write,
    "read": _read,
    "crash": _down,
    "crash_between": _crash_between,
    "power_cut": lambda rng, _: (_some_time(rng, 0.01, 1.0),),
    "stall": _stall,
    "stall_worker": lambda rng, _: (_slot(rng), rng.randrange(8), _some_time(rng, 0.05, 0.5, 2.0)),
    "slow_disk": lambda rng, _: (_slot(rng), _some_time(rng, 0.5, 2.0, 4.0), _some_time(rng, 0.02, 0.2, 1.0)),
    "full_disk": _slot_and_time,
    "cut": lambda rng, _: (_slot(rng), _slot(rng), _some_time(rng, 0.2, 1.0, 2.0, 4.0)),
    "isolate": _slot_and_time,
    "split": lambda rng, _: (rng.randrange(1, 255), _some_time(rng, 0.5, 2.0, 4.0)),
    "lose_tail": lambda rng, _: (
        _slot(rng),
        _some_time(rng, 0.05, 0.2),
        _some_time(rng, 0.05, 0.3, 1.0),
        _some_time(rng, 1.0, 3.0, 5.0),
    ),
    "join": _slot_and_number,
    "promote": _slot_and_number,
    "remove": _slot_and_number,
    "take_over": _take_over,
    "lease_settings": lambda rng, _: (_slot(rng), rng.choice((500, 1000, 1500, 2500))),
    "jump": lambda rng, _: (_slot(rng), rng.choice((-5000, -200, 200, 5000))),
    "look": lambda rng, _: (_slot(rng),),
    "regroup": _regroup,
}
