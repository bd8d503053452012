"""The drill, as its user runs it: real members are lost, and what it started is gone at the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lnh_cli.drill.scenarios import SCENARIOS
from members import Members
from waits import wait_until

pytestmark = pytest.mark.several

PROGRAM = Path(sys.executable).parent / "lnh"
SECONDS = 300  # for a scenario; a small machine beside other tests


def directory(told: str) -> Path:
    """Where a drill says, at first, that it is."""
    return Path(told.partition("D=")[2].splitlines()[0])


def alive(root: Path) -> list[str]:
    return subprocess.run(["pgrep", "-f", str(root)], capture_output=True, text=True, check=False).stdout.split()


def rehearsed(report: Path, *names: str) -> dict[str, Any]:
    """The report of a drill that went through and left nothing."""
    words = [word for name in names for word in ("--only", name)]
    with subprocess.Popen(
        [PROGRAM, "drill", *words, "--report", report, "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as drill:  # fmt: skip
        try:
            out, err = drill.communicate(timeout=SECONDS * len(names))
        finally:
            drill.terminate()  # upon which it ends its members
    assert drill.returncode == 0, out + err
    assert alive(directory(err)) == []
    assert not directory(err).exists()
    told: dict[str, Any] = json.loads(out)
    return told


def check_scenario(told: dict[str, Any], page: str) -> None:
    client = told["client"]
    assert told["passed"], told
    assert client["lost"] == []
    assert client["accounted"] == ["member-a", "member-b", "member-c"]
    assert client["signatures"]["done"] > 10
    assert client["keys"]["done"] > 10
    assert told["title"] in page
    assert all(step["problem"] == "" and step["took"] >= 0 for step in told["steps"])


def test_the_loss_of_the_primary_is_rehearsed_and_no_key_is_lost(tmp_path: Path) -> None:
    told = rehearsed(tmp_path / "report.html", "primary")
    (scenario,) = told["scenarios"]
    page = (tmp_path / "report.html").read_text()
    check_scenario(scenario, page)
    without = sum(step["took"] for step in scenario["steps"][3:5])  # between the loss and the start
    assert [step["words"] for step in scenario["steps"]][5] == "Start it again"
    assert scenario["client"]["keys"]["longest_wait"] >= without > 0, "without a primary no key is made"
    commands = [step["command"] for step in scenario["steps"]]
    assert "lnh member delete member-a --yes" in commands
    assert "lnh member promote member-a" in page


def test_a_drill_that_is_interrupted_says_so_and_leaves_no_process() -> None:
    # As a job in the background, which this may be, has it ignored.
    line = ["env", "--default-signal=INT", str(PROGRAM), "drill", "--only", "admin", "--json"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as drill:
        try:
            assert drill.stderr is not None
            root = directory(drill.stderr.readline())
            wait_until((root / "a.pid").exists, "a member that was started")
            drill.send_signal(signal.SIGINT)
            out, err = drill.communicate(timeout=SECONDS)
        finally:
            drill.terminate()
    assert drill.returncode == 1, out + err
    assert json.loads(out)["problem"] == "interrupted"
    assert str(root) in err, "its logs are there"
    assert alive(root) == []
    shutil.rmtree(root)


def test_a_drill_on_a_cluster_that_serves_leaves_it_as_it_was(members: Members) -> None:
    members.all_read_write()
    primary = members.primary()
    made = json.loads(members.steps.run("lnh", "drill", "--on", "demo", "-k", "payments", "--yes", "--json"))
    assert made["passed"], made
    assert [scenario["name"] for scenario in made["scenarios"]] == ["members", "backup", "promote"]
    for scenario in made["scenarios"]:
        assert scenario["client"]["lost"] == []
        assert sorted(scenario["client"]["accounted"]) == sorted(member.name for member in members.all)
    assert members.primary() is primary
    labels = members.steps.run("lnh", "key", "list", "--keyring", "payments", "--json")
    assert re.findall("drill-[0-9a-f]+", labels) == []


@pytest.mark.skipif("LNH_SOAK" not in os.environ, reason="takes minutes")
def test_every_scenario_goes_through(tmp_path: Path) -> None:
    told = rehearsed(tmp_path / "report.html", *(scenario.name for scenario in SCENARIOS))
    page = (tmp_path / "report.html").read_text()
    assert [scenario["name"] for scenario in told["scenarios"]] == [scenario.name for scenario in SCENARIOS]
    for scenario in told["scenarios"]:
        check_scenario(scenario, page)
