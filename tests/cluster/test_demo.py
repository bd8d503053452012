"""The demo, as its user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.several

PROGRAM = Path(sys.executable).parent / "lnh"


def test_the_demo_goes_through_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run([PROGRAM, "demo"], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("$ lnh sign") == 8
    assert "Traceback" not in done.stdout + done.stderr
    root = (
        next(line for line in done.stdout.splitlines() if "happens in D=" in line)
        .partition("D=")[2]
        .partition(". To type")[0]
    )
    assert not Path(root).exists()
    alive = subprocess.run(["pgrep", "-f", root], capture_output=True, text=True, check=False).stdout.split()
    assert alive == []
