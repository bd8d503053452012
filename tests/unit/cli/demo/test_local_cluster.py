"""`lnh up` and `lnh down` on directories in every state: they touch nothing that is not theirs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lnh_cli.demo import local
from lnh_cli.main import tree
from lnh_cli.support import terminal
from waits import wait_until

runner = CliRunner()
app = tree()


def test_down_where_nothing_is_says_so(tmp_path: Path) -> None:
    result = runner.invoke(app, ["down", "--dir", str(tmp_path / "none")])
    assert (result.exit_code, "holds no cluster" in result.stdout) == (0, True)


def test_a_directory_of_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    for verb in ("up", "down"):
        assert runner.invoke(app, [verb, "--dir", str(tmp_path)]).exit_code == terminal.REFUSED
    assert (tmp_path / "precious").read_text() == "data"


def test_what_was_not_finished_is_not_taken_for_a_cluster_and_can_be_removed(tmp_path: Path) -> None:
    place = local.Place(tmp_path / "p")
    place.create()
    result = runner.invoke(app, ["up", "--dir", str(place.root)])
    assert result.exit_code == terminal.REFUSED
    assert "lnh down" in result.stderr
    assert runner.invoke(app, ["down", "--dir", str(place.root)]).exit_code == 0
    assert not place.root.exists()


def test_a_start_that_fails_says_why_and_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: local.Steps) -> str:
        raise local.StepFailed("no five free ports")

    monkeypatch.setattr(local, "set_up", fails)
    monkeypatch.setattr(local, "_DIRECTORY_BYTES", 4096)
    result = runner.invoke(app, ["up", "--dir", str(tmp_path / "p")])
    assert result.exit_code == terminal.REFUSED
    assert result.stderr.startswith("refused: no five free ports")
    assert local.Place(tmp_path / "p").first.running() is None


def test_a_rest_service_that_ends_at_once_is_told_of_with_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "program", lambda _: "/bin/false")
    rest = local.Rest(tmp_path)
    with pytest.raises(local.StepFailed, match=r"does not serve: look at .*rest\.log"):
        rest.start({})
    assert rest.running() is None
    rest.stop()
    assert rest.log.stat().st_mode & 0o777 == 0o600


def test_a_process_that_only_has_the_members_number_is_not_ended(tmp_path: Path) -> None:
    place = local.Place(tmp_path)
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        place.first.pid_file.write_text(f"{other.pid}\n")
        assert place.first.running() is None
        local.stop(place)
        assert other.poll() is None
    finally:
        other.communicate(b"\n")
    member = subprocess.Popen([sys.executable, "-c", "input()", place.first.directory], stdin=subprocess.PIPE)
    place.first.pid_file.write_text(f"{member.pid}\n")
    wait_until(lambda: place.first.running() == member.pid, "the member's command line")
    local.stop(place)
    assert place.first.running() is None
    member.wait(30)  # it ended, though its input did not; its status may have gone to who ended it
