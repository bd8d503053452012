"""The command line with closed standard streams, and in odd surroundings: told for what it is, in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(line: str, place: Path, **environment: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a line of bash in which `lnh` is ours."""
    done = subprocess.run(
        ["bash", "-c", f'lnh() {{ "{sys.executable}" -m lnh_cli.main "$@"; }}; {line}'],
        capture_output=True,
        timeout=60,
        check=False,
        cwd=place,
        env={**os.environ, "LNH_CONFIG": str(place), **environment},
    )
    said = done.stderr.decode()
    assert "this is a bug" not in said
    assert "Traceback" not in said
    return done.returncode, done.stdout.decode("utf-8", "replace"), said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("lnh digest <&-", "standard input is closed"),
        ("lnh digest data >&-", "standard output is closed"),
        ("lnh version >&-", "standard output is closed"),
        ("lnh digest --help >&-", "standard output is closed"),
    ],
)
def test_a_closed_stream_is_named_where_it_is_used(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "data").write_bytes(b"data")
    status, _, refused = run(line, tmp_path)
    assert (status, refused.splitlines()[0]) == (1, f"refused: {said}")


def test_a_closed_stream_that_is_not_used_is_nobodys_concern(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"data")
    status, digest, _ = run("lnh digest data <&- 2>&-", tmp_path)
    assert (status, len(digest)) == (0, 65)
    assert run("lnh digest <&- >&- 2>&-", tmp_path)[0] == 1


def test_no_home_is_a_matter_of_configuration(tmp_path: Path) -> None:
    line = "unset LNH_CONFIG XDG_CONFIG_HOME; HOME= lnh key list -k payments"
    status, _, said = run(line, tmp_path)
    assert status != 0
    assert said.startswith("refused: ")
