"""The timeline that is told of stamps, from hand-fed ones; and that every step of the way is somebody's point."""

from __future__ import annotations

from lnh_cli.support import timeline
from lnh_cli.support.timeline import CLIENT, OURS, UNDER_WAY, WAY, told
from lnh_common.timeline import Stamp
from lnh_services.balancer.timeline import POINTS
from lnh_services.hsm.worker import timeline as of_workers
from lnh_services.hsm.worker.loop import Worker


def request(begun: int, step: int, without: int | None = None) -> list[Stamp]:
    """The stamps of a request whose steps take so many nanoseconds each, half of them the processor's."""
    return [
        Stamp(begun + number * step, (begun + number * step) // 2, process, point)
        for number, (process, point, _) in enumerate(WAY)
        if number != without
    ]


def test_every_step_of_the_way_is_a_point_of_its_process() -> None:
    of = {"balancer": POINTS, "worker": of_workers.points(Worker)}
    for process, point, _ in WAY:
        assert process == CLIENT or point in {each.name for each in of[process]}, (process, point)


def test_steps_are_told_in_microseconds_by_what_they_are_and_whose() -> None:
    pings = [Stamp(at, at, "balancer", "woke") for at in range(0, 200_000, 7_000)]
    measured = told([*pings, *request(100_000, 2_000), *request(0, 2_000), *request(50_000, 2_000)])
    assert (measured.complete, measured.requests) == (3, 3)
    assert [(step.process, step.point) for step in measured.steps] == [(process, point) for process, point, _ in WAY]
    assert measured.steps[-1].at == 2.0 * (len(WAY) - 1)
    assert sum(measured.by_kind().values()) == measured.steps[-1].at
    assert measured.by_kind()[UNDER_WAY] <= 8.0
    assert measured.by_kind()[OURS] > measured.by_kind()[UNDER_WAY]
    assert measured.by_process()[CLIENT] == measured.steps[-1].at / 2, "from its first step to its last"


def test_a_request_that_was_not_seen_on_all_of_its_way_does_not_count() -> None:
    measured = told([*request(0, 1_000), *request(90_000, 50_000, without=8)])
    assert (measured.complete, measured.requests) == (1, 2)
    assert measured.steps[1].took == 1.0
    assert told(request(0, 1_000, without=5)) == timeline.Measured([], 0, 1)
