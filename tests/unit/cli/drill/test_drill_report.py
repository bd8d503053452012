"""The report of a drill, from its events: figures, verdicts, and pages in which nothing from outside does anything."""

from __future__ import annotations

import random
from html.parser import HTMLParser
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lnh_cli.drill.page import page
from lnh_cli.drill.report import GAP, Event, Report, What, client_words, flow, report, text
from lnh_common.text import shown

MOMENTS = st.lists(st.floats(0, 1000, allow_nan=False), max_size=40)


def made(*events: Event, problem: str = "") -> Report:
    return report(events, where="a cluster", moment="2026-11-29T12:00:00Z", problem=problem)


def course(*events: Event) -> list[Event]:
    """A scenario that goes through, with these events in it."""
    begin = Event(10.0, What.SCENARIO, "primary", words="The primary is lost", section="What a fault looks like")
    step = Event(11.0, What.STEP, "primary", took=2.0, words="Kill it", command="lnh member delete a", section="s")
    named = [msgspec.structs.replace(event, scenario="primary") for event in events]
    return [begin, step, *named, Event(40.0, What.END, "primary")]


def signed(*moments: float) -> list[Event]:
    return [Event(moment, What.SIGNED) for moment in moments]


def kept(*moments: float) -> list[Event]:
    return [Event(moment, What.MADE, handle=f"{number:032x}") for number, moment in enumerate(moments)]


@given(MOMENTS, st.floats(0, 500, allow_nan=False), st.floats(0, 500, allow_nan=False))
def test_no_wait_is_longer_than_the_longest_and_all_that_are_long_are_pauses(
    moments: list[float], begins: float, length: float
) -> None:
    ends = begins + length
    found = flow(moments, [(begins, ends)])
    inside = sorted(moment for moment in moments if begins < moment < ends)
    edges = [begins, *inside, ends]
    waits = [later - earlier for earlier, later in pairwise(edges)]
    assert found.done == len(moments)
    assert found.longest_wait == max(waits)
    assert len(found.pauses) == sum(wait > GAP for wait in waits)
    assert all(until - since > GAP for since, until in found.pauses)
    assert not any(since < moment < until for since, until in found.pauses for moment in moments)


def test_a_client_that_gets_nothing_at_the_end_waits_until_its_last_error() -> None:
    events = course(*signed(12, 12.5, 13), Event(20, What.ERROR, problem="Unreachable: nobody"))
    (scenario,) = made(*events).scenarios
    assert scenario.client.signatures.longest_wait == pytest.approx(7.0)
    assert scenario.client.signatures.pauses == ((3.0, 10.0),)
    assert scenario.client.errors == {"Unreachable": 1}


def test_the_time_in_which_no_keys_were_to_be_made_is_no_wait_for_one() -> None:
    events = course(*kept(12, 13), Event(13.5, What.HELD), Event(35, What.RESUMED), *kept(35.5, 36))
    (scenario,) = made(*events).scenarios
    assert scenario.client.keys.longest_wait == pytest.approx(1.0)
    without = course(*kept(12, 13), *kept(35.5, 36))
    assert made(*without).scenarios[0].client.keys.longest_wait == pytest.approx(22.5)


@given(st.integers())
def test_the_order_in_which_events_are_told_changes_nothing(seed: int) -> None:
    events = course(*signed(12, 13.25, 19), *kept(14, 15), Event(16, What.ERROR, problem="Busy: later"))
    shuffled = list(events)
    random.Random(seed).shuffle(shuffled)
    assert made(*shuffled) == made(*events)


def test_a_scenario_that_came_to_its_end_with_every_key_there_has_passed() -> None:
    found = made(*course(*signed(12, 13), *kept(14), Event(20, What.ACCOUNTED, member="member-b")))
    assert found.passed
    assert found.scenarios[0].took == pytest.approx(30.0)
    assert "no acknowledged key was lost: all found through member-b" in text(found)
    assert "lnh member delete a" in text(found)


def test_a_lost_key_is_named_and_no_drill_with_one_has_passed() -> None:
    lost = Event(20, What.ACCOUNTED, member="member-b", lost=("00ff",))
    found = made(*course(*kept(14), lost))
    assert not found.passed
    for words in (text(found), page(found)):
        assert "LOST: 1 acknowledged keys: 00ff" in words
        assert "FAILED" in words


def test_keys_that_could_not_be_looked_for_are_not_said_to_be_there() -> None:
    failed = Event(20, What.ACCOUNTED, member="member-b", problem="Unreachable: nobody answers")
    (scenario,) = made(*course(*kept(14), failed)).scenarios
    assert scenario.client.accounted == ()
    assert scenario.client.errors == {"Unreachable": 1}
    assert "not looked at" in " ".join(client_words(scenario.client))


def test_a_step_that_failed_says_what_failed_and_what_to_do() -> None:
    events = course()[:-1]
    failed = Event(13, What.FAILED, "primary", took=1.5, words="Start it", problem="no port\nat all", advice="free one")
    found = made(*events, failed, problem="a scenario failed; not rehearsed: cut")
    assert not found.passed
    for words in (text(found), page(found)):
        for piece in ("Start it", "no port", "at all", "free one", "not rehearsed: cut"):
            assert piece in words


@pytest.mark.parametrize("problem", ["", "interrupted"])
def test_a_scenario_without_its_end_and_a_drill_without_scenarios_have_not_passed(problem: str) -> None:
    assert not made(*course()[:-1]).passed
    assert not made(problem=problem).passed
    assert made(*course()).passed
    assert not made(*course(), problem="interrupted").passed


def test_what_programs_read_is_all_that_people_are_shown() -> None:
    found = made(*course(*signed(12, 13), *kept(14), Event(20, What.ACCOUNTED, member="member-b")))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Report) == found


class Elements(HTMLParser):
    """What a browser makes of a page: its elements, attributes, and what is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.shown = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.shown += data


TAGS = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "span", "table", "tr", "th", "td", "ul", "li", "br",
    "code", "pre", "svg", "rect", "line", "text",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "class", "viewbox", "role", "x", "y", "x1", "x2", "y1", "y2",
    "width", "height",
}  # fmt: skip
HOSTILE = st.sampled_from(
    ["<script>alert(1)</script>", '"><img src=x onerror=y>', "</title></style>", "&lt;", "\x1b[31m", "\u202e"]
)


@given(HOSTILE | st.text(max_size=60), HOSTILE | st.text(max_size=60))
def test_nothing_in_the_page_comes_from_elsewhere_or_does_anything(words: str, problem: str) -> None:
    events = course(Event(15, What.ERROR, problem=problem), *signed(12, 14), *kept(16))[:-1]
    failed = Event(
        30, What.FAILED, "primary", took=1, words=words, command=words, section=words, problem=problem, advice=words
    )
    found = report([*events, failed], where=words, moment=words, problem=problem)
    elements = Elements()
    elements.feed(page(found))
    elements.close()
    assert elements.tags <= TAGS
    assert elements.attributes <= ATTRIBUTES
    assert all(shown(line) in elements.shown for line in words.split("\n"))
    assert "\x1b" not in page(found) + text(found)


def test_a_timeline_has_a_bar_for_each_step_and_each_pause() -> None:
    drawn = page(made(*course(*signed(12, 13, 20), *kept(12, 13))))
    assert drawn.count('<rect class="step"') == 1
    assert drawn.count('<rect class="flow"') == 2
    assert "7.0 s without signatures" in drawn
