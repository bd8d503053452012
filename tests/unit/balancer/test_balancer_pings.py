"""For how long a peer has been silent, also where this process is slow itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lnh_services.balancer.peers import GONE_AFTER
from lnh_services.balancer.pings import EXCUSES, Pings


def test_a_peer_is_silent_since_the_first_ping_that_it_did_not_answer() -> None:
    pings = Pings()
    assert pings.silent_for(5.0) == 0.0
    pings.asked(1.0, 1)
    pings.asked(2.0, 2)
    assert pings.silent_for(3.0) == 2.0
    assert pings.answered(2) == 2.0
    assert pings.silent_for(9.0) == 0.0
    assert pings.answered(1) is None


def test_who_answers_after_this_process_stood_still_is_there() -> None:
    pings = Pings()
    pings.asked(1.0, 1)
    pings.excuse(60.0)
    assert pings.silent_for(60.0) == 0.0
    assert pings.answered(1) == 60.0


@given(st.floats(GONE_AFTER / 2, 5.0), st.integers(EXCUSES + 2, 40))
def test_a_silent_peer_is_gone_though_every_turn_is_slow(turn: float, turns: int) -> None:
    pings = Pings()
    now, gone = 0.0, 0
    for number in range(turns):
        pings.excuse(now)
        gone += pings.silent_for(now) > GONE_AFTER
        pings.asked(now, number)
        now += turn
    assert gone or turns * turn <= (EXCUSES + 2) * turn + GONE_AFTER


@given(st.lists(st.floats(0.4, 5.0), min_size=1, max_size=40))
def test_a_peer_that_answers_in_every_turn_is_never_gone_however_slow_they_are(turns: list[float]) -> None:
    pings = Pings()
    now = 0.0
    for number, turn in enumerate(turns):
        pings.excuse(now)
        assert pings.silent_for(now) <= GONE_AFTER
        pings.asked(now, number)
        now += turn
        pings.excuse(now)
        assert pings.answered(number) is not None
