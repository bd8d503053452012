"""What a migration has done is there after an interruption at any byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from lnh.migration.journal import Journal
from lnh_common.errors import ConfigurationInvalid

LINES = {bytes([number] * 32): bytes([number] * 16) for number in range(3)}


def test_lines_are_read_back_and_a_missing_file_is_empty(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "a" / "b" / "journal")
    assert journal.read() == {}
    for source, handle in LINES.items():
        journal.add(source, handle)
    assert journal.read() == LINES
    assert journal.path.stat().st_mode & 0o777 == 0o600


def test_a_line_that_was_cut_short_does_not_count_and_the_next_one_does(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for source, handle in LINES.items():
        journal.add(source, handle)
    whole = journal.path.read_bytes()
    sources = list(LINES)
    for size in range(len(whole)):
        journal.path.write_bytes(whole[:size])
        known = journal.read()
        assert known == {source: LINES[source] for source in sources[: whole[:size].count(b"\n")]}
        journal.add(b"next", b"one")
        assert journal.read() == known | {b"next": b"one"}


@pytest.mark.parametrize(
    "content", [b"\xff\n", b"no\n", b"[]\n", b'{"source": 1, "handle": "00"}\n', b'{"source": "0"}\n']
)
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal"
    path.write_bytes(content)
    with pytest.raises(ConfigurationInvalid, match="no journal"):
        Journal(path).read()
