"""The figures of a balancer's status, from hand-fed counts."""

from __future__ import annotations

import pytest

from lnh_services.balancer.backends import SILENT_AFTER, Backend
from lnh_services.balancer.status import Rates, Served, percentiles, view_of


def test_rates_are_of_the_last_five_seconds() -> None:
    rates = Rates()
    assert rates.per_second(10.0, 3, 1) == (3.0, 1.0), "of a second, while nothing was noted"
    for second in range(10):
        rates.note(float(second), 100 * second, 0)
    assert rates.per_second(9.0, 900, 10) == (100.0, 2.0)


def test_a_worker_is_asked_what_it_served_while_it_has_work_and_once_more() -> None:
    served = Served(2)
    assert [served.asks(0, has_work=False) for _ in range(3)] == [True, False, False], "an idle one once"
    served.had_work(0)
    assert [served.asks(0, has_work=has) for has in (True, True, False, False)] == [True, True, True, False]
    served.says(0, 7)
    served.says(1, 2)
    served.says(0, 9)
    assert served.total == 11
    served.says(0, 3)
    assert served.total == 14, "it was started anew"


def test_percentiles_are_microseconds_and_zero_without_an_answer() -> None:
    assert percentiles([]) == (0, 0)
    assert percentiles([number / 1000 for number in range(100)]) == (50_000, 99_000)


@pytest.mark.parametrize(
    ("up", "opened", "work", "state"),
    [(False, True, 0, "down"), (True, False, 0, "closed"), (True, True, 1, "silent"), (True, True, 0, "serving")],
)
def test_a_worker_is_shown_as_it_stands(up: bool, opened: bool, work: int, state: str) -> None:
    backend = Backend("worker-0")
    backend.up, backend.open, backend.work = up, opened, work
    assert view_of(backend, 2 * SILENT_AFTER, "").state == state


def test_another_member_is_shown_with_its_group_and_distance_and_is_never_silent() -> None:
    backend = Backend("b", far=True)
    backend.up = backend.open = True
    backend.work, backend.round_trip = 1, 0.0021
    view = view_of(backend, 2 * SILENT_AFTER, "east")
    assert (view.state, view.group, view.round_trip) == ("serving", "east", 2100)
