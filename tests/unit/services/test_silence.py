"""When a service that answers nothing is ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnh_services.configuration import ActivationSettings, Settings, TimeoutSettings
from lnh_services.paths import MemberDirectory
from lnh_services.serving import Member
from lnh_services.silence import Silence
from lnh_services.supervision import SERVICES, Child


def silence() -> Silence:
    return Silence(0.0, starting=900.0, patience=30.0, longest=3.0)


def test_a_service_that_answered_is_ended_after_so_long_without_an_answer() -> None:
    one = silence()
    one.answered(10.0)
    assert [second for second in range(11, 60) if one.unanswered(float(second))] == list(range(40, 60))


def test_a_service_that_starts_gets_longer() -> None:
    one = silence()
    assert not any(one.unanswered(float(second)) for second in range(1, 900))
    assert one.unanswered(900.0)


def test_a_supervisor_that_stood_still_does_not_take_it_for_silence() -> None:
    one = silence()
    one.answered(0.0)
    assert not one.unanswered(3600.0)
    assert not one.unanswered(2 * 3600.0)
    assert one.seconds == 6.0


@given(st.lists(st.tuples(st.floats(0.01, 100), st.booleans()), max_size=100))
def test_it_is_ended_only_after_enough_questions_since_its_last_answer(
    events: list[tuple[float, bool]],
) -> None:
    one, now, since, answers = silence(), 0.0, 0.0, False
    for step, answer in events:
        now += step
        if answer:
            one.answered(now)
            since, answers = 0.0, True
        else:
            since += min(step, 3.0)
            assert one.unanswered(now) == (since >= (30.0 if answers else 900.0))


@pytest.mark.parametrize(("file", "seconds"), [("secret", 5.0), ("", 20.0)])
def test_an_hsm_that_its_restart_would_seal_is_waited_for_four_times_as_long(
    tmp_path: Path, file: str, seconds: float
) -> None:
    async def patience() -> dict[str, float]:
        activation, timeouts = ActivationSettings(file=file), TimeoutSettings(silence=5_000)
        settings = Settings(name="A", base_port=7100, activation=activation, timeouts=timeouts)
        member = Member(MemberDirectory(tmp_path), settings)
        return {kind.name: Child(kind, member).patience() for kind in SERVICES}

    assert asyncio.run(patience()) == {kind.name: seconds if kind.name == "hsm" else 5.0 for kind in SERVICES}
