"""The runner of the drill: the first step that fails ends its scenario, and says so; what is started is ended."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lnh_cli.demo.children import Done
from lnh_cli.demo.local import StepFailed
from lnh_cli.drill import drill
from lnh_cli.drill.report import What
from lnh_cli.drill.runner import Rehearsal
from lnh_cli.drill.steps import Probe, Run, Scenario, See, Step
from lnh_cli.main import tree
from lnh_cli.support import terminal

runner = CliRunner()


class Scripted(Rehearsal):
    """One whose commands end as a table says; no client works meanwhile.

    Args:
        ends: how commands end, by their words.
    """

    where = "a table"

    def __init__(self, directory: Path, ends: Mapping[str, Done], before: Callable[[], None] = lambda: None) -> None:
        super().__init__(directory, print)
        self.ran: list[str] = []
        self.is_ended = False
        self._ends = ends
        self._before = before

    def set_up(self) -> None:
        self._before()

    def world(self) -> Mapping[str, Any]:
        return {"name": "member-a"}

    def environment(self, through: str) -> dict[str, str]:
        return {}

    def members(self) -> Mapping[str, str]:
        return {}

    def client_words(self) -> tuple[str, str, float]:
        return "", "", 1.0

    def command(self, words: Sequence[str], through: str) -> Done:
        self.ran.append(" ".join(words))
        return self._ends[self.ran[-1]]

    def end(self) -> None:
        self.is_ended = True  # and no more: this process has children that are not the drill's

    def _begin_client(self, scenario: Scenario) -> bool:
        return True


DELETE = Step("Delete it", Run("lnh member delete NAME", {"NAME": "{name}"}, more=("--yes",)))
LOOK = Step("A write is refused", Probe("lnh key generate", fails_with=1, says="read-only"))
DELETED = "lnh member delete member-a --yes"


def scenario(*steps: Step, name: str = "one") -> Scenario:
    return Scenario(name, "One thing after another", "a section", steps)


def test_commands_of_the_page_are_filled_and_run_and_what_is_right_passes(tmp_path: Path) -> None:
    ends = {DELETED: Done(0, "", ""), "lnh key generate": Done(1, "", "refused: member-b is read-only")}
    rehearsal = Scripted(tmp_path, ends)
    assert rehearsal.rehearse(scenario(DELETE, LOOK))
    assert rehearsal.ran == list(ends)
    steps = [event for event in rehearsal.events if event.what is What.STEP]
    assert [(step.words, step.command, step.section) for step in steps] == [
        ("Delete it", DELETED, "a section"),
        ("A write is refused", "lnh key generate", "a section"),
    ]


@pytest.mark.parametrize(
    ("ends", "problem"),
    [
        ({DELETED: Done(1, "", "refused: no\ntry: later")}, "try: later"),
        ({DELETED: Done(0, "", ""), "lnh key generate": Done(0, "made", "")}, "ended with 0, not 1: made"),
        ({DELETED: Done(0, "", ""), "lnh key generate": Done(1, "", "no such keyring")}, "nothing of 'read-only'"),
    ],
)
def test_the_first_step_that_fails_ends_the_scenario_and_says_why(
    tmp_path: Path, ends: dict[str, Done], problem: str
) -> None:
    rehearsal = Scripted(tmp_path, ends)
    assert not rehearsal.rehearse(scenario(DELETE, LOOK, DELETE))
    assert rehearsal.ran == list(ends)
    failed = rehearsal.events[-1]
    assert failed.what is What.FAILED
    assert problem in failed.problem
    assert failed.advice


def test_members_that_do_not_come_into_a_state_in_time_are_named_with_theirs(tmp_path: Path) -> None:
    listed = Done(0, '[{"name": "member-a", "state": "read-only"}]', "")
    rehearsal = Scripted(tmp_path, {"lnh member list --json": listed})
    step = Step("It is read-write", See({"member-a": "read-write"}), within=0.0)
    assert not rehearsal.rehearse(scenario(step))
    assert "{'member-a': 'read-only'}" in rehearsal.events[-1].problem


def fails() -> None:
    raise StepFailed("no five free ports")


def interrupts() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("before", "problem"), [(fails, "no five free ports"), (interrupts, "interrupted"), (lambda: None, "not rehearsed: two")]
)  # fmt: skip
def test_whatever_ends_a_drill_its_processes_end_and_its_report_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Callable[[], None], problem: str
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process has handlers of its own
    rehearsal = Scripted(tmp_path, {DELETED: Done(1, "", "refused")}, before)
    made = drill._rehearse(rehearsal, [scenario(DELETE), scenario(DELETE, name="two")])
    assert rehearsal.is_ended
    assert not made.passed
    assert problem in made.problem


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--only", "nothing"), "member, primary, cut, restore, smk, admin"),
        (("--only", "restore", "--on", "demo", "--keyring", "payments"), "members, backup, promote"),
        (("--on", "demo"), "--keyring KEYRING"),
        (("--keyring", "payments"), "--on CLUSTER"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused_before_anything_is_started(words: tuple[str, ...], says: str) -> None:
    done = runner.invoke(tree("drill"), ["drill", *words])
    assert done.exit_code == terminal.USAGE
    assert says in done.output


def test_a_report_that_is_there_already_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("precious")
    done = runner.invoke(tree("drill"), ["drill", "--report", str(tmp_path / "report.html")])
    assert done.exit_code != 0
    assert (tmp_path / "report.html").read_text() == "precious"
