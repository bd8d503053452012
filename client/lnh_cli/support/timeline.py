"""The timeline of one request through client, balancer and worker (`lnh bench --timeline`)."""

from __future__ import annotations

import statistics
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from lnh_common import timeline
from lnh_common.timeline import Stamp

CLIENT: Final = "client"
UNDER_WAY: Final = "libzmq and kernel"  # from what sends in one process to the wake of the next one
OURS: Final = "ours"

# What happens to one request that is alone, in this order: the process, the point, and what the time before it is.
WAY: Final[tuple[tuple[str, str, str], ...]] = (
    (CLIENT, "called", ""),
    (CLIENT, "sealed", OURS),
    (CLIENT, "sends", OURS),
    ("balancer", "woke", UNDER_WAY),
    ("balancer", "received", OURS),
    ("balancer", "routed", OURS),
    ("balancer", "sends to the worker", OURS),
    ("worker", "woke", UNDER_WAY),
    ("worker", "received", OURS),
    ("worker", "opened", OURS),
    ("worker", "checked", OURS),
    ("worker", "used", "the key's use"),
    ("worker", "sealed", OURS),
    ("worker", "sends", OURS),
    ("balancer", "woke", UNDER_WAY),
    ("balancer", "answer received", OURS),
    ("balancer", "sends to the client", OURS),
    (CLIENT, "received", UNDER_WAY),
    (CLIENT, "opened", OURS),
    (CLIENT, "returned", OURS),
)
_STEPS: Final = [(process, point) for process, point, _ in WAY]


class Step(NamedTuple):
    """One step of the way: medians, in microseconds.

    Args:
        kind: what the time before it is.
        at: since the call.
        took: since the step before it.
        spent: processor time of its thread since that thread's step before it, 0 for the first of each; libzmq's own
            threads are not counted.
    """

    process: str
    point: str
    kind: str
    at: float
    took: float
    spent: float


class Measured(NamedTuple):
    """The steps, and how many of all requests showed every one of them."""

    steps: list[Step]
    complete: int
    requests: int

    def by_kind(self) -> dict[str, float]:
        """Add up what the steps took, by what that time is."""
        kinds: dict[str, float] = {}
        for step in self.steps[1:]:
            kinds[step.kind] = kinds.get(step.kind, 0.0) + step.took
        return kinds

    def by_process(self) -> dict[str, float]:
        """Add up the processor time of the steps, by process."""
        processes: dict[str, float] = {}
        for step in self.steps:
            processes[step.process] = processes.get(step.process, 0.0) + step.spent
        return processes


def measure(member: Path, act: Callable[[], object], requests: int) -> Measured:
    """Make requests one after the other, and read where the time of each went.

    Args:
        member: the directory of the member that serves them, on this machine, started with `LNH_TIMELINE`.
        act: makes one request, and waits for its answer.
    """
    from lnh.net.channel import Channel
    from lnh_common.bus.dealer import Dealer
    from lnh_common.wire import channel

    stamps: list[Stamp] = []

    def note(point: str) -> None:
        stamps.append(Stamp(time.monotonic_ns(), time.thread_time_ns(), CLIENT, point))

    points = (
        timeline.Point("sealed", channel, "seal_request"),
        timeline.Point("sends", Dealer, "send", before=True),
        timeline.Point("received", Channel, "_receive"),
        timeline.Point("opened", channel, "open_answer"),
    )
    unwrap = timeline.wrap(points, lambda number: note(points[number].name))
    try:
        for _ in range(requests):
            note("called")
            act()
            note("returned")
    finally:
        unwrap()
    return told([*stamps, *timeline.read(member)])


def told(stamps: Sequence[Stamp]) -> Measured:
    """Make the timeline of all requests that the stamps show whole."""
    ordered = sorted(stamps)
    times = [stamp.at for stamp in ordered]
    begun = [stamp.at for stamp in ordered if (stamp.process, stamp.point) == (CLIENT, "called")]
    ended = [stamp.at for stamp in ordered if (stamp.process, stamp.point) == (CLIENT, "returned")]
    ways: list[list[Stamp]] = []
    for began, end in zip(begun, ended, strict=True):
        way = timeline.follow(ordered[bisect_left(times, began) : bisect_right(times, end)], _STEPS)
        if way is not None:
            ways.append(way)
    if not ways:
        return Measured([], 0, len(begun))
    steps: list[Step] = []
    before: dict[str, int] = {}
    for number, (process, point, kind) in enumerate(WAY):
        at = statistics.median(way[number].at - way[0].at for way in ways)
        took = statistics.median(way[number].at - way[max(number - 1, 0)].at for way in ways)
        last = before.get(process, number)
        spent = statistics.median(way[number].spent - way[last].spent for way in ways)
        before[process] = number
        steps.append(Step(process, point, kind, at / 1000, took / 1000, spent / 1000))
    return Measured(steps, len(ways), len(begun))
