"""The demo, as its user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.several

PROGRAM = Path(sys.executable).parent / "lnh"


def test_the_demo_goes_through_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")  # here passwords cost what they cost a user
    with subprocess.Popen([PROGRAM, "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        try:
            out, err = demo.communicate(timeout=400)
        finally:
            demo.terminate()  # upon which it ends its members
    assert demo.returncode == 0, out + err
    assert out.count("$ lnh sign") == 8
    assert "Traceback" not in out + err
    root = (
        next(line for line in out.splitlines() if "happens in D=" in line).partition("D=")[2].partition(". To type")[0]
    )
    assert not Path(root).exists()
    alive = subprocess.run(["pgrep", "-f", root], capture_output=True, text=True, check=False).stdout.split()
    assert alive == []
