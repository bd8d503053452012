"""When a service that died is started again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lnh_services.restart import FIRST_DELAY, LONGEST_DELAY, STABLE_AFTER, Restarts


def test_the_first_death_costs_the_shortest_delay() -> None:
    assert Restarts().died(ran=0.0) == FIRST_DELAY


def test_each_death_soon_after_a_start_doubles_the_delay_up_to_the_longest() -> None:
    restarts = Restarts(first=1, longest=6)
    assert [restarts.died(ran=0.1) for _ in range(5)] == [1, 2, 4, 6, 6]
    assert restarts.count == 5


def test_running_for_long_forgets_earlier_deaths() -> None:
    restarts = Restarts()
    for _ in range(10):
        restarts.died(ran=0.0)
    assert restarts.died(ran=STABLE_AFTER) == FIRST_DELAY


@given(st.lists(st.floats(0, 100), min_size=1))
def test_a_delay_is_never_shorter_or_longer_than_its_bounds(lives: list[float]) -> None:
    restarts = Restarts()
    assert all(FIRST_DELAY <= restarts.died(ran) <= LONGEST_DELAY for ran in lives)
