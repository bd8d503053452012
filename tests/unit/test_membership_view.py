"""What membership and backup tell with one member."""

from __future__ import annotations

from pathlib import Path

import pytest

from lnh_common.messages import store
from lnh_services.backup.service import status
from lnh_services.membership.service import view


def answer(state: str, cluster: bytes, primary: bytes) -> store.Status:
    return store.Status(
        state=state,
        cluster=cluster,
        member=b"m" * 16 if cluster else b"",
        primary=primary,
        epoch=3,
        in_sync=(),
        last_index=0,
        committed_index=0,
        applied_index=0,
        items=0,
        bytes_on_disk=0,
        commits_per_second=0.0,
    )


@pytest.mark.parametrize(
    ("told", "role", "state"),
    [
        (None, "none", "unreachable"),
        (answer("none", b"", b""), "none", "none"),
        (answer("read-write", b"c" * 16, b"m" * 16), "primary", "read-write"),
        (answer("read-only", b"c" * 16, b"p" * 16), "secondary", "read-only"),
    ],
)
def test_the_role_and_state_are_what_the_store_tells(told: store.Status | None, role: str, state: str) -> None:
    (member,) = view("A", "host:7100", told, {}).members
    assert (member.name, member.address, member.role, member.state, member.group) == (
        *("A", "host:7100", role, state, "local"),
    )


def test_backup_counts_the_archives_there_are(tmp_path: Path) -> None:
    assert (status(tmp_path).schedule, status(tmp_path).backups) == ("none", 0)
    (tmp_path / "one").write_bytes(b"12345")
    told = status(tmp_path)
    assert (told.backups, told.bytes_on_disk, told.newest) == (1, 5, "one")


def test_a_directory_of_archives_that_cannot_be_read_is_a_problem_not_a_failure(tmp_path: Path) -> None:
    assert "No such file" in status(tmp_path / "gone").problem
