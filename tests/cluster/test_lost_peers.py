"""An asking process lives through the death of a peer with many messages on the way, however often."""

from __future__ import annotations

from pathlib import Path

import pytest

from processes import Processes

pytestmark = pytest.mark.several

ASKER = str(Path(__file__).with_name("losing_asker.py"))
KILLS = 25  # with ZMQ_IMMEDIATE the first few abort the asker


def test_an_asker_lives_through_its_peers_deaths(processes: Processes, short_path: Path) -> None:
    processes.watch(short_path)
    assert processes.start(ASKER, f"ipc://{short_path}/peer", str(KILLS)).wait(120) == 0
