"""`lnh pkcs11 unit`: what systemd reads of it is this installation's gateway."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lnh_cli.main import tree
from lnh_pkcs11 import places


def read(text: str) -> dict[str, str]:
    """The settings of its service."""
    parser = configparser.RawConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return dict(parser["Service"])


def test_it_starts_the_gateway_of_this_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LNH_CONFIG", raising=False)
    done = CliRunner().invoke(tree("pkcs11"), ["pkcs11", "unit"])
    assert done.exit_code == 0, done.output
    said = read(done.output)
    program, *words = shlex.split(said["ExecStart"])
    assert Path(program) == Path(sys.executable).parent / "lnh"
    assert words == ["pkcs11", "serve"]
    assert "Environment" not in said
    if shutil.which("systemd-analyze"):
        (tmp_path / "lnh-pkcs11.service").write_text(done.output)
        verify = ["systemd-analyze", "verify", "--user", "--man=no", str(tmp_path / "lnh-pkcs11.service")]
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        looked = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
        assert (looked.returncode, looked.stderr) == (0, "")


def test_paths_are_quoted_as_units_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LNH_CONFIG", '/home/a b/50%/"lnh')
    said = read(places.unit("/opt/a b/lnh"))
    assert said["Environment"] == '"LNH_CONFIG=/home/a b/50%%/\\"lnh"'
    assert said["ExecStart"] == '"/opt/a b/lnh" pkcs11 serve'
