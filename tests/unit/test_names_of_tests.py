"""A test's name is a sentence that fits on a line of a report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_CHARACTERS: Final = 80


def test_no_test_has_a_longer_name_than_a_report_has_room_for() -> None:
    tests = Path(__file__).parents[1]
    names = [name for path in tests.rglob("*.py") for name in re.findall(r"def (test_\w+)\(", path.read_text())]
    assert len(names) > 1000
    assert [name for name in names if len(name) > _CHARACTERS] == []
