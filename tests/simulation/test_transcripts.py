"""What replicas say and do in a few scenarios, as text to read: `transcripts/*.txt` beside the simulator."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulation.transcript import TRANSCRIPTS, played


@pytest.mark.parametrize("path", sorted(TRANSCRIPTS.glob("*.txt")), ids=lambda path: path.stem)
def test_a_scenario_plays_as_it_is_written(path: Path) -> None:
    written = path.read_text()
    assert played(written).splitlines() == written.splitlines(), "see simulation/transcript.py"
