"""The drill runs what stands in docs/operations.md: its table against the page, and against the command line."""

from __future__ import annotations

import functools
import re
import typing
from pathlib import Path

import pytest
import typer

from leaves import leaves
from lnh_cli.drill import runner, steps
from lnh_cli.drill.scenarios import SAFE, SCENARIOS, on_cluster
from lnh_cli.drill.steps import ADVICE, Account, Act, Flow, Probe, Run, Scenario, See, Start, Step, fill, outline
from lnh_cli.main import tree
from lnh_common.errors import ArgumentInvalid

ROOT = Path(__file__).parents[4]
MEMBERS = {"one": "127.0.0.1:7100", "two": "127.0.0.1:7200", "three": "127.0.0.1:7300"}
ON_CLUSTER = on_cluster(MEMBERS, "one")
EVERY = (*SCENARIOS, *ON_CLUSTER)
WITH_COMMAND = [
    pytest.param(step, step.section or scenario.section, id=f"{scenario.name}: {step.command}")
    for scenario in EVERY
    for step in scenario.steps
    if step.command
]
ACTS = set(typing.get_args(Act))
_PLACEHOLDER = re.compile(r"[A-Z]{2,}(:.*)?")  # as a page writes what an operator puts in


def sections() -> dict[str, str]:
    """The sections of the runbook, by heading, each with those below it and its white space made one."""
    page = (ROOT / "docs" / "operations.md").read_text()
    found = {}
    for heading in re.finditer(r"^(##+) (.+)$", page, flags=re.MULTILINE):
        level, title = heading.groups()
        text, *_ = re.split(rf"^#{{2,{len(level)}}} ", page[heading.end() :], maxsplit=1, flags=re.MULTILINE)
        found[title] = " ".join(text.split())
    return found


SECTIONS = sections()


@pytest.mark.parametrize(("step", "section"), WITH_COMMAND)
def test_each_command_stands_in_the_section_that_it_rehearses(step: Step, section: str) -> None:
    assert re.search(rf"(?<![\w-]){re.escape(step.command)}(?=[`\s,;]|$)", SECTIONS[section]), step.command


@pytest.mark.parametrize("scenario", EVERY, ids=lambda scenario: scenario.name)
def test_each_scenario_rehearses_a_section_and_ends_with_an_account_of_all_keys(scenario: Scenario) -> None:
    assert scenario.section in SECTIONS
    assert scenario.steps[-1].act == Account()
    assert all(step.words and step.within > 0 for step in scenario.steps)


def test_the_page_lists_the_scenarios_that_there_are() -> None:
    listed = re.findall(
        r"^\| `(\w+)` \|", (ROOT / "docs" / "operations.md").read_text().partition("## Rehearsing it")[2], re.MULTILINE
    )
    names = [scenario.name for scenario in SCENARIOS]
    assert listed[: len(names)] == names
    assert tuple(scenario.name for scenario in ON_CLUSTER) == SAFE
    assert all(f"`{name}`" in SECTIONS["Rehearsing it"] for name in SAFE)


@functools.cache
def commands() -> list[tuple[tuple[str, ...], typing.Any]]:
    return list(leaves(typer.main.get_group(tree())))


def options_of(words: list[str]) -> set[str]:
    """The options of the command that words of a command line name."""
    if words[0] == "LNHClientRegistration":
        words = ["lnh", "client", "register", *words[1:]]
    command = next(each for path, each in commands() if words[1 : len(path) + 1] == list(path))
    return {option for parameter in command.params for option in parameter.opts}


RUNS = [
    pytest.param(step.act, id=f"{scenario.name}: {step.act.command}")
    for scenario in EVERY
    for step in scenario.steps
    if isinstance(step.act, Run | Probe)
]


@pytest.mark.parametrize("act", RUNS)
def test_each_command_is_complete_and_has_only_options_that_there_are(act: Run | Probe) -> None:
    words = fill(act.command, act.values) + list(act.more) if isinstance(act, Run) else act.command.split()
    assert [word for word in words if _PLACEHOLDER.fullmatch(word) and word != "AES"] == []
    if words[0] != "lnh-member":
        assert {word for word in words if word.startswith("-")} <= options_of(words)


def test_every_act_is_performed_and_has_an_advice(tmp_path: Path) -> None:
    assert set(ADVICE) == ACTS
    assert set(runner.ThrowAway(tmp_path, print)._performers) == ACTS


def test_on_a_cluster_that_serves_nothing_is_done_but_what_is_safe() -> None:
    acts = [step.act for scenario in ON_CLUSTER for step in scenario.steps]
    assert {type(act) for act in acts} <= {Run, See, Flow, Account}
    assert {act.command for act in acts if isinstance(act, Run)} == {
        "lnh status", "lnh backup now [--to DIRECTORY]", "lnh backup verify NAME", "lnh member promote NAME",
    }  # fmt: skip
    promoted = [act.values["NAME"] for act in acts if isinstance(act, Run) and "promote" in act.command]
    assert promoted == ["two", "one"], "the former primary is primary again"


def test_what_will_be_done_is_told_step_by_step() -> None:
    told = outline(ON_CLUSTER)
    assert sum(len(scenario.steps) + 1 for scenario in ON_CLUSTER) == len(told)
    assert any("lnh member promote NAME" in line for line in told)


def test_a_start_shows_the_command_of_the_page() -> None:
    assert Step("Start it", Start("a")).command == "lnh-member --member-dir DIR"


@pytest.mark.parametrize(
    ("command", "values", "words"),
    [
        ("lnh member delete NAME", {"NAME": "a b"}, ["lnh", "member", "delete", "a b"]),
        ("lnh backup now [--to DIRECTORY]", {}, ["lnh", "backup", "now"]),
        ("lnh backup now [--to DIRECTORY]", {"DIRECTORY": "/x"}, ["lnh", "backup", "now", "--to", "/x"]),
        ("r FILE [--share-file SHARE ...]", {"FILE": "f", "SHARE": ("1", "2")}, ["r", "f", "--share-file", "1", "--share-file", "2"]),
        ("r FILE [--share-file SHARE ...]", {"FILE": "f"}, ["r", "f"]),
        ("R --member HOST:7100 --id ID", {"HOST:7100": "h:1", "ID": "0a"}, ["R", "--member", "h:1", "--id", "0a"]),
    ],
)  # fmt: skip
def test_a_line_of_the_page_is_filled_with_what_its_words_stand_for(
    command: str, values: steps.Values, words: list[str]
) -> None:
    assert fill(command, values) == words


def test_a_value_that_stands_for_no_word_of_the_line_is_refused() -> None:
    with pytest.raises(ArgumentInvalid, match="'NAEM'"):
        fill("lnh member delete NAME", {"NAEM": "member-a"})
