"""`lnh engine check` says what to do where the line names no etcd, or a file does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lnh_cli.main import tree
from lnh_cli.support import terminal

COMMANDS = tree("engine", "check")


@pytest.mark.parametrize("words", [[], ["--endpoint", "ftp://x", "--prefix", "lnh/"], ["--prefix", "lnh/"]])
def test_who_names_no_etcd_is_told_of_the_options_and_of_a_file(words: list[str]) -> None:
    done = CliRunner().invoke(COMMANDS, ["engine", "check", *words])
    assert done.exit_code == terminal.REFUSED
    assert "refused: options: endpoints" in done.output
    assert "try: name the etcd: --endpoint and --prefix" in done.output


def test_what_is_wrong_in_a_file_is_to_be_corrected_there(tmp_path: Path) -> None:
    file = tmp_path / "engine.toml"
    file.write_text("[engine]\n")
    done = CliRunner().invoke(COMMANDS, ["engine", "check", "--file", str(file)])
    assert done.exit_code == terminal.REFUSED
    assert f"refused: {file}: endpoints is missing" in done.output.replace("\n", "")
    assert "correct the file" in done.output
