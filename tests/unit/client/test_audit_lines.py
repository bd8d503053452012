"""An export of a trail is one member's lines, each after the one before, up to the last: or it says that it is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lnh.admin import Administration
from lnh_common.errors import AuditFailed
from lnh_common.messages.audit import AUDIT_EXPORT, ReadTrail, TrailLines
from lnh_common.messages.hsm import AuditEntry
from lnh_services.hsm.audit import trail

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
NOW = 1_700_000_000_000
Answer = Callable[[ReadTrail], TrailLines]


def written(path: Path, records: int) -> Path:
    """A trail of so many records and a head."""
    writing = trail.Trail(path, "a")
    writing.open(NOW)
    for number in range(records - 1):
        entry = AuditEntry(
            identity="a", role="", operation="o", target=f"{path.name} {number}", outcome="ok", detail={}
        )
        writing.append([entry], NOW)
    writing.sign(KEY, NOW)
    writing.close()
    return path


def member(path: Path) -> Answer:
    """Answers as a member with this trail does, a few lines at a time."""

    def answer(asked: ReadTrail) -> TrailLines:
        last = trail.lines(path, 0, 1 << 30, 1 << 30)[1]
        found, index = trail.lines(path, asked.after, min(asked.until or last, last), 700)
        return TrailLines(lines=found, index=index, last=last)

    return answer


def saying(lines: list[str]) -> Answer:
    """Answers with these lines, of a trail of ten, whatever was asked."""
    return lambda asked: TrailLines(lines=tuple(lines), index=10 if lines else asked.after, last=10)


class Asked(Administration):
    """A session whose questions are answered by these, one after the other, and then by the last."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = list(answers)

    def ask(self, operation: Any, message: Any, **_: Any) -> Any:  # type: ignore[override]  # asks for lines alone
        assert operation is AUDIT_EXPORT
        return (self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])(message)


def test_an_export_has_all_lines_behind_an_index(tmp_path: Path) -> None:
    path = written(tmp_path / "t", 9)
    whole = path.read_text().splitlines()
    for after in range(12):
        assert list(Asked([member(path)]).export_audit(after)) == whole[after:]


@pytest.mark.parametrize("records", [4, 9, 20])
def test_an_export_that_another_member_goes_on_with_fails(tmp_path: Path, records: int) -> None:
    ours, other = written(tmp_path / "ours", 9), written(tmp_path / "other", records)
    taken: list[str] = []
    with pytest.raises(AuditFailed):
        taken.extend(Asked([member(ours), member(other)]).export_audit())
    assert 0 < len(taken) < 10
    assert taken == ours.read_text().splitlines()[: len(taken)]


def test_an_empty_page_before_the_end_is_no_end(tmp_path: Path) -> None:
    ours = member(written(tmp_path / "ours", 9))
    for answers in ([ours, saying([])], [saying([])]):
        with pytest.raises(AuditFailed, match="had 10 lines"):
            list(Asked(answers).export_audit())


def test_a_page_that_leaves_a_line_out_or_has_what_is_none_fails(tmp_path: Path) -> None:
    path = written(tmp_path / "t", 9)
    whole = path.read_text().splitlines()
    for lines in ([*whole[:3], *whole[4:]], [*whole[:3], whole[3].replace("ok", "no")], ["{}"], ["x"]):
        with pytest.raises(AuditFailed):
            list(Asked([saying(lines)]).export_audit())
