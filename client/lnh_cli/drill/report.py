"""The events of a drill, and the report that is made of them: what was done, how long it took, what the client saw.

All of it is pure. Times are seconds since the drill began.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from lnh_common.text import shown

GAP: Final = 1.0  # seconds without a result that are shown as a pause in the timeline
PAGE: Final = "docs/operations.md"


class What(str, enum.Enum):
    """What an event says."""

    SCENARIO = "scenario"  # one begins
    STEP = "step"  # one is done
    FAILED = "failed"  # one failed, which ends the scenario
    END = "end"  # the scenario is over
    SIGNED = "signed"
    MADE = "made"  # and it was acknowledged: this key may not be lost
    ERROR = "error"  # that the client got
    LOGIN = "login"
    HELD = "held"  # no keys are made from here on, as was asked
    RESUMED = "resumed"
    ACCOUNTED = "accounted"  # the acknowledged keys were looked for through a member
    CLEANED = "cleaned"  # what the client made is destroyed


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened.

    Args:
        at: when it ended; of a step, when it began.
        what: which.
        scenario: its name.
        took: seconds.
        words: of a scenario its title, of a step what is done, of an error which act failed.
        command: of a step, as it was run.
        section: of the page.
        problem: of what failed; of an error its name and words.
        advice: of what failed, what to do.
        handle: of a key.
        member: through which keys were looked for.
        lost: handles of acknowledged keys that were not found.
    """

    at: float
    what: What
    scenario: str = ""
    took: float = 0.0
    words: str = ""
    command: str = ""
    section: str = ""
    problem: str = ""
    advice: str = ""
    handle: str = ""
    member: str = ""
    lost: tuple[str, ...] = ()


class StepLine(msgspec.Struct, frozen=True):
    """A step as it is shown; `began` counts from the scenario's beginning."""

    words: str
    command: str
    section: str
    began: float
    took: float
    problem: str
    advice: str


class Flow(msgspec.Struct, frozen=True):
    """How one kind of the client's work went on.

    Args:
        done: how many.
        longest_wait: the longest time without one, in seconds.
        pauses: each time without one that is longer than `GAP`: from and to.
    """

    done: int
    longest_wait: float
    pauses: tuple[tuple[float, float], ...]


class ClientLines(msgspec.Struct, frozen=True):
    """What the client in the background saw.

    Args:
        signatures, keys: its work; the keys are acknowledged ones.
        logins: how often it logged in, the first times included.
        errors: how many there were, by name.
        accounted: the members through which the keys were looked for.
        lost: handles of acknowledged keys that one of them did not find.
        worked: from when to when it was there.
    """

    signatures: Flow
    keys: Flow
    logins: int
    errors: dict[str, int]
    accounted: tuple[str, ...]
    lost: tuple[str, ...]
    worked: tuple[float, float]


class ScenarioLines(msgspec.Struct, frozen=True):
    """One scenario as it is shown; times within count from its beginning."""

    name: str
    title: str
    section: str
    passed: bool
    began: float
    took: float
    steps: tuple[StepLine, ...]
    client: ClientLines


class Report(msgspec.Struct, frozen=True):
    """A whole drill.

    Args:
        where: the cluster that it was done on.
        moment: when it began, as people read it.
        passed: whether every scenario that was to be rehearsed went through, and no key was lost.
        took: seconds.
        problem: what ended the drill early; "" when nothing did.
    """

    where: str
    moment: str
    passed: bool
    took: float
    problem: str
    scenarios: tuple[ScenarioLines, ...]


def report(events: Iterable[Event], *, where: str, moment: str, problem: str = "") -> Report:
    """Make the report of a drill from its events, whatever their order."""
    of_scenario: dict[str, list[Event]] = {}
    for event in sorted(events, key=lambda event: event.at):
        of_scenario.setdefault(event.scenario, []).append(event)
    scenarios = tuple(_scenario(found) for found in of_scenario.values() if _has(found, What.SCENARIO))
    ends = [each.began + each.took for each in scenarios]
    return Report(
        where=where,
        moment=moment,
        passed=not problem and bool(scenarios) and all(each.passed for each in scenarios),
        took=max(ends, default=0.0),
        problem=problem,
        scenarios=scenarios,
    )


def _has(events: Iterable[Event], what: What) -> bool:
    return any(event.what is what for event in events)


def _scenario(events: Sequence[Event]) -> ScenarioLines:
    first = next(event for event in events if event.what is What.SCENARIO)
    end = max(event.at + (event.took if event.what in {What.STEP, What.FAILED} else 0.0) for event in events)
    steps = tuple(
        StepLine(
            event.words, event.command, event.section, event.at - first.at, event.took, event.problem, event.advice
        )
        for event in events
        if event.what in {What.STEP, What.FAILED}
    )
    client = _client(events, first.at)
    return ScenarioLines(
        name=first.scenario,
        title=first.words,
        section=first.section,
        passed=_has(events, What.END) and not any(step.problem for step in steps) and not client.lost,
        began=first.at,
        took=end - first.at,
        steps=steps,
        client=client,
    )


def _client(events: Sequence[Event], zero: float) -> ClientLines:
    results = [event.at - zero for event in events if event.what in {What.SIGNED, What.MADE, What.LOGIN, What.ERROR}]
    worked = (min(results, default=0.0), max(results, default=0.0))
    signed = [event.at - zero for event in events if event.what is What.SIGNED]
    made = [event.at - zero for event in events if event.what is What.MADE]
    failed = [event for event in events if event.problem and event.what in {What.ERROR, What.ACCOUNTED}]
    errors = Counter(event.problem.partition(":")[0] for event in failed)
    accounted = [event for event in events if event.what is What.ACCOUNTED and not event.problem]
    return ClientLines(
        signatures=flow(signed, [worked]),
        keys=flow(made, list(_unheld(events, zero, worked))),
        logins=sum(event.what is What.LOGIN for event in events),
        errors=dict(sorted(errors.items())),
        accounted=tuple(dict.fromkeys(event.member for event in accounted)),
        lost=tuple(sorted({handle for event in accounted for handle in event.lost})),
        worked=worked,
    )


def _unheld(events: Iterable[Event], zero: float, worked: tuple[float, float]) -> Iterator[tuple[float, float]]:
    """Yield the times in which keys were to be made."""
    begins: float | None = worked[0]
    for event in events:
        if event.what is What.HELD and begins is not None:
            yield begins, event.at - zero
            begins = None
        elif event.what is What.RESUMED and begins is None:
            begins = event.at - zero
    if begins is not None and begins <= worked[1]:
        yield begins, worked[1]


def flow(done: Sequence[float], spans: Iterable[tuple[float, float]]) -> Flow:
    """Say how work went on.

    Args:
        done: when each piece was done.
        spans: the times in which there was to be some; a wait begins and ends with one at the latest.
    """
    waits = []
    for begins, ends in spans:
        moments = [begins, *sorted(moment for moment in done if begins < moment < ends), ends]
        waits += list(pairwise(moments))
    return Flow(
        done=len(done),
        longest_wait=max((ends - begins for begins, ends in waits), default=0.0),
        pauses=tuple((begins, ends) for begins, ends in waits if ends - begins > GAP),
    )


def client_words(client: ClientLines) -> list[str]:
    """Say in sentences what the client saw."""
    signatures, keys = client.signatures, client.keys
    work = f"{signatures.done} signatures, longest wait {signatures.longest_wait:.1f} s"
    work += f"; {keys.done} keys, longest wait {keys.longest_wait:.1f} s; {client.logins} logins"
    errors = ", ".join(f"{name} {count}" for name, count in client.errors.items())
    sentences = [work, f"errors seen: {errors or 'none'}"]
    if client.lost:
        sentences.append(f"LOST: {len(client.lost)} acknowledged keys: {', '.join(client.lost)}")
    elif client.accounted:
        sentences.append(f"no acknowledged key was lost: all found through {', '.join(client.accounted)}")
    else:
        sentences.append("whether a key was lost was not looked at: the scenario ended before")
    return sentences


def verdict(*, passed: bool) -> str:
    """Say how a drill, or a scenario, ended."""
    return "passed" if passed else "FAILED"


def text(made: Report) -> str:
    """Show a report as plain text; what came from outside is escaped."""
    lines = [f"drill on {made.where}, {made.moment}: {verdict(passed=made.passed)} after {made.took:.1f} s"]
    for scenario in made.scenarios:
        state = verdict(passed=scenario.passed)
        lines += ["", f"{scenario.name}: {scenario.title}: {state} after {scenario.took:.1f} s"]
        lines.append(f"  {PAGE}, section {scenario.section!r}")
        for step in scenario.steps:
            lines.append(f"  {step.began:7.1f} s  {step.took:6.1f} s  {step.words}")
            if step.command:
                lines.append(f"{'':22}$ {step.command}")
            if step.problem:
                lines += [f"{'':20}FAILED: {line}" for line in step.problem.splitlines()]
                lines.append(f"{'':20}try: {step.advice}")
        lines += [f"  client: {sentence}" for sentence in client_words(scenario.client)]
    if made.problem:
        lines += ["", f"ended early: {made.problem}"]
    return "\n".join(map(shown, lines)) + "\n"
