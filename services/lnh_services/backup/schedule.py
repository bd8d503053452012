"""Decides when the cluster is backed up, and by which member. Pure: schedule, last run, members and time in; plan out.

A schedule has planned times; a **slot** is one of them, in UTC seconds. The newest slot that came is due until a run
for it succeeded, so a run that was missed, however many slots ago, is made up once. The last run is kept in the
replicated state and is changed only from what it was, so two members never both begin the same one:

    nothing, or an older slot  -> claimed by the runner -> done
                                                        -> failed: again after RETRY, at most TRIES times
    claimed by me, and I am not at it: I was killed           -> claimed anew
    claimed by another, which is gone or takes for ever       -> claimed by the present runner

The **runner** is the member that was chosen, while it is reachable and read-write, or else the primary.

Daily and weekly times are of the wall clock of a time zone (`zoneinfo`, PEP 495): each day has exactly one. A time that
the clocks skip in spring comes as much later as they are put forward (02:30 becomes 03:30); of one that comes twice in
autumn the first counts. "Every N hours" counts hours that pass, from when the schedule was set, whatever clocks show.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec.structs import replace

from lnh_common.errors import ArgumentInvalid
from lnh_common.messages.backup import DAYS, Every, Run, Schedule
from lnh_common.messages.membership import MemberState

HOUR: Final = 3600
RETRY: Final = 15 * 60  # seconds after which a run that failed is tried again
TRIES: Final = 4
LONGEST: Final = 6 * HOUR  # nobody is at one backup for so long
PATIENCE: Final = HOUR  # a slot that is not done so long after its time is overdue
SKEW: Final = HOUR  # no honest slot is further in the future: then a clock was wrong
_WORKS: Final = frozenset({"read-write", "read-only", "diverged"})
_CLAIMS: Final = frozenset({"read-write", "diverged"})  # one that is read-only cannot: it may change nothing


def zone(schedule: Schedule) -> ZoneInfo:
    """Find the schedule's time zone; raises ArgumentInvalid."""
    try:
        return ZoneInfo(schedule.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ArgumentInvalid(f"no time zone {schedule.zone!r}; one like Europe/Berlin, or UTC") from None


def check(schedule: Schedule) -> None:
    """Raise ArgumentInvalid for a schedule without meaning."""
    zone(schedule)


def described(schedule: Schedule | None) -> str:
    """Describe a schedule in words."""
    if schedule is None:
        return "none"
    at = f"{schedule.minute // 60:02}:{schedule.minute % 60:02} {schedule.zone}"
    if schedule.every is Every.HOURS:
        when = "every hour" if schedule.hours == 1 else f"every {schedule.hours} hours"
    elif schedule.every is Every.DAY:
        when = f"daily at {at}"
    else:
        when = f"weekly on {DAYS[schedule.weekday]} at {at}"
    return f"{when}, keeping {schedule.keep}"


def after(schedule: Schedule, moment: int) -> int:
    """Find the first planned time later than `moment` (UTC seconds)."""
    if schedule.every is Every.HOURS:
        step = schedule.hours * HOUR
        return schedule.since + max(1, (moment - schedule.since) // step + 1) * step
    day = _local_day(schedule, max(moment, schedule.since)) - timedelta(days=1)
    while True:
        slot = _on(schedule, day)
        if slot is not None and slot > max(moment, schedule.since):
            return slot
        day += timedelta(days=1)


def begun(schedule: Schedule, now: int) -> Schedule:
    """Correct a schedule that was set by a clock that was ahead, so that it does not wait until that time comes."""
    if schedule.since <= now + SKEW:
        return schedule
    return replace(schedule, since=schedule.since % (schedule.hours * HOUR) if schedule.every is Every.HOURS else 0)


def latest(schedule: Schedule, moment: int) -> int:
    """Find the newest planned time that has come at `moment`; 0 when none has since the schedule was set."""
    if schedule.every is Every.HOURS:
        step = schedule.hours * HOUR
        passed = (moment - schedule.since) // step
        return schedule.since + passed * step if passed > 0 else 0
    day = _local_day(schedule, moment) + timedelta(days=1)
    for _ in range(10):
        slot = _on(schedule, day)
        if slot is not None and slot <= moment:
            return slot if slot > schedule.since else 0
        day -= timedelta(days=1)
    raise AssertionError("a week without a day")


def _local_day(schedule: Schedule, moment: int) -> date:
    return datetime.fromtimestamp(moment, zone(schedule)).date()


def _on(schedule: Schedule, day: date) -> int | None:
    """Find the planned time of that day of the zone's calendar, if it has one."""
    if schedule.every is Every.WEEK and day.weekday() != schedule.weekday:
        return None
    at = time(schedule.minute // 60, schedule.minute % 60)
    return int(datetime.combine(day, at, zone(schedule)).astimezone(timezone.utc).timestamp())


# --- what to do


@dataclass(frozen=True)
class Plan:
    """The plan of this member.

    Args:
        slot: to be claimed and run now by this member; 0 if none is.
        tries: runs that failed for it already.
        next: the next planned time (UTC seconds).
        overdue: a slot is late, or its run failed.
    """

    slot: int
    tries: int
    next: int
    overdue: bool


def working(members: Iterable[MemberState]) -> frozenset[bytes]:
    """Return the members that could be at a run."""
    return frozenset(member.id for member in members if member.state in _WORKS)


def runner(schedule: Schedule, members: Iterable[MemberState], primary: bytes) -> bytes:
    """Choose the member that makes the backups now: 16 bytes, empty if there is none."""
    there = {member.id for member in members if member.state in _CLAIMS}
    return schedule.member if schedule.member in there else primary


def plan(
    schedule: Schedule,
    run: Run | None,
    now: int,
    me: bytes,
    runs: bytes,
    *,
    works: frozenset[bytes] = frozenset(),
    at_it: int = 0,
) -> Plan:
    """Decide what this member is to do.

    Args:
        run: the last one of the cluster.
        me, runs: this member, and the runner.
        works: members that are there.
        at_it: the slot that this member is running now.
    """
    schedule = begun(schedule, now)
    slot, next_ = latest(schedule, now), after(schedule, now)
    if run is not None and run.slot > now + SKEW:
        run = None  # of a clock that was wrong: it must not stand in the way until that time comes
    pending = slot != 0 and (run is None or run.slot < slot or not (run.ended and not run.problem))
    late = pending and now > slot + PATIENCE
    failed = run is not None and run.slot == slot and bool(run.problem)
    mine = runs == me and pending and at_it != slot
    tries = run.tries if run is not None and run.slot == slot else 0
    if mine and run is not None and run.slot == slot:
        mine = _may_claim(run, now, me, works)
    return Plan(slot if mine else 0, tries, next_, late or failed)


def _may_claim(run: Run, now: int, me: bytes, works: frozenset[bytes]) -> bool:
    """Tell whether the runner may claim the slot of a run that did not succeed (yet)."""
    if run.ended:
        return run.tries < TRIES and (now >= run.ended + RETRY or now < run.started)
    # Begun and not ended: by me, who am not at it, or by another that was the runner then.
    return run.member == me or run.member not in works or not run.started <= now <= run.started + LONGEST
