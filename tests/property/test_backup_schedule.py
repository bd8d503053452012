"""The schedule of backups: planned times in every zone and at every change of clocks, and who runs what is due."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from lnh_common.errors import ArgumentInvalid
from lnh_common.messages.backup import Every, Run, Schedule
from lnh_common.messages.membership import MemberState
from lnh_services.backup import schedule as rules

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Asia/Kathmandu",
    "Africa/Cairo",
)
START = 1_577_836_800  # 2020-01-01 UTC
YEARS = 6 * 366 * 86_400
HOUR = 3600
A, B, C = (name * 16 for name in (b"a", b"b", b"c"))

moments = st.integers(START, START + YEARS)
schedules = st.builds(
    Schedule,
    every=st.sampled_from(Every),
    hours=st.integers(1, 100),
    minute=st.integers(0, 1439),
    weekday=st.integers(0, 6),
    zone=st.sampled_from(ZONES),
    since=st.just(START - 30 * 86_400),
)


def wall(schedule: Schedule, moment: int) -> datetime:
    return datetime.fromtimestamp(moment, ZoneInfo(schedule.zone))


def shown(schedule: Schedule, day: date) -> list[int]:
    """Every instant at which that zone's clocks show the planned time on that day, found by looking at each minute."""
    noon = int(datetime(day.year, day.month, day.day, 12, tzinfo=timezone.utc).timestamp())
    found = []
    for moment in range(noon - 30 * HOUR, noon + 30 * HOUR, 60):
        at = wall(schedule, moment)
        if at.date() == day and at.hour * 60 + at.minute == schedule.minute:
            found.append(moment)
    return found


@given(schedules, moments)
def test_the_next_time_and_the_last_one_are_neighbours(schedule: Schedule, moment: int) -> None:
    last, next_ = rules.latest(schedule, moment), rules.after(schedule, moment)
    assert last <= moment < next_
    assert rules.after(schedule, last) == next_
    assert rules.latest(schedule, next_) == next_
    assert rules.latest(schedule, next_ - 1) == last


@given(schedules, moments)
def test_a_planned_time_is_when_the_clocks_first_show_it(schedule: Schedule, moment: int) -> None:
    slot = rules.after(schedule, moment)
    if schedule.every is Every.HOURS:
        assert (slot - schedule.since) % (schedule.hours * HOUR) == 0
        return
    day = wall(schedule, slot).date()
    times = shown(schedule, day)
    if times:
        assert slot == times[0]
    else:  # the clocks skip it: as much later as they are put forward
        skipped = wall(schedule, slot).utcoffset()
        before = wall(schedule, slot - 3 * HOUR).utcoffset()
        assert skipped is not None
        assert before is not None
        late = wall(schedule, slot).hour * 60 + wall(schedule, slot).minute - schedule.minute
        assert timedelta(minutes=late) == skipped - before > timedelta(0)
    if schedule.every is Every.WEEK:
        assert day.weekday() == schedule.weekday


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("minute", [0, 29, 2 * 60 + 30, 23 * 60 + 59])
def test_every_day_has_one_run(zone: str, minute: int) -> None:
    schedule = Schedule(every=Every.DAY, minute=minute, zone=zone, since=START)
    slot = START
    days: list[date] = []
    while len(days) < 3 * 365:
        slot = rules.after(schedule, slot)
        days.append(wall(schedule, slot).date())
    assert days == [days[0] + timedelta(days=n) for n in range(len(days))]


def test_a_time_that_is_skipped_and_one_that_comes_twice() -> None:
    berlin = Schedule(every=Every.DAY, minute=150, zone="Europe/Berlin", since=START)

    def first_after(*day: int) -> str:
        slot = rules.after(berlin, int(datetime(*day, tzinfo=timezone.utc).timestamp()))  # type: ignore[misc,arg-type]
        return f"{datetime.fromtimestamp(slot, timezone.utc):%d %H:%M} = {wall(berlin, slot):%H:%M}"

    assert first_after(2026, 3, 28) == "28 01:30 = 02:30"
    assert first_after(2026, 3, 29) == "29 01:30 = 03:30"  # there is no 02:30
    assert first_after(2026, 3, 30) == "30 00:30 = 02:30"
    assert first_after(2026, 10, 25) == "25 00:30 = 02:30"  # the first of two
    assert first_after(2026, 10, 25, 1) == "26 01:30 = 02:30"


def test_a_zone_that_is_none_is_refused() -> None:
    for name in ("Europe/Nowhere", "../../etc/passwd", "/etc/passwd", "\0"):
        with pytest.raises(ArgumentInvalid):
            rules.check(Schedule(every=Every.DAY, zone=name))


# --- who runs what


DAILY = Schedule(every=Every.DAY, minute=0, since=START)
NOON = START + 10 * 86_400 + 12 * HOUR
SLOT = START + 10 * 86_400
DONE = Run(slot=SLOT, member=A, name="a", started=SLOT, ended=SLOT + 60, archive="x")


def members(**states: str) -> tuple[MemberState, ...]:
    return tuple(
        MemberState(id=name.encode() * 16, name=name, address="", role="", state=state, group="local", product="")
        for name, state in states.items()
    )


def due(run: Run | None, now: int = NOON, me: bytes = A, runs: bytes = A, at_it: int = 0, works: str = "abc") -> int:
    there = frozenset(name.encode() * 16 for name in works)
    return rules.plan(DAILY, run, now, me, runs, works=there, at_it=at_it).slot


def test_the_runner_is_the_chosen_member_while_it_can_write_and_else_the_primary() -> None:
    chosen = replace(DAILY, member=B)
    assert rules.runner(DAILY, members(a="read-write", b="read-write", c="read-write"), C) == C
    assert rules.runner(chosen, members(b="read-write", c="read-write"), C) == B
    assert rules.runner(chosen, members(b="diverged", c="read-write"), C) == B
    assert rules.runner(chosen, members(b="read-only", c="read-write"), C) == C, "it cannot claim a slot"
    assert rules.runner(chosen, members(a="read-write", b="unreachable"), A) == A
    assert rules.runner(chosen, members(a="read-write"), A) == A


def test_the_newest_slot_is_run_once_by_the_runner_alone() -> None:
    assert due(None) == SLOT
    assert due(None, me=B) == 0
    assert due(DONE) == 0
    assert due(replace(DONE, slot=SLOT - 5 * 86_400)) == SLOT, "five were missed, one is made up"
    assert rules.plan(replace(DAILY, since=NOON - 60), None, NOON, A, A).slot == 0, "none is due from before it was set"


def test_one_under_way_is_left_alone_unless_nobody_can_be_at_it() -> None:
    begun = replace(DONE, ended=0, started=NOON - 60)
    assert due(begun, at_it=SLOT) == 0
    assert due(begun) == SLOT, "mine, and I am not at it: I was killed"
    assert due(begun, me=B, runs=B) == 0, "the former runner is at it"
    assert due(begun, me=B, runs=B, works="bc") == SLOT, "it is gone"
    assert due(begun, now=NOON + 7 * HOUR, me=B, runs=B) == SLOT, "it takes for ever"


def test_a_failed_run_is_repeated_now_and_then_and_complained_of() -> None:
    failed = replace(DONE, ended=NOON - 60, problem="disk full", tries=1)
    assert due(failed) == 0
    assert due(failed, now=NOON + rules.RETRY) == SLOT
    assert due(replace(failed, tries=rules.TRIES), now=NOON + rules.RETRY) == 0
    assert rules.plan(DAILY, failed, NOON, A, A).overdue
    assert rules.plan(DAILY, replace(DONE, slot=SLOT - 86_400), SLOT + 2 * HOUR, A, B).overdue
    assert not rules.plan(DAILY, replace(DONE, slot=SLOT - 86_400), SLOT + 60, A, B).overdue
    assert not rules.plan(DAILY, DONE, NOON, A, A).overdue


@given(moments, st.integers(-400, 400))
def test_a_clock_set_back_or_forward_costs_at_most_one_run_too_many(now: int, days: int) -> None:
    now = max(now, START + 500 * 86_400) // 86_400 * 86_400 + 12 * HOUR
    wrong = now + days * 86_400
    ran = due(None, now=wrong)
    run = replace(DONE, slot=ran, started=wrong, ended=wrong + 60)
    assert due(run, now=wrong + 60) == 0
    begins = due(run, now=now)
    assert begins in (0, rules.latest(DAILY, now))
    if abs(days) > 1:
        assert begins, "whatever the clock was, the schedule goes on"
    again = replace(run, slot=begins or ran, started=now, ended=now + 60)
    assert due(again, now=now + 120) == 0
